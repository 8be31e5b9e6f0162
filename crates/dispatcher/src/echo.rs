//! What a receiver sends back of a request's secrets, as debugging pages do, is masked before it is recorded.
//!
//! Looked for is each protected value as it was sent, as JSON has it, and without the scheme in front of it; not what a
//! receiver has made of it.

use std::cmp::Reverse;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use common::render::MASK;
use http::{HeaderMap, HeaderName};
use memchr::memmem::Finder;
use secrecy::{ExposeSecret as _, SecretString};

/// Shorter values are found where they are not meant.
const TELLING_MIN: usize = 8;

/// So much of a secret at the end of a body is taken for its beginning.
const BEGUN_MIN: usize = 4;

/// What is secret in a request.
#[derive(Default)]
pub(crate) struct Echo {
    /// The longest first, so that none is masked in part.
    secrets: Vec<Vec<u8>>,
}

impl Echo {
    /// What is secret in these headers, but for signatures, which tell nothing, and in these variables.
    pub(crate) fn of(
        headers: &HeaderMap,
        signatures: impl Iterator<Item = HeaderName>,
        variables: &[SecretString],
    ) -> Self {
        let mut echo = Self::default();
        let signatures: Vec<HeaderName> = signatures.collect();
        for (name, value) in headers {
            if !value.is_sensitive() || signatures.contains(name) {
                continue;
            }
            echo.add(value.as_bytes());
            let Some((scheme, credentials)) = value.to_str().ok().and_then(|text| text.split_once(' ')) else {
                continue;
            };
            echo.add(credentials.as_bytes());
            if scheme.eq_ignore_ascii_case("basic")
                && let Ok(pair) = STANDARD.decode(credentials)
                && let Some(colon) = pair.iter().position(|byte| *byte == b':')
            {
                echo.add(&pair[colon + 1..]);
            }
        }
        for value in variables {
            echo.add(value.expose_secret().as_bytes());
        }
        echo.secrets.sort_by_key(|secret| Reverse(secret.len()));
        echo
    }

    fn add(&mut self, secret: &[u8]) {
        if secret.len() < TELLING_MIN {
            return;
        }
        if let Ok(text) = std::str::from_utf8(secret)
            && let Ok(json) = serde_json::to_string(text)
            && json.len() > text.len() + 2
        {
            self.secrets.push(json.as_bytes()[1..json.len() - 1].to_vec());
        }
        self.secrets.push(secret.to_vec());
    }

    /// Masks what came back, in header lines and body; a truncated body may end within a secret.
    pub(crate) fn mask(&self, headers: &mut [(String, String)], body: &mut Bytes, truncated: bool) {
        for secret in &self.secrets {
            let finder = Finder::new(secret);
            for (_, value) in headers.iter_mut() {
                if let Some(masked) = masked(&finder, value.as_bytes()) {
                    *value = String::from_utf8_lossy(&masked).into_owned();
                }
            }
            if let Some(masked) = masked(&finder, body) {
                *body = masked.into();
            }
        }
        if truncated && let Some(begun) = self.begun(body) {
            let mut masked = body[..body.len() - begun].to_vec();
            masked.extend_from_slice(MASK.as_bytes());
            *body = masked.into();
        }
    }

    /// How many bytes at the end of a body are the beginning of a secret.
    fn begun(&self, body: &[u8]) -> Option<usize> {
        let begun = |secret: &Vec<u8>| {
            (BEGUN_MIN..secret.len())
                .rev()
                .find(|length| body.ends_with(&secret[..*length]))
        };
        self.secrets.iter().filter_map(begun).max()
    }
}

/// The text with a mask for each place where the secret is; `None` where it is nowhere.
fn masked(finder: &Finder<'_>, text: &[u8]) -> Option<Vec<u8>> {
    let mut masked = Vec::new();
    let mut from = 0;
    while let Some(at) = finder.find(&text[from..]) {
        masked.extend_from_slice(&text[from..from + at]);
        masked.extend_from_slice(MASK.as_bytes());
        from += at + finder.needle().len();
    }
    if from == 0 {
        return None;
    }
    masked.extend_from_slice(&text[from..]);
    Some(masked)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn echo() -> Echo {
        let mut headers = HeaderMap::new();
        let mut add = |name: &'static str, value: &str, is_sensitive| {
            let mut value = HeaderValue::from_str(value).unwrap();
            value.set_sensitive(is_sensitive);
            headers.insert(name, value);
        };
        add("x-api-key", "canary \"in\" the mine", true);
        add(
            "authorization",
            &format!("Basic {}", STANDARD.encode("me:pass:word")),
            true,
        );
        add("x-team", "blue whales", false);
        add("x-short", "seven77", true);
        add("webhook-signature", "v1,c2lnbmF0dXJl", true);
        let variables = [SecretString::from("routing-key".to_owned())];
        let signatures = [HeaderName::from_static("webhook-signature")];
        Echo::of(&headers, signatures.into_iter(), &variables)
    }

    fn body(text: &str, truncated: bool) -> String {
        let (mut headers, mut body) = (Vec::new(), Bytes::copy_from_slice(text.as_bytes()));
        echo().mask(&mut headers, &mut body, truncated);
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn what_is_protected_is_masked_as_it_was_sent_and_as_json_has_it() {
        let basic = STANDARD.encode("me:pass:word");
        for (text, expected) in [
            ("got canary \"in\" the mine, thanks", "got ***, thanks"),
            (r#"{"x-api-key": "canary \"in\" the mine"}"#, r#"{"x-api-key": "***"}"#),
            (&format!("Authorization: Basic {basic}"), "Authorization: ***"),
            (&format!("[{basic}] is me, pass:word"), "[***] is me, ***"),
            ("routing-keyrouting-key", "******"),
            (
                "blue whales, seven77, v1,c2lnbmF0dXJl",
                "blue whales, seven77, v1,c2lnbmF0dXJl",
            ),
            ("", ""),
        ] {
            assert_eq!(body(text, false), expected);
        }
    }

    #[test]
    fn headers_are_masked_as_well() {
        let mut headers = vec![
            ("x-echo".to_owned(), "<routing-key>".to_owned()),
            ("x-other".to_owned(), "as it is".to_owned()),
        ];
        echo().mask(&mut headers, &mut Bytes::new(), false);
        assert_eq!(headers[0].1, "<***>");
        assert_eq!(headers[1].1, "as it is");
    }

    #[test]
    fn a_secret_at_a_truncated_end_is_masked_as_far_as_it_goes() {
        assert_eq!(body("the key is routing-", true), "the key is ***");
        assert_eq!(body("the key is routing-", false), "the key is routing-");
        assert_eq!(body("the key is another", true), "the key is another");
    }
}
