//! `v1a` of Standard Webhooks 1.0.0: Ed25519 (RFC 8032). Receivers verify with the public key, which is no secret: they
//! can fetch it, and who learns it can sign nothing.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use rand::Rng as _;
use secrecy::{SecretString, zeroize::Zeroizing};

use super::Error;

/// What the text of a private key begins with.
const PRIVATE_PREFIX: &str = "whsk_";
/// What the text of a public key begins with.
pub(super) const PUBLIC_PREFIX: &str = "whpk_";

const SEED_LEN: usize = ed25519_dalek::SECRET_KEY_LENGTH;
const PAIR_LEN: usize = ed25519_dalek::KEYPAIR_LENGTH;

/// A private key. Its public key is worked out when it is made, so that no other can be taken for it when it signs.
#[derive(Clone)]
pub struct PrivateKey(SigningKey);

/// A public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; ed25519_dalek::PUBLIC_KEY_LENGTH]);

/// Whether this is meant to be a private key.
pub(super) fn is_one(text: &str) -> bool {
    text.starts_with(PRIVATE_PREFIX)
}

impl PrivateKey {
    /// Reads a private key: `whsk_` and the base64 of its seed, or of seed and public key.
    ///
    /// # Errors
    /// [`Error::PrivateKey`], also where the public key does not belong to the seed.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let encoded = text.strip_prefix(PRIVATE_PREFIX).ok_or(Error::PrivateKey)?;
        let bytes = STANDARD
            .decode(encoded)
            .map(Zeroizing::new)
            .map_err(|_| Error::PrivateKey)?;
        match bytes.len() {
            SEED_LEN => <[u8; SEED_LEN]>::try_from(bytes.as_slice())
                .map(|seed| Self(SigningKey::from_bytes(&Zeroizing::new(seed))))
                .map_err(|_| Error::PrivateKey),
            PAIR_LEN => <[u8; PAIR_LEN]>::try_from(bytes.as_slice())
                .map_err(|_| Error::PrivateKey)
                .and_then(|pair| SigningKey::from_keypair_bytes(&Zeroizing::new(pair)).map_err(|_| Error::PrivateKey))
                .map(Self),
            _ => Err(Error::PrivateKey),
        }
    }

    /// A new random key. Drawn from the operating system's randomness, as secrets are.
    #[must_use]
    pub fn random() -> Self {
        let mut seed = Zeroizing::new([0_u8; SEED_LEN]);
        rand::rng().fill_bytes(seed.as_mut());
        Self(SigningKey::from_bytes(&seed))
    }

    /// `whsk_` and the base64 of seed and public key.
    #[must_use]
    pub fn text(&self) -> SecretString {
        let pair = Zeroizing::new(self.0.to_keypair_bytes());
        format!("{PRIVATE_PREFIX}{}", STANDARD.encode(pair.as_ref())).into()
    }

    /// What receivers verify with.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; ed25519_dalek::SIGNATURE_LENGTH] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

impl PublicKey {
    /// `whpk_` and the base64 of the key.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{PUBLIC_PREFIX}{}", STANDARD.encode(self.0))
    }

    /// Reads what [`text`](Self::text) makes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.strip_prefix(PUBLIC_PREFIX)?).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// `x` of its JSON Web Key (RFC 8037 §2).
    #[must_use]
    pub fn x(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signature, VerifyingKey};
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::sign::{Key, standard_webhooks};

    /// RFC 8032 §7.1, test 2.
    const SEED: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    const PUBLIC: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    fn private(bytes: &[u8]) -> Result<PrivateKey, Error> {
        PrivateKey::parse(&format!("whsk_{}", STANDARD.encode(bytes)))
    }

    #[test]
    fn the_standards_example_gives_its_key_and_its_signature() {
        let key = private(&bytes(SEED)).unwrap();
        assert_eq!(hex::encode(key.public().0), PUBLIC);
        assert_eq!(
            hex::encode(key.sign(&[0x72])),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
    }

    #[test]
    fn a_key_is_read_with_its_public_key_and_without() {
        let pair = [bytes(SEED), bytes(PUBLIC)].concat();
        let (with, without) = (private(&pair).unwrap(), private(&bytes(SEED)).unwrap());
        assert_eq!(with.public(), without.public());
        assert_eq!(with.text().expose_secret(), without.text().expose_secret());

        let other = [bytes(SEED), PrivateKey::random().public().0.to_vec()].concat();
        assert_eq!(private(&other).unwrap_err(), Error::PrivateKey, "another's public key");
        for length in [0, 31, 33, 63, 65] {
            assert_eq!(private(&vec![7; length]).unwrap_err(), Error::PrivateKey);
        }
        assert!(PrivateKey::parse("whsk_!").is_err() && PrivateKey::parse("whsec_").is_err());
    }

    #[test]
    fn a_public_key_reads_as_it_was_written() {
        let public = private(&bytes(SEED)).unwrap().public();
        assert_eq!(public.text(), "whpk_PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=");
        assert_eq!(public.x(), "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw");
        assert_eq!(PublicKey::parse(&public.text()), Some(public));
        assert_eq!(PublicKey::parse("whpk_"), None);
    }

    proptest! {
        #[test]
        fn what_is_signed_verifies_strictly_and_nothing_else_does(
            id in "[A-Za-z0-9_-]{1,64}",
            timestamp in 0_i64..4_000_000_000,
            body: Vec<u8>,
        ) {
            let key = PrivateKey::random();
            let public = VerifyingKey::from_bytes(&key.public().0).unwrap();
            let value = standard_webhooks(&id, timestamp, &body, [&Key::V1a(key)]);
            let signature = STANDARD.decode(value.strip_prefix("v1a,").unwrap()).unwrap();
            let signature = Signature::from_slice(&signature).unwrap();
            let verify = |id: &str, timestamp: i64, body: &[u8]| {
                let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
                public.verify_strict(&signed, &signature).is_ok()
            };
            prop_assert!(verify(&id, timestamp, &body));
            prop_assert!(!verify(&id, timestamp + 1, &body));
            let other_id = format!("{id}x");
            prop_assert!(!verify(&other_id, timestamp, &body));
            prop_assert!(!verify(&id, timestamp, &[body.as_slice(), b"x"].concat()));
        }
    }
}
