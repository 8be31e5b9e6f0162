//! An event as ingest accepted it.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;

use crate::id::{EventKey, ProjectId};
use crate::{DecodeError, wire};

/// An event as ingest accepted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Identity within Posthaste.
    pub key: EventKey,
    /// Identity for receivers: the producer's id, or one derived from the key.
    pub id: String,
    /// Whose event it is.
    pub project: ProjectId,
    /// `invoice.paid`
    pub event_type: String,
    /// When it happened, by the producer's word; to the microsecond.
    pub occurred_at: Timestamp,
    /// When JetStream stored it; to the microsecond.
    pub accepted_at: Timestamp,
    /// What webhooks can be narrowed by.
    pub attributes: BTreeMap<String, String>,
    /// Media type of the payload; empty means `application/json`.
    pub content_type: String,
    /// The producer's bytes.
    pub payload: Bytes,
    /// W3C Trace Context, or empty.
    pub traceparent: String,
}

impl Event {
    /// Whether the payload is JSON by its content type.
    #[must_use]
    pub fn is_json(&self) -> bool {
        is_json(&self.content_type)
    }

    pub(crate) fn to_wire(&self) -> wire::Event {
        wire::Event {
            key: self.key.to_wire(),
            id: self.id.clone(),
            project_id: self.project.to_wire(),
            r#type: self.event_type.clone(),
            occurred_at_us: self.occurred_at.as_microsecond(),
            accepted_at_us: self.accepted_at.as_microsecond(),
            attributes: self.attributes.clone(),
            content_type: self.content_type.clone(),
            payload: self.payload.clone(),
            traceparent: self.traceparent.clone(),
        }
    }

    pub(crate) fn from_wire(wire: Option<wire::Event>) -> Result<Self, DecodeError> {
        let wire = wire.ok_or(DecodeError::Missing("event"))?;
        if wire.id.is_empty() {
            return Err(DecodeError::Missing("id"));
        }
        if wire.r#type.is_empty() {
            return Err(DecodeError::Missing("type"));
        }
        Ok(Self {
            key: EventKey::from_wire("key", &wire.key)?,
            project: ProjectId::from_wire("project_id", &wire.project_id)?,
            id: wire.id,
            event_type: wire.r#type,
            occurred_at: instant("occurred_at_us", wire.occurred_at_us)?,
            accepted_at: instant("accepted_at_us", wire.accepted_at_us)?,
            attributes: wire.attributes,
            content_type: wire.content_type,
            payload: wire.payload,
            traceparent: wire.traceparent,
        })
    }
}

/// Whether `content_type` says JSON: empty, `application/json` or `…+json`, parameters ignored (RFC 6838 §4.2.8).
#[must_use]
pub fn is_json(content_type: &str) -> bool {
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence.is_empty() || essence == "application/json" || essence.ends_with("+json")
}

pub(crate) fn instant(field: &'static str, micros: i64) -> Result<Timestamp, DecodeError> {
    Timestamp::from_microsecond(micros).map_err(|error| DecodeError::Invalid {
        field,
        found: error.to_string(),
    })
}
