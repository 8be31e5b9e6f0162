//! `webhooks` and `webhook_revisions`: subscriptions as their owners wrote them, and who changed what when. Written by
//! config-api. A deleted webhook's row stays, so that late deliveries and the log still know it.

mod gone;
mod receiver;
mod revisions;
mod secrets;
mod settings;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use proto_schemas::id::{ProjectId, WebhookId};
use serde::{Deserialize, Serialize};
use sqlx::query_as;
use sqlx::types::Json;
use uuid::Uuid;

pub use self::gone::{count_deleted, deleted, there_since};
pub use self::receiver::{Authentication, ClientCertificate, Tls};
pub use self::revisions::{Revision, note_revision, revision, revisions};
pub use self::secrets::{Secret, lock, with_secrets_to_erase};
pub use self::settings::{BodyKind, Ordering, RateLimit, Settings, SignatureSettings};
use crate::time::{from_sql, to_sql};
use crate::{Connection, Error};

/// The index that keeps names of one project's webhooks apart.
pub const NAME_KEY: &str = "webhooks_project_name_key";

/// A subscription as its owner wrote it: what it leaves open, the project's profile says.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    /// Identity.
    pub id: WebhookId,
    /// Whose it is.
    pub project: ProjectId,
    /// Its name, unique among the project's webhooks.
    pub name: String,
    /// Where requests go.
    pub url: String,
    /// Event type patterns.
    pub events: Vec<String>,
    /// Headers of its own.
    pub headers: Vec<NamedValue>,
    /// What its transform finds under `variables`.
    pub variables: Vec<NamedValue>,
    /// What requests are signed with, the current one first.
    pub secrets: Vec<Secret>,
    /// The first of them of kind v1 once more, sealed as the release before has it.
    pub sealed_secret: Option<String>,
    /// Whether it gets events; off, it is paused.
    pub active: bool,
    /// For people.
    pub description: String,
    /// For finding it.
    pub labels: BTreeMap<String, String>,
    /// What an event's attributes have to be.
    pub attributes: BTreeMap<String, String>,
    /// How it is delivered to.
    pub settings: Settings,
    /// What its TLS sessions are made with, beside what the operator's are.
    pub tls: Option<Tls>,
    /// How its requests say who they come from, beside their signature.
    pub authentication: Option<Authentication>,
    /// The endpoint check it has to pass before it gets events.
    pub check: Option<Uuid>,
    /// What stopped it before this instant is void.
    pub restarted_at: Option<Timestamp>,
    /// When to try again; `None`: as the profile says.
    pub retry: Option<Retry>,
    /// Total time of one request; `None`: as the profile says. To the millisecond.
    pub timeout: Option<Duration>,
    /// Counts the versions, from 1.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When this revision was made.
    pub updated_at: Timestamp,
    /// Since when it is gone, if it is.
    pub deleted_at: Option<Timestamp>,
}

impl Webhook {
    /// A webhook of which nothing has been said yet, made `now`.
    #[must_use]
    pub fn blank(id: WebhookId, project: ProjectId, now: Timestamp) -> Self {
        Self {
            id,
            project,
            name: String::new(),
            url: String::new(),
            events: Vec::new(),
            headers: Vec::new(),
            variables: Vec::new(),
            secrets: Vec::new(),
            sealed_secret: None,
            active: true,
            description: String::new(),
            labels: BTreeMap::new(),
            attributes: BTreeMap::new(),
            settings: Settings::default(),
            tls: None,
            authentication: None,
            check: None,
            restarted_at: None,
            retry: None,
            timeout: None,
            revision: 1,
            created_at: now,
            updated_at: now,
            deleted_at: None,
        }
    }

    /// Whether it was not deleted yet at this instant.
    #[must_use]
    pub fn is_there_since(&self, since: Timestamp) -> bool {
        self.deleted_at.is_none_or(|deleted_at| deleted_at > since)
    }
}

/// A header or a variable of a webhook's own, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedValue {
    /// As it was typed.
    pub key: String,
    /// Its value.
    #[serde(flatten)]
    pub value: MaybeSealed,
}

/// A value that may be protected, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaybeSealed {
    /// Readable by whoever may read the webhook.
    #[serde(rename = "value")]
    Plain(String),
    /// Protected: encrypted, and never given out again.
    Sealed(String),
}

/// When to try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retry {
    /// One attempt, then it is dead.
    Never,
    /// The delay before each attempt, the first one's included. To the millisecond.
    Delays(Vec<Duration>),
}

/// How [`Retry`] is stored: `false` or `{"delays_ms": […]}`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum StoredRetry {
    Switch(bool),
    Delays { delays_ms: Vec<u64> },
}

