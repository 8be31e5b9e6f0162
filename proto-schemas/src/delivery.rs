//! The duty to make one attempt.

use prost::Message as _;

use crate::event::Event;
use crate::id::{AttemptRef, WebhookId};
use crate::{DecodeError, VERSION, check_version, wire};

/// Make one attempt to deliver `event` to `webhook`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryDue {
    /// What is to be delivered.
    pub event: Event,
    /// To whom.
    pub webhook: WebhookId,
    /// 0 for the event's own delivery; each replay has a number of its own.
    pub run: u32,
    /// Counts from 1.
    pub attempt: u32,
    /// 0 straight from ingest, then counted by retry-scheduler.
    pub release: u32,
}

impl DeliveryDue {
    /// Identifies the attempt.
    #[must_use]
    pub fn attempt_ref(&self) -> AttemptRef {
        AttemptRef {
            event: self.event.key,
            project: self.event.project,
            webhook: self.webhook,
            run: self.run,
            attempt: self.attempt,
            release: self.release,
        }
    }

    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Self::encode_parts(&self.event, self.attempt_ref())
    }

    /// The message's bytes, without having to own the event; fan-out makes many from one.
    #[must_use]
    pub fn encode_parts(event: &Event, attempt: AttemptRef) -> Vec<u8> {
        wire::DeliveryDue {
            version: VERSION,
            event: Some(event.to_wire()),
            webhook_id: attempt.webhook.to_wire(),
            run: attempt.run,
            attempt: attempt.attempt,
            release: attempt.release,
        }
        .encode_to_vec()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are not a message this release can act on.
    pub fn decode(bytes: bytes::Bytes) -> Result<Self, DecodeError> {
        let wire = wire::DeliveryDue::decode(bytes)?;
        check_version(wire.version)?;
        if wire.attempt == 0 {
            return Err(DecodeError::Missing("attempt"));
        }
        Ok(Self {
            event: Event::from_wire(wire.event)?,
            webhook: WebhookId::from_wire("webhook_id", &wire.webhook_id)?,
            run: wire.run,
            attempt: wire.attempt,
            release: wire.release,
        })
    }
}
