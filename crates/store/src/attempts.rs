//! `attempts`: every request that was made, and what it came to. Written once by retry-scheduler, never changed; leaves
//! with the partition of its event's day.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use proto_schemas::delivery::TrialKind;
use proto_schemas::id::{AttemptRef, EventKey, WebhookId};
use proto_schemas::ledger::{AttemptFinished, Outcome, TlsFault};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::pending_deliveries::DeliveryKey;
use crate::time::{from_sql, to_sql};
use crate::value::{counter, from_counter, text};
use crate::{Connection, Error};

/// Identity of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptKey {
    /// The delivery it belongs to.
    pub delivery: DeliveryKey,
    /// Counts from 1.
    pub attempt: u32,
}

impl From<&AttemptRef> for AttemptKey {
    fn from(attempt: &AttemptRef) -> Self {
        Self {
            delivery: DeliveryKey::from(attempt),
            attempt: attempt.attempt,
        }
    }
}

/// A row to be.
#[derive(Debug, Clone, Copy)]
pub struct NewAttempt<'a> {
    /// What happened.
    pub fact: &'a AttemptFinished,
    /// When the next one is due; `None` where there is none to come.
    pub next_attempt_at: Option<Timestamp>,
}

/// What was added.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// How many rows.
    pub rows: u64,
    /// Those of them that did not deliver.
    pub failed: Vec<AttemptKey>,
    /// The webhooks that others of them, trials left out, delivered to, and when the last of these ended.
    pub delivered: Vec<(WebhookId, Timestamp)>,
}