impl Retry {
    fn to_stored(&self) -> StoredRetry {
        match self {
            Self::Never => StoredRetry::Switch(false),
            Self::Delays(delays) => StoredRetry::Delays {
                delays_ms: delays
                    .iter()
                    .map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
                    .collect(),
            },
        }
    }

    fn from_stored(stored: StoredRetry) -> Option<Self> {
        match stored {
            StoredRetry::Switch(false) => Some(Self::Never),
            StoredRetry::Switch(true) => None,
            StoredRetry::Delays { delays_ms } => {
                Some(Self::Delays(delays_ms.into_iter().map(Duration::from_millis).collect()))
            }
        }
    }
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    name: String,
    url: String,
    events: Vec<String>,
    headers: Json<Vec<NamedValue>>,
    variables: Json<Vec<NamedValue>>,
    secrets: Json<Vec<secrets::Stored>>,
    secrets_of: Option<String>,
    sealed_secret: Option<String>,
    active: bool,
    description: String,
    labels: Json<BTreeMap<String, String>>,
    attributes: Json<BTreeMap<String, String>>,
    settings: Json<Settings>,
    tls: Option<Json<Tls>>,
    authentication: Option<Json<Authentication>>,
    check_id: Option<Uuid>,
    restarted_at: Option<time::OffsetDateTime>,
    retry: Option<Json<StoredRetry>>,
    timeout_ms: Option<i32>,
    revision: i64,
    created_at: time::OffsetDateTime,
    updated_at: time::OffsetDateTime,
    deleted_at: Option<time::OffsetDateTime>,
}

impl TryFrom<Row> for Webhook {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let unreadable = |what: &str| Error::Unreadable {
            table: "webhooks",
            reason: format!("{what} of {} is out of range", row.id),
        };
        let created_at = from_sql(row.created_at);
        Ok(Self {
            id: WebhookId::from_uuid(row.id),
            project: ProjectId::from_uuid(row.project_id),
            name: row.name,
            url: row.url,
            events: row.events,
            headers: row.headers.0,
            variables: row.variables.0,
            secrets: secrets::read(
                row.secrets.0,
                row.secrets_of.as_deref(),
                row.sealed_secret.as_deref(),
                created_at,
            )
            .ok_or_else(|| unreadable("a secret"))?,
            sealed_secret: row.sealed_secret,
            active: row.active,
            description: row.description,
            labels: row.labels.0,
            attributes: row.attributes.0,
            settings: row.settings.0,
            tls: row.tls.map(|stored| stored.0),
            authentication: row.authentication.map(|stored| stored.0),
            check: row.check_id,
            restarted_at: row.restarted_at.map(from_sql),
            retry: row.retry.and_then(|stored| Retry::from_stored(stored.0)),
            timeout: row
                .timeout_ms
                .map(|millis| u64::try_from(millis).map(Duration::from_millis))
                .transpose()
                .map_err(|_| unreadable("timeout_ms"))?,
            revision: u64::try_from(row.revision).map_err(|_| unreadable("revision"))?,
            created_at,
            updated_at: from_sql(row.updated_at),
            deleted_at: row.deleted_at.map(from_sql),
        })
    }
}

/// Adds a webhook.
///
/// # Errors
/// [`Error::Constraint`] with [`NAME_KEY`] where the name is taken.
pub async fn insert(connection: &mut Connection, webhook: &Webhook) -> Result<(), Error> {
    sqlx::query!(
        "-- webhooks::insert
         INSERT INTO webhooks (id, project_id, name, url, events, headers, sealed_secret, active, retry, timeout_ms,
                               revision, created_at, updated_at, description, labels, attributes, settings, check_id,
                               restarted_at, secrets, secrets_of, secrets_expire_at, tls, authentication, variables)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $7, $21,
                 $22, $23, $24)",
        webhook.id.as_uuid(),
        webhook.project.as_uuid(),
        webhook.name,
        webhook.url,
        &webhook.events,
        Json(&webhook.headers) as _,
        webhook.sealed_secret,
        webhook.active,
        webhook.retry.as_ref().map(|retry| Json(retry.to_stored())) as _,
        millis(webhook.timeout),
        counted(webhook.revision),
        to_sql(webhook.created_at),
        to_sql(webhook.updated_at),
        webhook.description,
        Json(&webhook.labels) as _,
        Json(&webhook.attributes) as _,
        Json(&webhook.settings) as _,
        webhook.check,
        webhook.restarted_at.map(to_sql),
        Json(secrets::stored(&webhook.secrets)) as _,
        secrets::first_expiry(&webhook.secrets).map(to_sql),
        webhook.tls.as_ref().map(Json) as _,
        webhook.authentication.as_ref().map(Json) as _,
        Json(&webhook.variables) as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// How many webhooks a project has, deleted ones left out.
///
/// # Errors
/// Any [`Error`].
pub async fn count(connection: &mut Connection, project: ProjectId) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"-- webhooks::count
         SELECT count(*) AS "count!" FROM webhooks WHERE project_id = $1 AND deleted_at IS NULL"#,
        project.as_uuid(),
    )
    .fetch_one(connection)
    .await?;
    Ok(count)
}

