//! Which deliveries an order is about. Read in stretches, so that no statement takes long, however much is on record.
//!
//! Deliveries that are dead or were ended are found by their rows in `pending_deliveries`, for which there is an index;
//! all others by their events.

use common::model::Pattern;
use proto_schemas::id::{EventKey, ProjectId, WebhookId};
use uuid::Uuid;

use crate::log::State;
use crate::replays::{Selection, event_keys, webhook_ids};
use crate::{Connection, Error};

/// One event for one webhook.
pub type Pair = (EventKey, WebhookId);

/// A stretch of what is selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// What was found in it, in the order of keys.
    pub pairs: Vec<Pair>,
    /// Where the next one begins; `None`: this was the last.
    pub next: Option<Pair>,
}

/// How many deliveries are selected, to one webhook and in one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The webhook.
    pub webhook: WebhookId,
    /// Their state; `None` where it does not matter.
    pub state: Option<State>,
    /// How many.
    pub deliveries: u64,
}

/// Counts of a stretch of what is selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// What was counted.
    pub counts: Vec<Count>,
    /// Where the next stretch begins; `None`: this was the last.
    pub next: Option<Pair>,
}

/// Rows looked at for one stretch of a walk, and for one that is only counted.
const WALK: i64 = 2_000;
const COUNT: i64 = 5_000;
/// The same of rows that an index leads to.
const WALK_PENDING: i64 = 20_000;
const COUNT_PENDING: i64 = 100_000;

/// How the deliveries are found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum By {
    /// Each of these events for each of these webhooks.
    Name,
    /// Rows in this state.
    Pending(State),
    /// Events.
    Events,
}

impl By {
    fn of(selection: &Selection) -> Self {
        let named = selection.events.is_some() && selection.webhooks.is_some();
        match selection.states.as_slice() {
            [] if named => Self::Name,
            [state @ (State::Dead | State::Cancelled)] if selection.events.is_none() => Self::Pending(*state),
            _ => Self::Events,
        }
    }
}

/// A selection as values of statements.
struct Values {
    project: Uuid,
    webhooks: Option<Vec<Uuid>>,
    events: Option<Vec<Uuid>>,
    types: Option<Vec<String>>,
    prefixes: Vec<String>,
    from: Uuid,
    to: Option<Uuid>,
    states: Option<Vec<String>>,
    reasons: Option<Vec<String>>,
    of_deleted: bool,
    after: Option<(Uuid, Uuid)>,
}

impl Values {
    fn of(project: ProjectId, selection: &Selection, after: Option<Pair>) -> Self {
        let (mut exact, mut prefixes, mut every) = (Vec::new(), Vec::new(), selection.types.is_none());
        for text in selection.types.iter().flatten() {
            match Pattern::parse(text) {
                Ok(Pattern::Every) => every = true,
                Ok(Pattern::Below(prefix)) => prefixes.push(prefix),
                Ok(Pattern::Exactly(event_type)) => exact.push(event_type),
                // None that was ever stored.
                Err(_) => {}
            }
        }
        let from = selection.from.map_or(Uuid::nil(), EventKey::as_uuid);
        let states: Vec<String> = selection.states.iter().map(|state| state.as_str().to_owned()).collect();
        Self {
            project: project.as_uuid(),
            webhooks: webhook_ids(selection),
            events: event_keys(selection),
            types: (!every).then_some(exact),
            prefixes,
            from: after.map_or(from, |(event, _)| from.max(event.as_uuid())),
            to: selection.to.map(EventKey::as_uuid),
            states: (!states.is_empty()).then_some(states),
            reasons: selection.reasons.clone(),
            of_deleted: selection.of_deleted,
            after: after.map(|(event, webhook)| (event.as_uuid(), webhook.as_uuid())),
        }
    }

    /// The last event of a stretch of about `count` rows; `None`: the stretch goes to the end.
    async fn end(&self, connection: &mut Connection, by: &By, count: i64) -> Result<Option<Uuid>, Error> {
        Ok(match by {
            By::Name => None,
            By::Pending(state) => {
                sqlx::query_scalar!(
                    "-- selection::end_of_pending
                     SELECT event_key FROM pending_deliveries
                     WHERE project_id = $1 AND state = $2 AND event_key >= $3 AND ($4::uuid IS NULL OR event_key < $4)
                     ORDER BY event_key OFFSET $5 LIMIT 1",
                    self.project,
                    state.as_str(),
                    self.from,
                    self.to,
                    count,
                )
                .fetch_optional(connection)
                .await?
            }
            By::Events if self.events.is_some() => None,
            By::Events => {
                sqlx::query_scalar!(
                    "-- selection::end_of_events
                     SELECT key FROM events
                     WHERE project_id = $1 AND key >= $2 AND ($3::uuid IS NULL OR key < $3)
                     ORDER BY key OFFSET $4 LIMIT 1",
                    self.project,
                    self.from,
                    self.to,
                    count,
                )
                .fetch_optional(connection)
                .await?
            }
        })
    }
}

