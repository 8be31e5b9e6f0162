//! Deliveries: what became of each event for each webhook.
//!
//! A delivery has no row of its own until its first attempt has failed. Whether one was made is said by its event's row,
//! what became of it by `pending_deliveries` and `attempts`; the view `delivery_states` puts the three together. Where an
//! event was delivered to a webhook in several runs, by replays, the last run tells.

use jiff::Timestamp;
use proto_schemas::id::{EventKey, ProjectId, WebhookId};
use sqlx::query_as;
use uuid::Uuid;

use crate::time::from_sql;
use crate::{Connection, Error};

/// What became of one event for one webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The event.
    pub event: EventKey,
    /// The event's id, as receivers see it; `None` once the event has left the record.
    pub event_id: Option<String>,
    /// The event's type.
    pub event_type: Option<String>,
    /// The webhook.
    pub webhook: WebhookId,
    /// The webhook's name, if the webhook is still known.
    pub webhook_name: Option<String>,
    /// 0 for the event's own delivery, else the replay's number: what is told is what became of the last one.
    pub run: u32,
    /// Where it stands.
    pub state: State,
    /// Why, where the state alone does not say it.
    pub reason: Option<String>,
    /// How many attempts were made.
    pub attempts: u32,
    /// When the next attempt is due.
    pub next_attempt_at: Option<Timestamp>,
    /// When it came to this.
    pub updated_at: Timestamp,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The receiver has it.
    Delivered,
    /// Waits for its next attempt, or that attempt is being made.
    Scheduled,
    /// Its lane had no room; waits its turn.
    Parked,
    /// Its webhook holds what comes while it is paused.
    Held,
    /// Out of attempts.
    Dead,
    /// Ended before it was settled, for the reason given.
    Cancelled,
    /// No delivery was made, for the reason given.
    Skipped,
    /// On its way to its first attempt.
    Queued,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Delivered,
        Self::Scheduled,
        Self::Parked,
        Self::Held,
        Self::Dead,
        Self::Cancelled,
        Self::Skipped,
        Self::Queued,
    ];

    /// The word in statements and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Scheduled => "scheduled",
            Self::Parked => "parked",
            Self::Held => "held",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::Queued => "queued",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// The states of `pending_deliveries` it stands for; empty for one that has no row there.
    const fn pending(self) -> &'static [&'static str] {
        match self {
            Self::Scheduled => &["scheduled", "released"],
            Self::Parked => &["parked"],
            Self::Held => &["held"],
            Self::Dead => &["dead"],
            Self::Cancelled => &["cancelled"],
            Self::Delivered | Self::Skipped | Self::Queued => &[],
        }
    }
}

/// Which deliveries.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter<'a> {
    /// In this state.
    pub state: Option<State>,
    /// Of these events.
    pub events: Option<&'a [EventKey]>,
    /// To this webhook.
    pub webhook: Option<WebhookId>,
    /// In their state for this reason.
    pub reason: Option<&'a str>,
}

/// Where a page of deliveries ends. Without a webhook: everything of the event has been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryCursor {
    /// The event.
    pub event: EventKey,
    /// The webhook and run.
    pub delivery: Option<(WebhookId, u32)>,
}

/// A page of deliveries. It may have fewer than asked for and yet not be the last: only so many events are looked at for
/// one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryPage {
    /// The deliveries, the newest event's first.
    pub deliveries: Vec<Delivery>,
    /// Where the next page begins, if there is more.
    pub next: Option<DeliveryCursor>,
}

/// Most events looked at for one page, so that a filter which fits almost nothing takes many short pages instead of one
/// endless statement.
const SCAN_MAX: i64 = 2_000;

pub(super) struct Row {
    event_key: Uuid,
    event_id: Option<String>,
    event_type: Option<String>,
    webhook_id: Uuid,
    webhook_name: Option<String>,
    run: i32,
    state: String,
    reason: Option<String>,
    attempts: i64,
    next_attempt_at: Option<time::OffsetDateTime>,
    updated_at: time::OffsetDateTime,
}

impl TryFrom<Row> for Delivery {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            event: EventKey::from_uuid(row.event_key),
            event_id: row.event_id,
            event_type: row.event_type,
            webhook: WebhookId::from_uuid(row.webhook_id),
            webhook_name: row.webhook_name,
            run: row.run.unsigned_abs(),
            state: State::parse(&row.state).ok_or_else(|| Error::Unreadable {
                table: "pending_deliveries",
                reason: format!("`{}` is not a state", row.state),
            })?,
            reason: row.reason.filter(|reason| !reason.is_empty()),
            attempts: u32::try_from(row.attempts).unwrap_or(u32::MAX),
            next_attempt_at: row.next_attempt_at.map(from_sql),
            updated_at: from_sql(row.updated_at),
        })
    }
}

