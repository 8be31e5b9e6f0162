//! What a response comes to. Pure.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use proto_schemas::ledger::{ErrorClass, Outcome};

/// What a status code comes to.
#[must_use]
pub fn status(status: u16, redirect_is_success: bool) -> (Outcome, Option<ErrorClass>) {
    match status {
        200..=299 => (Outcome::Delivered, None),
        300..=399 if redirect_is_success => (Outcome::Delivered, None),
        // Gone: the receiver says that nobody will ever answer here again (RFC 9110 §15.5.11).
        410 => (Outcome::FailedForGood, Some(ErrorClass::Status)),
        _ => (Outcome::Failed, Some(ErrorClass::Status)),
    }
}

/// Longest wait a receiver may ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// Reads `Retry-After` (RFC 9110 §10.2.3): seconds, or a date in any of the three forms. Anything else is as if the
/// header were not there; a date gone by is no wait; a long wait is cut to a day.
#[must_use]
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        let seconds = value.parse::<u64>().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    // As system times: the last year of the calendar is beyond what a `Timestamp` holds.
    let wait = date.duration_since(SystemTime::from(now)).unwrap_or(Duration::ZERO);
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_2xx_and_3xx_only_where_asked_for() {
        assert_eq!(status(204, false), (Outcome::Delivered, None));
        assert_eq!(status(302, true), (Outcome::Delivered, None));
        assert_eq!(status(302, false), (Outcome::Failed, Some(ErrorClass::Status)));
        assert_eq!(status(503, true), (Outcome::Failed, Some(ErrorClass::Status)));
        assert_eq!(status(410, true), (Outcome::FailedForGood, Some(ErrorClass::Status)));
    }

    #[test]
    fn retry_after_is_seconds_or_any_of_the_three_dates() {
        let now: Timestamp = "1994-11-06T08:49:07Z".parse().unwrap();
        for value in [
            "30",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(retry_after(value, now), Some(Duration::from_secs(30)), "{value}");
        }
    }

    #[test]
    fn retry_after_never_panics_and_never_waits_longer_than_a_day() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for value in [
            "",
            " ",
            "-1",
            "1e300",
            "inf",
            "NaN",
            "1.5",
            "soon",
            "0x10",
            "Fri, 31 Dec 99999 23:59:59 GMT",
        ] {
            assert_eq!(retry_after(value, now), None, "{value}");
        }
        for value in ["99999999999999999999", "86401", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            assert_eq!(retry_after(value, now), Some(RETRY_AFTER_MAX), "{value}");
        }
        assert_eq!(retry_after("Thu, 01 Jan 1970 00:00:00 GMT", now), Some(Duration::ZERO));
    }
}
