//! Signing of requests.
//!
//! Two schemes; a webhook may use either or both. What is signed is the exact bytes that are sent.
//!
//! - **Standard Webhooks 1.0.0** over `<id>.<timestamp>.<body>`, in base64: `v1`, HMAC-SHA256 under a secret that both ends
//!   know, and `v1a`, Ed25519 ([`PrivateKey`]). The timestamp is of the attempt, the id of the event: every attempt has a
//!   signature of its own and the same id.
//! - **Body HMAC**: `sha256=` and the HMAC-SHA256 of the body alone in hexadecimal, as GitHub does. It can be replayed;
//!   offered for receivers that already verify it.
//!
//! The two key differently on purpose, as their verifiers do: `v1` on the decoded key of a `whsec_…` secret, body HMAC on
//! the secret's text as it was typed, prefix included.

mod v1a;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use proto_schemas::definition::SecretKind;
use rand::Rng as _;
use secrecy::{SecretString, zeroize::Zeroizing};
use sha2::Sha256;

pub use self::v1a::{PrivateKey, PublicKey};

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

/// What a webhook's requests are signed with.
#[derive(Debug, Clone)]
pub enum Key {
    /// HMAC-SHA256.
    V1(Secret),
    /// Ed25519.
    V1a(PrivateKey),
}

impl Key {
    /// Reads what its owner has given: `whsk_…` is a private key, all else a secret.
    ///
    /// # Errors
    /// [`Error`]
    pub fn parse(text: &str) -> Result<Self, Error> {
        match v1a::is_one(text) {
            true => Self::of_kind(SecretKind::V1a, text),
            false => Self::of_kind(SecretKind::V1, text),
        }
    }

    /// Reads a key of which it is known what kind it is.
    ///
    /// # Errors
    /// [`Error`]
    pub fn of_kind(kind: SecretKind, text: &str) -> Result<Self, Error> {
        match kind {
            SecretKind::V1 => Secret::parse(text).map(Self::V1),
            SecretKind::V1a => PrivateKey::parse(text).map(Self::V1a),
        }
    }

    /// A new random key.
    #[must_use]
    pub fn generate(kind: SecretKind) -> Self {
        match kind {
            SecretKind::V1 => Self::V1(Secret::random()),
            SecretKind::V1a => Self::V1a(PrivateKey::random()),
        }
    }

    /// What kind it is.
    #[must_use]
    pub const fn kind(&self) -> SecretKind {
        match self {
            Self::V1(_) => SecretKind::V1,
            Self::V1a(_) => SecretKind::V1a,
        }
    }

    /// The key as it is written: to be sealed, or shown in the one answer that creates it.
    #[must_use]
    pub fn text(&self) -> SecretString {
        match self {
            Self::V1(secret) => secret.text.clone(),
            Self::V1a(key) => key.text(),
        }
    }

    /// What receivers verify by, where that is no secret.
    #[must_use]
    pub fn public(&self) -> Option<PublicKey> {
        match self {
            Self::V1(_) => None,
            Self::V1a(key) => Some(key.public()),
        }
    }
}

