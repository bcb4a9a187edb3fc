//! Integers as Redis reads and writes them: decimal, canonical, 64 bits.

/// Bytes of the longest `i64`: a sign and 19 digits.
const DIGITS_MAX: usize = 20;

/// Reads an integer in its only canonical form: no `+`, no spaces, no leading zeros, no `-0`.
pub(crate) fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    let magnitude = parse_u64(digits)?;
    match (negative, magnitude) {
        (true, 0) => None,
        (true, _) => 0i64.checked_sub_unsigned(magnitude),
        (false, _) => i64::try_from(magnitude).ok(),
    }
}

/// Reads an unsigned integer in its canonical form.
pub(crate) fn parse_u64(digits: &[u8]) -> Option<u64> {
    match digits {
        [] | [b'0', _, ..] => None,
        _ => digits.iter().try_fold(0u64, |sum, &digit| {
            let value = digit.wrapping_sub(b'0');
            if value > 9 {
                return None;
            }
            sum.checked_mul(10)?.checked_add(u64::from(value))
        }),
    }
}

/// An integer written out, without the formatting machinery.
pub(crate) struct Decimal {
    bytes: [u8; DIGITS_MAX],
    start: usize,
}

impl Decimal {
    /// Writes out `value`.
    pub(crate) fn signed(value: i64) -> Self {
        let mut decimal = Self::unsigned(value.unsigned_abs());
        if value < 0 {
            decimal.prepend(b'-');
        }
        decimal
    }

    /// Writes out `value`. The largest `u64` has 20 digits.
    pub(crate) fn unsigned(mut value: u64) -> Self {
        let mut decimal = Self {
            bytes: [0; DIGITS_MAX],
            start: DIGITS_MAX,
        };
        loop {
            decimal.prepend(b'0' + (value % 10) as u8);
            value /= 10;
            if value == 0 {
                return decimal;
            }
        }
    }

    /// The text.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    fn prepend(&mut self, byte: u8) {
        self.start = self.start.saturating_sub(1);
        if let Some(slot) = self.bytes.get_mut(self.start) {
            *slot = byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_integer_comes_back(value: i64) {
            let (text, written) = (value.to_string(), Decimal::signed(value));
            prop_assert_eq!(written.as_bytes(), text.as_bytes());
            prop_assert_eq!(parse_i64(text.as_bytes()), Some(value));
        }

        #[test]
        fn any_text_is_an_integer_only_if_it_is_how_that_is_written(text in "[-+0-9 a]{0,21}") {
            let expected = text.parse::<i64>().ok().filter(|value| value.to_string() == text);
            prop_assert_eq!(parse_i64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn reads_only_canonical_integers() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999999", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("00", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("1a", None),
        ] {
            assert_eq!(parse_i64(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for value in [0, 1, -1, 10, 99, -100, i64::MAX, i64::MIN] {
            assert_eq!(Decimal::signed(value).as_bytes(), value.to_string().as_bytes());
        }
        assert_eq!(
            Decimal::unsigned(u64::MAX).as_bytes(),
            u64::MAX.to_string().as_bytes()
        );
    }
}
