//! Decides what a message on `events.>` is: an event, or something to be set aside with a reason. Pure: the same message
//! gives the same answer, and the same event key, however often it is read.

use std::collections::BTreeMap;

use bytes::Bytes;
use common::bus::Message;
use common::model::limits::{self, ATTRIBUTES_BYTES_MAX, ATTRIBUTES_MAX};
use jiff::Timestamp;
use proto_schemas::definition::Project;
use proto_schemas::event::{Event, is_json};
use proto_schemas::id::{EVENT_ID_MAX, EVENT_TYPE_MAX, EventKey, is_event_id, is_event_type};
use proto_schemas::operational::{PREFIX, is_operational};
use proto_schemas::{header, subject};

use crate::cloudevents;

/// Why a message cannot become an event; the closed list of the log, the API and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The subject has no project or no event type.
    Subject,
    /// There is no such project.
    UnknownProject,
    /// The event type is not one.
    EventType,
    /// The body is larger than allowed, or the event with all it causes than a message of NATS may be.
    TooLarge,
    /// The body is not the JSON it should be.
    MalformedJson,
    /// The body or headers say CloudEvents and are not.
    MalformedCloudEvent,
    /// The id is not one.
    EventId,
    /// The time is not RFC 3339.
    Time,
    /// The media type is none that could stand in a header.
    ContentType,
    /// The attributes are not a small object of strings.
    Attributes,
    /// The schema of its type refuses it.
    Schema,
    /// Another event has its id.
    Conflict,
    /// Our own fault: working on it ended the process, or a check, again and again.
    Poison,
}

impl Reason {
    /// The word in tables, JSON and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::UnknownProject => "unknown_project",
            Self::EventType => "event_type",
            Self::TooLarge => "too_large",
            Self::MalformedJson => "malformed_json",
            Self::MalformedCloudEvent => "malformed_cloudevent",
            Self::EventId => "event_id",
            Self::Time => "time",
            Self::ContentType => "content_type",
            Self::Attributes => "attributes",
            Self::Schema => "schema",
            Self::Conflict => "conflict",
            Self::Poison => "poison",
        }
    }
}

/// Longest detail of a rejection, in bytes. It quotes what a producer wrote, escaped, and travels in messages and e-mails.
pub const DETAIL_MAX: usize = 4096;

/// Longest media type, in bytes: RFC 6838 §4.2 has 127 for each of its two parts.
pub const CONTENT_TYPE_MAX: usize = 256;

/// A message that cannot become an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The word.
    pub reason: Reason,
    /// What is wrong with this message, and what to do; at most [`DETAIL_MAX`] bytes.
    pub detail: String,
}

impl Rejection {
    /// Cuts the detail: whatever a producer wrote, the rejection fits into a message.
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        detail.truncate(detail.floor_char_boundary(DETAIL_MAX));
        Self { reason, detail }
    }
}

/// What a producer gave, before it is checked as a whole.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) id: Option<String>,
    pub(crate) time: Option<String>,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) content_type: String,
    pub(crate) payload: Bytes,
}

