//! Event types and their schemas.

use bytes::Bytes;
use prost::Message as _;

use super::text;
use crate::{DecodeError, VERSION, check_version, wire};

/// An event type's schemas: a project's own type, or a catalogue's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventType {
    /// The type.
    pub name: String,
    /// In the order they were made; the last one that is not deprecated is meant where an event names none.
    pub versions: Vec<EventTypeVersion>,
    /// Gone.
    pub deleted: bool,
}

/// One version of an event type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventTypeVersion {
    /// What it is called.
    pub version: String,
    /// JSON Schema as text; empty where anything is allowed.
    pub schema: String,
    /// Events should no longer be made of it.
    pub deprecated: bool,
}

impl EventType {
    /// The definition's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::EventTypeDefinition {
            version: VERSION,
            name: self.name.clone(),
            versions: self
                .versions
                .iter()
                .map(|version| wire::EventTypeVersion {
                    version: version.version.clone(),
                    schema: version.schema.clone(),
                    deprecated: version.deprecated,
                })
                .collect(),
            deleted: self.deleted,
        }
        .encode_to_vec()
    }

    /// Reads a definition.
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are not a definition this release can act on.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let wire = wire::EventTypeDefinition::decode(bytes)?;
        check_version(wire.version)?;
        Ok(Self {
            name: text(wire.name).ok_or(DecodeError::Missing("name"))?,
            versions: wire
                .versions
                .into_iter()
                .map(|version| EventTypeVersion {
                    version: version.version,
                    schema: version.schema,
                    deprecated: version.deprecated,
                })
                .collect(),
            deleted: wire.deleted,
        })
    }
}
