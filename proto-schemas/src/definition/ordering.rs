//! How fast a webhook's deliveries go out, and in which order.

use std::time::Duration;

use super::text;
use crate::{DecodeError, wire};

/// Which deliveries of a webhook wait for which.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Ordering {
    /// None: they go out as they come.
    #[default]
    None,
    /// Each waits until the one before it is settled.
    Webhook,
    /// The same, among those for whose events this expression gives the same.
    Key(String),
}

/// At most `requests` in each `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// How many, at least 1.
    pub requests: u32,
    /// In which time; to the millisecond, at least one.
    pub window: Duration,
}

impl Ordering {
    pub(super) fn from_wire(kind: i32, key: String) -> Result<Self, DecodeError> {
        match wire::Ordering::try_from(kind) {
            Ok(wire::Ordering::Unspecified) => Ok(Self::None),
            Ok(wire::Ordering::Webhook) => Ok(Self::Webhook),
            Ok(wire::Ordering::Key) => Ok(Self::Key(text(key).ok_or(DecodeError::Missing("ordering_key"))?)),
            Err(_) => Err(DecodeError::Invalid {
                field: "ordering",
                found: kind.to_string(),
            }),
        }
    }
}

impl RateLimit {
    pub(super) fn to_wire(self) -> wire::RateLimit {
        wire::RateLimit {
            requests: self.requests,
            window_ms: u32::try_from(self.window.as_millis()).unwrap_or(u32::MAX),
        }
    }

    /// One that allows nothing, or everything, says nothing.
    pub(super) fn from_wire(wire: wire::RateLimit) -> Option<Self> {
        (wire.requests > 0 && wire.window_ms > 0).then(|| Self {
            requests: wire.requests,
            window: Duration::from_millis(wire.window_ms.into()),
        })
    }
}