/// Decides about one message. `project` is what the subject's project token names, if anything.
///
/// # Errors
/// [`Rejection`] with the reason.
pub fn decide(message: &Message, project: Option<&Project>, max_event_bytes: usize) -> Result<Event, Rejection> {
    let Some((project_token, event_type)) = subject::parse_event(&message.subject) else {
        return Err(Rejection::new(
            Reason::Subject,
            format!(
                "published on `{}`; events go on `events.<project>.<event type>`",
                message.subject
            ),
        ));
    };
    let project = project.ok_or_else(|| {
        Rejection::new(
            Reason::UnknownProject,
            format!("there is no project `{project_token}`; create it first"),
        )
    })?;
    match subject::is_operational(&message.subject) {
        true => check_own_type(event_type)?,
        false => check_event_type(event_type)?,
    }
    check_size(message.payload.len(), max_event_bytes)?;

    let parts = match header_of(message, header::CONTENT_TYPE).unwrap_or_default() {
        structured if cloudevents::is_structured(structured) => cloudevents::structured(&message.payload)?,
        content_type if cloudevents::is_binary(message) => cloudevents::binary(message, content_type),
        content_type => Parts {
            attributes: match header_of(message, header::ATTRIBUTES) {
                Some(text) => parse_attributes(text)?,
                None => BTreeMap::new(),
            },
            time: header_of(message, header::TIME).map(str::to_owned),
            id: None,
            content_type: content_type.to_owned(),
            payload: message.payload.clone(),
        },
    };
    check_attributes(&parts.attributes)?;
    check_content_type(&parts.content_type)?;
    if is_json(&parts.content_type) {
        check_json(&parts.payload)?;
    }

    let key = EventKey::of_message(message.stored_at, message.sequence);
    let given = parts.id.as_deref().or_else(|| header_of(message, header::EVENT_ID));
    let id = match (given, header_of(message, header::MESSAGE_ID)) {
        (Some(id), _) => checked_id(id)?,
        (None, Some(message_id)) => {
            checked_id(header::event_id(message_id, &[&project.name, &project.id.to_string()]))?
        }
        (None, None) => key.derived_event_id(),
    };
    Ok(Event {
        key,
        id,
        project: project.id,
        event_type: event_type.to_owned(),
        occurred_at: match parts.time {
            Some(text) => parse_time(&text)?,
            None => message.stored_at,
        },
        accepted_at: message.stored_at,
        attributes: parts.attributes,
        content_type: parts.content_type,
        payload: parts.payload,
        traceparent: header_of(message, header::TRACEPARENT)
            .filter(|text| is_traceparent(text))
            .unwrap_or_default()
            .to_owned(),
    })
}

pub(crate) fn header_of<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(AsRef::as_ref)
}

/// Whether Posthaste itself may publish the type.
fn check_own_type(event_type: &str) -> Result<(), Rejection> {
    match is_event_type(event_type) && is_operational(event_type) {
        true => Ok(()),
        false => Err(Rejection::new(
            Reason::EventType,
            format!("only Posthaste publishes on `events._posthaste.…`, and only types that begin with `{PREFIX}`"),
        )),
    }
}

/// # Errors
/// [`Reason::EventType`]
pub fn check_event_type(event_type: &str) -> Result<(), Rejection> {
    match is_event_type(event_type) {
        true if is_operational(event_type) => Err(Rejection::new(
            Reason::EventType,
            format!("types that begin with `{PREFIX}` are what Posthaste tells of itself; choose another"),
        )),
        true => Ok(()),
        false => Err(Rejection::new(
            Reason::EventType,
            format!(
                "`{}` is not an event type: words of A-Z a-z 0-9 _ - joined by dots, at most {EVENT_TYPE_MAX} bytes",
                event_type.chars().take(200).collect::<String>()
            ),
        )),
    }
}

/// # Errors
/// [`Reason::TooLarge`]
pub fn check_size(bytes: usize, max: usize) -> Result<(), Rejection> {
    match bytes <= max {
        true => Ok(()),
        false => Err(Rejection::new(
            Reason::TooLarge,
            format!("the event has {bytes} bytes, {max} are allowed"),
        )),
    }
}

/// # Errors
/// [`Reason::MalformedJson`]
pub fn check_json(payload: &[u8]) -> Result<(), Rejection> {
    let wrong = |what: String| {
        Rejection::new(
            Reason::MalformedJson,
            format!("the body is not JSON: {what}; if it is not meant to be, say so in the header Content-Type"),
        )
    };
    let text = std::str::from_utf8(payload).map_err(|error| wrong(error.to_string()))?;
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map(drop)
        .map_err(|error| wrong(error.to_string()))
}

/// # Errors
/// [`Reason::EventId`]
pub fn checked_id(id: &str) -> Result<String, Rejection> {
    match is_event_id(id) {
        true => Ok(id.to_owned()),
        false => Err(Rejection::new(
            Reason::EventId,
            format!(
                "`{}` is not an event id: 1 to {EVENT_ID_MAX} of A-Z a-z 0-9 _ - (on NATS: the header Posthaste-Id; or Nats-Msg-Id, which may have `<project>:` in front)",
                id.chars().take(200).collect::<String>()
            ),
        )),
    }
}