struct Row {
    event_key: Uuid,
    webhook_id: Uuid,
}

/// The next stretch of what is selected after `after`: at most `limit` deliveries.
///
/// # Errors
/// Any [`Error`].
pub async fn walk(
    connection: &mut Connection,
    project: ProjectId,
    selection: &Selection,
    after: Option<Pair>,
    limit: u32,
) -> Result<Stretch, Error> {
    let by = By::of(selection);
    let values = Values::of(project, selection, after);
    let looked_at = if matches!(by, By::Pending(_)) {
        WALK_PENDING
    } else {
        WALK
    };
    let end = values.end(connection, &by, looked_at).await?;
    let rows = match &by {
        By::Name => named(connection, &values, limit).await?,
        By::Pending(state) => pending(connection, &values, *state, end, limit).await?,
        By::Events => recorded(connection, &values, end, limit).await?,
    };
    let pair = |row: &Row| (EventKey::from_uuid(row.event_key), WebhookId::from_uuid(row.webhook_id));
    let pairs: Vec<Pair> = rows.iter().map(pair).collect();
    let next = match pairs.last() {
        Some(last) if pairs.len() >= limit as usize => Some(*last),
        _ => end.map(after_all_of),
    };
    Ok(Stretch { pairs, next })
}

/// How many are selected in the next stretch after `after`.
///
/// # Errors
/// Any [`Error`].
pub async fn count(
    connection: &mut Connection,
    project: ProjectId,
    selection: &Selection,
    after: Option<Pair>,
) -> Result<Counted, Error> {
    let by = By::of(selection);
    let values = Values::of(project, selection, after);
    let looked_at = if matches!(by, By::Pending(_)) {
        COUNT_PENDING
    } else {
        COUNT
    };
    let end = values.end(connection, &by, looked_at).await?;
    let counts = match &by {
        By::Name => count_named(connection, &values).await?,
        By::Pending(state) => count_pending(connection, &values, *state, end).await?,
        By::Events => count_recorded(connection, &values, end).await?,
    };
    Ok(Counted {
        counts,
        next: end.map(after_all_of),
    })
}

/// After everything of this event.
fn after_all_of(event: Uuid) -> Pair {
    (EventKey::from_uuid(event), WebhookId::from_uuid(Uuid::max()))
}