/// Up to `limit` deliveries from after `after` on, the newest event's first.
///
/// # Errors
/// Any [`Error`].
pub async fn deliveries(
    connection: &mut Connection,
    project: ProjectId,
    filter: &DeliveryFilter<'_>,
    after: Option<DeliveryCursor>,
    limit: u32,
) -> Result<DeliveryPage, Error> {
    let pending = filter.state.map_or(&[] as &[_], State::pending);
    let (rows, looked_at) = match pending.is_empty() {
        true => recorded(connection, project, filter, after, limit).await?,
        false => (
            unsettled(connection, project, pending, filter, after, limit).await?,
            None,
        ),
    };
    let full = rows.len() >= limit as usize;
    let deliveries = rows
        .into_iter()
        .map(Delivery::try_from)
        .collect::<Result<Vec<_>, _>>()?;
    let next = match deliveries.last() {
        Some(last) if full => Some(DeliveryCursor {
            event: last.event,
            delivery: Some((last.webhook, last.run)),
        }),
        _ => looked_at.map(|event| DeliveryCursor { event, delivery: None }),
    };
    Ok(DeliveryPage { deliveries, next })
}

/// Deliveries in a state that `pending_deliveries` has an index for.
async fn unsettled(
    connection: &mut Connection,
    project: ProjectId,
    states: &[&str],
    filter: &DeliveryFilter<'_>,
    after: Option<DeliveryCursor>,
    limit: u32,
) -> Result<Vec<Row>, Error> {
    let states: Vec<String> = states.iter().map(|state| (*state).to_owned()).collect();
    let events = event_keys(filter);
    let (event, webhook, run) = position(after);
    Ok(query_as!(
        Row,
        r#"-- log::unsettled_deliveries
         SELECT p.event_key, e.id AS "event_id?", e.type AS "event_type?", p.webhook_id, w.name AS "webhook_name?",
                p.run, CASE p.state WHEN 'released' THEN 'scheduled' ELSE p.state END AS "state!", p.reason,
                (SELECT count(*) FROM attempts a
                 WHERE a.event_key = p.event_key AND a.webhook_id = p.webhook_id AND a.run = p.run) AS "attempts!",
                CASE WHEN p.state IN ('scheduled', 'parked') THEN p.due_at END AS next_attempt_at, p.updated_at
         FROM pending_deliveries p
         LEFT JOIN events e ON e.key = p.event_key
         LEFT JOIN webhooks w ON w.id = p.webhook_id
         WHERE p.project_id = $1
           AND p.state = ANY($2)
           AND ($3::uuid[] IS NULL OR p.event_key = ANY($3))
           AND ($4::uuid IS NULL OR p.webhook_id = $4)
           AND ($5::uuid IS NULL
                OR (p.event_key <= $5
                    AND (p.event_key < $5 OR (p.webhook_id, p.run) > ($6::uuid, $7::integer))))
           AND ($9::text IS NULL OR p.reason = $9)
           AND NOT EXISTS (SELECT FROM pending_deliveries later
                           WHERE later.event_key = p.event_key AND later.webhook_id = p.webhook_id AND later.run > p.run)
           AND NOT EXISTS (SELECT FROM attempts later
                           WHERE later.event_key = p.event_key AND later.webhook_id = p.webhook_id AND later.run > p.run
                             AND later.outcome = 'delivered')
         ORDER BY p.event_key DESC, p.webhook_id, p.run
         LIMIT $8"#,
        project.as_uuid(),
        &states,
        events.as_deref(),
        filter.webhook.map(WebhookId::as_uuid),
        event,
        webhook,
        run,
        i64::from(limit),
        filter.reason,
    )
    .fetch_all(connection)
    .await?)
}