/// Writes a webhook's next revision; `deleted_at` is written too. Read it with [`find_for_update`]
/// in the same transaction.
///
/// # Errors
/// [`Error::Constraint`] with [`NAME_KEY`] where the name is taken.
pub async fn update(connection: &mut Connection, webhook: &Webhook) -> Result<(), Error> {
    sqlx::query!(
        "-- webhooks::update
         UPDATE webhooks
         SET name = $2, url = $3, events = $4, headers = $5, sealed_secret = $6, active = $7, retry = $8,
             timeout_ms = $9, revision = $10, updated_at = $11, deleted_at = $12, description = $13, labels = $14,
             attributes = $15, settings = $16, check_id = $17, restarted_at = $18, secrets = $19, secrets_of = $6,
             secrets_expire_at = $20, tls = $21, authentication = $22, variables = $23
         WHERE id = $1",
        webhook.id.as_uuid(),
        webhook.name,
        webhook.url,
        &webhook.events,
        Json(&webhook.headers) as _,
        webhook.sealed_secret,
        webhook.active,
        webhook.retry.as_ref().map(|retry| Json(retry.to_stored())) as _,
        millis(webhook.timeout),
        counted(webhook.revision),
        to_sql(webhook.updated_at),
        webhook.deleted_at.map(to_sql),
        webhook.description,
        Json(&webhook.labels) as _,
        Json(&webhook.attributes) as _,
        Json(&webhook.settings) as _,
        webhook.check,
        webhook.restarted_at.map(to_sql),
        Json(secrets::stored(&webhook.secrets)) as _,
        secrets::first_expiry(&webhook.secrets).map(to_sql),
        webhook.tls.as_ref().map(Json) as _,
        webhook.authentication.as_ref().map(Json) as _,
        Json(&webhook.variables) as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A project's webhook of that name or id, deleted ones left out.
///
/// # Errors
/// Any [`Error`].
pub async fn find(connection: &mut Connection, project: ProjectId, name_or_id: &str) -> Result<Option<Webhook>, Error> {
    let row = query_as!(
        Row,
        r#"-- webhooks::find
         SELECT id, project_id, name, url, events, headers AS "headers: Json<Vec<NamedValue>>",
                variables AS "variables: Json<Vec<NamedValue>>", sealed_secret,
                secrets AS "secrets: Json<Vec<secrets::Stored>>", secrets_of, active, description,
                labels AS "labels: Json<BTreeMap<String, String>>",
                attributes AS "attributes: Json<BTreeMap<String, String>>", settings AS "settings: Json<Settings>",
                tls AS "tls: Json<Tls>", authentication AS "authentication: Json<Authentication>", check_id,
                restarted_at, retry AS "retry: Json<StoredRetry>", timeout_ms, revision, created_at, updated_at,
                deleted_at
         FROM webhooks
         WHERE project_id = $1 AND deleted_at IS NULL AND (id = $2 OR ($2 IS NULL AND name = $3))"#,
        project.as_uuid(),
        Uuid::parse_str(name_or_id).ok(),
        name_or_id,
    )
    .fetch_optional(connection)
    .await?;
    row.map(Webhook::try_from).transpose()
}

/// Like [`find`], and nobody else changes it until the transaction ends.
///
/// # Errors
/// Any [`Error`].
pub async fn find_for_update(
    connection: &mut Connection,
    project: ProjectId,
    name_or_id: &str,
) -> Result<Option<Webhook>, Error> {
    let row = query_as!(
        Row,
        r#"-- webhooks::find_for_update
         SELECT id, project_id, name, url, events, headers AS "headers: Json<Vec<NamedValue>>",
                variables AS "variables: Json<Vec<NamedValue>>", sealed_secret,
                secrets AS "secrets: Json<Vec<secrets::Stored>>", secrets_of, active, description,
                labels AS "labels: Json<BTreeMap<String, String>>",
                attributes AS "attributes: Json<BTreeMap<String, String>>", settings AS "settings: Json<Settings>",
                tls AS "tls: Json<Tls>", authentication AS "authentication: Json<Authentication>", check_id,
                restarted_at, retry AS "retry: Json<StoredRetry>", timeout_ms, revision, created_at, updated_at,
                deleted_at
         FROM webhooks
         WHERE project_id = $1 AND deleted_at IS NULL AND (id = $2 OR ($2 IS NULL AND name = $3))
         FOR UPDATE"#,
        project.as_uuid(),
        Uuid::parse_str(name_or_id).ok(),
        name_or_id,
    )
    .fetch_optional(connection)
    .await?;
    row.map(Webhook::try_from).transpose()
}

/// The name of a webhook of the project, other than `but`, that has this url; deleted ones are left out.
///
/// # Errors
/// Any [`Error`].
pub async fn with_url(
    connection: &mut Connection,
    project: ProjectId,
    url: &str,
    but: WebhookId,
) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar!(
        "-- webhooks::with_url
         SELECT name FROM webhooks
         WHERE project_id = $1 AND url = $2 AND id <> $3 AND deleted_at IS NULL
         ORDER BY id LIMIT 1",
        project.as_uuid(),
        url,
        but.as_uuid(),
    )
    .fetch_optional(connection)
    .await?)
}

