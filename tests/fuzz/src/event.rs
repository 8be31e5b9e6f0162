//! An event for targets that need one.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use proto_schemas::event::Event;
use proto_schemas::id::{EventKey, ProjectId};
use uuid::Uuid;

/// One with this payload.
pub(crate) fn with_payload(payload: &[u8]) -> Event {
    let at = Timestamp::UNIX_EPOCH;
    Event {
        key: EventKey::of_message(at, 1),
        id: "evt_1".to_owned(),
        project: ProjectId::from_uuid(Uuid::from_u128(1)),
        event_type: "order.created".to_owned(),
        occurred_at: at,
        accepted_at: at,
        attributes: BTreeMap::from([("region".to_owned(), "eu".to_owned())]),
        content_type: String::new(),
        payload: Bytes::copy_from_slice(payload),
        traceparent: String::new(),
    }
}
