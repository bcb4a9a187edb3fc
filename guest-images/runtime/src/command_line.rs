//! The guest's command line: words separated by spaces, options written `name=value`.

/// A command line, as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandLine<'a>(&'a str);

impl<'a> CommandLine<'a> {
    /// The command line in `text`.
    #[must_use]
    pub const fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// All of it.
    #[must_use]
    pub const fn text(&self) -> &'a str {
        self.0
    }

    /// The value of option `name`; the last one counts.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<&'a str> {
        let options = self
            .0
            .split_ascii_whitespace()
            .filter_map(|word| word.split_once('='));
        options
            .filter(|(found, _)| *found == name)
            .map(|(_, value)| value)
            .next_back()
    }

    /// The value of option `name` as a decimal number, or `default` where it is absent or is none.
    #[must_use]
    pub fn number(&self, name: &str, default: u64) -> u64 {
        self.option(name)
            .and_then(|value| value.parse().ok())
            .unwrap_or(default)
    }
}

#[cfg(test)]
mod tests {
    use super::CommandLine;

    #[test]
    fn finds_the_last_of_equal_options() {
        let line = CommandLine::new("status=3  ip=10.0.2.15/24 status=4");

        assert_eq!(line.option("status"), Some("4"));
        assert_eq!(line.option("ip"), Some("10.0.2.15/24"));
        assert_eq!(line.option("stat"), None);
    }

    #[test]
    fn a_number_falls_back_to_its_default() {
        let line = CommandLine::new("rounds=12 bad=x empty=");

        assert_eq!(line.number("rounds", 7), 12);
        assert_eq!(line.number("bad", 7), 7);
        assert_eq!(line.number("empty", 7), 7);
        assert_eq!(line.number("absent", 7), 7);
    }
}
