//! What is known of the ids that producers chose for their events.

use bytes::Bytes;
use prost::Message as _;

use crate::id::EventKey;
use crate::{DecodeError, VERSION, check_version, wire};

/// A short hash of what an event says.
pub type Digest = [u8; 16];

/// An id that is taken, or claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenEvent {
    /// Of what the event says.
    pub digest: Digest,
    /// The event that has the id; `None` while the id is only claimed, by a request whose message is on its way or was
    /// never sent.
    pub event: Option<EventKey>,
}

impl SeenEvent {
    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::SeenEvent {
            version: VERSION,
            digest: Bytes::copy_from_slice(&self.digest),
            event_key: self.event.map(EventKey::to_wire).unwrap_or_default(),
        }
        .encode_to_vec()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are not a message this release can act on.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let wire = wire::SeenEvent::decode(bytes)?;
        check_version(wire.version)?;
        Ok(Self {
            digest: wire.digest.as_ref().try_into().map_err(|_| DecodeError::Invalid {
                field: "digest",
                found: format!("{} bytes", wire.digest.len()),
            })?,
            event: match wire.event_key.is_empty() {
                true => None,
                false => Some(EventKey::from_wire("event_key", &wire.event_key)?),
            },
        })
    }
}
