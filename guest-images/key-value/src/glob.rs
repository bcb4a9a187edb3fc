//! Glob patterns of `KEYS`, `SCAN` and `CONFIG GET`: `*`, `?`, `[a-z]`, `[^x]` and `\` to escape.

/// Whether all of `text` matches `pattern`. Goes back to the last `*` only, which suffices for such patterns, so the
/// work is at most the product of both lengths.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some((b'*', rest)) = pattern.split_first() {
            if rest.is_empty() {
                return true;
            }
            retry = Some((rest, text));
            pattern = rest;
            continue;
        }
        match (text.split_first(), pattern.is_empty()) {
            (None, true) => return true,
            (Some((&byte, text_rest)), false) => {
                if let Some(pattern_rest) = match_one(pattern, byte) {
                    (pattern, text) = (pattern_rest, text_rest);
                    continue;
                }
            }
            _ => {}
        }
        let Some((after_star, [_, skipped @ ..])) = retry else {
            return false;
        };
        retry = Some((after_star, skipped));
        (pattern, text) = (after_star, skipped);
    }
}

/// Matches one byte against the first element of `pattern`, which is neither empty nor a star. Gives the rest.
fn match_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', class @ ..] => {
            let (found, rest) = match_class(class, byte);
            found.then_some(rest)
        }
        [b'\\', escaped, rest @ ..] => (*escaped == byte).then_some(rest),
        [literal, rest @ ..] => (*literal == byte).then_some(rest),
        [] => None,
    }
}

/// Matches one byte against a class, after its `[`. A class that is not closed ends with the pattern.
fn match_class(class: &[u8], byte: u8) -> (bool, &[u8]) {
    let (negated, mut class) = match class {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, class),
    };
    let mut found = false;
    loop {
        class = match class {
            [] => return (found != negated, class),
            [b']', rest @ ..] => return (found != negated, rest),
            [b'\\', escaped, rest @ ..] => {
                found |= *escaped == byte;
                rest
            }
            [from, b'-', to, rest @ ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&byte);
                rest
            }
            [literal, rest @ ..] => {
                found |= *literal == byte;
                rest
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::{match_one, matches};
    use proptest::prelude::*;

    /// The definition, taken literally.
    fn model(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, _) => text.is_empty(),
            (Some((b'*', rest)), _) => (0..=text.len()).any(|skipped| model(rest, &text[skipped..])),
            (Some(_), None) => false,
            (Some(_), Some((byte, text))) => match_one(pattern, *byte).is_some_and(|rest| model(rest, text)),
        }
    }

    proptest! {
        #[test]
        fn going_back_to_the_last_star_is_enough(pattern in r"[ab*?\\\[\]^-]{0,8}", text in "[ab*]{0,8}") {
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), model(pattern.as_bytes(), text.as_bytes()));
        }
    }

    #[test]
    fn follows_the_documented_patterns() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h*llo", "hllo", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("*a*b*c", "xxaxxbxxabc", true),
            ("*a*b*c", "xxaxxbxxab", false),
            ("[abc", "b", true),
            ("a\\", "a\\", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn many_stars_end_in_time() {
        let pattern = b"*a".repeat(200);
        assert!(!matches(&pattern, &[b'b'; 4096]));
    }
}
