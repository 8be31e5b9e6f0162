//! Tokens of the API: how they are made, what is stored of them, and what they allow.
//!
//! A token is `ph_`, 32 random base62 digits (190 bits), `_`, and six base62 digits of CRC-32 over what stands before.
//! Prefix and checksum let secret scanners recognise a leaked token without asking anybody. Only the SHA-256 is stored,
//! unsalted: there is nothing to guess in 190 random bits, and the hash is what a token is looked up by.

use std::fmt;
use std::str::FromStr;

use rand::RngExt as _;
use rand::distr::Alphanumeric;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

const PREFIX: &str = "ph_";
const RANDOM_DIGITS: usize = 32;
/// Six base62 digits hold any 32-bit number.
const CHECKSUM_DIGITS: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A new token. It is shown once, to whoever asked for it; keep its [`hash`].
///
/// Drawn from the operating system's randomness and not from a given rng: a seed would be a way to guess it.
#[must_use]
pub fn generate() -> SecretString {
    let mut token = String::with_capacity(PREFIX.len() + RANDOM_DIGITS + 1 + CHECKSUM_DIGITS);
    token.push_str(PREFIX);
    token.extend(
        rand::rng()
            .sample_iter(Alphanumeric)
            .take(RANDOM_DIGITS)
            .map(char::from),
    );
    let checksum = checksum(&token);
    token.push('_');
    token.push_str(&checksum);
    token.into()
}

/// What is stored of a token, and what it is looked up by.
#[must_use]
pub fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Whether `text` has the form of a token of [`generate`], checksum included. A token of an operator's own choosing, such
/// as the administrator's, need not.
#[must_use]
pub fn looks_like_token(text: &str) -> bool {
    text.rsplit_once('_').is_some_and(|(body, tail)| {
        body.strip_prefix(PREFIX)
            .is_some_and(|random| random.len() >= RANDOM_DIGITS && random.bytes().all(|b| b.is_ascii_alphanumeric()))
            && tail == checksum(body)
    })
}

/// Whether `text` is built like a token of [`generate`] and has the wrong checksum: nobody has ever been given it.
#[must_use]
pub fn is_mistyped(text: &str) -> bool {
    let tail = text.strip_prefix(PREFIX).and_then(|rest| rest.rsplit_once('_'));
    tail.is_some_and(|(random, tail)| random.len() >= RANDOM_DIGITS && tail.len() == CHECKSUM_DIGITS)
        && !looks_like_token(text)
}

fn checksum(body: &str) -> String {
    let mut rest = crc32fast::hash(body.as_bytes()) as usize;
    let mut digits = [0_u8; CHECKSUM_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[rest % BASE62.len()];
        rest /= BASE62.len();
    }
    digits.iter().copied().map(char::from).collect()
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything in its project, tokens included; the administrator's, which is of no project, everything.
    Admin,
    /// Writing definitions, and reading.
    Configure,
    /// Publishing events.
    Publish,
    /// Reading definitions and the log.
    Read,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Configure, Self::Publish, Self::Read];

    /// The word in tables and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Configure => "configure",
            Self::Publish => "publish",
            Self::Read => "read",
        }
    }

    /// Whether a token of this scope may do what needs `needed`.
    #[must_use]
    pub const fn allows(self, needed: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::Configure => matches!(needed, Self::Configure | Self::Read),
            Self::Publish => matches!(needed, Self::Publish),
            Self::Read => matches!(needed, Self::Read),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a scope; the scopes are admin, configure, publish and read")]
pub struct UnknownScope(pub String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn generated_tokens_look_like_tokens_and_differ() {
        let tokens: HashSet<String> = (0..200).map(|_| generate().expose_secret().to_owned()).collect();
        assert_eq!(tokens.len(), 200);
        for token in &tokens {
            assert!(looks_like_token(token) && !is_mistyped(token), "{token}");
            assert_eq!(token.len(), 42);
        }
    }

    #[test]
    fn a_known_token_has_a_known_checksum_and_hash() {
        // Computed with Python's zlib.crc32 and hashlib.sha256.
        let token = "ph_ABCDEFGHIJKLMNOPQRSTUVWXYZ012345_0QwfFq";
        assert!(looks_like_token(token));
        assert_eq!(
            hash(token)[..],
            hex::decode("510bf9d422ae712dbfa95a99aa4d7e933c4a1df769e7acb720b745bbf7ec1029").unwrap()
        );
    }

    #[test]
    fn other_texts_do_not_look_like_tokens() {
        for text in [
            "",
            "ph_",
            "ph__",
            "_",
            "ph_short_000000",
            "Bearer ph_x",
            "sk_live_0123456789",
        ] {
            assert!(!looks_like_token(text), "{text}");
        }
    }

    #[test]
    fn a_mistyped_token_is_told_from_one_of_somebodys_own_making() {
        assert!(is_mistyped("ph_ABCDEFGHIJKLMNOPQRSTUVWXYZ012345_0QwfFr"));
        for own in [
            "ph_administrators-token-of-our-own",
            "ph_short_000000",
            "the-administrators-token",
            "",
        ] {
            assert!(!is_mistyped(own), "{own}");
        }
    }

    #[test]
    fn scopes_imply_as_documented() {
        use Scope::{Admin, Configure, Publish, Read};
        let allowed = |scope: Scope| {
            Scope::ALL
                .into_iter()
                .filter(|needed| scope.allows(*needed))
                .collect::<Vec<_>>()
        };
        assert_eq!(allowed(Admin), Scope::ALL);
        assert_eq!(allowed(Configure), [Configure, Read]);
        assert_eq!(allowed(Publish), [Publish]);
        assert_eq!(allowed(Read), [Read]);
    }

    #[test]
    fn a_scope_is_the_same_word_everywhere() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
            assert_eq!(serde_json::to_string(&scope).unwrap(), format!("\"{scope}\""));
        }
        assert_eq!("root".parse::<Scope>(), Err(UnknownScope("root".to_owned())));
    }

    proptest! {
        #[test]
        fn one_wrong_character_is_noticed(at in 3_usize..42, with in "[0-9A-Za-z_]") {
            let token = generate().expose_secret().to_owned();
            let mut changed = token.clone();
            changed.replace_range(at..=at, &with);
            prop_assert_eq!(looks_like_token(&changed), changed == token);
            // Where the parts are still told apart.
            if at != 35 && (at < 35 || with != "_") {
                prop_assert_eq!(is_mistyped(&changed), changed != token);
            }
        }

        #[test]
        fn any_text_may_be_asked(text in ".*") {
            let _ = looks_like_token(&text);
            let _ = hash(&text);
        }
    }
}
