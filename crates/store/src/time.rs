//! Instants at the edge between the product (jiff) and the driver (time).

use jiff::Timestamp;
use time::OffsetDateTime;

/// For a statement. Every instant jiff knows is one the `time` crate knows.
pub(crate) fn to_sql(instant: Timestamp) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH.saturating_add(time::Duration::new(instant.as_second(), instant.subsec_nanosecond()))
}

/// From a row. Instants beyond jiff's range (the year 9999) become the nearest it has.
pub(crate) fn from_sql(instant: OffsetDateTime) -> Timestamp {
    let nanoseconds = instant.unix_timestamp_nanos();
    Timestamp::from_nanosecond(nanoseconds).unwrap_or(match nanoseconds < 0 {
        true => Timestamp::MIN,
        false => Timestamp::MAX,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_survives_the_way_there_and_back() {
        for text in [
            "2026-02-03T04:05:06.789012Z",
            "1969-12-31T23:59:59.999999Z",
            "1970-01-01T00:00:00Z",
        ] {
            let instant: Timestamp = text.parse().unwrap();
            assert_eq!(from_sql(to_sql(instant)), instant);
        }
        assert_eq!(from_sql(to_sql(Timestamp::MAX)), Timestamp::MAX);
        assert_eq!(from_sql(to_sql(Timestamp::MIN)), Timestamp::MIN);
    }
}