/// # Errors
/// [`Reason::Time`]
pub fn parse_time(text: &str) -> Result<Timestamp, Rejection> {
    // Of RFC 3339 a year has four digits; jiff reads more, and years that Postgres does not know.
    let is_plain = text
        .get(..4)
        .is_some_and(|year| year.bytes().all(|byte| byte.is_ascii_digit()));
    let time = is_plain.then(|| text.parse().ok()).flatten();
    time.ok_or_else(|| {
        Rejection::new(
            Reason::Time,
            format!(
                "`{}` is not an RFC 3339 instant, like 2024-01-15T10:30:00Z",
                text.chars().take(64).collect::<String>()
            ),
        )
    })
}

/// # Errors
/// [`Reason::Attributes`]
pub fn check_attributes(attributes: &BTreeMap<String, String>) -> Result<(), Rejection> {
    if !limits::attributes_fit(attributes) {
        let bytes = limits::attributes_bytes(attributes);
        return Err(Rejection::new(
            Reason::Attributes,
            format!(
                "{} attributes of {bytes} bytes; at most {ATTRIBUTES_MAX} of {ATTRIBUTES_BYTES_MAX} bytes together are allowed",
                attributes.len()
            ),
        ));
    }
    Ok(())
}

/// A media type goes out again as a header, and travels with every delivery.
fn check_content_type(content_type: &str) -> Result<(), Rejection> {
    let is_visible = content_type.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    match is_visible && content_type.len() <= CONTENT_TYPE_MAX {
        true => Ok(()),
        false => Err(Rejection::new(
            Reason::ContentType,
            format!(
                "the media type has {} bytes, and may have {CONTENT_TYPE_MAX} of visible ASCII",
                content_type.len()
            ),
        )),
    }
}

fn parse_attributes(text: &str) -> Result<BTreeMap<String, String>, Rejection> {
    serde_json::from_str(text).map_err(|error| {
        Rejection::new(
            Reason::Attributes,
            format!("{} must be a JSON object of strings: {error}", header::ATTRIBUTES),
        )
    })
}

