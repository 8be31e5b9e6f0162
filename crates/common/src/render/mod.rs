//! Event and webhook → request body. Pure, so that a body shown in the log can be made again.
//!
//! A producer's payload goes out as the bytes it came in; bodies are put together around it, never by parsing it and
//! writing it again, which would lose number precision, key order and duplicate keys. Templates alone look into it.
//!
//! - [`Renderer`]: what a definition says about bodies, compiled; made when a definition changes, never per event
//! - [`Template`]: JSON whose strings hold expressions
//! - [`Variables`]: what a webhook has its expressions find besides the event
//! - [`Placeholders`]: texts in url and headers that stand for expressions
//! - [`Expressions`]: attributes that an event gets from its payload

mod expression;
mod expressions;
mod json;
mod placeholders;
mod plain;
mod template;
mod variables;

use bytes::Bytes;
use proto_schemas::definition::Body;

pub use self::expression::{FUEL, Failure, Fault, NAMES, Subject, VARIABLES};
pub use self::expressions::Expressions;
pub use self::json::OUTPUT_MAX;
pub use self::placeholders::{PLACEHOLDER_VALUE_MAX, PlaceholderError, Placeholders};
pub use self::template::{DEPTH_MAX, Error, Missing, TEMPLATE_MAX, Template};
pub use self::variables::{MASK, Variables};

/// A request body and its media type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The bytes that are signed and sent.
    pub body: Bytes,
    /// For `Content-Type`.
    pub content_type: String,
}

const JSON: &str = "application/json";

/// How a webhook's bodies are made, ready for events.
#[derive(Debug)]
pub struct Renderer(Kind);

#[derive(Debug)]
enum Kind {
    Plain(Body),
    Template(Box<Template>),
}

impl Renderer {
    /// Compiles what a definition says.
    ///
    /// # Errors
    /// [`Error`] where a template cannot be compiled.
    pub fn compile(body: &Body) -> Result<Self, Error> {
        Ok(Self(match body {
            Body::Template(text) => Kind::Template(Box::new(Template::compile(text)?)),
            body => Kind::Plain(body.clone()),
        }))
    }

    /// Makes the body of every request that delivers an event.
    ///
    /// # Errors
    /// [`Failure`] where a template reaches a limit; another attempt would come to the same.
    pub fn render(&self, subject: &Subject<'_>) -> Result<Rendered, Failure> {
        Ok(match &self.0 {
            Kind::Plain(body) => plain(subject, body),
            Kind::Template(template) => json(template.render(subject)?.into()),
        })
    }

    /// Makes the body, and tells what a template looked for in the event and did not find.
    ///
    /// # Errors
    /// As [`Renderer::render`].
    pub fn preview(&self, subject: &Subject<'_>) -> Result<(Rendered, Vec<Missing>), Failure> {
        Ok(match &self.0 {
            Kind::Plain(body) => (plain(subject, body), Vec::new()),
            Kind::Template(template) => {
                let (body, missing) = template.preview(subject)?;
                (json(body.into()), missing)
            }
        })
    }
}

fn json(body: Bytes) -> Rendered {
    Rendered {
        body,
        content_type: JSON.to_owned(),
    }
}

fn plain(subject: &Subject<'_>, body: &Body) -> Rendered {
    let event = subject.event;
    match body {
        Body::Envelope(members) => json(plain::envelope(event, members, subject.project)),
        Body::Flat if event.is_json() => json(plain::flat(event)),
        Body::Base64 => Rendered {
            body: plain::base64(&event.payload).into(),
            content_type: "text/plain".to_owned(),
        },
        Body::CloudEvents => Rendered {
            body: plain::cloud_event(event, subject.project),
            content_type: "application/cloudevents+json".to_owned(),
        },
        Body::Flat | Body::Raw | Body::Template(_) => Rendered {
            body: event.payload.clone(),
            content_type: match event.content_type.as_str() {
                "" => JSON.to_owned(),
                content_type => content_type.to_owned(),
            },
        },
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod plain_tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use proto_schemas::definition::EnvelopeSource;
    use proto_schemas::event::Event;
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

    fn rendered(event: &Event, body: &Body) -> Rendered {
        Renderer::compile(body)
            .unwrap()
            .render(&Subject::new(event, "ws_xyz789", &[]))
            .unwrap()
    }

    fn body(event: &Event, body: &Body) -> String {
        String::from_utf8(rendered(event, body).body.to_vec()).unwrap()
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
        let rendered = rendered(&event, &Body::Raw);
        assert_eq!(
            (rendered.body.as_ref(), rendered.content_type.as_str()),
            (b"plain".as_slice(), "text/plain")
        );
    }
}
