//! `audit_entries`: who did what. Written by config-api.

use jiff::Timestamp;
use proto_schemas::id::{EventKey, ProjectId};
use sqlx::query_as;
use uuid::Uuid;

use crate::time::{from_sql, to_sql};
use crate::value::text;
use crate::{Connection, Error};

/// A request that is about to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// Identity: a UUID version 7.
    pub id: Uuid,
    /// The project it is about; `None`: the installation.
    pub project: Option<ProjectId>,
    /// Whose token it bears.
    pub token: Uuid,
    /// Its method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// Its id in logs.
    pub request_id: String,
    /// Who it came from.
    pub address: Option<String>,
    /// When it came.
    pub begun_at: Timestamp,
}

/// A request that was carried out, or was to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was known before it was.
    pub request: NewEntry,
    /// The token's name.
    pub token_name: Option<String>,
    /// What it was answered with; `None`: it never was.
    pub status: Option<u16>,
    /// Where what it made is found.
    pub location: Option<String>,
    /// Whether its answer was to show a secret.
    pub reveals: bool,
}

/// Which entries.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Of this project.
    pub project: Option<ProjectId>,
    /// Of this token.
    pub token: Option<Uuid>,
    /// Of requests that came at this instant or later.
    pub since: Option<Timestamp>,
    /// Of requests that came before this instant.
    pub until: Option<Timestamp>,
    /// Of requests whose answers were to show a secret.
    pub reveals: Option<bool>,
}

/// Notes that a request is about to be carried out.
///
/// # Errors
/// Any [`Error`].
pub async fn begin(connection: &mut Connection, entry: &NewEntry) -> Result<(), Error> {
    sqlx::query!(
        "-- audit::begin
         INSERT INTO audit_entries (id, project_id, token_id, method, path, request_id, address, begun_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        entry.id,
        entry.project.map(ProjectId::as_uuid),
        entry.token,
        entry.method,
        &*text(&entry.path),
        entry.request_id,
        entry.address,
        to_sql(entry.begun_at),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes what a request was answered with.
///
/// # Errors
/// Any [`Error`].
pub async fn finish(connection: &mut Connection, id: Uuid, status: u16, location: Option<&str>) -> Result<(), Error> {
    sqlx::query!(
        "-- audit::finish
         UPDATE audit_entries SET status = $2, location = $3 WHERE id = $1",
        id,
        i16::try_from(status).unwrap_or(i16::MAX),
        location,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes that a request's answer is to show a secret.
///
/// # Errors
/// Any [`Error`].
pub async fn note_reveal(connection: &mut Connection, id: Uuid) -> Result<(), Error> {
    sqlx::query!(
        "-- audit::note_reveal
         UPDATE audit_entries SET reveals = true WHERE id = $1",
        id,
    )
    .execute(connection)
    .await?;
    Ok(())
}

struct Row {
    id: Uuid,
    project_id: Option<Uuid>,
    token_id: Uuid,
    token_name: Option<String>,
    method: String,
    path: String,
    request_id: String,
    address: Option<String>,
    begun_at: time::OffsetDateTime,
    status: Option<i16>,
    location: Option<String>,
    reveals: bool,
}

impl From<Row> for Entry {
    fn from(row: Row) -> Self {
        Self {
            request: NewEntry {
                id: row.id,
                project: row.project_id.map(ProjectId::from_uuid),
                token: row.token_id,
                method: row.method,
                path: row.path,
                request_id: row.request_id,
                address: row.address,
                begun_at: from_sql(row.begun_at),
            },
            token_name: row.token_name,
            status: row.status.map(i16::unsigned_abs),
            location: row.location,
            reveals: row.reveals,
        }
    }
}

/// Up to `limit` entries before the entry `before`, newest first.
///
/// # Errors
/// Any [`Error`].
pub async fn page(
    connection: &mut Connection,
    filter: &Filter,
    before: Option<Uuid>,
    limit: u32,
) -> Result<Vec<Entry>, Error> {
    let rows = query_as!(
        Row,
        r#"-- audit::page
         SELECT entry.id, entry.project_id, entry.token_id, token.name AS "token_name?", entry.method, entry.path,
                entry.request_id, entry.address, entry.begun_at, entry.status, entry.location, entry.reveals
         FROM audit_entries AS entry LEFT JOIN tokens AS token ON token.id = entry.token_id
         WHERE ($1::uuid IS NULL OR entry.project_id = $1) AND ($2::uuid IS NULL OR entry.id < $2)
           AND ($3::uuid IS NULL OR entry.token_id = $3)
           AND ($4::timestamptz IS NULL OR entry.begun_at >= $4)
           AND ($5::timestamptz IS NULL OR entry.begun_at < $5)
           AND ($6::boolean IS NULL OR entry.reveals = $6)
         ORDER BY entry.id DESC LIMIT $7"#,
        filter.project.map(ProjectId::as_uuid),
        before,
        filter.token,
        filter.since.map(to_sql),
        filter.until.map(to_sql),
        filter.reveals,
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Entry::from).collect())
}

/// Deletes up to `limit` entries of requests that came before `expired`, the oldest first; how many.
///
/// # Errors
/// Any [`Error`].
pub async fn delete_before(connection: &mut Connection, expired: Timestamp, limit: u32) -> Result<u64, Error> {
    Ok(sqlx::query!(
        // Ids are made of the same instant, and are what there is an index of.
        "-- audit::delete_before
         DELETE FROM audit_entries WHERE id IN (SELECT id FROM audit_entries WHERE id < $1 ORDER BY id LIMIT $2)",
        EventKey::floor(expired).as_uuid(),
        i64::from(limit),
    )
    .execute(connection)
    .await?
    .rows_affected())
}
