//! Inline requests: a line of words, as one types into a terminal. Words may be quoted like C strings.

use crate::arguments::Span;
use alloc::vec::Vec;

/// The quotes of a line do not match, or something follows a closing quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unbalanced;

/// Splits a line into words. Their bytes, with quotes and escapes resolved, are appended to `words`.
pub(crate) fn split(line: &[u8], words: &mut Vec<u8>, spans: &mut Vec<Span>) -> Result<(), Unbalanced> {
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        let start = words.len();
        rest = take_word(rest, words)?.trim_ascii_start();
        spans.push(Span {
            start: start as u32,
            length: words.len().saturating_sub(start) as u32,
        });
    }
    Ok(())
}

/// Takes one word, which may be made of quoted and unquoted parts; a closing quote must end it.
fn take_word<'a>(line: &'a [u8], words: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    let mut rest = line;
    loop {
        match rest {
            [] => return Ok(rest),
            [b'"', quoted @ ..] => return end_of_word(take_double_quoted(quoted, words)?),
            [b'\'', quoted @ ..] => return end_of_word(take_single_quoted(quoted, words)?),
            [byte, ..] if is_space(*byte) => return Ok(rest),
            [byte, more @ ..] => {
                words.push(*byte);
                rest = more;
            }
        }
    }
}

fn end_of_word(rest: &[u8]) -> Result<&[u8], Unbalanced> {
    match rest {
        [byte, ..] if !is_space(*byte) => Err(Unbalanced),
        _ => Ok(rest),
    }
}

fn take_double_quoted<'a>(mut rest: &'a [u8], words: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        let (byte, more) = match rest {
            [] => return Err(Unbalanced),
            [b'"', more @ ..] => return Ok(more),
            [b'\\', b'x', high, low, more @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex(*high) << 4 | hex(*low), more)
            }
            [b'\\', escaped, more @ ..] => (unescape(*escaped), more),
            [byte, more @ ..] => (*byte, more),
        };
        words.push(byte);
        rest = more;
    }
}

fn take_single_quoted<'a>(mut rest: &'a [u8], words: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        let (byte, more) = match rest {
            [] => return Err(Unbalanced),
            [b'\'', more @ ..] => return Ok(more),
            [b'\\', b'\'', more @ ..] => (b'\'', more),
            [byte, more @ ..] => (*byte, more),
        };
        words.push(byte);
        rest = more;
    }
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<String>, Unbalanced> {
        let (mut bytes, mut spans) = (Vec::new(), Vec::new());
        split(line.as_bytes(), &mut bytes, &mut spans)?;
        let word = |span: &Span| {
            let start = span.start as usize;
            String::from_utf8_lossy(&bytes[start..start + span.length as usize]).into_owned()
        };
        Ok(spans.iter().map(word).collect())
    }

    #[test]
    fn words_are_split_and_unquoted() {
        assert_eq!(words("  get  a\tb ").unwrap(), ["get", "a", "b"]);
        assert_eq!(words(r#"set "a b" 'c d'"#).unwrap(), ["set", "a b", "c d"]);
        assert_eq!(words(r#""\x41\n\"" 'it\'s' ''"#).unwrap(), ["A\n\"", "it's", ""]);
        assert_eq!(words(r#"a"b c""#).unwrap(), ["ab c"]);
        assert_eq!(words("   ").unwrap(), [""; 0]);
    }

    #[test]
    fn quotes_must_match() {
        for line in ["\"a", "'a", "\"a\"b", "'a'b", "\"a\\\""] {
            assert_eq!(words(line), Err(Unbalanced), "{line}");
        }
    }
}
