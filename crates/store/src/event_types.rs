//! `event_types`: a project's own event types, each version a row. Written by config-api.

use jiff::Timestamp;
use proto_schemas::id::ProjectId;
use sqlx::query_as;
use uuid::Uuid;

use crate::time::{from_sql, to_sql};
use crate::{Connection, Error};

/// The constraint that keeps a type's versions apart.
pub const VERSION_KEY: &str = "event_types_pkey";

/// One version of an event type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventTypeVersion {
    /// Whose type it is.
    pub project: ProjectId,
    /// The type.
    pub name: String,
    /// What the version is called.
    pub version: String,
    /// What people should know of the type; the same in all its versions.
    pub description: String,
    /// JSON Schema of an event's data, as it was given; `None`: anything is allowed.
    pub schema: Option<String>,
    /// An event's data, as it was given.
    pub example: Option<String>,
    /// Events should no longer be made of it.
    pub deprecated: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

struct Row {
    project_id: Uuid,
    name: String,
    version: String,
    description: String,
    schema: Option<String>,
    example: Option<String>,
    deprecated: bool,
    created_at: time::OffsetDateTime,
    updated_at: time::OffsetDateTime,
}

impl From<Row> for EventTypeVersion {
    fn from(row: Row) -> Self {
        Self {
            project: ProjectId::from_uuid(row.project_id),
            name: row.name,
            version: row.version,
            description: row.description,
            schema: row.schema,
            example: row.example,
            deprecated: row.deprecated,
            created_at: from_sql(row.created_at),
            updated_at: from_sql(row.updated_at),
        }
    }
}

/// Adds a version; the first one makes the type.
///
/// # Errors
/// [`Error::Constraint`] with [`VERSION_KEY`] where there is this version already.
pub async fn insert(connection: &mut Connection, version: &EventTypeVersion) -> Result<(), Error> {
    sqlx::query!(
        "-- event_types::insert
         INSERT INTO event_types (project_id, name, version, description, schema, example, deprecated, created_at,
                                  updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        version.project.as_uuid(),
        version.name,
        version.version,
        version.description,
        version.schema,
        version.example,
        version.deprecated,
        to_sql(version.created_at),
        to_sql(version.updated_at),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes the next one wait who changes the project's types, until the transaction ends: what is counted stays true.
///
/// # Errors
/// Any [`Error`].
pub async fn lock(connection: &mut Connection, project: ProjectId) -> Result<(), Error> {
    sqlx::query!(
        r#"-- event_types::lock
         SELECT pg_advisory_xact_lock(hashtextextended('event_types ' || $1::text, 0)) AS "locked!: ()""#,
        project.to_string(),
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// How many types a project has.
///
/// # Errors
/// Any [`Error`].
pub async fn count(connection: &mut Connection, project: ProjectId) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!(
        r#"-- event_types::count
         SELECT count(DISTINCT name) AS "count!" FROM event_types WHERE project_id = $1"#,
        project.as_uuid(),
    )
    .fetch_one(connection)
    .await?)
}

/// The versions of these types of a project, by name and in the order they were made.
///
/// # Errors
/// Any [`Error`].
pub async fn versions(
    connection: &mut Connection,
    project: ProjectId,
    names: &[String],
) -> Result<Vec<EventTypeVersion>, Error> {
    let rows = query_as!(
        Row,
        "-- event_types::versions
         SELECT project_id, name, version, description, schema, example, deprecated, created_at, updated_at
         FROM event_types WHERE project_id = $1 AND name = ANY($2)
         ORDER BY name, position",
        project.as_uuid(),
        names,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(EventTypeVersion::from).collect())
}

/// Up to `limit` names of a project's types, in the order of their bytes and from after `after` on.
///
/// # Errors
/// Any [`Error`].
pub async fn names(
    connection: &mut Connection,
    project: ProjectId,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<String>, Error> {
    Ok(sqlx::query_scalar!(
        r#"-- event_types::names
         SELECT DISTINCT name COLLATE "C" AS "name!" FROM event_types
         WHERE project_id = $1 AND ($2::text IS NULL OR name COLLATE "C" > $2)
         ORDER BY 1 LIMIT $3"#,
        project.as_uuid(),
        after,
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?)
}

/// Up to `limit` types of all projects, from after `after` on, in an order of their own.
///
/// # Errors
/// Any [`Error`].
pub async fn all(
    connection: &mut Connection,
    after: Option<&(ProjectId, String)>,
    limit: u32,
) -> Result<Vec<(ProjectId, String)>, Error> {
    let rows = sqlx::query!(
        "-- event_types::all
         SELECT DISTINCT project_id, name FROM event_types
         WHERE $1::uuid IS NULL OR (project_id, name) > ($1, $2::text)
         ORDER BY project_id, name LIMIT $3",
        after.map(|(project, _)| project.as_uuid()),
        after.map(|(_, name)| name.as_str()),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    let found = rows
        .into_iter()
        .map(|row| (ProjectId::from_uuid(row.project_id), row.name));
    Ok(found.collect())
}

/// Writes what may change of a version: description, example and whether it is deprecated. False where there is none.
///
/// # Errors
/// Any [`Error`].
pub async fn update(connection: &mut Connection, version: &EventTypeVersion) -> Result<bool, Error> {
    let written = sqlx::query!(
        "-- event_types::update
         UPDATE event_types SET description = $4, example = $5, deprecated = $6, updated_at = $7
         WHERE project_id = $1 AND name = $2 AND version = $3",
        version.project.as_uuid(),
        version.name,
        version.version,
        version.description,
        version.example,
        version.deprecated,
        to_sql(version.updated_at),
    )
    .execute(connection)
    .await?;
    Ok(written.rows_affected() == 1)
}

/// Deletes a type with all its versions. False where there is none.
///
/// # Errors
/// Any [`Error`].
pub async fn delete(connection: &mut Connection, project: ProjectId, name: &str) -> Result<bool, Error> {
    let deleted = sqlx::query!(
        "-- event_types::delete
         DELETE FROM event_types WHERE project_id = $1 AND name = $2",
        project.as_uuid(),
        name,
    )
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected() > 0)
}
