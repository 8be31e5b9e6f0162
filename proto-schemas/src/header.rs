//! Headers of NATS messages. A producer may set any of them; none is required.

/// The producer's own id for the event. JetStream does not know this header, and so drops nothing by it: whether an event
/// was there before is ingest's to judge, within its project.
pub const EVENT_ID: &str = "Posthaste-Id";
/// The producer's own id for the event, where [`EVENT_ID`] gives none; also what JetStream drops duplicates by, within the
/// stream's short window and **over all projects**, whoever has published them. Producers therefore put the project in
/// front, `<project>:<id>`; the front part is taken off again.
pub const MESSAGE_ID: &str = "Nats-Msg-Id";
/// RFC 3339 instant at which the event happened. Absent: when JetStream stored it.
pub const TIME: &str = "Posthaste-Time";
/// A JSON object of strings that webhooks can be narrowed by.
pub const ATTRIBUTES: &str = "Posthaste-Attributes";
/// Media type of the body. Absent: `application/json`.
pub const CONTENT_TYPE: &str = "Content-Type";
/// W3C Trace Context.
pub const TRACEPARENT: &str = "traceparent";

/// Set by ingest on events whose id it made up: nobody can repeat them.
pub const ID_MADE_UP: &str = "Posthaste-Id-Made-Up";
/// Set by ingest on events whose id it has claimed: the claim's revision.
pub const CLAIM: &str = "Posthaste-Claim";

/// The event id in a value of [`MESSAGE_ID`]: without `<project>:`, where the producer put it in front.
#[must_use]
pub fn event_id<'a>(message_id: &'a str, project_names: &[&str]) -> &'a str {
    project_names
        .iter()
        .find_map(|name| message_id.strip_prefix(name)?.strip_prefix(':'))
        .unwrap_or(message_id)
}
