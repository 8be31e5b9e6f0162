//! `projects`: the tenants. Written by config-api; a project's name and profile
//! never change.

use jiff::Timestamp;
use proto_schemas::id::ProjectId;
use sqlx::query_as;
use uuid::Uuid;

use crate::time::{from_sql, to_sql};
use crate::{Connection, Error};

/// The constraint that keeps names apart.
pub const NAME_KEY: &str = "projects_name_key";

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Identity.
    pub id: ProjectId,
    /// Its name in paths and subjects.
    pub name: String,
    /// How its webhooks behave.
    pub profile: String,
    /// What is done with an event that its type's schema refuses: `off`, `warn` or `reject`; `None`: as the profile says.
    pub schema_check: Option<String>,
    /// Who is told by e-mail what is wrong.
    pub alert_emails: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

struct Row {
    id: Uuid,
    name: String,
    profile: String,
    schema_check: Option<String>,
    alert_emails: Vec<String>,
    created_at: time::OffsetDateTime,
}

impl From<Row> for Project {
    fn from(row: Row) -> Self {
        Self {
            id: ProjectId::from_uuid(row.id),
            name: row.name,
            profile: row.profile,
            schema_check: row.schema_check,
            alert_emails: row.alert_emails,
            created_at: from_sql(row.created_at),
        }
    }
}

/// Adds a project.
///
/// # Errors
/// [`Error::Constraint`] with [`NAME_KEY`] where the name is taken.
pub async fn insert(connection: &mut Connection, project: &Project) -> Result<(), Error> {
    sqlx::query!(
        "-- projects::insert
         INSERT INTO projects (id, name, profile, created_at, schema_check, alert_emails)
         VALUES ($1, $2, $3, $4, $5, $6)",
        project.id.as_uuid(),
        project.name,
        project.profile,
        to_sql(project.created_at),
        project.schema_check,
        &project.alert_emails,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The project of that name.
///
/// # Errors
/// Any [`Error`].
pub async fn by_name(connection: &mut Connection, name: &str) -> Result<Option<Project>, Error> {
    let row = query_as!(
        Row,
        "-- projects::by_name
         SELECT id, name, profile, schema_check, alert_emails, created_at FROM projects WHERE name = $1",
        name,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Project::from))
}

/// Lets nobody else take this lock until the transaction ends. Rows that refer to the project are added all the same.
///
/// # Errors
/// Any [`Error`].
pub async fn lock(connection: &mut Connection, id: ProjectId) -> Result<(), Error> {
    sqlx::query!(
        r#"-- projects::lock
         SELECT 1 AS "one!" FROM projects WHERE id = $1 FOR NO KEY UPDATE"#,
        id.as_uuid(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(())
}

/// Writes what is done with an event that its type's schema refuses; `None`: as the profile says.
///
/// # Errors
/// Any [`Error`].
pub async fn set_schema_check(
    connection: &mut Connection,
    id: ProjectId,
    schema_check: Option<&str>,
) -> Result<(), Error> {
    sqlx::query!(
        "-- projects::set_schema_check
         UPDATE projects SET schema_check = $2 WHERE id = $1",
        id.as_uuid(),
        schema_check,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes who is told by e-mail what is wrong.
///
/// # Errors
/// Any [`Error`].
pub async fn set_alert_emails(
    connection: &mut Connection,
    id: ProjectId,
    alert_emails: &[String],
) -> Result<(), Error> {
    sqlx::query!(
        "-- projects::set_alert_emails
         UPDATE projects SET alert_emails = $2 WHERE id = $1",
        id.as_uuid(),
        alert_emails,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The projects of those ids that exist, in no particular order.
///
/// # Errors
/// Any [`Error`].
pub async fn by_ids(connection: &mut Connection, ids: &[ProjectId]) -> Result<Vec<Project>, Error> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
    let rows = query_as!(
        Row,
        "-- projects::by_ids
         SELECT id, name, profile, schema_check, alert_emails, created_at FROM projects WHERE id = ANY($1)",
        &ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Project::from).collect())
}

/// Up to `limit` projects made before the project `before`, newest first.
///
/// # Errors
/// Any [`Error`].
pub async fn page(connection: &mut Connection, before: Option<ProjectId>, limit: u32) -> Result<Vec<Project>, Error> {
    let rows = query_as!(
        Row,
        "-- projects::page
         SELECT id, name, profile, schema_check, alert_emails, created_at FROM projects
         WHERE $1::uuid IS NULL OR id < $1
         ORDER BY id DESC LIMIT $2",
        before.map(ProjectId::as_uuid),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Project::from).collect())
}

/// The profiles that projects name, each with one of these projects' names.
///
/// # Errors
/// Any [`Error`].
pub async fn profiles_in_use(connection: &mut Connection) -> Result<Vec<(String, String)>, Error> {
    let rows = sqlx::query!(
        r#"-- projects::profiles_in_use
         SELECT profile, min(name) AS "name!" FROM projects GROUP BY profile ORDER BY profile"#,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.profile, row.name)).collect())
}
