//! Cursors: where a list goes on. To a client they are opaque text; inside they are base64url of the JSON of whatever
//! the list is ordered by.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::{Code, Problem};

/// Writes the key of a list's last item.
///
/// # Errors
/// [`Code::Internal`] for a key that JSON cannot hold.
pub fn encode<K: Serialize>(key: &K) -> Result<String, Problem> {
    let json = serde_json::to_vec(key).map_err(Problem::internal)?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// [`Code::MalformedQuery`] for anything else.
pub fn decode<K: DeserializeOwned>(cursor: &str) -> Result<K, Problem> {
    let json = URL_SAFE_NO_PAD.decode(cursor).ok();
    json.and_then(|json| serde_json::from_slice(&json).ok()).ok_or_else(|| {
        Problem::new(
            Code::MalformedQuery,
            "`cursor` is not the `next` of an answer from here",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        let key = ("2026-01-02T03:04:05Z".to_owned(), 7_u64);
        let cursor = encode(&key).unwrap();
        assert!(
            cursor
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        );
        assert_eq!(decode::<(String, u64)>(&cursor).unwrap(), key);
    }

    #[test]
    fn a_cursor_from_elsewhere_is_refused() {
        for cursor in ["", "x", "????", "e30", "bnVsbA"] {
            let problem = decode::<(String, u64)>(cursor).unwrap_err();
            assert_eq!(problem.code(), Code::MalformedQuery, "{cursor}");
        }
    }
}
