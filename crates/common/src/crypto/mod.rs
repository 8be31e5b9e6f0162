//! Encryption of secrets at rest.
//!
//! Webhook secrets and protected header values are sealed by config-api before they reach Postgres or NATS, and opened
//! only where they are used: by the dispatcher, at the moment it signs. A sealed value is text,
//!
//! ```text
//! v1|<key id>|<nonce>|<ciphertext>        nonce and ciphertext in base64url without padding
//! ```
//!
//! made with AES-256-GCM under a [`KeyRing`]'s current key and a random nonce (random 96-bit nonces are sound for 2³²
//! values a key, NIST SP 800-38D §8.3). Its [`Context`], which project, object and field it belongs to, is
//! authenticated with it: a value copied into another row does not open.
//!
//! To change keys, put a new one first in the ring and keep the old ones behind it until nothing is sealed with them:
//! config-api seals anew what they seal.

mod config;

use std::fmt;

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proto_schemas::id::ProjectId;
use rand::Rng as _;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString, zeroize::Zeroizing};
use uuid::Uuid;

pub use self::config::Config;

const VERSION: &str = "v1";
const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 12;
/// Longest key id, in bytes; it is repeated in every sealed value.
const KEY_ID_MAX: usize = 32;

/// The keys. Made once at start; seals and opens from any thread.
pub struct KeyRing {
    current: Key,
    older: Vec<Key>,
}

struct Key {
    id: String,
    cipher: Aes256Gcm,
}

/// What a sealed value belongs to. It opens only with the context it was sealed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context<'a> {
    /// The project.
    pub project: ProjectId,
    /// What holds the value, such as a webhook.
    pub object: Uuid,
    /// The field of it, such as `secret` or a header's name.
    pub field: &'a str,
}

/// Why there is no key ring.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither keys nor a file.
    #[error(
        "no encryption key: set POSTHASTE_ENCRYPTION_KEYS, or POSTHASTE_ENCRYPTION_KEYS_FILE to a file, to `<id>:<base64 \
         of 32 random bytes>` (for instance `k1:` and the output of `openssl rand -base64 32`)"
    )]
    Missing,
    /// The keys are set twice, or their file cannot be read.
    #[error(transparent)]
    Source(#[from] crate::config::Error),
    /// An entry is not a key. Its place is named, its text is not: it may be a key with a typing error.
    #[error("encryption key {place}: {reason}")]
    Key {
        /// Counts from 1.
        place: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Why a sealed value does not open. It means the installation is configured wrongly or its data was tampered with; never
/// that a receiver failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not of the form above.
    #[error("not a sealed value")]
    Malformed,
    /// Sealed with a key this ring does not hold.
    #[error("sealed with the key `{0}`, which is not among the encryption keys")]
    UnknownKey(String),
    /// The key or the context is another, or the text was changed.
    #[error("the sealed value does not open: it was sealed with another key or for another place, or it was changed")]
    Refused,
}

impl KeyRing {
    /// Reads the keys.
    ///
    /// # Errors
    /// [`ConfigError`], also where there is no key at all: nothing is ever stored unencrypted.
    pub fn from_config(config: &Config) -> Result<Self, ConfigError> {
        let keys = config.keys()?;
        Self::parse(keys.ok_or(ConfigError::Missing)?.expose_secret())
    }

    /// Reads keys from `id:base64` entries, separated by commas or newlines; the first is the current one.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] where there is no entry, [`ConfigError::Key`] where one is no key.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut keys: Vec<Key> = Vec::new();
        let entries = text.split([',', '\n']).map(str::trim).filter(|entry| !entry.is_empty());
        for (index, entry) in entries.enumerate() {
            let wrong = |reason| ConfigError::Key {
                place: index + 1,
                reason,
            };
            let key = Key::parse(entry).map_err(wrong)?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(wrong("its id is used twice"));
            }
            keys.push(key);
        }
        let mut keys = keys.into_iter();
        let current = keys.next().ok_or(ConfigError::Missing)?;
        Ok(Self {
            current,
            older: keys.collect(),
        })
    }

    /// Encrypts `plain` with the current key, for this one place.
    ///
    #[must_use]
    pub fn seal(&self, context: &Context<'_>, plain: &[u8]) -> String {
        // The nonce is drawn here and not from a given rng: one nonce used twice under a key would give both values away.
        let mut nonce = [0_u8; NONCE_LEN];
        rand::rng().fill_bytes(&mut nonce);
        #[expect(clippy::expect_used, reason = "fails only above 64 GiB")]
        let sealed = self
            .current
            .cipher
            .encrypt(
                &nonce.into(),
                Payload {
                    msg: plain,
                    aad: &context.authenticated(),
                },
            )
            .expect("a value of less than 64 GiB");
        format!(
            "{VERSION}|{}|{}|{}",
            self.current.id,
            URL_SAFE_NO_PAD.encode(nonce),
            URL_SAFE_NO_PAD.encode(sealed)
        )
    }

    /// Decrypts what [`seal`](Self::seal) made for the same place, with whichever key of the ring it was made.
    ///
    /// # Errors
    /// [`OpenError`]; nothing of the value is in it.
    pub fn open(&self, context: &Context<'_>, sealed: &str) -> Result<SecretSlice<u8>, OpenError> {
        let (id, nonce, ciphertext) = parts(sealed).ok_or(OpenError::Malformed)?;
        let nonce: [u8; NONCE_LEN] = URL_SAFE_NO_PAD
            .decode(nonce)
            .ok()
            .and_then(|nonce| nonce.try_into().ok())
            .ok_or(OpenError::Malformed)?;
        let ciphertext = URL_SAFE_NO_PAD.decode(ciphertext).map_err(|_| OpenError::Malformed)?;
        let mut keys = std::iter::once(&self.current).chain(&self.older);
        let key = keys
            .find(|key| key.id == id)
            .ok_or_else(|| OpenError::UnknownKey(id.to_owned()))?;
        key.cipher
            .decrypt(
                &nonce.into(),
                Payload {
                    msg: &ciphertext,
                    aad: &context.authenticated(),
                },
            )
            .map(SecretSlice::from)
            .map_err(|_| OpenError::Refused)
    }

    /// Whether `sealed` was made with the current key. What was not is to be sealed again before its key is taken away.
    #[must_use]
    pub fn is_current(&self, sealed: &str) -> bool {
        key_of(sealed).is_some_and(|id| id == self.current.id)
    }

    /// Whether the key that `sealed` was made with is in the ring.
    #[must_use]
    pub fn holds_key_of(&self, sealed: &str) -> bool {
        let mut keys = std::iter::once(&self.current).chain(&self.older);
        key_of(sealed).is_some_and(|id| keys.any(|key| key.id == id))
    }
}

