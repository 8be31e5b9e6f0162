//! `replays`: deliveries that are to be made again, and dead letters that are to be discarded. Written by config-api; how
//! far one has come is in `replay_progress`, which retry-scheduler writes.

use jiff::Timestamp;
use proto_schemas::id::{EventKey, ProjectId, WebhookId};
use sqlx::query_as;
use uuid::Uuid;

use crate::log::State;
use crate::replay_progress::Progress;
use crate::time::{from_sql, to_sql};
use crate::value::from_counter;
use crate::{Connection, Error};

/// What is notified when an order is given or cancelled.
pub const CHANNEL: &str = "replays";

/// What is to be done with the deliveries selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They are made again.
    Replay,
    /// Dead letters are put away.
    Discard,
}

impl Kind {
    /// The word in tables and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Discard => "discard",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Replay, Self::Discard]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

/// Which deliveries. What is `None` narrows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// To these webhooks.
    pub webhooks: Option<Vec<WebhookId>>,
    /// Of these events.
    pub events: Option<Vec<EventKey>>,
    /// The ids of those events, for people.
    pub event_ids: Option<Vec<String>>,
    /// Of events whose type one of these patterns matches.
    pub types: Option<Vec<String>>,
    /// Of events with this key or a later one.
    pub from: Option<EventKey>,
    /// Of events with keys before this.
    pub to: Option<EventKey>,
    /// In one of these states. Empty: whatever their state, and where both events and webhooks are named, whether or not
    /// the event was ever owed to the webhook.
    pub states: Vec<State>,
    /// With one of these reasons for their state.
    pub reasons: Option<Vec<String>>,
    /// Those of webhooks that were deleted, too.
    pub of_deleted: bool,
}

/// An order, and how far it has come.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// Identity; sorts by the time it was given.
    pub id: Uuid,
    /// The `run` of its deliveries.
    pub number: u32,
    /// Whose it is.
    pub project: ProjectId,
    /// What is to be done.
    pub kind: Kind,
    /// With which deliveries.
    pub selection: Selection,
    /// Deliveries begun in a second; `None`: as the operator says.
    pub per_second: Option<u32>,
    /// How many deliveries there were when it was asked for; `None` where they could not be counted in time.
    pub counted: Option<u64>,
    /// Whose token asked for it.
    pub token: Uuid,
    /// That token's name.
    pub token_name: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was cancelled.
    pub cancelled_at: Option<Timestamp>,
    /// How far it has come; `None`: nobody has begun.
    pub progress: Option<Progress>,
}

/// An order to be given.
#[derive(Debug, Clone)]
pub struct NewReplay<'a> {
    /// Identity.
    pub id: Uuid,
    /// Whose it is.
    pub project: ProjectId,
    /// What is to be done.
    pub kind: Kind,
    /// With which deliveries.
    pub selection: &'a Selection,
    /// Deliveries begun in a second.
    pub per_second: Option<u32>,
    /// How many deliveries there are.
    pub counted: Option<u64>,
    /// Whose token asks.
    pub token: Uuid,
    /// When.
    pub created_at: Timestamp,
}

/// Columns of `replays`, as they are read.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: Uuid,
    pub(crate) number: i32,
    pub(crate) project_id: Uuid,
    pub(crate) kind: String,
    pub(crate) webhooks: Option<Vec<Uuid>>,
    pub(crate) events: Option<Vec<Uuid>>,
    pub(crate) event_ids: Option<Vec<String>>,
    pub(crate) types: Option<Vec<String>>,
    pub(crate) from_key: Option<Uuid>,
    pub(crate) to_key: Option<Uuid>,
    pub(crate) states: Vec<String>,
    pub(crate) reasons: Option<Vec<String>>,
    pub(crate) per_second: Option<i32>,
    pub(crate) counted: Option<i64>,
    pub(crate) token_id: Uuid,
    pub(crate) token_name: String,
    pub(crate) created_at: time::OffsetDateTime,
    pub(crate) cancelled_at: Option<time::OffsetDateTime>,
    pub(crate) event_key: Option<Uuid>,
    pub(crate) webhook_id: Option<Uuid>,
    pub(crate) made: Option<i64>,
    pub(crate) withdrawn: Option<i64>,
    pub(crate) failed: Option<i64>,
    pub(crate) waiting: Option<i64>,
    pub(crate) rate: Option<f64>,
    pub(crate) paced_to: Option<time::OffsetDateTime>,
    pub(crate) started_at: Option<time::OffsetDateTime>,
    pub(crate) counted_at: Option<time::OffsetDateTime>,
    pub(crate) withdrawing_since: Option<time::OffsetDateTime>,
    pub(crate) walked_at: Option<time::OffsetDateTime>,
    pub(crate) finished_at: Option<time::OffsetDateTime>,
}