/// Why a text cannot be a signing secret. Says nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `whsk_`, then something other than base64 of a private key.
    #[error(
        "after `whsk_`, a private key is the base64 (standard alphabet, with padding) of an Ed25519 seed of 32 bytes, or of \
         the seed and the public key that belongs to it"
    )]
    PrivateKey,
    /// `whpk_`: what anybody may know keeps nothing secret.
    #[error("`whpk_` begins a public key; give the private one, `whsk_…`, or none and one is made up")]
    PublicKey,
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
        if text.starts_with(v1a::PUBLIC_PREFIX) {
            return Err(Error::PublicKey);
        }
        match text.strip_prefix(PREFIX) {
            Some(encoded) => {
                let key = STANDARD.decode(encoded).map(Zeroizing::new).map_err(|_| Error::Key)?;
                match KEY_LEN.contains(&key.len()) {
                    true => Ok(Self::scheduled(text, &key)),
                    false => Err(Error::Key),
                }
            }
            None if !TEXT_LEN.contains(&text.len()) => Err(Error::Length),
            None if text.chars().any(char::is_control) => Err(Error::Control),
            None => Ok(Self::scheduled(text, text.as_bytes())),
        }
    }

    /// A new random secret, `whsec_` and the base64 of 32 bytes; its text is for the receiver.
    ///
    /// Drawn from the operating system's randomness and not from a given rng: a seed would be a way to guess it.
    #[must_use]
    pub fn random() -> Self {
        let mut key = Zeroizing::new([0_u8; GENERATED_KEY_LEN]);
        rand::rng().fill_bytes(key.as_mut());
        let text = Zeroizing::new(format!("{PREFIX}{}", STANDARD.encode(key.as_ref())));
        Self::scheduled(&text, key.as_ref())
    }

    fn scheduled(text: &str, key: &[u8]) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104 §2)")]
        let schedule = |key: &[u8]| HmacSha256::new_from_slice(key).expect("a key of any length");
        Self {
            text: text.into(),
            standard_webhooks: schedule(key),
            body: schedule(text.as_bytes()),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The value of `webhook-signature`: one `v1,<base64>` or `v1a,<base64>` per key, separated by spaces. Several while a
/// secret is being rotated; the receiver accepts any one.
///
/// `id` and `timestamp` (seconds since 1970) are what `webhook-id` and `webhook-timestamp` say.
#[must_use]
pub fn standard_webhooks<'a>(id: &str, timestamp: i64, body: &[u8], keys: impl IntoIterator<Item = &'a Key>) -> String {
    let head = format!("{id}.{timestamp}.");
    let mut value = String::with_capacity("v1,".len() + 44);
    for key in keys {
        if !value.is_empty() {
            value.push(' ');
        }
        value.push_str(key.kind().as_str());
        value.push(',');
        match key {
            Key::V1(secret) => {
                let mac = secret.standard_webhooks.clone();
                let signature = mac.chain_update(&head).chain_update(body).finalize();
                STANDARD.encode_string(signature.into_bytes(), &mut value);
            }
            Key::V1a(key) => STANDARD.encode_string(key.sign(&[head.as_bytes(), body].concat()), &mut value),
        }
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
    use secrecy::ExposeSecret as _;
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
            [&Key::V1(secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))],
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
        let [old, new, other] = [(); 3].map(|()| Key::generate(SecretKind::V1));
        let asymmetric = Key::generate(SecretKind::V1a);
        let now = unix_now();
        let signature = standard_webhooks("evt_1", now, b"{}", [&new, &asymmetric, &old]);
        let kinds: Vec<&str> = signature.split(' ').map(|one| one.split_once(',').unwrap().0).collect();
        assert_eq!(kinds, ["v1", "v1a", "v1"]);
        for key in [old, new] {
            Oracle::new(key.text().expose_secret())
                .unwrap()
                .verify(b"{}", &headers("evt_1", now, &signature))
                .unwrap();
        }
        let other = Oracle::new(other.text().expose_secret()).unwrap();
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
            (
                "whpk_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".to_owned(),
                Err(Error::PublicKey),
            ),
            ("whsk_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".to_owned(), Ok(())),
            (
                "whsk_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5".to_owned(),
                Err(Error::PrivateKey),
            ),
        ] {
            assert_eq!(Key::parse(&text).map(|_| ()), result, "{text:?}");
        }
    }

    #[test]
    fn a_secret_that_a_release_before_took_for_text_stays_one() {
        let text = "whsk_of mine";
        assert!(matches!(Key::of_kind(SecretKind::V1, text), Ok(Key::V1(_))));
        assert!(Key::parse(text).is_err());
    }

    #[test]
    fn no_two_keys_are_generated_alike_and_only_a_private_one_has_a_public_one() {
        for (kind, is_public) in [(SecretKind::V1, false), (SecretKind::V1a, true)] {
            let [one, other] = [(); 2].map(|()| Key::generate(kind));
            assert_ne!(one.text().expose_secret(), other.text().expose_secret());
            assert_eq!(one.public().is_some(), is_public);
            assert!(!is_public || one.public() != other.public());
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        for (kind, prefix) in [(SecretKind::V1, "whsec_"), (SecretKind::V1a, "whsk_")] {
            let generated = Key::generate(kind);
            let text = generated.text();
            assert_eq!(format!("{generated:?} {text:?}").matches(prefix).count(), 0);
            assert_eq!(
                format!("{generated:?}"),
                format!("{:?}", Key::generate(kind)),
                "they all look the same"
            );
            let read = Key::parse(text.expose_secret()).unwrap();
            assert_eq!((read.kind(), read.text().expose_secret()), (kind, text.expose_secret()));
        }
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
            let signature = standard_webhooks(&id, now, &body, [&Key::V1(secret(&text))]);
            prop_assert!(oracle.verify(&body, &headers(&id, now, &signature)).is_ok());

            let mut longer = body.clone();
            longer.push(b'x');
            prop_assert!(oracle.verify(&longer, &headers(&id, now, &signature)).is_err());
            prop_assert!(oracle.verify(&body, &headers("another", now, &signature)).is_err());
            prop_assert!(oracle.verify(&body, &headers(&id, now + 1, &signature)).is_err());
        }

        #[test]
        fn any_text_may_be_tried(text in ".{0,600}", tail in "whsec_[A-Za-z0-9+/=]{0,100}") {
            let _ = Key::parse(&text);
            let _ = Key::parse(&tail);
        }
    }
}
