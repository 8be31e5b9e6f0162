//! Signing of requests.
//!
//! Two schemes; a webhook may use either or both. What is signed is the exact bytes that are sent.
//!
//! - **Standard Webhooks 1.0.0**, `v1`: HMAC-SHA256 over `<id>.<timestamp>.<body>`, in base64. The timestamp is of the
//!   attempt, the id of the event: every attempt has a signature of its own and the same id.
//! - **Body HMAC**: `sha256=` and the HMAC-SHA256 of the body alone in hexadecimal, as GitHub does. It can be replayed;
//!   offered for receivers that already verify it.
//!
//! The two key differently on purpose, as their verifiers do: `v1` on the decoded key of a `whsec_…` secret, body HMAC on
//! the secret's text as it was typed, prefix included.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::Rng as _;
use secrecy::{ExposeSecret as _, SecretString, zeroize::Zeroizing};
use sha2::Sha256;

type HmacSha256 = Hmac<Sha256>;

const PREFIX: &str = "whsec_";
const GENERATED_KEY_LEN: usize = 32;
/// Key lengths that Standard Webhooks 1.0.0 allows, in bytes.
const KEY_LEN: std::ops::RangeInclusive<usize> = 24..=64;
/// Lengths of a secret without the prefix, in bytes. Existing receivers bring short ones; below eight it is a password.
const TEXT_LEN: std::ops::RangeInclusive<usize> = 8..=512;

/// A webhook's signing secret, ready to sign: both schemes' keys are scheduled once, not per request.
#[derive(Clone)]
pub struct Secret {
    text: SecretString,
    standard_webhooks: HmacSha256,
    body: HmacSha256,
}

/// Why a text cannot be a signing secret. Says nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `whsec_`, then something other than base64 of a key.
    #[error("after `whsec_`, a secret is the base64 (standard alphabet, with padding) of 24 to 64 bytes")]
    Key,
    /// Shorter or longer than a secret without prefix may be.
    #[error("a secret is 8 to 512 bytes long")]
    Length,
    /// A line break or another control character, which nobody means to be part of a secret.
    #[error("a secret holds no control characters")]
    Control,
}

impl Secret {
    /// Reads a secret: `whsec_` and the base64 of 24 to 64 bytes, or any other text of 8 to 512 bytes, which is the key
    /// as it stands.
    ///
    /// # Errors
    /// [`Error`]
    pub fn parse(text: &str) -> Result<Self, Error> {
        match text.strip_prefix(PREFIX) {
            Some(encoded) => {
                let key = STANDARD.decode(encoded).map(Zeroizing::new).map_err(|_| Error::Key)?;
                match KEY_LEN.contains(&key.len()) {
                    true => Self::keyed(text, &key),
                    false => Err(Error::Key),
                }
            }
            None if !TEXT_LEN.contains(&text.len()) => Err(Error::Length),
            None if text.chars().any(char::is_control) => Err(Error::Control),
            None => Self::keyed(text, text.as_bytes()),
        }
    }

    /// A new random secret, `whsec_` and the base64 of 32 bytes; its [`text`](Self::text) is for the receiver.
    ///
    /// Drawn from the operating system's randomness and not from a given rng: a seed would be a way to guess it.
    #[must_use]
    pub fn generate() -> SecretString {
        let mut key = Zeroizing::new([0_u8; GENERATED_KEY_LEN]);
        rand::rng().fill_bytes(key.as_mut());
        format!("{PREFIX}{}", STANDARD.encode(key.as_ref())).into()
    }

    /// The secret as it was typed: to be sealed, or shown in the one answer that creates it.
    #[must_use]
    pub fn text(&self) -> &str {
        self.text.expose_secret()
    }

    fn keyed(text: &str, key: &[u8]) -> Result<Self, Error> {
        // HMAC takes keys of any length; the length is checked above.
        let schedule = |key: &[u8]| HmacSha256::new_from_slice(key).map_err(|_| Error::Length);
        Ok(Self {
            text: text.into(),
            standard_webhooks: schedule(key)?,
            body: schedule(text.as_bytes())?,
        })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The value of `webhook-signature`: one `v1,<base64>` per secret, separated by spaces. Several while a secret is being
/// rotated; the receiver accepts any one.
///
/// `id` and `timestamp` (seconds since 1970) are what `webhook-id` and `webhook-timestamp` say.
#[must_use]
pub fn standard_webhooks<'a>(
    id: &str,
    timestamp: i64,
    body: &[u8],
    secrets: impl IntoIterator<Item = &'a Secret>,
) -> String {
    let head = format!("{id}.{timestamp}.");
    let mut value = String::with_capacity("v1,".len() + 44);
    for secret in secrets {
        if !value.is_empty() {
            value.push(' ');
        }
        value.push_str("v1,");
        let signature = secret
            .standard_webhooks
            .clone()
            .chain_update(&head)
            .chain_update(body)
            .finalize();
        STANDARD.encode_string(signature.into_bytes(), &mut value);
    }
    value
}

/// The value of a body-HMAC header: `sha256=` and 64 lower-case hexadecimal digits.
#[must_use]
pub fn body_hmac(body: &[u8], secret: &Secret) -> String {
    let signature = secret.body.clone().chain_update(body).finalize();
    format!("sha256={}", hex::encode(signature.into_bytes()))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;
    use standardwebhooks::Webhook as Oracle;

    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::parse(text).unwrap()
    }

