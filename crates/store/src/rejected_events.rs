//! `rejected_events`: messages that could not become events, with the reason. Written once by retry-scheduler.

use proto_schemas::id::EventKey;
use proto_schemas::ledger::EventRejected;

use crate::time::to_sql;
use crate::value::text;
use crate::{Connection, Error};

/// Adds the messages that are not there yet; tells which those were.
///
/// # Errors
/// Any [`Error`].
pub async fn insert(connection: &mut Connection, facts: &[&EventRejected]) -> Result<Vec<EventKey>, Error> {
    if facts.is_empty() {
        return Ok(Vec::new());
    }
    let mut facts = facts.to_vec();
    facts.sort_by_key(|fact| fact.key);

    let keys: Vec<_> = facts.iter().map(|fact| fact.key.as_uuid()).collect();
    let projects: Vec<_> = facts
        .iter()
        .map(|fact| fact.project.map(|project| project.as_uuid()))
        .collect();
    let subjects: Vec<_> = facts.iter().map(|fact| text(&fact.subject)).collect();
    let reasons: Vec<_> = facts.iter().map(|fact| text(&fact.reason)).collect();
    let details: Vec<_> = facts.iter().map(|fact| text(&fact.detail)).collect();
    let payloads: Vec<&[u8]> = facts.iter().map(|fact| &*fact.payload).collect();
    let sizes: Vec<_> = facts
        .iter()
        .map(|fact| i64::try_from(fact.payload_size).unwrap_or(i64::MAX))
        .collect();
    let received_at: Vec<_> = facts.iter().map(|fact| to_sql(fact.received_at)).collect();
    let inserted = sqlx::query_scalar!(
        "-- rejected_events::insert
         INSERT INTO rejected_events (key, project_id, subject, reason, detail, payload, payload_size, received_at)
         SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::bigint[],
                              $8::timestamptz[])
         ON CONFLICT DO NOTHING
         RETURNING key",
        &keys,
        &projects as _,
        &subjects as _,
        &reasons as _,
        &details as _,
        &payloads as _,
        &sizes,
        &received_at,
    )
    .fetch_all(connection)
    .await?;
    Ok(inserted.into_iter().map(EventKey::from_uuid).collect())
}
