//! Accepted events.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proto_schemas::id::{EventKey, ProjectId, WebhookId};
use sqlx::query_as;
use sqlx::types::Json;
use uuid::Uuid;

use crate::time::from_sql;
use crate::{Connection, Error};

/// An event, without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Identity.
    pub key: EventKey,
    /// Identity for receivers.
    pub id: String,
    /// `invoice.paid`
    pub event_type: String,
    /// When it happened, by the producer's word.
    pub occurred_at: Timestamp,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// What webhooks can be narrowed by.
    pub attributes: BTreeMap<String, String>,
    /// Media type of the payload; empty means `application/json`.
    pub content_type: String,
    /// Size of the payload, in bytes.
    pub size: u64,
    /// The webhooks a delivery was made for.
    pub owed: Vec<WebhookId>,
    /// The webhooks that were skipped, and why.
    pub skipped: Vec<(WebhookId, String)>,
    /// What its type's schema has against it.
    pub warnings: Vec<String>,
}

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct EventFilter<'a> {
    /// Of exactly this type.
    pub event_type: Option<&'a str>,
    /// Accepted at or after; to the millisecond.
    pub since: Option<Timestamp>,
    /// Accepted before; to the millisecond.
    pub until: Option<Timestamp>,
}

struct Row {
    key: Uuid,
    id: String,
    event_type: String,
    occurred_at: time::OffsetDateTime,
    accepted_at: time::OffsetDateTime,
    attributes: Option<Json<BTreeMap<String, String>>>,
    content_type: String,
    size: i32,
    owed: Vec<Uuid>,
    skipped: Vec<Uuid>,
    skip_reasons: Vec<String>,
    warnings: Vec<String>,
}

impl From<Row> for Event {
    fn from(row: Row) -> Self {
        Self {
            key: EventKey::from_uuid(row.key),
            id: row.id,
            event_type: row.event_type,
            occurred_at: from_sql(row.occurred_at),
            accepted_at: from_sql(row.accepted_at),
            attributes: row.attributes.map(|attributes| attributes.0).unwrap_or_default(),
            content_type: row.content_type,
            size: row.size.unsigned_abs().into(),
            owed: row.owed.into_iter().map(WebhookId::from_uuid).collect(),
            skipped: row
                .skipped
                .into_iter()
                .map(WebhookId::from_uuid)
                .zip(row.skip_reasons)
                .collect(),
            warnings: row.warnings,
        }
    }
}

/// Up to `limit` events accepted before the event `before`, newest first.
///
/// # Errors
/// Any [`Error`].
pub async fn events(
    connection: &mut Connection,
    project: ProjectId,
    filter: &EventFilter<'_>,
    before: Option<EventKey>,
    limit: u32,
) -> Result<Vec<Event>, Error> {
    let rows = query_as!(
        Row,
        r#"-- log::events
         SELECT key, id, type AS event_type, occurred_at, accepted_at,
                attributes AS "attributes: Json<BTreeMap<String, String>>", content_type,
                octet_length(payload) AS "size!", owed, skipped, skip_reasons, warnings
         FROM events
         WHERE project_id = $1
           AND ($2::text IS NULL OR type = $2)
           AND ($3::uuid IS NULL OR key >= $3)
           AND ($4::uuid IS NULL OR key < $4)
           AND ($5::uuid IS NULL OR key < $5)
         ORDER BY key DESC LIMIT $6"#,
        project.as_uuid(),
        filter.event_type,
        filter.since.map(|instant| EventKey::floor(instant).as_uuid()),
        filter.until.map(|instant| EventKey::floor(instant).as_uuid()),
        before.map(EventKey::as_uuid),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Event::from).collect())
}

/// The newest event of that id.
///
/// # Errors
/// Any [`Error`].
pub async fn event(connection: &mut Connection, project: ProjectId, id: &str) -> Result<Option<Event>, Error> {
    let row = query_as!(
        Row,
        r#"-- log::event
         SELECT key, id, type AS event_type, occurred_at, accepted_at,
                attributes AS "attributes: Json<BTreeMap<String, String>>", content_type,
                octet_length(payload) AS "size!", owed, skipped, skip_reasons, warnings
         FROM events WHERE project_id = $1 AND id = $2
         ORDER BY key DESC LIMIT 1"#,
        project.as_uuid(),
        id,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Event::from))
}

/// The producer's bytes.
///
/// # Errors
/// Any [`Error`].
pub async fn payload(connection: &mut Connection, key: EventKey) -> Result<Option<Vec<u8>>, Error> {
    Ok(sqlx::query_scalar!(
        "-- log::payload
         SELECT payload FROM events WHERE key = $1",
        key.as_uuid(),
    )
    .fetch_optional(connection)
    .await?)
}

/// Most events of one id that a filter by id takes in. A producer may use an id again once the streams have forgotten it.
const SAME_ID_MAX: i64 = 100;

/// The keys of the events of that id, newest first; commonly one.
///
/// # Errors
/// Any [`Error`].
pub async fn event_keys(connection: &mut Connection, project: ProjectId, id: &str) -> Result<Vec<EventKey>, Error> {
    let keys = sqlx::query_scalar!(
        "-- log::event_keys
         SELECT key FROM events WHERE project_id = $1 AND id = $2 ORDER BY key DESC LIMIT $3",
        project.as_uuid(),
        id,
        SAME_ID_MAX,
    )
    .fetch_all(connection)
    .await?;
    Ok(keys.into_iter().map(EventKey::from_uuid).collect())
}