    fn headers(id: &str, timestamp: i64, signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("id", id),
            ("timestamp", &timestamp.to_string()),
            ("signature", signature),
        ] {
            headers.insert(
                http::HeaderName::try_from(format!("webhook-{name}")).unwrap(),
                value.parse().unwrap(),
            );
        }
        headers
    }

    #[test]
    fn the_specifications_example_gives_its_signature() {
        // https://github.com/standard-webhooks/standard-webhooks, libraries' shared test vector.
        let signature = standard_webhooks(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
            [&secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn body_hmac_keys_on_the_text_as_typed() {
        // printf '{"a":1}' | openssl dgst -sha256 -hmac whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw
        assert_eq!(
            body_hmac(br#"{"a":1}"#, &secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")),
            "sha256=45ec03b2b33403c8043a90de06bedad0827183927115fd7e448ef97eeb13c5be"
        );
        assert_eq!(
            body_hmac(br#"{"a":1}"#, &secret("It's a Secret to Everybody")),
            "sha256=3aea7d9882012d69ea49b8443b94e755179f85ee830bfa901efb5dc673af63a3"
        );
    }

    #[test]
    fn while_rotating_each_secret_verifies() {
        let (old, new) = (Secret::generate(), Secret::generate());
        let now = unix_now();
        let signature = standard_webhooks(
            "evt_1",
            now,
            b"{}",
            [&secret(new.expose_secret()), &secret(old.expose_secret())],
        );
        assert_eq!(signature.split(' ').count(), 2);
        for text in [old, new] {
            Oracle::new(text.expose_secret())
                .unwrap()
                .verify(b"{}", &headers("evt_1", now, &signature))
                .unwrap();
        }
        let other = Oracle::new(Secret::generate().expose_secret()).unwrap();
        assert!(other.verify(b"{}", &headers("evt_1", now, &signature)).is_err());
    }

    #[test]
    fn no_secret_no_signature() {
        assert_eq!(standard_webhooks("evt_1", 1, b"{}", []), "");
    }

    #[test]
    fn secrets_are_refused_with_a_reason() {
        let of_length = |length: usize| format!("whsec_{}", STANDARD.encode(vec![7_u8; length]));
        for (text, result) in [
            (of_length(23), Err(Error::Key)),
            (of_length(24), Ok(())),
            (of_length(64), Ok(())),
            (of_length(65), Err(Error::Key)),
            ("whsec_".to_owned(), Err(Error::Key)),
            (of_length(25).trim_end_matches('=').to_owned(), Err(Error::Key)),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS_".to_owned(), Err(Error::Key)),
            ("1234567".to_owned(), Err(Error::Length)),
            ("12345678".to_owned(), Ok(())),
            ("x".repeat(513), Err(Error::Length)),
            ("12345678\n".to_owned(), Err(Error::Control)),
            ("geheim, schön".to_owned(), Ok(())),
        ] {
            assert_eq!(Secret::parse(&text).map(|_| ()), result, "{text:?}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let generated = Secret::generate();
        let secret = secret(generated.expose_secret());
        assert_eq!(format!("{secret:?} {generated:?}").matches("whsec_").count(), 0);
        assert_eq!(secret.text(), generated.expose_secret());
    }

    fn unix_now() -> i64 {
        crate::clock::Clock::System.now().as_second()
    }

    proptest! {
        #[test]
        fn the_official_library_signs_and_verifies_the_same(
            key in prop::collection::vec(any::<u8>(), 24..=64),
            id in "[A-Za-z0-9_-]{1,64}",
            // The library verifies nothing that is not UTF-8.
            body in ".{0,300}",
        ) {
            let body = body.into_bytes();
            let text = format!("whsec_{}", STANDARD.encode(&key));
            let oracle = Oracle::new(&text).unwrap();
            let now = unix_now();
            let signature = standard_webhooks(&id, now, &body, [&secret(&text)]);
            prop_assert!(oracle.verify(&body, &headers(&id, now, &signature)).is_ok());

            let mut longer = body.clone();
            longer.push(b'x');
            prop_assert!(oracle.verify(&longer, &headers(&id, now, &signature)).is_err());
            prop_assert!(oracle.verify(&body, &headers("another", now, &signature)).is_err());
            prop_assert!(oracle.verify(&body, &headers(&id, now + 1, &signature)).is_err());
        }

        #[test]
        fn any_text_may_be_tried(text in ".{0,600}", tail in "whsec_[A-Za-z0-9+/=]{0,100}") {
            let _ = Secret::parse(&text);
            let _ = Secret::parse(&tail);
        }
    }
}
