//! Bodies that are put together around the payload's own bytes.

use std::collections::BTreeMap;

use base64::Engine as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use proto_schemas::definition::EnvelopeSource;
use proto_schemas::event::Event;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The payload in an object of these members.
pub(super) fn envelope(event: &Event, members: &[(String, EnvelopeSource)], project_name: &str) -> Bytes {
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
            EnvelopeSource::Data => put_string(&mut out, &base64(&event.payload)),
        }
    }
    out.put_u8(b'}');
    out.freeze()
}

/// The payload with `type` as its first member, unless it is no object or has a `type` of its own.
pub(super) fn flat(event: &Event) -> Bytes {
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

/// The event as a CloudEvents 1.0 document (JSON Event Format 1.0.2 §3). Attributes go along as extensions where their
/// names allow it (CloudEvents 1.0.2 §3.1).
pub(super) fn cloud_event(event: &Event, project_name: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(event.payload.len() + 512);
    out.put_slice(b"{\"specversion\":\"1.0\"");
    let mut member = |name: &str, value: &str| {
        out.put_u8(b',');
        put_string(&mut out, name);
        out.put_u8(b':');
        put_string(&mut out, value);
    };
    member("id", &event.id);
    member("source", &format!("/projects/{project_name}"));
    member("type", &event.event_type);
    member("time", &event.occurred_at.to_string());
    match event.content_type.as_str() {
        "" => member("datacontenttype", "application/json"),
        content_type => member("datacontenttype", content_type),
    }
    for (name, value) in extensions(&event.attributes) {
        member(name, value);
    }
    match event.is_json() {
        true => {
            out.put_slice(b",\"data\":");
            out.put_slice(event.payload.trim_ascii());
        }
        false => {
            out.put_slice(b",\"data_base64\":");
            put_string(&mut out, &base64(&event.payload));
        }
    }
    out.put_u8(b'}');
    out.freeze()
}

/// Context attributes that the document gives itself. `subject` and `dataschema` are the producer's to give.
const OWN: [&str; 8] = [
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "datacontenttype",
    "data",
    "data_base64",
];

fn extensions(attributes: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    attributes
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, value)| {
            let legal = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            // A string without control characters (§3.2); `subject` and `dataschema` must not be empty.
            let empty = value.is_empty() && ["subject", "dataschema"].contains(name);
            legal && !empty && !OWN.contains(name) && !value.chars().any(char::is_control)
        })
}

/// Standard Base64 (RFC 4648 §4).
pub(super) fn base64(payload: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(payload)
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
