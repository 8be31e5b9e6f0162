//! `POST /v1/projects/{p}/events` and `…/events/batch`.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_nats::{HeaderMap as NatsHeaders, HeaderValue};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use common::bus::{self, Claim};
use common::failpoint::{self, Point};
use common::http::openapi::ProblemBody;
use common::http::{Code, FieldError, Json, Problem, parse};

use futures::future::join_all;
use proto_schemas::definition::{Project, SchemaCheck};
use proto_schemas::seen::{Digest, SeenEvent};
use proto_schemas::{header, subject};
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{Intake, Publishing};
use crate::accept::{self, Rejection};
use crate::{repeats, schema_check};

/// An event, as it is posted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewEvent)]
pub(super) struct PostedEvent {
    /// Its type.
    #[schema(example = "invoice.paid")]
    r#type: String,
    /// Any JSON; delivered as these bytes.
    #[schema(value_type = serde_json::Value)]
    data: Box<RawValue>,
    /// The producer's own id; one is made up otherwise.
    #[schema(example = "evt_7f3a")]
    id: Option<String>,
    /// RFC 3339; the time of acceptance otherwise.
    #[schema(format = DateTime)]
    timestamp: Option<String>,
    /// What webhooks may ask for, beside the type.
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

/// Several events. A bare array is understood, too.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Batch)]
pub(super) struct PostedBatch {
    /// Each is accepted or refused for itself.
    #[schema(value_type = Vec<PostedEvent>, min_items = 1)]
    events: Vec<Box<RawValue>>,
}

/// An accepted event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AcceptedEvent {
    /// Its id.
    id: String,
    /// Whether this event was posted before, within the last 24 hours; it is delivered once.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

/// What became of one event of a batch, in the order they were posted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BatchItem {
    /// The HTTP status it would have been answered with alone.
    status: u16,
    /// Its id, where it was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    id: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    /// Whether this event was posted before.
    duplicate: bool,
    /// Why it was not accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
    /// The fields that are not right.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

/// What became of each.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BatchResult {
    /// In the order they were posted.
    items: Vec<BatchItem>,
}

/// Publish an event
///
/// 202 means that it is stored, and will be delivered. The same event under the same id is answered the same for 24 hours,
/// and delivered once.
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/events",
    operation_id = "publish_event",
    tag = "Events",
    request_body = PostedEvent,
    responses(
        (status = 202, description = "It is accepted", body = AcceptedEvent),
        (status = 409, description = "Another event has this id", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn publish(
    State(intake): State<Arc<Intake>>,
    Publishing(project): Publishing,
    headers: HeaderMap,
    Json(event): Json<PostedEvent>,
) -> Result<(StatusCode, Json<AcceptedEvent>), Problem> {
    let trace = trace_of(&headers);
    let checked = intake.check(&project, event, trace).await?;
    let claimed = intake.claim(&project, checked).await?;
    let (id, duplicate) = intake.publish(claimed).await?.stored().await?;
    failpoint::reach(Point::PostStored);
    Ok((StatusCode::ACCEPTED, Json(AcceptedEvent { id, duplicate })))
}

/// Publish several events
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/events/batch",
    operation_id = "publish_events",
    tag = "Events",
    request_body = PostedBatch,
    responses(
        (status = 202, description = "All are accepted", body = BatchResult),
        (status = 409, description = "Other events have the ids of all", body = BatchResult),
        (status = 207, description = "Each was accepted or refused, as its item says", body = BatchResult),
        (status = 413, description = "All are too large, or the body is", content(
            (BatchResult = "application/json"), (ProblemBody = "application/problem+json"),
        )),
        (status = 422, description = "All are refused, or the body is not a batch", content(
            (BatchResult = "application/json"), (ProblemBody = "application/problem+json"),
        )),
    )
)]
pub(super) async fn publish_batch(
    State(intake): State<Arc<Intake>>,
    Publishing(project): Publishing,
    headers: HeaderMap,
    Json(body): Json<Box<RawValue>>,
) -> Result<(StatusCode, Json<BatchResult>), Problem> {
    let events: Vec<Box<RawValue>> = match body.get().starts_with('[') {
        true => parse(body.get().as_bytes())?,
        false => parse::<PostedBatch>(body.get().as_bytes())?.events,
    };
    if events.is_empty() || events.len() > intake.max_batch {
        return Err(Problem::field(
            "/events",
            format!("{} events; post 1 to {} at once", events.len(), intake.max_batch),
        ));
    }
    let trace = trace_of(&headers);
    // Ids are claimed all at once; what is claimed is then published in the order of the batch.
    let claiming = events.iter().map(|event| async {
        let event = parse::<PostedEvent>(event.get().as_bytes())?;
        intake
            .claim(&project, intake.check(&project, event, trace).await?)
            .await
    });
    let mut under_way = Vec::with_capacity(events.len());
    for claimed in join_all(claiming).await {
        let published = match claimed {
            Ok(claimed) => intake.publish(claimed).await,
            Err(problem) => Err(problem),
        };
        under_way.push(async { published?.stored().await });
    }
    let items: Vec<BatchItem> = join_all(under_way).await.into_iter().map(BatchItem::of).collect();
    // One status for all only where all have the same: what is accepted must not be posted again.
    let status = match items.first() {
        Some(first) if items.iter().all(|item| item.status == first.status) => {
            StatusCode::from_u16(first.status).unwrap_or(StatusCode::MULTI_STATUS)
        }
        _ => StatusCode::MULTI_STATUS,
    };
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return Err(Problem::from(Code::QueueUnavailable));
    }
    Ok((status, Json(BatchResult { items })))
}