/// `00-<32 hex>-<16 hex>-<2 hex>` (W3C Trace Context §3.2.2). Anything else is left out: a wrong trace must not cost an
/// event.
fn is_traceparent(text: &str) -> bool {
    text.len() == 55
        && text.bytes().enumerate().all(|(i, b)| match i {
            2 | 35 | 52 => b == b'-',
            _ => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto_schemas::definition::SchemaCheck;
    use proto_schemas::id::ProjectId;

    fn project() -> Project {
        Project {
            id: ProjectId::from_uuid(uuid::Uuid::from_u128(9)),
            name: "acme".into(),
            deleted: false,
            schema_check: SchemaCheck::Off,
            catalogue: None,
            event_attributes: Vec::new(),
        }
    }

    fn message(subject: &str, headers: &[(&str, &str)], payload: &'static str) -> Message {
        Message {
            subject: subject.into(),
            headers: (!headers.is_empty()).then(|| {
                let mut map = async_nats::HeaderMap::new();
                headers.iter().for_each(|(name, value)| map.insert(*name, *value));
                map
            }),
            payload: Bytes::from_static(payload.as_bytes()),
            sequence: 42,
            stored_at: "2024-01-15T10:30:00.123456Z".parse().unwrap(),
            handed_out: 1,
        }
    }

    fn rejected(message: &Message) -> (Reason, String) {
        let rejection = decide(message, Some(&project()), 100).unwrap_err();
        (rejection.reason, rejection.detail)
    }

    #[test]
    fn a_plain_publish_is_an_event() {
        let event = decide(
            &message("events.acme.invoice.paid", &[], r#"{"a": 1.50}"#),
            Some(&project()),
            100,
        )
        .unwrap();
        assert_eq!(event.event_type, "invoice.paid");
        assert_eq!(event.payload.as_ref(), br#"{"a": 1.50}"#);
        assert_eq!(event.id, event.key.derived_event_id());
        assert_eq!(event.occurred_at, event.accepted_at);
        assert_eq!(
            event.key.accepted_at().as_millisecond(),
            event.accepted_at.as_millisecond()
        );
    }

    #[test]
    fn reading_a_message_again_gives_the_same_event() {
        let message = message("events.acme.a", &[("Nats-Msg-Id", "acme:order-1")], "1");
        let first = decide(&message, Some(&project()), 100).unwrap();
        let again = Message {
            handed_out: 7,
            ..message
        };
        assert_eq!(first, decide(&again, Some(&project()), 100).unwrap());
        assert_eq!(first.id, "order-1");
    }

    #[test]
    fn headers_give_id_time_attributes_and_trace() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = [
            ("Nats-Msg-Id", "order_1"),
            ("Posthaste-Time", "2024-01-01T00:00:00+01:00"),
            ("Posthaste-Attributes", r#"{"region":"eu"}"#),
            ("traceparent", trace),
        ];
        let event = decide(&message("events.acme.a", &headers, "{}"), Some(&project()), 100).unwrap();
        assert_eq!(
            (event.id.as_str(), event.attributes["region"].as_str()),
            ("order_1", "eu")
        );
        assert_eq!(event.occurred_at.to_string(), "2023-12-31T23:00:00Z");
        assert_eq!(event.traceparent, trace);
    }

    #[test]
    fn a_wrong_trace_does_not_cost_the_event() {
        let event = decide(
            &message("events.acme.a", &[("traceparent", "zz")], "{}"),
            Some(&project()),
            100,
        )
        .unwrap();
        assert_eq!(event.traceparent, "");
    }

    #[test]
    fn bytes_that_say_they_are_not_json_are_taken_as_they_are() {
        let raw = message(
            "events.acme.a",
            &[("Content-Type", "application/octet-stream")],
            "\u{1}{",
        );
        assert_eq!(decide(&raw, Some(&project()), 100).unwrap().payload.len(), 2);
    }

    #[test]
    fn every_rejection_names_its_reason_and_the_fix() {
        let long = "a".repeat(200);
        for (subject, headers, payload, reason, says) in [
            (
                "events.acme",
                vec![],
                "{}",
                Reason::Subject,
                "events.<project>.<event type>",
            ),
            ("events.acme.a b", vec![], "{}", Reason::EventType, "joined by dots"),
            ("events.acme.a", vec![], "{\"a\":", Reason::MalformedJson, "line 1"),
            ("events.acme.a", vec![], "", Reason::MalformedJson, "Content-Type"),
            (
                "events.acme.a",
                vec![("Nats-Msg-Id", "a.b")],
                "{}",
                Reason::EventId,
                "1 to 64",
            ),
            (
                "events.acme.a",
                vec![("Nats-Msg-Id", long.as_str())],
                "{}",
                Reason::EventId,
                "1 to 64",
            ),
            (
                "events.acme.a",
                vec![("Posthaste-Time", "-009000-01-01T00:00:00Z")],
                "{}",
                Reason::Time,
                "RFC 3339",
            ),
            (
                "events.acme.a",
                vec![("Posthaste-Time", "yesterday")],
                "{}",
                Reason::Time,
                "RFC 3339",
            ),
            (
                "events.acme.a",
                vec![("Posthaste-Attributes", "[1]")],
                "{}",
                Reason::Attributes,
                "object of strings",
            ),
            (
                "events.acme.a",
                vec![("Posthaste-Id", "acme:a")],
                "{}",
                Reason::EventId,
                "Posthaste-Id",
            ),
            (
                "events.acme.a",
                vec![("Content-Type", "text/plain; charset=\u{7f}")],
                "{}",
                Reason::ContentType,
                "visible ASCII",
            ),
        ] {
            let (found, detail) = rejected(&message(subject, &headers, payload));
            assert_eq!(found, reason, "{subject}: {detail}");
            assert!(detail.contains(says), "{detail}");
        }
        let nobody = decide(&message("events.nobody.a", &[], "{}"), None, 100).unwrap_err();
        assert_eq!(nobody.reason, Reason::UnknownProject);
        let large = decide(&message("events.acme.a", &[], "[1,2,3]"), Some(&project()), 3).unwrap_err();
        assert_eq!(large.reason, Reason::TooLarge);
    }

    #[test]
    fn an_id_of_the_projects_own_goes_before_the_one_that_nats_compares() {
        let headers = [("Nats-Msg-Id", "acme:other"), ("Posthaste-Id", "order-1")];
        let event = decide(&message("events.acme.a", &headers, "1"), Some(&project()), 100).unwrap();
        assert_eq!(event.id, "order-1");
    }

    #[test]
    fn a_detail_is_cut_whatever_a_producer_wrote() {
        // serde quotes it, and escapes what is not printed: six bytes for one.
        let quoted = format!("\"{}\"", "\u{7f}".repeat(180_000));
        let long = "é".repeat(DETAIL_MAX);
        for message in [
            message("events.acme.a", &[("Posthaste-Attributes", &quoted)], "1"),
            Message {
                payload: Bytes::from(quoted.clone()),
                ..message("events.acme.a", &[("Content-Type", "application/cloudevents+json")], "")
            },
            message(&format!("events.{long}"), &[], "1"),
        ] {
            let detail = decide(&message, Some(&project()), 1 << 20).unwrap_err().detail;
            assert!(
                (DETAIL_MAX - 4..=DETAIL_MAX).contains(&detail.len()),
                "{}",
                detail.len()
            );
        }
    }

    #[test]
    fn what_travels_with_an_event_is_small() {
        let media_type = |bytes: usize| format!("text/{}", "x".repeat(bytes - 5));
        let decided = |content_type: &str| {
            decide(
                &message("events.acme.a", &[("Content-Type", content_type)], "1"),
                Some(&project()),
                100,
            )
        };
        assert_eq!(
            decided(&media_type(CONTENT_TYPE_MAX)).unwrap().content_type.len(),
            CONTENT_TYPE_MAX
        );
        let refused = decided(&media_type(CONTENT_TYPE_MAX + 1)).unwrap_err();
        assert_eq!(refused.reason, Reason::ContentType);
        assert!(refused.detail.contains("257 bytes"), "{}", refused.detail);
        // In a CloudEvent it is a member of the body.
        let body = format!(
            r#"{{"specversion":"1.0","id":"1","datacontenttype":"{}","data":"x"}}"#,
            media_type(CONTENT_TYPE_MAX + 1)
        );
        let cloud_event = Message {
            payload: Bytes::from(body),
            ..message("events.acme.a", &[("Content-Type", "application/cloudevents+json")], "")
        };
        let refused = decide(&cloud_event, Some(&project()), 1000).unwrap_err();
        assert_eq!(refused.reason, Reason::ContentType);

        let attributes = |count: usize, bytes: usize| {
            let all: BTreeMap<_, _> = (0..count)
                .map(|n| (format!("a{n:02}"), "x".repeat(bytes - 3)))
                .collect();
            serde_json::to_string(&all).unwrap()
        };
        for (count, bytes, good) in [(32, 128, true), (33, 10, false), (1, 4096, true), (1, 4097, false)] {
            let text = attributes(count, bytes);
            for headers in [
                vec![("Posthaste-Attributes", text.as_str())],
                vec![("Posthaste-Attributes", text.as_str()), ("Nats-Msg-Id", "a")],
            ] {
                let decided = decide(&message("events.acme.a", &headers, "1"), Some(&project()), 100);
                let found = decided.map(|event| event.attributes.len()).map_err(|it| it.reason);
                assert_eq!(
                    found,
                    if good { Ok(count) } else { Err(Reason::Attributes) },
                    "{count} of {bytes}"
                );
            }
        }
        // In binary mode they are headers, and as many.
        let value = "x".repeat(4096);
        let headers = [("ce-specversion", "1.0"), ("ce-source", value.as_str())];
        let refused = decide(&message("events.acme.a", &headers, "1"), Some(&project()), 100).unwrap_err();
        assert_eq!(refused.reason, Reason::Attributes);
    }
}
