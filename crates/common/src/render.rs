//! Event and webhook → request body. Pure, so that a body shown in the log can be made again.
//!
//! A producer's payload goes out as the bytes it came in; bodies are put together around it, never by parsing it and
//! writing it again, which would lose number precision, key order and duplicate keys.

use bytes::{BufMut as _, Bytes, BytesMut};
use proto_schemas::definition::{Body, EnvelopeSource};
use proto_schemas::event::Event;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// A request body and its media type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The bytes that are signed and sent.
    pub body: Bytes,
    /// For `Content-Type`.
    pub content_type: String,
}

const JSON: &str = "application/json";

/// Makes the body of every request that delivers `event` to a webhook whose body is made like `body`.
#[must_use]
pub fn render(event: &Event, body: &Body, project_name: &str) -> Rendered {
    match body {
        Body::Envelope(members) => Rendered {
            body: envelope(event, members, project_name),
            content_type: JSON.to_owned(),
        },
        Body::Flat if event.is_json() => Rendered {
            body: flat(event),
            content_type: JSON.to_owned(),
        },
        Body::Template(_) | Body::Base64 | Body::CloudEvents | Body::Flat | Body::Raw => Rendered {
            body: event.payload.clone(),
            content_type: match event.content_type.as_str() {
                "" => JSON.to_owned(),
                content_type => content_type.to_owned(),
            },
        },
    }
}

fn envelope(event: &Event, members: &[(String, EnvelopeSource)], project_name: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(event.payload.len() + 256);
    out.put_u8(b'{');
    for (i, (name, source)) in members.iter().enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        put_string(&mut out, name);
        out.put_u8(b':');
        match source {
            EnvelopeSource::EventId => put_string(&mut out, &event.id),
            EnvelopeSource::EventType => put_string(&mut out, &event.event_type),
            EnvelopeSource::Timestamp => put_string(&mut out, &event.occurred_at.to_string()),
            EnvelopeSource::ProjectName => put_string(&mut out, project_name),
            EnvelopeSource::Data if event.is_json() => out.put_slice(event.payload.trim_ascii()),
            EnvelopeSource::Data => {
                use base64::Engine as _;
                put_string(
                    &mut out,
                    &base64::engine::general_purpose::STANDARD.encode(&event.payload),
                );
            }
        }
    }
    out.put_u8(b'}');
    out.freeze()
}

/// The payload with `type` as its first member, unless it is no object or has a `type` of its own.
fn flat(event: &Event) -> Bytes {
    let payload = event.payload.trim_ascii();
    let Some(members) = payload.strip_prefix(b"{") else {
        return event.payload.clone();
    };
    if has_type(payload) {
        return event.payload.clone();
    }
    let mut out = BytesMut::with_capacity(payload.len() + event.event_type.len() + 12);
    out.put_slice(b"{\"type\":");
    put_string(&mut out, &event.event_type);
    if members.trim_ascii_start().first() != Some(&b'}') {
        out.put_u8(b',');
    }
    out.put_slice(members);
    out.freeze()
}

fn has_type(object: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Probe {
        #[serde(default, rename = "type", deserialize_with = "present")]
        has_type: bool,
    }

    fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| true)
    }

    // An error can only be a second `type`: intake let nothing malformed through.
    serde_json::from_slice::<Probe>(object).map_or(true, |probe| probe.has_type)
}

fn put_string(out: &mut BytesMut, text: &str) {
    // Writing a string to memory cannot fail; were it to, an empty string is still JSON.
    let json = serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned());
    out.put_slice(json.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use proto_schemas::id::{EventKey, ProjectId};

    use super::*;

    fn event(payload: &'static str) -> Event {
        let at: Timestamp = "2024-01-15T10:30:00Z".parse().unwrap();
        Event {
            key: EventKey::of_message(at, 7),
            id: "evt_abc123".into(),
            project: ProjectId::from_uuid(uuid::Uuid::nil()),
            event_type: "recommendation.created".into(),
            occurred_at: at,
            accepted_at: at,
            attributes: BTreeMap::new(),
            content_type: String::new(),
            payload: Bytes::from_static(payload.as_bytes()),
            traceparent: String::new(),
        }
    }

    fn body(event: &Event, body: &Body) -> String {
        String::from_utf8(render(event, body, "ws_xyz789").body.to_vec()).unwrap()
    }

    fn envelope_of_five() -> Body {
        Body::Envelope(vec![
            ("id".into(), EnvelopeSource::EventId),
            ("type".into(), EnvelopeSource::EventType),
            ("timestamp".into(), EnvelopeSource::Timestamp),
            ("workspace_id".into(), EnvelopeSource::ProjectName),
            ("data".into(), EnvelopeSource::Data),
        ])
    }

    #[test]
    fn an_envelope_holds_the_payload_byte_for_byte() {
        let payload = r#" {"potential_savings": 150.00, "b":1, "a":12345678901234567890123, "b":2} "#;
        assert_eq!(
            body(&event(payload), &envelope_of_five()),
            format!(
                r#"{{"id":"evt_abc123","type":"recommendation.created","timestamp":"2024-01-15T10:30:00Z","workspace_id":"ws_xyz789","data":{}}}"#,
                payload.trim()
            )
        );
    }

    #[test]
    fn bytes_that_are_not_json_go_into_an_envelope_as_base64() {
        let mut event = event("\u{1}raw");
        event.content_type = "application/octet-stream".into();
        let envelope = Body::Envelope(vec![("data".into(), EnvelopeSource::Data)]);
        assert_eq!(body(&event, &envelope), r#"{"data":"AXJhdw=="}"#);
    }

    #[test]
    fn a_flat_body_gains_a_type_only_where_it_has_none() {
        for (payload, flat) in [
            (r#"{"a":1}"#, r#"{"type":"recommendation.created","a":1}"#),
            ("{ }", r#"{"type":"recommendation.created" }"#),
            (r#"{"type":"own","a":1}"#, r#"{"type":"own","a":1}"#),
            (r#"{"type":null}"#, r#"{"type":null}"#),
            (
                r#"{"a":{"type":"inner"}}"#,
                r#"{"type":"recommendation.created","a":{"type":"inner"}}"#,
            ),
            ("[1]", "[1]"),
        ] {
            assert_eq!(body(&event(payload), &Body::Flat), flat);
        }
    }

    #[test]
    fn a_raw_body_keeps_its_media_type() {
        let mut event = event("plain");
        event.content_type = "text/plain".into();
        let rendered = render(&event, &Body::Raw, "p");
        assert_eq!(
            (rendered.body.as_ref(), rendered.content_type.as_str()),
            (b"plain".as_slice(), "text/plain")
        );
    }
}