impl TryFrom<Row> for Replay {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let unreadable = |what: &str| Error::Unreadable {
            table: "replays",
            reason: format!("`{what}` of {}", row.id),
        };
        let states = row.states.iter();
        let states = states.map(|state| State::parse(state).ok_or_else(|| unreadable(state)));
        let number = |count: Option<i64>| u64::try_from(count.unwrap_or_default()).unwrap_or_default();
        let progress = row
            .started_at
            .zip(row.counted_at)
            .map(|(started_at, counted_at)| Progress {
                cursor: row
                    .event_key
                    .zip(row.webhook_id)
                    .map(|(event, webhook)| (EventKey::from_uuid(event), WebhookId::from_uuid(webhook))),
                made: number(row.made),
                withdrawn: number(row.withdrawn),
                failed: number(row.failed),
                waiting: number(row.waiting),
                rate: row.rate.unwrap_or_default(),
                paced_to: row.paced_to.map(from_sql),
                started_at: from_sql(started_at),
                counted_at: from_sql(counted_at),
                withdrawing_since: row.withdrawing_since.map(from_sql),
                walked_at: row.walked_at.map(from_sql),
                finished_at: row.finished_at.map(from_sql),
            });
        let kind = Kind::parse(&row.kind).ok_or_else(|| unreadable(&row.kind))?;
        Ok(Self {
            kind,
            selection: Selection {
                states: states.collect::<Result<_, _>>()?,
                webhooks: row
                    .webhooks
                    .map(|ids| ids.into_iter().map(WebhookId::from_uuid).collect()),
                events: row
                    .events
                    .map(|keys| keys.into_iter().map(EventKey::from_uuid).collect()),
                event_ids: row.event_ids,
                types: row.types,
                from: row.from_key.map(EventKey::from_uuid),
                to: row.to_key.map(EventKey::from_uuid),
                reasons: row.reasons,
                of_deleted: kind == Kind::Discard,
            },
            id: row.id,
            number: from_counter(row.number),
            project: ProjectId::from_uuid(row.project_id),
            per_second: row.per_second.map(from_counter),
            counted: row.counted.map(i64::unsigned_abs),
            token: row.token_id,
            token_name: row.token_name,
            created_at: from_sql(row.created_at),
            cancelled_at: row.cancelled_at.map(from_sql),
            progress,
        })
    }
}

/// Gives an order, and says so to whoever listens.
///
/// # Errors
/// Any [`Error`].
pub async fn insert(connection: &mut Connection, new: &NewReplay<'_>) -> Result<(), Error> {
    let selection = new.selection;
    let states: Vec<String> = selection.states.iter().map(|state| state.as_str().to_owned()).collect();
    let (webhooks, events) = (webhook_ids(selection), event_keys(selection));
    sqlx::query!(
        "-- replays::insert
         INSERT INTO replays (id, project_id, kind, webhooks, events, event_ids, types, from_key, to_key, states, reasons,
                              per_second, counted, token_id, token_name, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
                 coalesce((SELECT name FROM tokens WHERE id = $14), ''), $15)",
        new.id,
        new.project.as_uuid(),
        new.kind.as_str(),
        webhooks.as_deref(),
        events.as_deref(),
        selection.event_ids.as_deref(),
        selection.types.as_deref(),
        selection.from.map(EventKey::as_uuid),
        selection.to.map(EventKey::as_uuid),
        &states,
        selection.reasons.as_deref(),
        new.per_second.map(|rate| i32::try_from(rate).unwrap_or(i32::MAX)),
        new.counted.map(|count| i64::try_from(count).unwrap_or(i64::MAX)),
        new.token,
        to_sql(new.created_at),
    )
    .execute(&mut *connection)
    .await?;
    notify(connection).await
}

/// Cancels an order, and says so to whoever listens. One that was cancelled before stays as it is.
///
/// # Errors
/// Any [`Error`].
pub async fn cancel(connection: &mut Connection, id: Uuid, now: Timestamp) -> Result<(), Error> {
    sqlx::query!(
        "-- replays::cancel
         UPDATE replays SET cancelled_at = $2 WHERE id = $1 AND cancelled_at IS NULL",
        id,
        to_sql(now),
    )
    .execute(&mut *connection)
    .await?;
    notify(connection).await
}