async fn named(connection: &mut Connection, values: &Values, limit: u32) -> Result<Vec<Row>, Error> {
    Ok(sqlx::query_as!(
        Row,
        r#"-- selection::named
         SELECT e.key AS event_key, w.webhook_id AS "webhook_id!"
         FROM events e CROSS JOIN unnest($3::uuid[]) AS w (webhook_id)
         WHERE e.project_id = $1 AND e.key = ANY($2) AND ($4::uuid IS NULL OR (e.key, w.webhook_id) > ($4, $5::uuid))
         ORDER BY e.key, w.webhook_id LIMIT $6"#,
        values.project,
        values.events.as_deref().unwrap_or_default(),
        values.webhooks.as_deref().unwrap_or_default(),
        values.after.map(|after| after.0),
        values.after.map(|after| after.1),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?)
}

async fn count_named(connection: &mut Connection, values: &Values) -> Result<Vec<Count>, Error> {
    let webhooks = values.webhooks.as_deref().unwrap_or_default();
    let events = sqlx::query_scalar!(
        r#"-- selection::count_named
         SELECT count(*) AS "count!" FROM events WHERE project_id = $1 AND key = ANY($2)"#,
        values.project,
        values.events.as_deref().unwrap_or_default(),
    )
    .fetch_one(connection)
    .await?;
    let count = |webhook: &Uuid| Count {
        webhook: WebhookId::from_uuid(*webhook),
        state: None,
        deliveries: events.unsigned_abs(),
    };
    Ok(webhooks.iter().map(count).collect())
}

async fn pending(
    connection: &mut Connection,
    values: &Values,
    state: State,
    end: Option<Uuid>,
    limit: u32,
) -> Result<Vec<Row>, Error> {
    // A later run of the same delivery, under way or delivered, says what became of it; then this one does not.
    Ok(sqlx::query_as!(
        Row,
        "-- selection::pending
         SELECT p.event_key, p.webhook_id
         FROM pending_deliveries p JOIN events e ON e.key = p.event_key
         WHERE p.project_id = $1 AND p.state = $2
           AND p.event_key >= $3 AND ($4::uuid IS NULL OR p.event_key < $4) AND ($5::uuid IS NULL OR p.event_key <= $5)
           AND ($6::uuid IS NULL OR (p.event_key, p.webhook_id) > ($6, $7::uuid))
           AND ($8::uuid[] IS NULL OR p.webhook_id = ANY($8))
           AND ($9::text[] IS NULL OR p.reason = ANY($9))
           AND ($10::text[] IS NULL OR e.type = ANY($10)
                OR EXISTS (SELECT FROM unnest($11::text[]) AS below (prefix) WHERE starts_with(e.type, below.prefix)))
           AND NOT EXISTS (SELECT FROM pending_deliveries later
                           WHERE later.event_key = p.event_key AND later.webhook_id = p.webhook_id AND later.run > p.run)
           AND NOT EXISTS (SELECT FROM attempts later
                           WHERE later.event_key = p.event_key AND later.webhook_id = p.webhook_id AND later.run > p.run
                             AND later.outcome = 'delivered')
           AND ($13 OR EXISTS (SELECT FROM webhooks w WHERE w.id = p.webhook_id AND w.deleted_at IS NULL))
         ORDER BY p.event_key, p.webhook_id LIMIT $12",
        values.project,
        state.as_str(),
        values.from,
        values.to,
        end,
        values.after.map(|after| after.0),
        values.after.map(|after| after.1),
        values.webhooks.as_deref(),
        values.reasons.as_deref(),
        values.types.as_deref(),
        &values.prefixes,
        i64::from(limit),
        values.of_deleted,
    )
    .fetch_all(connection)
    .await?)
}

async fn count_pending(
    connection: &mut Connection,
    values: &Values,
    state: State,
    end: Option<Uuid>,
) -> Result<Vec<Count>, Error> {
    let rows = sqlx::query!(
        r#"-- selection::count_pending
         SELECT p.webhook_id, count(*) AS "count!"
         FROM pending_deliveries p
         WHERE p.project_id = $1 AND p.state = $2
           AND p.event_key >= $3 AND ($4::uuid IS NULL OR p.event_key < $4) AND ($5::uuid IS NULL OR p.event_key <= $5)
           AND ($6::uuid IS NULL OR (p.event_key, p.webhook_id) > ($6, $7::uuid))
           AND ($8::uuid[] IS NULL OR p.webhook_id = ANY($8))
           AND ($9::text[] IS NULL OR p.reason = ANY($9))
           AND EXISTS (SELECT FROM events e
                       WHERE e.key = p.event_key
                         AND ($10::text[] IS NULL OR e.type = ANY($10)
                              OR EXISTS (SELECT FROM unnest($11::text[]) AS below (prefix)
                                         WHERE starts_with(e.type, below.prefix))))
           AND NOT EXISTS (SELECT FROM pending_deliveries later
                           WHERE later.event_key = p.event_key AND later.webhook_id = p.webhook_id AND later.run > p.run)
           AND NOT EXISTS (SELECT FROM attempts later
                           WHERE later.event_key = p.event_key AND later.webhook_id = p.webhook_id AND later.run > p.run
                             AND later.outcome = 'delivered')
           AND ($12 OR EXISTS (SELECT FROM webhooks w WHERE w.id = p.webhook_id AND w.deleted_at IS NULL))
         GROUP BY p.webhook_id"#,
        values.project,
        state.as_str(),
        values.from,
        values.to,
        end,
        values.after.map(|after| after.0),
        values.after.map(|after| after.1),
        values.webhooks.as_deref(),
        values.reasons.as_deref(),
        values.types.as_deref(),
        &values.prefixes,
        values.of_deleted,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Count {
            webhook: WebhookId::from_uuid(row.webhook_id),
            state: Some(state),
            deliveries: row.count.unsigned_abs(),
        })
        .collect())
}

