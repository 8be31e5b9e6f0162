//! `alerts`, `alert_pauses`: what e-mails are to tell of, and when the next may go. Written by retry-scheduler alone.

use jiff::Timestamp;
use proto_schemas::id::{ProjectId, WebhookId};
use serde_json::Value;
use uuid::Uuid;

use crate::time::{from_sql, to_sql};
use crate::value::text;
use crate::{Connection, Error};

/// Operational events of one kind that came together.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Of which type.
    pub event_type: String,
    /// How many.
    pub events: u32,
    /// Why the last of them, in one line.
    pub reason: String,
    /// What the last one's data holds besides.
    pub detail: Value,
    /// When the first happened.
    pub first_at: Timestamp,
    /// When the last happened.
    pub last_at: Timestamp,
}

/// What a mail is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct About {
    /// The project.
    pub project: ProjectId,
    /// The webhook; `None` for what is about no webhook.
    pub webhook: Option<WebhookId>,
}

impl About {
    fn webhook_id(self) -> Uuid {
        self.webhook.map_or(Uuid::nil(), WebhookId::as_uuid)
    }
}

/// Adds alerts.
///
/// # Errors
/// Any [`Error`].
pub async fn insert(connection: &mut Connection, alerts: &[(About, Alert)]) -> Result<(), Error> {
    if alerts.is_empty() {
        return Ok(());
    }
    let projects: Vec<_> = alerts.iter().map(|(about, _)| about.project.as_uuid()).collect();
    let webhooks: Vec<_> = alerts.iter().map(|(about, _)| about.webhook_id()).collect();
    let types: Vec<_> = alerts.iter().map(|(_, alert)| alert.event_type.clone()).collect();
    let events: Vec<_> = alerts
        .iter()
        .map(|(_, alert)| i32::try_from(alert.events).unwrap_or(i32::MAX))
        .collect();
    let reasons: Vec<_> = alerts.iter().map(|(_, alert)| text(&alert.reason)).collect();
    let details: Vec<_> = alerts.iter().map(|(_, alert)| alert.detail.to_string()).collect();
    let first_at: Vec<_> = alerts.iter().map(|(_, alert)| to_sql(alert.first_at)).collect();
    let last_at: Vec<_> = alerts.iter().map(|(_, alert)| to_sql(alert.last_at)).collect();
    sqlx::query!(
        "-- alerts::insert
         INSERT INTO alerts (project_id, webhook_id, type, events, reason, detail, first_at, last_at)
         SELECT row.project_id, row.webhook_id, row.type, row.events, row.reason, row.detail::jsonb, row.first_at,
                row.last_at
         FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::integer[], $5::text[], $6::text[], $7::timestamptz[],
                     $8::timestamptz[])
              AS row (project_id, webhook_id, type, events, reason, detail, first_at, last_at)",
        &projects,
        &webhooks,
        &types,
        &events,
        &reasons as _,
        &details,
        &first_at,
        &last_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Finds something that a mail may go about at `now`, and keeps others from it until `until`. `None`: there is nothing, or
/// another process has just taken it.
///
/// # Errors
/// Any [`Error`].
pub async fn claim(connection: &mut Connection, now: Timestamp, until: Timestamp) -> Result<Option<About>, Error> {
    let row = sqlx::query!(
        r#"-- alerts::claim
         INSERT INTO alert_pauses AS pause (project_id, webhook_id, until)
         SELECT alerts.project_id, alerts.webhook_id, $2
         FROM alerts LEFT JOIN alert_pauses AS paused USING (project_id, webhook_id)
         WHERE paused.until IS NULL OR paused.until <= $1
         ORDER BY alerts.id LIMIT 1
         ON CONFLICT (project_id, webhook_id) DO UPDATE SET until = excluded.until WHERE pause.until <= $1
         RETURNING project_id, webhook_id"#,
        to_sql(now),
        to_sql(until),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| About {
        project: ProjectId::from_uuid(row.project_id),
        webhook: (!row.webhook_id.is_nil()).then(|| WebhookId::from_uuid(row.webhook_id)),
    }))
}

