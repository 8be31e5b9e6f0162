//! What producers publish on NATS: a subject, a line for each header, a zero byte and the body.

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use common::bus::Message;
use common::model::limits::attributes_fit;
use ingest::accept::{CONTENT_TYPE_MAX, DETAIL_MAX, decide};
use jiff::Timestamp;
use proto_schemas::definition::{Project, SchemaCheck};
use proto_schemas::delivery::DeliveryDue;
use proto_schemas::id::{AttemptRef, EventKey, ProjectId, WebhookId, is_event_id, is_event_type};
use proto_schemas::ledger::{EventAccepted, EventRejected, Fact, REJECTED_PAYLOAD_MAX};
use uuid::Uuid;

use super::parts;

/// Largest event.
const MAX_EVENT_BYTES: usize = 256 * 1024;
/// What may come on top of an event's data, or of what is kept of a rejected message: half of what ingest reckons with.
const AROUND: usize = 16 * 1024;
/// What one DEL stands for: inputs are short, and what is long is most of what there is to find.
const DELS: usize = 20_000;

/// A message: whatever comes of it fits a message, and comes of it again.
pub(crate) fn published(data: &[u8]) {
    let Some((head, body)) = parts(data) else { return };
    let head = head.replace('\u{7f}', &"\u{7f}".repeat(DELS));
    let body = body
        .split(|byte| *byte == 0x7f)
        .collect::<Vec<_>>()
        .join([0x7f; DELS].as_slice());
    // More than a server takes.
    if head.len() + body.len() > 1024 * 1024 {
        return;
    }
    let mut lines = head.lines();
    let subject = lines.next().unwrap_or_default();
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some((name, value)) = line.split_once(": ") else {
            continue;
        };
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            headers.append(name, value);
        }
    }
    let message = Message {
        subject: subject.into(),
        headers: Some(headers),
        payload: Bytes::from(body),
        sequence: 7,
        stored_at: Timestamp::UNIX_EPOCH,
        handed_out: 1,
    };
    let project = Project {
        id: ProjectId::from_uuid(Uuid::from_u128(1)),
        name: "acme".to_owned(),
        deleted: false,
        schema_check: SchemaCheck::Off,
        catalogue: None,
        event_attributes: Vec::new(),
    };
    let decided = decide(&message, Some(&project), MAX_EVENT_BYTES);
    assert_eq!(
        decided,
        decide(&message, Some(&project), MAX_EVENT_BYTES),
        "the same again"
    );
    match decided {
        Ok(event) => {
            assert!(is_event_id(&event.id) && is_event_type(&event.event_type));
            assert!(event.content_type.len() <= CONTENT_TYPE_MAX && attributes_fit(&event.attributes));
            assert!(http::HeaderValue::from_str(&event.content_type).is_ok());
            assert!(event.payload.len() <= MAX_EVENT_BYTES);
            let attempt = AttemptRef {
                event: event.key,
                project: project.id,
                webhook: WebhookId::from_uuid(Uuid::max()),
                run: u32::MAX,
                attempt: u32::MAX,
                release: u32::MAX,
                handed_out_before: u32::MAX,
            };
            let room = event.payload.len() + AROUND;
            let duty = DeliveryDue::encode_parts(&event, attempt);
            assert!(duty.len() <= room, "a duty of {} bytes", duty.len());
            assert_eq!(
                DeliveryDue::decode(duty.into()).map(|duty| duty.event).as_ref(),
                Ok(&event)
            );
            let accepted = Fact::EventAccepted(EventAccepted {
                event,
                owed: Vec::new(),
                skipped: Vec::new(),
                warnings: Vec::new(),
                held: Vec::new(),
                ordered: Vec::new(),
            });
            assert!(accepted.encode().len() <= room);
        }
        Err(rejection) => {
            let (detail, reason) = (rejection.detail, rejection.reason.as_str());
            assert!(
                !detail.is_empty() && detail.len() <= DETAIL_MAX,
                "{} bytes",
                detail.len()
            );
            let rejected = Fact::EventRejected(EventRejected {
                key: EventKey::of_message(message.stored_at, message.sequence),
                project: Some(project.id),
                // A server reads no longer one (max_control_line).
                subject: subject.chars().take(1024).collect(),
                reason: reason.to_owned(),
                detail,
                payload: message.payload.slice(..message.payload.len().min(REJECTED_PAYLOAD_MAX)),
                payload_size: message.payload.len() as u64,
                received_at: message.stored_at,
            });
            assert!(rejected.encode().len() <= REJECTED_PAYLOAD_MAX + AROUND);
        }
    }
}
