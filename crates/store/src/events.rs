//! `events`: every event that was accepted, with the webhooks it is owed to and those that were skipped. Written once
//! by retry-scheduler, never changed; leaves with its day's partition.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use proto_schemas::event::Event;
use proto_schemas::id::{EventKey, ProjectId};
use proto_schemas::ledger::EventAccepted;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::time::{from_sql, to_sql};
use crate::value::text;
use crate::{Connection, Error};

/// Adds the events that are not there yet. Tells which of those have deliveries that are kept back: held, or ordered.
///
/// Rows are written in the order of their keys, so that two transactions with the same events wait for each other
/// rather than each for the other.
///
/// # Errors
/// [`Error::NoPartition`] where a day has no partition; any other [`Error`].
pub async fn insert(connection: &mut Connection, facts: &[&EventAccepted]) -> Result<HashSet<EventKey>, Error> {
    if facts.is_empty() {
        return Ok(HashSet::new());
    }
    let mut facts = facts.to_vec();
    facts.sort_by_key(|fact| fact.event.key);

    let mut columns = Columns::default();
    for fact in &facts {
        columns.push(fact);
    }
    let kept_back: Vec<Uuid> = facts
        .iter()
        .filter(|fact| !fact.held.is_empty() || !fact.ordered.is_empty())
        .map(|fact| fact.event.key.as_uuid())
        .collect();
    let added = sqlx::query_scalar!(
        "-- events::insert
         WITH added AS (
             INSERT INTO events (key, id, project_id, type, occurred_at, accepted_at, attributes, content_type, payload,
                                 traceparent, owed, skipped, skip_reasons, warnings)
             SELECT row.key, row.id, row.project_id, row.type, row.occurred_at, row.accepted_at, row.attributes::jsonb,
                    row.content_type, row.payload, row.traceparent,
                    ($11::uuid[])[row.owed_from:row.owed_to], ($12::uuid[])[row.skipped_from:row.skipped_to],
                    string_to_array(row.skip_reasons, ','), ($18::text[])[row.warnings_from:row.warnings_to]
             FROM UNNEST($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::text[],
                         $8::text[], $9::bytea[], $10::text[], $13::integer[], $14::integer[], $15::integer[],
                         $16::integer[], $17::text[], $19::integer[], $20::integer[])
                  AS row (key, id, project_id, type, occurred_at, accepted_at, attributes,
                          content_type, payload, traceparent, owed_from, owed_to, skipped_from,
                          skipped_to, skip_reasons, warnings_from, warnings_to)
             ON CONFLICT DO NOTHING
             RETURNING key
         )
         SELECT key FROM added WHERE key = ANY ($21)",
        &columns.keys,
        &columns.ids as _,
        &columns.projects,
        &columns.types as _,
        &columns.occurred_at,
        &columns.accepted_at,
        &columns.attributes as _,
        &columns.content_types as _,
        &columns.payloads as _,
        &columns.traceparents as _,
        &columns.owed.all,
        &columns.skipped.all,
        &columns.owed.from,
        &columns.owed.to,
        &columns.skipped.from,
        &columns.skipped.to,
        &columns.skip_reasons,
        &columns.warnings.all as _,
        &columns.warnings.from,
        &columns.warnings.to,
        &kept_back,
    )
    .fetch_all(connection)
    .await?;
    Ok(added.into_iter().map(EventKey::from_uuid).collect())
}

/// One array per column.
#[derive(Default)]
struct Columns<'a> {
    keys: Vec<Uuid>,
    ids: Vec<Cow<'a, str>>,
    projects: Vec<Uuid>,
    types: Vec<Cow<'a, str>>,
    occurred_at: Vec<OffsetDateTime>,
    accepted_at: Vec<OffsetDateTime>,
    attributes: Vec<Option<String>>,
    content_types: Vec<Cow<'a, str>>,
    payloads: Vec<&'a [u8]>,
    traceparents: Vec<Cow<'a, str>>,
    owed: Slices<Uuid>,
    skipped: Slices<Uuid>,
    /// Joined by commas: the words are of a closed list and hold none.
    skip_reasons: Vec<String>,
    warnings: Slices<Cow<'a, str>>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, fact: &'a EventAccepted) {
        let event = &fact.event;
        self.keys.push(event.key.as_uuid());
        self.ids.push(text(&event.id));
        self.projects.push(event.project.as_uuid());
        self.types.push(text(&event.event_type));
        self.occurred_at.push(to_sql(event.occurred_at));
        self.accepted_at.push(to_sql(event.accepted_at));
        self.attributes.push(attributes(&event.attributes));
        self.content_types.push(text(&event.content_type));
        self.payloads.push(&event.payload);
        self.traceparents.push(text(&event.traceparent));
        self.owed.push(fact.owed.iter().map(|webhook| webhook.as_uuid()));
        self.skipped
            .push(fact.skipped.iter().map(|(webhook, _)| webhook.as_uuid()));
        let reasons: Vec<_> = fact.skipped.iter().map(|(_, reason)| reason.as_str()).collect();
        self.skip_reasons.push(reasons.join(","));
        self.warnings.push(fact.warnings.iter().map(|warning| text(warning)));
    }
}

/// An array per row cannot be unnested; each row takes its slice of one array instead. Bounds count from 1 and are
/// inclusive, as in SQL.
struct Slices<T> {
    all: Vec<T>,
    from: Vec<i32>,
    to: Vec<i32>,
}

impl<T> Default for Slices<T> {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            from: Vec::new(),
            to: Vec::new(),
        }
    }
}

impl<T> Slices<T> {
    fn push(&mut self, row: impl Iterator<Item = T>) {
        let end = |all: &Vec<T>| i32::try_from(all.len()).unwrap_or(i32::MAX);
        self.from.push(end(&self.all).saturating_add(1));
        self.all.extend(row);
        self.to.push(end(&self.all));
    }
}

fn attributes(attributes: &BTreeMap<String, String>) -> Option<String> {
    if attributes.is_empty() {
        return None;
    }
    let attributes: serde_json::Map<_, _> = attributes
        .iter()
        .map(|(name, value)| (text(name).into_owned(), text(value).into_owned().into()))
        .collect();
    Some(serde_json::Value::Object(attributes).to_string())
}

/// Which of these events there are, whole, to be delivered; in no particular order.
///
/// # Errors
/// Any [`Error`].
pub async fn load(connection: &mut Connection, keys: &[EventKey]) -> Result<Vec<Event>, Error> {
    let keys: Vec<_> = keys.iter().map(|key| key.as_uuid()).collect();
    let rows = sqlx::query!(
        r#"-- events::load
         SELECT key, id, project_id, type, occurred_at, accepted_at,
                attributes AS "attributes: Json<BTreeMap<String, String>>", content_type, payload, traceparent
         FROM events WHERE key = ANY ($1)"#,
        &keys,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Event {
            key: EventKey::from_uuid(row.key),
            id: row.id,
            project: ProjectId::from_uuid(row.project_id),
            event_type: row.r#type,
            occurred_at: from_sql(row.occurred_at),
            accepted_at: from_sql(row.accepted_at),
            attributes: row.attributes.map(|Json(attributes)| attributes).unwrap_or_default(),
            content_type: row.content_type,
            payload: Bytes::from(row.payload),
            traceparent: row.traceparent,
        })
        .collect())
}