/// The id of the key that `sealed` was made with; `None` where it is no sealed value.
#[must_use]
pub fn key_of(sealed: &str) -> Option<&str> {
    parts(sealed).map(|(id, ..)| id)
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("current", &self.current.id)
            .field("older", &self.older.len())
            .finish()
    }
}

impl Context<'_> {
    /// The version, the two ids, which have a fixed length, then the field: no two contexts give the same bytes.
    fn authenticated(&self) -> Vec<u8> {
        [
            VERSION.as_bytes(),
            self.project.as_uuid().as_bytes(),
            self.object.as_bytes(),
            self.field.as_bytes(),
        ]
        .concat()
    }
}

/// 32 random bytes in base64: a key, to be given an id (`<id>:<this>`) and put into the configuration.
#[must_use]
pub fn generate_key() -> SecretString {
    let mut key = Zeroizing::new([0_u8; KEY_LEN]);
    rand::rng().fill_bytes(key.as_mut());
    STANDARD.encode(key.as_ref()).into()
}

impl Key {
    fn parse(entry: &str) -> Result<Self, &'static str> {
        let (id, key) = entry.split_once(':').ok_or("it is not of the form <id>:<base64>")?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if id.is_empty() || id.len() > KEY_ID_MAX || !id.bytes().all(allowed) {
            return Err("its id is not 1 to 32 of A-Z a-z 0-9 . _ -");
        }
        let key = STANDARD
            .decode(key)
            .map(Zeroizing::new)
            .map_err(|_| "its key is not base64")?;
        let cipher = Aes256Gcm::new_from_slice(&key).map_err(|_| "its key is not 32 bytes long")?;
        Ok(Self {
            id: id.to_owned(),
            cipher,
        })
    }
}

