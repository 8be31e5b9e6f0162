//! What requests show to a receiver, and by whom it is vouched for: what token endpoints answer, and what users give in PEM.

use bytes::Bytes;
use common::egress::{Response, Tls, TlsError};
use dispatcher::access_token::{LIFETIME_MAX, read};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

use super::parts;

/// All that may be said of an answer without a token, besides its status.
const REASONS: [&str; 4] = [
    "'s answer is too long",
    "'s answer holds no access_token and token_type in JSON",
    " gives tokens that are no bearer tokens",
    "'s access_token fits into no header",
];
/// RFC 6749 §5.2.
const REFUSALS: [&str; 6] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
];

/// A token endpoint's answer, its status before a zero byte: a token is the one that stands there, kept for a day at most,
/// and hidden; of anything else nothing is repeated.
pub(crate) fn access_token(data: &[u8]) {
    let Some((status, body)) = parts(data) else { return };
    let Ok(status) = StatusCode::from_bytes(status.as_bytes()) else {
        return;
    };
    for truncated in [false, true] {
        let response = Response {
            status,
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body),
            truncated,
        };
        match read(&response) {
            Ok(granted) => {
                assert!(status == StatusCode::OK && !truncated);
                assert!(granted.kept_for <= LIFETIME_MAX && granted.value.is_sensitive());
                let value = granted.value.as_bytes().strip_prefix(b"Bearer ").expect("its scheme");
                assert!(!value.is_empty());
                if let Ok(answer) = serde_json::from_slice::<Value>(body) {
                    assert_eq!(answer["access_token"].as_str().map(str::as_bytes), Some(value));
                }
            }
            Err(missing) => {
                let text = missing.text.strip_prefix("no access token: the token endpoint");
                let text = text.expect("of whom it is said");
                let is_said = match text.strip_prefix(&format!(" answered {status}")) {
                    Some("") => status != StatusCode::OK,
                    Some(word) => REFUSALS.iter().any(|refusal| word == format!(" ({refusal})")),
                    None => status == StatusCode::OK && REASONS.contains(&text),
                };
                assert!(is_said, "{missing}");
            }
        }
    }
}

/// Authorities, a chain and its key, with zero bytes between them: each is read or refused for itself, and what is wrong
/// is said of the part that it is wrong with.
pub(crate) fn pem(data: &[u8]) {
    let Some((ca, rest)) = parts(data) else { return };
    let Some((chain, key)) = parts(rest) else { return };
    let (authorities, own) = (Tls::read(Some(ca), None), Tls::read(None, Some((chain, key))));
    let both = Tls::read(Some(ca), Some((chain, key)));
    match (authorities, own) {
        (Ok(authorities), Ok(own)) => {
            assert!(ca.contains("CERTIFICATE-----") && chain.contains("CERTIFICATE-----"));
            let both = both.expect("each of them is good");
            for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
                assert!(!authorities.has_expired(now), "there is none that could");
                assert_eq!(own.has_expired(now), both.has_expired(now));
            }
            assert!(!format!("{both:?}").contains("-----"));
        }
        (Err(error), _) => {
            assert!(matches!(error, TlsError::Ca(_)), "{error}");
            assert_eq!(both.err(), Some(error));
        }
        (Ok(_), Err(error)) => {
            assert!(matches!(error, TlsError::Certificate(_) | TlsError::Key(_)), "{error}");
            assert_eq!(both.err(), Some(error));
        }
    }
}