/// Deliveries in any state, found by their events; and the last event looked at, where there may be more.
async fn recorded(
    connection: &mut Connection,
    project: ProjectId,
    filter: &DeliveryFilter<'_>,
    after: Option<DeliveryCursor>,
    limit: u32,
) -> Result<(Vec<Row>, Option<EventKey>), Error> {
    let events = event_keys(filter);
    // There is one for each event and webhook, so the run says nothing of where it stands.
    let (event, webhook, _) = position(after);
    let looked_at = sqlx::query_scalar!(
        "-- log::deliveries_looked_at
         SELECT key FROM events
         WHERE project_id = $1 AND ($2::uuid[] IS NULL OR key = ANY($2)) AND ($3::uuid IS NULL OR key <= $3)
         ORDER BY key DESC OFFSET $4 LIMIT 1",
        project.as_uuid(),
        events.as_deref(),
        event,
        SCAN_MAX - 1,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let rows = query_as!(
        Row,
        r#"-- log::deliveries
         SELECT d.event_key AS "event_key!", d.event_id AS "event_id?", d.event_type AS "event_type?",
                d.webhook_id AS "webhook_id!", w.name AS "webhook_name?", d.run AS "run!", d.state AS "state!", d.reason,
                d.attempts AS "attempts!", d.next_attempt_at, d.updated_at AS "updated_at!"
         FROM delivery_states d
         LEFT JOIN webhooks w ON w.id = d.webhook_id
         WHERE d.project_id = $1
           AND ($2::uuid[] IS NULL OR d.event_key = ANY($2))
           AND ($3::uuid IS NULL OR (d.event_key <= $3 AND (d.event_key < $3 OR d.webhook_id > $4::uuid)))
           AND ($5::uuid IS NULL OR d.event_key >= $5)
           AND ($6::uuid IS NULL OR d.webhook_id = $6)
           AND ($7::text IS NULL OR d.state = $7)
           AND ($8::text IS NULL OR d.reason = $8)
         ORDER BY d.event_key DESC, d.webhook_id
         LIMIT $9"#,
        project.as_uuid(),
        events.as_deref(),
        event,
        webhook,
        looked_at,
        filter.webhook.map(WebhookId::as_uuid),
        filter.state.map(State::as_str),
        filter.reason,
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    Ok((rows, looked_at.map(EventKey::from_uuid)))
}

/// Up to `limit` deliveries that a replay has made, from after `after` on, the newest event's first. What was withdrawn
/// before its first attempt is not among them.
///
/// # Errors
/// Any [`Error`].
pub async fn deliveries_of_run(
    connection: &mut Connection,
    project: ProjectId,
    number: u32,
    state: Option<State>,
    after: Option<DeliveryCursor>,
    limit: u32,
) -> Result<DeliveryPage, Error> {
    let (event, webhook, _) = position(after);
    let rows = query_as!(
        Row,
        r#"-- log::deliveries_of_run
         SELECT d.event_key AS "event_key!", e.id AS "event_id?", e.type AS "event_type?",
                d.webhook_id AS "webhook_id!", w.name AS "webhook_name?", $2::integer AS "run!", s.state AS "state!",
                CASE WHEN p.run IS NOT NULL THEN p.reason
                     WHEN NOT d.delivered THEN 'the replay was cancelled' END AS reason,
                d.attempts AS "attempts!",
                CASE WHEN p.state IN ('scheduled', 'parked') THEN p.due_at END AS next_attempt_at,
                coalesce(p.updated_at, d.finished_at) AS "updated_at!"
         FROM (SELECT x.event_key, x.webhook_id, sum(x.attempts)::bigint AS attempts, bool_or(x.delivered) AS delivered,
                      max(x.finished_at) AS finished_at
               FROM (SELECT a.event_key, a.webhook_id, 1 AS attempts, a.outcome = 'delivered' AS delivered,
                            a.started_at + a.duration_us * interval '1 microsecond' AS finished_at
                     FROM attempts a WHERE a.run = $2 AND a.run > 0 AND ($3::uuid IS NULL OR a.event_key <= $3)
                     UNION ALL
                     SELECT q.event_key, q.webhook_id, 0, false, NULL
                     FROM pending_deliveries q WHERE q.run = $2 AND q.run > 0 AND ($3::uuid IS NULL OR q.event_key <= $3)
                    ) AS x
               GROUP BY x.event_key, x.webhook_id) AS d
         LEFT JOIN pending_deliveries p ON p.event_key = d.event_key AND p.webhook_id = d.webhook_id AND p.run = $2
         LEFT JOIN events e ON e.key = d.event_key
         LEFT JOIN webhooks w ON w.id = d.webhook_id
         CROSS JOIN LATERAL (
             SELECT CASE WHEN p.state = 'released' THEN 'scheduled' WHEN p.state IS NOT NULL THEN p.state
                         WHEN d.delivered THEN 'delivered' ELSE 'cancelled' END AS state
         ) AS s
         WHERE e.project_id = $1
           AND ($3::uuid IS NULL OR d.event_key < $3 OR d.webhook_id > $4::uuid)
           AND ($5::text IS NULL OR s.state = $5)
         ORDER BY d.event_key DESC, d.webhook_id LIMIT $6"#,
        project.as_uuid(),
        i32::try_from(number).unwrap_or(-1),
        event,
        webhook,
        state.map(State::as_str),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    let full = rows.len() >= limit as usize;
    let deliveries: Vec<Delivery> = rows.into_iter().map(Delivery::try_from).collect::<Result<_, _>>()?;
    let next = deliveries.last().filter(|_| full).map(|last| DeliveryCursor {
        event: last.event,
        delivery: Some((last.webhook, last.run)),
    });
    Ok(DeliveryPage { deliveries, next })
}

fn event_keys(filter: &DeliveryFilter<'_>) -> Option<Vec<Uuid>> {
    filter
        .events
        .map(|events| events.iter().map(|event| event.as_uuid()).collect())
}

/// The position as values of a statement. Without a webhook: after the last there can be.
fn position(after: Option<DeliveryCursor>) -> (Option<Uuid>, Option<Uuid>, Option<i32>) {
    match after {
        None => (None, None, None),
        Some(DeliveryCursor {
            event,
            delivery: Some((webhook, run)),
        }) => (
            Some(event.as_uuid()),
            Some(webhook.as_uuid()),
            Some(i32::try_from(run).unwrap_or(i32::MAX)),
        ),
        Some(DeliveryCursor { event, delivery: None }) => (Some(event.as_uuid()), Some(Uuid::max()), Some(i32::MAX)),
    }
}