fn parts(sealed: &str) -> Option<(&str, &str, &str)> {
    let mut parts = sealed.split('|');
    match (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()) {
        (VERSION, id, nonce, ciphertext, None) => Some((id, nonce, ciphertext)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    const OLD: &str = "old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const NEW: &str = "new:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";

    fn ring(keys: &str) -> KeyRing {
        KeyRing::parse(keys).unwrap()
    }

    fn context(project: u128, object: u128, field: &str) -> Context<'_> {
        Context {
            project: ProjectId::from_uuid(Uuid::from_u128(project)),
            object: Uuid::from_u128(object),
            field,
        }
    }

    #[test]
    fn a_value_sealed_with_an_older_key_still_opens() {
        let sealed = ring(OLD).seal(&context(1, 2, "secret"), b"hello");
        let both = ring(&format!("{NEW},{OLD}"));
        assert_eq!(
            both.open(&context(1, 2, "secret"), &sealed).unwrap().expose_secret(),
            b"hello"
        );
        assert!(!both.is_current(&sealed));
        assert!(both.is_current(&both.seal(&context(1, 2, "secret"), b"hello")));
        assert_eq!(
            ring(NEW).open(&context(1, 2, "secret"), &sealed).unwrap_err(),
            OpenError::UnknownKey("old".into())
        );
    }

    #[test]
    fn a_value_made_by_another_implementation_opens() {
        // Python: AESGCM(bytes(range(32))).encrypt(bytes(12), b"whsec_x", b"v1" + bytes(15) + b"\x01" + bytes(15) + b"\x02" + b"secret")
        let sealed = "v1|old|AAAAAAAAAAAAAAAA|edTGu9Zz-7R8Tnk_pW6GS258pEYJ6Cg";
        assert_eq!(
            ring(OLD)
                .open(&context(1, 2, "secret"), sealed)
                .unwrap()
                .expose_secret(),
            b"whsec_x"
        );
    }

    #[test]
    fn a_value_copied_to_another_place_does_not_open() {
        let ring = ring(OLD);
        let sealed = ring.seal(&context(1, 2, "secret"), b"hello");
        for elsewhere in [
            context(9, 2, "secret"),
            context(1, 9, "secret"),
            context(1, 2, "secret2"),
            context(1, 2, ""),
        ] {
            assert_eq!(ring.open(&elsewhere, &sealed).unwrap_err(), OpenError::Refused);
        }
    }

    #[test]
    fn the_same_value_never_gives_the_same_text() {
        let ring = ring(OLD);
        assert_ne!(
            ring.seal(&context(1, 2, "a"), b"hello"),
            ring.seal(&context(1, 2, "a"), b"hello")
        );
    }

    #[test]
    fn keys_come_from_a_file_as_well() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{NEW}\n{OLD}\n").unwrap();
        let config = Config {
            encryption_keys: None,
            encryption_keys_file: Some(file.path().to_owned()),
        };
        let ring = KeyRing::from_config(&config).unwrap();
        assert_eq!(format!("{ring:?}"), "KeyRing { current: \"new\", older: 1 }");
    }

    #[test]
    fn without_a_key_there_is_no_ring() {
        assert!(matches!(
            KeyRing::from_config(&Config::default()),
            Err(ConfigError::Missing)
        ));
        assert!(matches!(KeyRing::parse(" ,\n"), Err(ConfigError::Missing)));
        let config = Config {
            encryption_keys: None,
            encryption_keys_file: Some("/nonexistent/keys".into()),
        };
        assert!(matches!(
            KeyRing::from_config(&config),
            Err(ConfigError::Source(crate::config::Error::Unreadable { .. }))
        ));
    }

    #[test]
    fn a_bad_key_is_named_by_its_place_and_never_shown() {
        for (keys, message) in [
            (
                format!("{OLD},AAECAwQFBgcICQ"),
                "encryption key 2: it is not of the form <id>:<base64>",
            ),
            (
                "a b:AAEC".to_owned(),
                "encryption key 1: its id is not 1 to 32 of A-Z a-z 0-9 . _ -",
            ),
            ("a:AAEC".to_owned(), "encryption key 1: its key is not 32 bytes long"),
            ("a:?".to_owned(), "encryption key 1: its key is not base64"),
            (format!("{OLD},{OLD}"), "encryption key 2: its id is used twice"),
        ] {
            assert_eq!(KeyRing::parse(&keys).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_generated_key_is_a_key() {
        ring(&format!("k1:{}", generate_key().expose_secret()));
        let config = Config {
            encryption_keys: Some("k:VERYSECRET".into()),
            encryption_keys_file: None,
        };
        assert!(!format!("{config:?}").contains("VERYSECRET"));
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(plain: Vec<u8>, project: u128, object: u128, field in ".{0,40}") {
            let ring = ring(OLD);
            let sealed = ring.seal(&context(project, object, &field), &plain);
            let opened = ring.open(&context(project, object, &field), &sealed).unwrap();
            prop_assert_eq!(opened.expose_secret(), &plain[..]);
        }

        #[test]
        fn a_changed_byte_is_noticed(at: prop::sample::Index, with in "[A-Za-z0-9_|-]") {
            let ring = ring(OLD);
            let sealed = ring.seal(&context(1, 2, "secret"), b"a secret of some length");
            let at = at.index(sealed.len());
            let mut changed = sealed.clone();
            changed.replace_range(at..=at, &with);
            prop_assume!(changed != sealed);
            prop_assert!(ring.open(&context(1, 2, "secret"), &changed).is_err());
        }

        #[test]
        fn any_text_may_be_tried(text in ".*", tail in r"v1\|old\|[A-Za-z0-9_-]{16}\|[A-Za-z0-9_-]*") {
            let ring = ring(OLD);
            prop_assert!(ring.open(&context(1, 2, "secret"), &text).is_err());
            prop_assert!(ring.open(&context(1, 2, "secret"), &tail).is_err());
        }
    }
}
