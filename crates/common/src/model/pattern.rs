//! Event type patterns.

use std::fmt;

use proto_schemas::id::is_event_type;
use proto_schemas::operational::is_operational;

/// Which event types a webhook wants: one type (`invoice.paid`), everything below a prefix (`invoice.*`, also
/// `invoice.line.added`), or everything (`*`) that producers publish: what Posthaste tells of itself only goes to who asks
/// for it by a pattern that begins with `posthaste.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// `*`
    Every,
    /// `invoice.*`; holds `invoice.`
    Below(String),
    /// `invoice.paid`
    Exactly(String),
}

/// Why text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an event type pattern: write a type (`invoice.paid`), everything below a prefix (`invoice.*`), or `*`"
)]
pub struct Error(String);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`Error`] where a `*` stands anywhere but alone or as the last word, or the rest is no event type.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text == "*" {
            return Ok(Self::Every);
        }
        let (words, pattern) = match text.strip_suffix(".*") {
            Some(prefix) => (prefix, Self::Below(format!("{prefix}."))),
            None => (text, Self::Exactly(text.to_owned())),
        };
        match is_event_type(words) {
            true => Ok(pattern),
            false => Err(Error(text.chars().take(200).collect())),
        }
    }

    /// Whether an event of this type is wanted.
    #[must_use]
    pub fn matches(&self, event_type: &str) -> bool {
        match self {
            Self::Every => !is_operational(event_type),
            Self::Below(prefix) => event_type.len() > prefix.len() && event_type.starts_with(prefix.as_str()),
            Self::Exactly(wanted) => wanted == event_type,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every => f.write_str("*"),
            Self::Below(prefix) => write!(f, "{prefix}*"),
            Self::Exactly(wanted) => f.write_str(wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_the_rest() {
        let below = Pattern::parse("invoice.*").unwrap();
        assert!(below.matches("invoice.paid") && below.matches("invoice.line.added"));
        assert!(!below.matches("invoice") && !below.matches("invoices.paid") && !below.matches("invoice."));
        assert!(Pattern::parse("*").unwrap().matches("anything"));
        assert!(Pattern::parse("a.b").unwrap().matches("a.b") && !Pattern::parse("a.b").unwrap().matches("a.b.c"));
    }

    #[test]
    fn what_posthaste_tells_goes_to_who_asks_for_it() {
        let wants = |pattern: &str| Pattern::parse(pattern).unwrap().matches("posthaste.delivery.dead");
        assert!(!wants("*"));
        assert!(wants("posthaste.*") && wants("posthaste.delivery.*") && wants("posthaste.delivery.dead"));
        assert!(!wants("posthaste.webhook.*"));
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        for text in [
            "", ".", "a.", ".a", "a..b", "*.a", "a.*.b", "a*", "**", "a b", "a>", "é",
        ] {
            let error = Pattern::parse(text).unwrap_err().to_string();
            assert!(error.contains("`invoice.*`"), "{text}: {error}");
        }
    }

    #[test]
    fn a_pattern_reads_back_as_it_was_written() {
        for text in ["*", "a.*", "a.b", "a-b_c"] {
            assert_eq!(Pattern::parse(text).unwrap().to_string(), text);
        }
    }
}