/// Adds the attempts that are not there yet. Of two with one key the first stays.
///
/// Rows are written in the order of their keys, so that two transactions with the same attempts wait for each other
/// rather than each for the other.
///
/// # Errors
/// [`Error::NoPartition`] where a day has no partition; any other [`Error`].
pub async fn insert(connection: &mut Connection, attempts: &[NewAttempt<'_>]) -> Result<Added, Error> {
    if attempts.is_empty() {
        return Ok(Added::default());
    }
    let mut attempts = attempts.to_vec();
    attempts.sort_by_key(|new| AttemptKey::from(&new.fact.attempt));

    let mut columns = Columns::default();
    for new in &attempts {
        columns.push(*new);
    }
    // A batch is mostly deliveries that succeeded: of those only each webhook's last comes back. The first row is always
    // there and holds the count.
    let rows = sqlx::query!(
        r#"-- attempts::insert
         WITH added AS (
             INSERT INTO attempts (event_key, webhook_id, run, attempt, project_id, event_id, event_type,
                                   webhook_revision, started_at, duration_us, outcome, status, error_class, error,
                                   next_attempt_at, response_headers, response_body, response_truncated,
                                   request_sha256, handed_out, trial, dns_us, connect_us, tls_us, first_byte_us, peer,
                                   tls_fault, request_head, recorded)
             SELECT row.event_key, row.webhook_id, row.run, row.attempt, row.project_id, row.event_id, row.event_type,
                    row.webhook_revision, row.started_at, row.duration_us, row.outcome, row.status, row.error_class,
                    row.error, row.next_attempt_at, row.response_headers::jsonb, row.response_body,
                    row.response_truncated, row.request_sha256, row.handed_out, row.trial, row.dns_us, row.connect_us,
                    row.tls_us, row.first_byte_us, row.peer, row.tls_fault, row.request_head,
                    (SELECT pg_current_xact_id()::text::bigint)
             FROM UNNEST($1::uuid[], $2::uuid[], $3::integer[], $4::integer[], $5::uuid[], $6::text[], $7::text[],
                         $8::bigint[], $9::timestamptz[], $10::integer[], $11::text[], $12::smallint[], $13::text[],
                         $14::text[], $15::timestamptz[], $16::text[], $17::bytea[], $18::boolean[], $19::bytea[],
                         $20::integer[], $21::text[], $22::integer[], $23::integer[], $24::integer[], $25::integer[],
                         $26::text[], $27::text[], $28::integer[])
                  AS row (event_key, webhook_id, run, attempt, project_id, event_id, event_type, webhook_revision,
                          started_at, duration_us, outcome, status, error_class, error, next_attempt_at,
                          response_headers, response_body, response_truncated, request_sha256, handed_out, trial,
                          dns_us, connect_us, tls_us, first_byte_us, peer, tls_fault, request_head)
             ON CONFLICT DO NOTHING
             RETURNING event_key, webhook_id, run, attempt, outcome, trial, started_at, duration_us
         )
         SELECT count(*) AS "rows!", NULL::uuid AS event_key, NULL::uuid AS webhook_id, NULL::integer AS run,
                NULL::integer AS attempt, NULL::timestamptz AS delivered_at
         FROM added
         UNION ALL
         SELECT 0, event_key, webhook_id, run, attempt, NULL FROM added WHERE outcome <> 'delivered'
         UNION ALL
         SELECT 0, NULL, webhook_id, NULL, NULL, max(started_at + duration_us * interval '1 microsecond')
         FROM added WHERE outcome = 'delivered' AND trial IS NULL GROUP BY webhook_id"#,
        &columns.events,
        &columns.webhooks,
        &columns.runs,
        &columns.attempts,
        &columns.projects,
        &columns.event_ids as _,
        &columns.event_types as _,
        &columns.webhook_revisions,
        &columns.started_at,
        &columns.durations,
        &columns.outcomes as _,
        &columns.statuses as _,
        &columns.error_classes as _,
        &columns.errors as _,
        &columns.next_attempts as _,
        &columns.response_headers as _,
        &columns.response_bodies as _,
        &columns.response_truncated,
        &columns.request_digests as _,
        &columns.handed_out,
        &columns.trials as _,
        &columns.dns as _,
        &columns.connects as _,
        &columns.tls as _,
        &columns.first_bytes as _,
        &columns.peers as _,
        &columns.tls_faults as _,
        &columns.request_heads as _,
    )
    .fetch_all(&mut *connection)
    .await?;
    own_up(connection, &attempts).await?;

    let mut added = Added::default();
    for row in rows {
        added.rows += u64::try_from(row.rows).unwrap_or_default();
        if let (Some(event), Some(webhook), Some(run), Some(attempt)) =
            (row.event_key, row.webhook_id, row.run, row.attempt)
        {
            added.failed.push(attempt_key(event, webhook, run, attempt));
        }
        if let (Some(webhook), Some(delivered_at)) = (row.webhook_id, row.delivered_at) {
            added
                .delivered
                .push((WebhookId::from_uuid(webhook), from_sql(delivered_at)));
        }
    }
    Ok(added)
}

/// Notes of requests that were made again although the first was on record, since nobody had acked it, that they were.
async fn own_up(connection: &mut Connection, attempts: &[NewAttempt<'_>]) -> Result<(), Error> {
    let again = attempts.iter().filter(|new| new.fact.handed_out > 1);
    let mut columns = Columns::default();
    for new in again {
        columns.push(*new);
    }
    if columns.events.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "-- attempts::own_up
         UPDATE attempts SET handed_out = row.handed_out
         FROM UNNEST($1::uuid[], $2::uuid[], $3::integer[], $4::integer[], $5::integer[])
              AS row (event_key, webhook_id, run, attempt, handed_out)
         WHERE attempts.event_key = row.event_key AND attempts.webhook_id = row.webhook_id
           AND attempts.run = row.run AND attempts.attempt = row.attempt AND attempts.handed_out < row.handed_out",
        &columns.events,
        &columns.webhooks,
        &columns.runs,
        &columns.attempts,
        &columns.handed_out,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// One array per column.
#[derive(Default)]
struct Columns<'a> {
    events: Vec<Uuid>,
    webhooks: Vec<Uuid>,
    runs: Vec<i32>,
    attempts: Vec<i32>,
    projects: Vec<Uuid>,
    event_ids: Vec<Cow<'a, str>>,
    event_types: Vec<Cow<'a, str>>,
    webhook_revisions: Vec<i64>,
    started_at: Vec<OffsetDateTime>,
    durations: Vec<i32>,
    outcomes: Vec<&'static str>,
    statuses: Vec<Option<i16>>,
    error_classes: Vec<Option<&'static str>>,
    errors: Vec<Option<Cow<'a, str>>>,
    next_attempts: Vec<Option<OffsetDateTime>>,
    response_headers: Vec<Option<String>>,
    response_bodies: Vec<Option<&'a [u8]>>,
    response_truncated: Vec<bool>,
    request_digests: Vec<&'a [u8]>,
    handed_out: Vec<i32>,
    trials: Vec<Option<&'static str>>,
    dns: Vec<Option<i32>>,
    connects: Vec<Option<i32>>,
    tls: Vec<Option<i32>>,
    first_bytes: Vec<Option<i32>>,
    peers: Vec<Option<String>>,
    tls_faults: Vec<Option<&'static str>>,
    request_heads: Vec<Option<i32>>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, NewAttempt { fact, next_attempt_at }: NewAttempt<'a>) {
        self.events.push(fact.attempt.event.as_uuid());
        self.webhooks.push(fact.attempt.webhook.as_uuid());
        self.runs.push(counter(fact.attempt.run));
        self.attempts.push(counter(fact.attempt.attempt));
        self.projects.push(fact.attempt.project.as_uuid());
        self.event_ids.push(text(&fact.event_id));
        self.event_types.push(text(&fact.event_type));
        self.webhook_revisions
            .push(i64::try_from(fact.webhook_revision).unwrap_or(i64::MAX));
        self.started_at.push(to_sql(fact.started_at));
        self.durations.push(micros(fact.duration));
        self.outcomes.push(match fact.outcome {
            Outcome::Delivered => "delivered",
            Outcome::Failed | Outcome::FailedForGood => "failed",
        });
        self.statuses
            .push(fact.status.and_then(|status| i16::try_from(status).ok()));
        self.error_classes.push(fact.error_class.map(|class| class.as_str()));
        self.errors.push((!fact.error.is_empty()).then(|| text(&fact.error)));
        self.next_attempts.push(next_attempt_at.map(to_sql));
        // No status, no response.
        let response = fact.status.is_some();
        self.response_headers
            .push(response.then(|| headers(&fact.response_headers)));
        self.response_bodies.push(response.then_some(&*fact.response_body));
        self.response_truncated.push(fact.response_truncated);
        self.request_digests.push(&fact.request_sha256);
        self.handed_out.push(counter(fact.handed_out));
        self.trials.push(fact.trial.map(TrialKind::as_str));
        let exchange = &fact.exchange;
        self.dns.push(exchange.timings.dns.map(micros));
        self.connects.push(exchange.timings.connect.map(micros));
        self.tls.push(exchange.timings.tls.map(micros));
        self.first_bytes.push(exchange.timings.first_byte.map(micros));
        self.peers.push(exchange.peer.map(|peer| peer.to_string()));
        self.tls_faults.push(exchange.tls_fault.map(TlsFault::as_str));
        self.request_heads.push(exchange.request_head.map(u32::cast_signed));
    }
}

fn micros(duration: Duration) -> i32 {
    i32::try_from(duration.as_micros()).unwrap_or(i32::MAX)
}

/// `[["name", "value"], …]`: a name may come more than once, and their order is kept.
fn headers(headers: &[(String, String)]) -> String {
    let headers: serde_json::Value = headers
        .iter()
        .map(|(name, value)| serde_json::json!([text(name), text(value)]))
        .collect();
    headers.to_string()
}

/// An attempt that is on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Which.
    pub key: AttemptKey,
    /// Whether the receiver has the event.
    pub delivered: bool,
    /// When the next one is due; `None` where there is none to come.
    pub next_attempt_at: Option<Timestamp>,
}