/// Heard when the transaction is committed.
async fn notify(connection: &mut Connection) -> Result<(), Error> {
    sqlx::query!(
        r#"-- replays::notify
         SELECT pg_notify($1, '') AS "notified!: ()""#,
        CHANNEL,
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// A project's order, by its id or its number.
///
/// # Errors
/// Any [`Error`].
pub async fn find(connection: &mut Connection, project: ProjectId, named: &str) -> Result<Option<Replay>, Error> {
    let id = Uuid::parse_str(named).ok();
    let number: Option<i32> = named.parse().ok();
    if id.is_none() && number.is_none() {
        return Ok(None);
    }
    let row = query_as!(
        Row,
        r#"-- replays::find
         SELECT r.id, r.number, r.project_id, r.kind, r.webhooks, r.events, r.event_ids, r.types, r.from_key, r.to_key,
                r.states, r.reasons, r.per_second, r.counted, r.token_id, r.token_name, r.created_at, r.cancelled_at,
                p.event_key, p.webhook_id, p.made AS "made?", p.withdrawn AS "withdrawn?", p.failed AS "failed?",
                p.waiting AS "waiting?", p.rate AS "rate?", p.paced_to, p.started_at AS "started_at?",
                p.counted_at AS "counted_at?", p.withdrawing_since, p.walked_at, p.finished_at
         FROM replays r LEFT JOIN replay_progress p ON p.replay_id = r.id
         WHERE r.project_id = $1 AND ($2::uuid IS NULL OR r.id = $2) AND ($3::integer IS NULL OR r.number = $3)"#,
        project.as_uuid(),
        id,
        number,
    )
    .fetch_optional(connection)
    .await?;
    row.map(Replay::try_from).transpose()
}

/// Up to `limit` orders of a project given before `before`, newest first.
///
/// # Errors
/// Any [`Error`].
pub async fn page(
    connection: &mut Connection,
    project: ProjectId,
    kind: Option<Kind>,
    before: Option<Uuid>,
    limit: u32,
) -> Result<Vec<Replay>, Error> {
    let rows = query_as!(
        Row,
        r#"-- replays::page
         SELECT r.id, r.number, r.project_id, r.kind, r.webhooks, r.events, r.event_ids, r.types, r.from_key, r.to_key,
                r.states, r.reasons, r.per_second, r.counted, r.token_id, r.token_name, r.created_at, r.cancelled_at,
                p.event_key, p.webhook_id, p.made AS "made?", p.withdrawn AS "withdrawn?", p.failed AS "failed?",
                p.waiting AS "waiting?", p.rate AS "rate?", p.paced_to, p.started_at AS "started_at?",
                p.counted_at AS "counted_at?", p.withdrawing_since, p.walked_at, p.finished_at
         FROM replays r LEFT JOIN replay_progress p ON p.replay_id = r.id
         WHERE r.project_id = $1 AND ($2::text IS NULL OR r.kind = $2) AND ($3::uuid IS NULL OR r.id < $3)
         ORDER BY r.id DESC LIMIT $4"#,
        project.as_uuid(),
        kind.map(Kind::as_str),
        before,
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Replay::try_from).collect()
}

/// How many orders of a project have not come to their end.
///
/// # Errors
/// Any [`Error`].
pub async fn count_open(connection: &mut Connection, project: ProjectId) -> Result<u64, Error> {
    let count = sqlx::query_scalar!(
        r#"-- replays::count_open
         SELECT count(*) AS "count!" FROM replays r
         WHERE r.project_id = $1
           AND NOT EXISTS (SELECT FROM replay_progress p WHERE p.replay_id = r.id AND p.finished_at IS NOT NULL)"#,
        project.as_uuid(),
    )
    .fetch_one(connection)
    .await?;
    Ok(count.unsigned_abs())
}

/// Forgets orders given before `expired`; how many.
///
/// # Errors
/// Any [`Error`].
pub async fn delete_before(connection: &mut Connection, expired: Timestamp) -> Result<u64, Error> {
    let deleted = sqlx::query!(
        "-- replays::delete_before
         DELETE FROM replays WHERE created_at < $1",
        to_sql(expired),
    )
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

pub(crate) fn webhook_ids(selection: &Selection) -> Option<Vec<Uuid>> {
    let webhooks = selection.webhooks.as_ref()?;
    Some(webhooks.iter().map(|webhook| webhook.as_uuid()).collect())
}

pub(crate) fn event_keys(selection: &Selection) -> Option<Vec<Uuid>> {
    let events = selection.events.as_ref()?;
    Some(events.iter().map(|event| event.as_uuid()).collect())
}
