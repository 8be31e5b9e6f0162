//! A webhook's signing secrets.

use std::borrow::Cow;

use jiff::Timestamp;
use uuid::Uuid;

use super::Webhook;
use crate::event::instant;
use crate::id::SecretId;
use crate::{DecodeError, wire};

/// A signing secret, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Identity; [`SecretId::BEFORE`] for one that a release before secrets had ids has sealed.
    pub id: SecretId,
    /// What it signs with.
    pub kind: SecretKind,
    /// The secret's text, encrypted for the field that [`sealed_for`](Self::sealed_for) names.
    pub sealed: String,
    /// When it was made; to the microsecond.
    pub created_at: Timestamp,
    /// From then on nothing is signed with it; `None`: it has no end yet.
    pub expires_at: Option<Timestamp>,
}

/// What a secret signs with: the schemes of Standard Webhooks 1.0.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    /// HMAC-SHA256, of which both ends know the key.
    V1,
    /// Ed25519, of which receivers know the public key.
    V1a,
}

impl SecretKind {
    /// The word in tables and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1a => "v1a",
        }
    }
}

impl SecretId {
    /// The id of a secret that was sealed before secrets had ids. A webhook has at most one.
    pub const BEFORE: Self = Self::from_uuid(Uuid::nil());

    /// The field that a secret of this id is sealed for: one cannot be put in the place of another.
    #[must_use]
    pub fn sealed_for(self) -> Cow<'static, str> {
        match self {
            Self::BEFORE => Cow::Borrowed(SEALED_SECRET),
            id => Cow::Owned(format!("secret:{id}")),
        }
    }
}

/// The field that `sealed_secret` is sealed for.
pub const SEALED_SECRET: &str = "secret";

impl Secret {
    /// Whether requests made at `now` are signed with it.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expiry| now < expiry)
    }

    /// The one secret of a webhook as releases before this type have it.
    #[must_use]
    pub fn before(sealed: String, created_at: Timestamp) -> Self {
        Self {
            id: SecretId::BEFORE,
            kind: SecretKind::V1,
            sealed,
            created_at,
            expires_at: None,
        }
    }

    pub(super) fn to_wire(&self) -> wire::SecretDefinition {
        wire::SecretDefinition {
            secret_id: self.id.to_wire(),
            kind: wire::SecretKind::from(self.kind).into(),
            sealed: self.sealed.clone(),
            created_at_us: self.created_at.as_microsecond(),
            expires_at_us: self.expires_at.map_or(0, Timestamp::as_microsecond),
        }
    }

    pub(super) fn from_wire(wire: wire::SecretDefinition) -> Result<Self, DecodeError> {
        if wire.sealed.is_empty() {
            return Err(DecodeError::Missing("sealed"));
        }
        Ok(Self {
            id: SecretId::from_wire("secret_id", &wire.secret_id)?,
            kind: SecretKind::from_wire(wire.kind)?,
            sealed: wire.sealed,
            created_at: instant("created_at_us", wire.created_at_us)?,
            expires_at: match wire.expires_at_us {
                0 => None,
                micros => Some(instant("expires_at_us", micros)?),
            },
        })
    }
}

impl Webhook {
    /// What requests are signed with, the current one first, whatever release has written the definition. Some may have
    /// expired: whoever signs leaves these out, by its own clock.
    #[must_use]
    pub fn signing_secrets(&self) -> Cow<'_, [Secret]> {
        match (&self.sealed_secret, self.secrets.is_empty()) {
            (Some(sealed), true) => Cow::Owned(vec![Secret::before(sealed.clone(), Timestamp::UNIX_EPOCH)]),
            _ => Cow::Borrowed(&self.secrets),
        }
    }
}

crate::wire_enum!(SecretKind, "kind", { V1, V1a });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_live_until_the_instant_it_expires() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut secret = Secret::before("v1|…".into(), at(0));
        assert!(secret.is_live(at(0)) && secret.is_live(at(1_000_000)));
        secret.expires_at = Some(at(100));
        assert!(secret.is_live(at(99)));
        assert!(secret.is_live(Timestamp::from_microsecond(99_999_999).unwrap()));
        assert!(!secret.is_live(at(100)) && !secret.is_live(at(101)));
    }

    #[test]
    fn each_secret_is_sealed_for_a_field_of_its_own() {
        let id = |n| SecretId::from_uuid(Uuid::from_u128(n));
        assert_eq!(SecretId::BEFORE.sealed_for(), "secret");
        assert_eq!(id(1).sealed_for(), "secret:00000000-0000-0000-0000-000000000001");
        assert_ne!(id(1).sealed_for(), id(2).sealed_for());
    }
}
