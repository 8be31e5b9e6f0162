//! Headers and variables of a webhook: values under names, some of which are protected.

use crate::{DecodeError, wire};

/// A header or a variable of a webhook's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedValue {
    /// What it is called.
    pub name: String,
    /// Its value.
    pub value: MaybeSealed,
}

/// A value that may be protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MaybeSealed {
    /// Readable by whoever may read the webhook.
    Plain(String),
    /// Protected: encrypted, and never given out again.
    Sealed(String),
}

/// The field that the value of a protected header is sealed for; its name in lower case.
#[must_use]
pub fn sealed_header(name: &str) -> String {
    format!("header:{name}")
}

/// The field that the value of a protected variable is sealed for.
#[must_use]
pub fn sealed_variable(name: &str) -> String {
    format!("variable:{name}")
}

impl NamedValue {
    pub(super) fn to_wire(&self) -> wire::NamedValue {
        use wire::named_value::Content;
        wire::NamedValue {
            name: self.name.clone(),
            content: Some(match &self.value {
                MaybeSealed::Plain(value) => Content::Value(value.clone()),
                MaybeSealed::Sealed(value) => Content::SealedValue(value.clone()),
            }),
        }
    }

    pub(super) fn from_wire(wire: wire::NamedValue) -> Result<Self, DecodeError> {
        use wire::named_value::Content;
        Ok(Self {
            name: wire.name,
            value: match wire.content.ok_or(DecodeError::Missing("content"))? {
                Content::Value(value) => MaybeSealed::Plain(value),
                Content::SealedValue(value) => MaybeSealed::Sealed(value),
            },
        })
    }
}
