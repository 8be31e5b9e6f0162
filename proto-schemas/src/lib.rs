//! What crosses NATS: messages, subjects, streams, headers and ids, in one place; and, in [`catalogue`], what is known of
//! events themselves.
//!
//! The `.proto` text under `proto/` is the contract; [`wire`] is what prost makes of it. The other modules are the
//! checked types the services use: decoding refuses whatever a service could not act on, so no later stage has to ask
//! again. Payloads travel as opaque bytes and are never parsed here.
//!
//! Versions: a new optional field keeps [`VERSION`]; anything else is a new version, which readers learn one release
//! before writers use it. `tests/golden` holds the bytes of every version ever written; files are added, never edited.
//!
//! This crate knows no runtime, no client and no database.

/// Pairs a checked enumeration with its wire form: total in one direction, refusing what is unknown in the other.
macro_rules! wire_enum {
    ($checked:ident, $field:literal, { $($variant:ident),+ $(,)? }) => {
        impl From<$checked> for crate::wire::$checked {
            fn from(value: $checked) -> Self {
                match value { $($checked::$variant => Self::$variant),+ }
            }
        }

        impl $checked {
            /// `None` where nothing was said.
            pub(crate) fn known(value: i32) -> Result<Option<Self>, crate::DecodeError> {
                match crate::wire::$checked::try_from(value) {
                    Ok(crate::wire::$checked::Unspecified) => Ok(None),
                    $(Ok(crate::wire::$checked::$variant) => Ok(Some(Self::$variant)),)+
                    Err(_) => Err(crate::DecodeError::Invalid { field: $field, found: value.to_string() }),
                }
            }

            #[allow(dead_code, reason = "an optional enumeration is read with `known`")]
            pub(crate) fn from_wire(value: i32) -> Result<Self, crate::DecodeError> {
                Self::known(value)?.ok_or(crate::DecodeError::Missing($field))
            }
        }
    };
}
pub(crate) use wire_enum;

pub mod catalogue;
pub mod definition;
pub mod delivery;
pub mod event;
pub mod header;
pub mod id;
pub mod ledger;
pub mod operational;
pub mod seen;
pub mod stream;
pub mod subject;

/// The generated types, exactly as in the `.proto` text.
#[allow(missing_docs, clippy::all)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/posthaste.v1.rs"));
}

/// The version this release writes, and the newest it reads.
pub const VERSION: u32 = 1;

/// Why bytes from NATS are not a message this release can act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not protobuf.
    #[error("not a protobuf message: {0}")]
    Malformed(String),
    /// Written by a newer release than this one.
    #[error("version {found} is newer than {VERSION}, the newest this release reads; update this service first")]
    TooNew {
        /// The version in the message.
        found: u32,
    },
    /// A field without which the message means nothing is absent.
    #[error("field `{0}` is missing")]
    Missing(&'static str),
    /// A field holds something outside its range.
    #[error("field `{field}` is not valid: {found}")]
    Invalid {
        /// The field's name in the `.proto` text.
        field: &'static str,
        /// What it holds.
        found: String,
    },
}

impl From<prost::DecodeError> for DecodeError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

pub(crate) fn check_version(found: u32) -> Result<(), DecodeError> {
    match found {
        0 => Err(DecodeError::Missing("version")),
        1..=VERSION => Ok(()),
        found => Err(DecodeError::TooNew { found }),
    }
}
