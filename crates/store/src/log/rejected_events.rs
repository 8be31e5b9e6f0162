//! Messages that could not become events.

use jiff::Timestamp;
use proto_schemas::id::{EventKey, ProjectId};
use sqlx::query_as;
use uuid::Uuid;

use crate::time::from_sql;
use crate::{Connection, Error};

/// A message that could not become an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedEvent {
    /// Identity of the message.
    pub key: EventKey,
    /// Whose it is, where that could be told.
    pub project: Option<ProjectId>,
    /// The subject it was published on.
    pub subject: String,
    /// Why, in one word.
    pub reason: String,
    /// What is wrong and what to do about it.
    pub detail: String,
    /// The first bytes of the body.
    pub payload: Vec<u8>,
    /// The whole body's size, in bytes.
    pub payload_size: u64,
    /// When it came.
    pub received_at: Timestamp,
}

struct Row {
    key: Uuid,
    project_id: Option<Uuid>,
    subject: String,
    reason: String,
    detail: String,
    payload: Vec<u8>,
    payload_size: i64,
    received_at: time::OffsetDateTime,
}

impl From<Row> for RejectedEvent {
    fn from(row: Row) -> Self {
        Self {
            key: EventKey::from_uuid(row.key),
            project: row.project_id.map(ProjectId::from_uuid),
            subject: row.subject,
            reason: row.reason,
            detail: row.detail,
            payload: row.payload,
            payload_size: row.payload_size.unsigned_abs(),
            received_at: from_sql(row.received_at),
        }
    }
}

/// Up to `limit` rejected events that came before `before`, newest first: of one project, or of all, those that name
/// no project included.
///
/// # Errors
/// Any [`Error`].
pub async fn rejected_events(
    connection: &mut Connection,
    project: Option<ProjectId>,
    before: Option<EventKey>,
    limit: u32,
) -> Result<Vec<RejectedEvent>, Error> {
    let rows = query_as!(
        Row,
        "-- log::rejected_events
         SELECT key, project_id, subject, reason, detail, payload, payload_size, received_at
         FROM rejected_events
         WHERE ($1::uuid IS NULL OR project_id = $1) AND ($2::uuid IS NULL OR key < $2)
         ORDER BY key DESC LIMIT $3",
        project.map(ProjectId::as_uuid),
        before.map(EventKey::as_uuid),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(RejectedEvent::from).collect())
}
