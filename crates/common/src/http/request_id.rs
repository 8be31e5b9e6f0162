//! Which request something was about.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// The header of a request's id, in the answer and, from a caller who has one already, in the request.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ids of callers are not taken over.
const MAX_LENGTH: usize = 64;

/// The id of a request. Handlers find it among the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only made of visible ASCII, below.
        self.0.to_str().unwrap_or_default()
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// Where ids come from: one random beginning for each server, then counted.
#[derive(Debug)]
pub(super) struct RequestIds {
    server: u32,
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new(rng: &mut impl rand::Rng) -> Self {
        Self {
            server: rng.next_u32(),
            next: AtomicU64::new(1),
        }
    }

    /// The caller's id if it is harmless in a log and in a header, or else a new one.
    pub(super) fn of(&self, headers: &HeaderMap) -> RequestId {
        let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
        if let Some(given) = headers.get(HEADER)
            && (1..=MAX_LENGTH).contains(&given.len())
            && given.as_bytes().iter().all(harmless)
        {
            return RequestId(given.clone());
        }
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let id = HeaderValue::try_from(format!("req_{:08x}{count:08x}", self.server));
        RequestId(id.unwrap_or(HeaderValue::from_static("req_unknown")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_gets_an_id_of_its_own() {
        let ids = RequestIds::new(&mut rand::rng());
        let (first, second) = (ids.of(&HeaderMap::new()), ids.of(&HeaderMap::new()));
        assert_ne!(first, second);
        assert!(first.as_str().starts_with("req_"));
        assert_eq!(first.as_str().len(), "req_".len() + 16);
    }

    #[test]
    fn a_callers_id_is_kept_if_it_is_harmless() {
        let ids = RequestIds::new(&mut rand::rng());
        let of = |id: &str| {
            let headers = HeaderMap::from_iter([(HEADER, HeaderValue::try_from(id).unwrap())]);
            ids.of(&headers).as_str().to_owned()
        };
        assert_eq!(of("checkout-42:7.a_b"), "checkout-42:7.a_b");
        let long = "x".repeat(65);
        for refused in ["", "a b", "<script>", "a\tb", long.as_str()] {
            assert!(of(refused).starts_with("req_"), "{refused}");
        }
    }
}
