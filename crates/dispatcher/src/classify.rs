//! What a response comes to. Pure.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use proto_schemas::ledger::{ErrorClass, Outcome};

use crate::breaker::Sign;

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

/// What an attempt says of its receiver: whether it works, and for how long it wants to be left alone, where it said that
/// it is asked too much.
///
/// An answer below 500 is that of a receiver who works, whatever it thinks of the event. An address that no request may go
/// to says nothing, since none was made.
#[must_use]
pub fn sign(status: Option<u16>, class: Option<ErrorClass>, retry_after: Option<Duration>) -> (Sign, Option<Duration>) {
    let throttled = match (status, class) {
        (Some(429 | 502..=504), Some(ErrorClass::Status)) => Some(retry_after.unwrap_or_default()),
        _ => None,
    };
    let sign = match class {
        None => Sign::Well,
        Some(ErrorClass::Status) => match status {
            Some(..500) => Sign::Well,
            _ => Sign::Ill,
        },
        Some(ErrorClass::RefusedAddress | ErrorClass::Webhook | ErrorClass::GaveUp) => Sign::Nothing,
        // Without an access token no request can be made: who gives it out is as much to be left alone.
        Some(
            ErrorClass::Dns
            | ErrorClass::Connect
            | ErrorClass::Tls
            | ErrorClass::Timeout
            | ErrorClass::Body
            | ErrorClass::Authentication,
        ) => Sign::Ill,
    };
    (sign, throttled)
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
    fn a_receiver_is_ill_that_cannot_be_reached_or_says_that_it_fails() {
        let of = |status, class| sign(status, Some(class), None).0;
        for class in [
            ErrorClass::Dns,
            ErrorClass::Connect,
            ErrorClass::Tls,
            ErrorClass::Timeout,
            ErrorClass::Body,
            ErrorClass::Authentication,
        ] {
            assert_eq!(of(None, class), Sign::Ill, "{class:?}");
        }
        assert_eq!(of(Some(200), ErrorClass::Body), Sign::Ill);
        for status in [500, 502, 503, 599] {
            assert_eq!(of(Some(status), ErrorClass::Status), Sign::Ill, "{status}");
        }
        for status in [302, 400, 404, 410, 429] {
            assert_eq!(of(Some(status), ErrorClass::Status), Sign::Well, "{status}");
        }
        assert_eq!(sign(Some(200), None, None), (Sign::Well, None));
        for class in [ErrorClass::RefusedAddress, ErrorClass::Webhook, ErrorClass::GaveUp] {
            assert_eq!(of(None, class), Sign::Nothing, "{class:?}");
        }
    }

    #[test]
    fn a_429_502_503_or_504_slows_the_lane_down() {
        let wait = Some(Duration::from_secs(7));
        for status in [429, 502, 503, 504] {
            let of = |wait| sign(Some(status), Some(ErrorClass::Status), wait).1;
            assert_eq!((of(wait), of(None)), (wait, Some(Duration::ZERO)), "{status}");
        }
        for status in [400, 500, 501, 505] {
            assert_eq!(sign(Some(status), Some(ErrorClass::Status), wait).1, None, "{status}");
        }
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
            assert_eq!(retry_after(value, now), Some(Duration::from_secs(86_400)), "{value}");
        }
        assert_eq!(retry_after("Thu, 01 Jan 1970 00:00:00 GMT", now), Some(Duration::ZERO));
    }
}