/// Which of these attempts are on record; in no particular order.
///
/// # Errors
/// Any [`Error`].
pub async fn made(connection: &mut Connection, keys: &[AttemptKey]) -> Result<Vec<Made>, Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let events: Vec<_> = keys.iter().map(|key| key.delivery.event.as_uuid()).collect();
    let webhooks: Vec<_> = keys.iter().map(|key| key.delivery.webhook.as_uuid()).collect();
    let runs: Vec<_> = keys.iter().map(|key| counter(key.delivery.run)).collect();
    let attempts: Vec<_> = keys.iter().map(|key| counter(key.attempt)).collect();
    let rows = sqlx::query!(
        "-- attempts::made
         SELECT event_key, webhook_id, run, attempt, outcome, next_attempt_at
         FROM attempts
         JOIN UNNEST($1::uuid[], $2::uuid[], $3::integer[], $4::integer[]) AS row (event_key, webhook_id, run, attempt)
              USING (event_key, webhook_id, run, attempt)",
        &events,
        &webhooks,
        &runs,
        &attempts,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Made {
            key: attempt_key(row.event_key, row.webhook_id, row.run, row.attempt),
            delivered: row.outcome == "delivered",
            next_attempt_at: row.next_attempt_at.map(from_sql),
        })
        .collect())
}

fn attempt_key(event: Uuid, webhook: Uuid, run: i32, attempt: i32) -> AttemptKey {
    AttemptKey {
        delivery: DeliveryKey {
            event: EventKey::from_uuid(event),
            webhook: WebhookId::from_uuid(webhook),
            run: from_counter(run),
        },
        attempt: from_counter(attempt),
    }
}
