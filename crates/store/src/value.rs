//! Values on their way into columns: what Postgres cannot hold as it is.

use std::borrow::Cow;

/// Text without U+0000, which neither `text` nor `jsonb` can hold; U+FFFD takes its place. One odd character in a
/// receiver's answer or a producer's header must not keep the rest of a row out of the record.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    match text.as_bytes().contains(&0) {
        true => Cow::Owned(text.replace('\0', "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}

/// A counter (attempt, run, release). None gets near the limit; one that claims to be beyond it stays there.
pub(crate) fn counter(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// A counter back from its column.
pub(crate) fn from_counter(value: i32) -> u32 {
    u32::try_from(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_character_postgres_cannot_hold_is_replaced() {
        assert_eq!(text("a\0b"), "a\u{fffd}b");
        assert!(matches!(text("grüße \u{1}"), Cow::Borrowed("grüße \u{1}")));
    }
}