/// The webhooks of those ids, deleted ones included, in no particular order.
///
/// # Errors
/// Any [`Error`].
pub async fn by_ids(connection: &mut Connection, ids: &[WebhookId]) -> Result<Vec<Webhook>, Error> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
    let rows = query_as!(
        Row,
        r#"-- webhooks::by_ids
         SELECT id, project_id, name, url, events, headers AS "headers: Json<Vec<NamedValue>>",
                variables AS "variables: Json<Vec<NamedValue>>", sealed_secret,
                secrets AS "secrets: Json<Vec<secrets::Stored>>", secrets_of, active, description,
                labels AS "labels: Json<BTreeMap<String, String>>",
                attributes AS "attributes: Json<BTreeMap<String, String>>", settings AS "settings: Json<Settings>",
                tls AS "tls: Json<Tls>", authentication AS "authentication: Json<Authentication>", check_id,
                restarted_at, retry AS "retry: Json<StoredRetry>", timeout_ms, revision, created_at, updated_at,
                deleted_at
         FROM webhooks WHERE id = ANY($1)"#,
        &ids,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Webhook::try_from).collect()
}

/// Which webhooks of a project.
#[derive(Debug, Clone, Copy)]
pub struct WebhookFilter<'a> {
    /// Those that have all of these labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Those whose name contains this text, in capitals or not.
    pub name: Option<&'a str>,
}

/// Up to `limit` webhooks of a project made before the webhook `before`, newest first; deleted ones are left out.
///
/// # Errors
/// Any [`Error`].
pub async fn page(
    connection: &mut Connection,
    project: ProjectId,
    filter: &WebhookFilter<'_>,
    before: Option<WebhookId>,
    limit: u32,
) -> Result<Vec<Webhook>, Error> {
    let rows = query_as!(
        Row,
        r#"-- webhooks::page
         SELECT id, project_id, name, url, events, headers AS "headers: Json<Vec<NamedValue>>",
                variables AS "variables: Json<Vec<NamedValue>>", sealed_secret,
                secrets AS "secrets: Json<Vec<secrets::Stored>>", secrets_of, active, description,
                labels AS "labels: Json<BTreeMap<String, String>>",
                attributes AS "attributes: Json<BTreeMap<String, String>>", settings AS "settings: Json<Settings>",
                tls AS "tls: Json<Tls>", authentication AS "authentication: Json<Authentication>", check_id,
                restarted_at, retry AS "retry: Json<StoredRetry>", timeout_ms, revision, created_at, updated_at,
                deleted_at
         FROM webhooks
         WHERE project_id = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR id < $2)
           AND ($4::jsonb = '{}' OR labels @> $4) AND ($5::text IS NULL OR strpos(lower(name), lower($5)) > 0)
         ORDER BY id DESC LIMIT $3"#,
        project.as_uuid(),
        before.map(WebhookId::as_uuid),
        i64::from(limit),
        Json(filter.labels) as _,
        filter.name,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Webhook::try_from).collect()
}

/// Up to `limit` identities of webhooks in the order of their ids, from after `after` on; deleted ones included.
///
/// # Errors
/// Any [`Error`].
pub async fn all(
    connection: &mut Connection,
    after: Option<WebhookId>,
    limit: u32,
) -> Result<Vec<(ProjectId, WebhookId)>, Error> {
    let rows = sqlx::query!(
        "-- webhooks::all
         SELECT project_id, id FROM webhooks WHERE $1::uuid IS NULL OR id > $1 ORDER BY id LIMIT $2",
        after.map(WebhookId::as_uuid),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (ProjectId::from_uuid(row.project_id), WebhookId::from_uuid(row.id)))
        .collect())
}

fn millis(timeout: Option<Duration>) -> Option<i32> {
    timeout.map(|timeout| i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX))
}

fn counted(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}