impl BatchItem {
    fn of(published: Result<(String, bool), Problem>) -> Self {
        match published {
            Ok((id, duplicate)) => Self {
                status: StatusCode::ACCEPTED.as_u16(),
                id: Some(id),
                duplicate,
                error: None,
                errors: Vec::new(),
            },
            Err(problem) => Self {
                status: problem.code().status().as_u16(),
                id: None,
                duplicate: false,
                error: Some(problem.detail().unwrap_or(problem.code().name()).to_owned()),
                errors: problem.errors().to_vec(),
            },
        }
    }
}

/// An event that may be published: the message it makes.
struct Checked {
    id: String,
    /// Of what it says, where its producer gave it the id.
    digest: Option<Digest>,
    subject: String,
    headers: NatsHeaders,
    payload: bytes::Bytes,
}

/// An event whose id is its own, and whether that was so before.
struct Claimed {
    event: Checked,
    duplicate: bool,
    /// Its message is stored, and was read: nothing is left to do.
    is_accepted: bool,
}

/// An event on its way to JetStream.
struct Published {
    id: String,
    duplicate: bool,
    /// `None`: it is there already.
    storing: Option<bus::Storing>,
}

impl Published {
    /// Waits until it is accepted: its id, and whether it was there before.
    async fn stored(self) -> Result<(String, bool), Problem> {
        if let Some(storing) = self.storing {
            let stored = storing.stored().await.map_err(not_stored)?;
            // What JetStream takes for another message is not stored, whatever that one was and whosever: so it is not
            // accepted. Our messages give it nothing to compare.
            if stored.duplicate {
                return Err(Problem::from(Code::QueueUnavailable));
            }
        }
        Ok((self.id, self.duplicate))
    }
}

impl Intake {
    /// Takes the event's id, where its producer gave it one. A crash after this leaves the id claimed for what the event
    /// says: the same event takes it again.
    async fn claim(&self, project: &Project, mut event: Checked) -> Result<Claimed, Problem> {
        let (mut duplicate, mut is_accepted) = (false, false);
        if let Some(digest) = event.digest {
            let wanted = SeenEvent { digest, event: None };
            let claim = self.seen.claim(project.id, &event.id, &wanted, 0).await;
            let revision = match claim.map_err(not_stored)? {
                Claim::Made(revision) => revision,
                Claim::Known(known, _) if known.digest != digest => {
                    return Err(Problem::new(Code::Conflict, repeats::conflict(&event.id)));
                }
                Claim::Known(known, revision) => {
                    (duplicate, is_accepted) = (true, known.event.is_some());
                    revision
                }
            };
            event.headers.insert(header::CLAIM, HeaderValue::from(revision));
        }
        Ok(Claimed {
            event,
            duplicate,
            is_accepted,
        })
    }