/// What a mail holds, and to whom it goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Gathered {
    /// The alerts up to this one are in it.
    pub up_to: i64,
    /// How the project is called.
    pub project: String,
    /// How the webhook is called.
    pub webhook: Option<String>,
    /// To whom.
    pub emails: Vec<String>,
    /// One for each type, in the order of their first.
    pub alerts: Vec<Alert>,
}

/// Gathers what there is about this; `None`: nothing.
///
/// # Errors
/// Any [`Error`].
pub async fn gather(connection: &mut Connection, about: About) -> Result<Option<Gathered>, Error> {
    let rows = sqlx::query!(
        r#"-- alerts::gather
         SELECT type, sum(events) AS "events!", min(first_at) AS "first_at!", max(last_at) AS "last_at!",
                max(id) AS "last_id!", (array_agg(reason ORDER BY id DESC))[1] AS "reason!",
                (array_agg(detail ORDER BY id DESC))[1] AS "detail!"
         FROM alerts WHERE project_id = $1 AND webhook_id = $2
         GROUP BY type ORDER BY min(id)"#,
        about.project.as_uuid(),
        about.webhook_id(),
    )
    .fetch_all(&mut *connection)
    .await?;
    let Some(up_to) = rows.iter().map(|row| row.last_id).max() else {
        return Ok(None);
    };
    let named = sqlx::query!(
        r#"-- alerts::gather
         SELECT projects.name, projects.alert_emails, (SELECT name FROM webhooks WHERE id = $2) AS webhook
         FROM projects WHERE id = $1"#,
        about.project.as_uuid(),
        about.webhook.map(WebhookId::as_uuid),
    )
    .fetch_optional(connection)
    .await?;
    let (project, emails, webhook) =
        named.map_or_else(Default::default, |row| (row.name, row.alert_emails, row.webhook));
    let alerts = rows.into_iter().map(|row| Alert {
        event_type: row.r#type,
        events: u32::try_from(row.events).unwrap_or(u32::MAX),
        reason: row.reason,
        detail: row.detail,
        first_at: from_sql(row.first_at),
        last_at: from_sql(row.last_at),
    });
    Ok(Some(Gathered {
        up_to,
        project,
        webhook,
        emails,
        alerts: alerts.collect(),
    }))
}

/// Deletes the alerts that a mail has told of, and lets the next one about it go at `next` at the earliest.
///
/// # Errors
/// Any [`Error`].
pub async fn told(connection: &mut Connection, about: About, up_to: i64, next: Timestamp) -> Result<(), Error> {
    sqlx::query!(
        "-- alerts::told
         DELETE FROM alerts WHERE project_id = $1 AND webhook_id = $2 AND id <= $3",
        about.project.as_uuid(),
        about.webhook_id(),
        up_to,
    )
    .execute(&mut *connection)
    .await?;
    pause(connection, about, next).await
}

/// Lets the next mail about it go at `next` at the earliest.
///
/// # Errors
/// Any [`Error`].
pub async fn pause(connection: &mut Connection, about: About, next: Timestamp) -> Result<(), Error> {
    sqlx::query!(
        "-- alerts::pause
         INSERT INTO alert_pauses (project_id, webhook_id, until) VALUES ($1, $2, $3)
         ON CONFLICT (project_id, webhook_id) DO UPDATE SET until = excluded.until",
        about.project.as_uuid(),
        about.webhook_id(),
        to_sql(next),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets pauses that are over.
///
/// # Errors
/// Any [`Error`].
pub async fn forget_pauses(connection: &mut Connection, now: Timestamp) -> Result<(), Error> {
    sqlx::query!(
        "-- alerts::forget_pauses
         DELETE FROM alert_pauses WHERE until <= $1",
        to_sql(now),
    )
    .execute(connection)
    .await?;
    Ok(())
}