async fn recorded(
    connection: &mut Connection,
    values: &Values,
    end: Option<Uuid>,
    limit: u32,
) -> Result<Vec<Row>, Error> {
    // What a filter kept out was never wanted; it has to be asked for by name.
    Ok(sqlx::query_as!(
        Row,
        r#"-- selection::recorded
         SELECT d.event_key AS "event_key!", d.webhook_id AS "webhook_id!"
         FROM delivery_states d
         WHERE d.project_id = $1
           AND d.event_key >= $2 AND ($3::uuid IS NULL OR d.event_key < $3) AND ($4::uuid IS NULL OR d.event_key <= $4)
           AND ($5::uuid IS NULL OR (d.event_key, d.webhook_id) > ($5, $6::uuid))
           AND ($7::uuid[] IS NULL OR d.event_key = ANY($7))
           AND ($8::uuid[] IS NULL OR d.webhook_id = ANY($8))
           AND ($9::text[] IS NULL OR d.event_type = ANY($9)
                OR EXISTS (SELECT FROM unnest($10::text[]) AS below (prefix)
                           WHERE starts_with(d.event_type, below.prefix)))
           AND ($11::text[] IS NULL OR d.state = ANY($11))
           AND ($12::text[] IS NULL OR d.reason = ANY($12))
           AND (d.state <> 'skipped' OR d.reason <> 'filtered' OR 'filtered' = ANY($12))
           AND ($14 OR EXISTS (SELECT FROM webhooks w WHERE w.id = d.webhook_id AND w.deleted_at IS NULL))
         ORDER BY d.event_key, d.webhook_id LIMIT $13"#,
        values.project,
        values.from,
        values.to,
        end,
        values.after.map(|after| after.0),
        values.after.map(|after| after.1),
        values.events.as_deref(),
        values.webhooks.as_deref(),
        values.types.as_deref(),
        &values.prefixes,
        values.states.as_deref(),
        values.reasons.as_deref(),
        i64::from(limit),
        values.of_deleted,
    )
    .fetch_all(connection)
    .await?)
}

async fn count_recorded(connection: &mut Connection, values: &Values, end: Option<Uuid>) -> Result<Vec<Count>, Error> {
    let rows = sqlx::query!(
        r#"-- selection::count_recorded
         SELECT d.webhook_id AS "webhook_id!", d.state AS "state!", count(*) AS "count!"
         FROM delivery_states d
         WHERE d.project_id = $1
           AND d.event_key >= $2 AND ($3::uuid IS NULL OR d.event_key < $3) AND ($4::uuid IS NULL OR d.event_key <= $4)
           AND ($5::uuid IS NULL OR (d.event_key, d.webhook_id) > ($5, $6::uuid))
           AND ($7::uuid[] IS NULL OR d.event_key = ANY($7))
           AND ($8::uuid[] IS NULL OR d.webhook_id = ANY($8))
           AND ($9::text[] IS NULL OR d.event_type = ANY($9)
                OR EXISTS (SELECT FROM unnest($10::text[]) AS below (prefix)
                           WHERE starts_with(d.event_type, below.prefix)))
           AND ($11::text[] IS NULL OR d.state = ANY($11))
           AND ($12::text[] IS NULL OR d.reason = ANY($12))
           AND (d.state <> 'skipped' OR d.reason <> 'filtered' OR 'filtered' = ANY($12))
           AND ($13 OR EXISTS (SELECT FROM webhooks w WHERE w.id = d.webhook_id AND w.deleted_at IS NULL))
         GROUP BY d.webhook_id, d.state"#,
        values.project,
        values.from,
        values.to,
        end,
        values.after.map(|after| after.0),
        values.after.map(|after| after.1),
        values.events.as_deref(),
        values.webhooks.as_deref(),
        values.types.as_deref(),
        &values.prefixes,
        values.states.as_deref(),
        values.reasons.as_deref(),
        values.of_deleted,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Count {
            webhook: WebhookId::from_uuid(row.webhook_id),
            state: State::parse(&row.state),
            deliveries: row.count.unsigned_abs(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letters_are_found_by_their_rows_and_named_pairs_by_their_names() {
        let selection = |states: &[State], events: bool, webhooks: bool| Selection {
            states: states.to_vec(),
            events: events.then(Vec::new),
            webhooks: webhooks.then(Vec::new),
            ..Selection::default()
        };
        assert_eq!(By::of(&selection(&[], true, true)), By::Name);
        assert_eq!(By::of(&selection(&[], true, false)), By::Events);
        assert_eq!(
            By::of(&selection(&[State::Dead], false, true)),
            By::Pending(State::Dead)
        );
        assert_eq!(By::of(&selection(&[State::Dead], true, false)), By::Events);
        assert_eq!(
            By::of(&selection(&[State::Dead, State::Skipped], false, false)),
            By::Events
        );
    }
}