    /// Hands an event to JetStream.
    async fn publish(&self, claimed: Claimed) -> Result<Published, Problem> {
        let Claimed {
            event,
            duplicate,
            is_accepted,
        } = claimed;
        let storing = match is_accepted {
            true => None,
            false => {
                failpoint::reach(Point::PostChecked);
                let storing = self.bus.publish(event.subject, event.headers, event.payload).await;
                Some(storing.map_err(not_stored)?)
            }
        };
        Ok(Published {
            id: event.id,
            duplicate,
            storing,
        })
    }

    /// Checks an event and makes its message.
    async fn check(&self, project: &Project, event: PostedEvent, trace: Option<&str>) -> Result<Checked, Problem> {
        if event.data.get().len() > self.max_event_bytes {
            return Err(Problem::new(
                Code::BodyTooLarge,
                format!(
                    "`data` has {} bytes, {} are allowed",
                    event.data.get().len(),
                    self.max_event_bytes
                ),
            ));
        }
        let at = |pointer: &'static str| move |rejection: Rejection| Problem::field(pointer, rejection.detail);
        accept::check_event_type(&event.r#type).map_err(at("/type"))?;
        accept::check_attributes(&event.attributes).map_err(at("/attributes"))?;
        let (id, is_given) = match &event.id {
            Some(id) => (accept::checked_id(id).map_err(at("/id"))?, true),
            None => (self.new_id(), false),
        };
        self.check_schema(project, &event).await?;

        let mut headers = NatsHeaders::new();
        headers.insert(header::EVENT_ID, id.as_str());
        if let Some(text) = &event.timestamp {
            accept::parse_time(text).map_err(at("/timestamp"))?;
            headers.insert(header::TIME, text.as_str());
        }
        if !event.attributes.is_empty() {
            // Control characters and everything beyond ASCII are escaped: this text goes into a header.
            let text = serde_json::to_string(&event.attributes).map_err(Problem::internal)?;
            headers.insert(header::ATTRIBUTES, to_ascii(&text));
        }
        if let Some(trace) = trace {
            headers.insert(header::TRACEPARENT, trace);
        }
        if !is_given {
            headers.insert(header::ID_MADE_UP, "true");
        }
        let payload = bytes::Bytes::from(Box::<str>::from(event.data).into_boxed_bytes());
        Ok(Checked {
            id,
            digest: is_given.then(|| repeats::digest(&event.r#type, Some(&headers), &payload)),
            subject: subject::event(&project.name, &event.r#type),
            headers,
            payload,
        })
    }

    /// Refuses what fan-out would reject: a producer that is listening is told at once.
    async fn check_schema(&self, project: &Project, event: &PostedEvent) -> Result<(), Problem> {
        if project.schema_check != SchemaCheck::Reject {
            return Ok(());
        }
        let Some(event_type) = self.definitions.event_type(project, &event.r#type) else {
            return Ok(());
        };
        let faults = schema_check::ask(&event_type, &event.attributes, Some(event.data.get().as_bytes())).await;
        match faults.is_empty() {
            true => Ok(()),
            false => Err(Problem::fields(
                faults
                    .into_iter()
                    .map(|fault| FieldError::at(&fault.pointer, fault.detail))
                    .collect(),
            )),
        }
    }

    /// An id that sorts by time: `evt_` and a UUID version 7.
    fn new_id(&self) -> String {
        let mut random = [0_u8; 10];
        rand::rng().fill_bytes(&mut random);
        let millis = u64::try_from(self.clock.now().as_millisecond()).unwrap_or(0);
        let uuid = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
        format!("evt_{}", uuid.as_simple())
    }
}

fn trace_of(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::TRACEPARENT)?.to_str().ok()
}

fn not_stored(error: bus::Error) -> Problem {
    match error {
        bus::Error::TooLarge => Problem::new(Code::BodyTooLarge, "the event is larger than NATS takes"),
        error => Problem::from(Code::QueueUnavailable).because(error),
    }
}

/// JSON with everything beyond ASCII escaped (RFC 8259 §7).
fn to_ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c.is_ascii() {
            true => out.push(c),
            false => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_in_a_header_is_ascii_and_means_the_same() {
        let text = serde_json::to_string("né 😀 \u{7f}").unwrap();
        let ascii = to_ascii(&text);
        assert!(ascii.is_ascii());
        assert_eq!(serde_json::from_str::<String>(&ascii).unwrap(), "né 😀 \u{7f}");
    }
}
