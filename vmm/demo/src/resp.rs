//! The part of the Redis protocol (RESP 2) that the clients speak: commands out, simple replies in.

/// The longest reply taken, in bytes: a journal is far shorter.
const REPLY_BYTES_MAX: usize = 1 << 20;

/// The longest first line of a reply: an error text.
const LINE_BYTES_MAX: usize = 4096;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// `+OK`
    Simple(String),
    /// `-ERR …`
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$3 …`
    Bulk(Vec<u8>),
    /// `$-1`
    Nil,
}

impl Reply {
    /// For a person, in one short line.
    pub(super) fn describe(&self) -> String {
        let shorten = |bytes: &[u8]| {
            let shown = bytes.get(..40).unwrap_or(bytes);
            let more = if shown.len() < bytes.len() { "…" } else { "" };
            format!(
                "{:?}{more} ({} bytes)",
                String::from_utf8_lossy(shown),
                bytes.len()
            )
        };
        match self {
            Self::Simple(text) | Self::Error(text) => format!("{text:?}"),
            Self::Integer(number) => number.to_string(),
            Self::Bulk(bytes) => shorten(bytes),
            Self::Nil => "nothing".to_owned(),
        }
    }
}

/// Bytes came that are not a reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what came is no reply of a Redis server: {what}")]
pub(super) struct ProtocolError {
    what: String,
}

fn wrong<T>(what: impl Into<String>) -> Result<T, ProtocolError> {
    Err(ProtocolError { what: what.into() })
}

/// Appends a command to `stream`.
pub(super) fn append_command(stream: &mut Vec<u8>, parts: &[&[u8]]) {
    stream.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    for part in parts {
        stream.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        stream.extend_from_slice(part);
        stream.extend_from_slice(b"\r\n");
    }
}

/// The reply at the beginning of `bytes` with its length in bytes, or none until more bytes come.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Reply, usize)>, ProtocolError> {
    let Some(line_bytes) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() > LINE_BYTES_MAX {
            wrong("a line without end")
        } else {
            Ok(None)
        };
    };
    let (line, rest) = bytes.split_at_checked(line_bytes).unwrap_or((bytes, &[]));
    let Some((kind, text)) = line.split_first() else {
        return wrong("an empty line");
    };
    let text = String::from_utf8_lossy(text).into_owned();
    let used = line_bytes + 2;
    match kind {
        b'+' => Ok(Some((Reply::Simple(text), used))),
        b'-' => Ok(Some((Reply::Error(text), used))),
        b':' => match text.parse() {
            Ok(number) => Ok(Some((Reply::Integer(number), used))),
            Err(_) => wrong(format!("the number {text:?}")),
        },
        b'$' if text == "-1" => Ok(Some((Reply::Nil, used))),
        b'$' => match text.parse() {
            Ok(length) if length <= REPLY_BYTES_MAX => {
                let body = rest.get(2..).unwrap_or_default();
                bulk(body, length).map(|reply| reply.map(|reply| (reply, used + length + 2)))
            }
            _ => wrong(format!("the length {text:?}")),
        },
        other => wrong(format!("a line that begins with {:?}", char::from(*other))),
    }
}

fn bulk(body: &[u8], length: usize) -> Result<Option<Reply>, ProtocolError> {
    let Some((content, after)) = body.split_at_checked(length) else {
        return Ok(None);
    };
    match after.get(..2) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some(Reply::Bulk(content.to_vec()))),
        Some(_) => wrong("a string longer than its length"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_command_is_an_array_of_strings() {
        let mut stream = Vec::new();
        append_command(&mut stream, &[b"SET", b"key", b"a\r\nb"]);
        assert_eq!(stream, b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$4\r\na\r\nb\r\n");
    }

    #[test]
    fn each_kind_of_reply_is_read_once_it_is_whole() {
        let replies = [
            (&b"+OK\r\n"[..], Reply::Simple("OK".into())),
            (b"-ERR no\r\n", Reply::Error("ERR no".into())),
            (b":-42\r\n", Reply::Integer(-42)),
            (b"$5\r\na\r\nbc\r\n", Reply::Bulk(b"a\r\nbc".to_vec())),
            (b"$0\r\n\r\n", Reply::Bulk(Vec::new())),
            (b"$-1\r\n", Reply::Nil),
        ];
        for (bytes, reply) in replies {
            let with_more = [bytes, b"+next"].concat();
            assert_eq!(parse(&with_more), Ok(Some((reply, bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(
                    parse(&bytes[..cut]),
                    Ok(None),
                    "{:?}",
                    String::from_utf8_lossy(&bytes[..cut])
                );
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        let endless = vec![b'+'; LINE_BYTES_MAX + 1];
        for bytes in [
            &b"HTTP/1.1 400\r\n"[..],
            b"\r\n",
            b":x\r\n",
            b"$-2\r\n",
            b"$99999999999\r\n",
            b"$1\r\nabc",
            &endless,
        ] {
            assert!(parse(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some((_, used))) = parse(&bytes) {
                prop_assert!(used <= bytes.len());
            }
        }
    }
}
