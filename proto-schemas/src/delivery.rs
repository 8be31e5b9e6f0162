//! The duty to make one attempt.

use prost::Message as _;

use crate::definition::Webhook;
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
    /// Set where the request is made to try the webhook.
    pub trial: Option<Trial>,
    /// How often this attempt was handed out before this release without its end being known.
    pub handed_out_before: u32,
}

/// A request made to try a webhook: it is made once and changes no state of the webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// What is tried.
    pub kind: TrialKind,
    /// The definition to try; `None`: the webhook's as it stands. Its ids are those of the duty.
    pub webhook: Option<Box<Webhook>>,
}

/// What a request is to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrialKind {
    /// A test: the event is delivered as any other would be.
    Test,
    /// An endpoint check: a GET without a body, which has to be answered with 200.
    Check,
}

impl TrialKind {
    /// The word in tables and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Check => "check",
        }
    }
}

crate::wire_enum!(TrialKind, "trial", { Test, Check });

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
            handed_out_before: self.handed_out_before,
        }
    }

    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Self::wire_parts(&self.event, self.attempt_ref(), self.trial.as_ref()).encode_to_vec()
    }

    /// The message's bytes, without having to own the event; fan-out makes many from one.
    #[must_use]
    pub fn encode_parts(event: &Event, attempt: AttemptRef) -> Vec<u8> {
        Self::wire_parts(event, attempt, None).encode_to_vec()
    }

    fn wire_parts(event: &Event, attempt: AttemptRef, trial: Option<&Trial>) -> wire::DeliveryDue {
        wire::DeliveryDue {
            version: VERSION,
            event: Some(event.to_wire()),
            webhook_id: attempt.webhook.to_wire(),
            run: attempt.run,
            attempt: attempt.attempt,
            release: attempt.release,
            handed_out_before: attempt.handed_out_before,
            trial: trial.map(|trial| wire::Trial {
                kind: wire::TrialKind::from(trial.kind).into(),
                webhook: trial.webhook.as_ref().map(|webhook| webhook.to_wire()),
            }),
        }
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
            handed_out_before: wire.handed_out_before,
            trial: wire
                .trial
                .map(|trial| {
                    Ok::<_, DecodeError>(Trial {
                        kind: TrialKind::from_wire(trial.kind)?,
                        webhook: trial.webhook.map(Webhook::from_wire).transpose()?.map(Box::new),
                    })
                })
                .transpose()?,
        })
    }
}
