//! A webhook's variables, opened: as its requests have them, and as they are shown.

use std::collections::BTreeMap;

use proto_schemas::definition::{MaybeSealed, Webhook, sealed_variable};
use secrecy::{ExposeSecret as _, SecretString};

use super::{Error, open};
use crate::crypto::KeyRing;
use crate::render::{MASK, Variables};

/// A webhook's variables, twice.
#[derive(Debug)]
pub struct Opened {
    real: Variables,
    shown: Variables,
    protected: Vec<SecretString>,
}

impl Opened {
    /// Opens what is sealed.
    ///
    /// # Errors
    /// [`Error::Sealed`]
    pub fn of(webhook: &Webhook, keys: &KeyRing) -> Result<Self, Error> {
        let (mut real, mut shown) = (BTreeMap::new(), BTreeMap::new());
        let mut protected = Vec::new();
        for variable in &webhook.variables {
            let (value, mask) = match &variable.value {
                MaybeSealed::Plain(value) => (value.clone(), value.clone()),
                MaybeSealed::Sealed(sealed) => {
                    let plain = open(webhook, keys, &sealed_variable(&variable.name), sealed)?;
                    let value = String::from_utf8_lossy(plain.expose_secret()).into_owned();
                    protected.push(SecretString::from(value.clone()));
                    (value, MASK.to_owned())
                }
            };
            real.insert(variable.name.clone(), value);
            shown.insert(variable.name.clone(), mask);
        }
        Ok(Self {
            real: Variables::new(real, !protected.is_empty()),
            shown: Variables::new(shown, false),
            protected,
        })
    }

    /// As requests have them.
    #[must_use]
    pub const fn real(&self) -> &Variables {
        &self.real
    }

    /// With a mask for what is protected.
    #[must_use]
    pub const fn shown(&self) -> &Variables {
        &self.shown
    }

    /// The values that are protected.
    #[must_use]
    pub fn protected(&self) -> &[SecretString] {
        &self.protected
    }
}
