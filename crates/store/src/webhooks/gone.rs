//! Webhooks that were deleted: how many, which, and which so long ago that nobody has to know of them any more.

use jiff::Timestamp;
use proto_schemas::id::{ProjectId, WebhookId};
use uuid::Uuid;

use crate::time::to_sql;
use crate::{Connection, Error};

/// How many webhooks of a project were deleted after the instant `since`.
///
/// # Errors
/// Any [`Error`].
pub async fn count_deleted(connection: &mut Connection, project: ProjectId, since: Timestamp) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!(
        r#"-- webhooks::count_deleted
         SELECT count(*) AS "count!" FROM webhooks WHERE project_id = $1 AND deleted_at > $2"#,
        project.as_uuid(),
        to_sql(since),
    )
    .fetch_one(connection)
    .await?)
}

/// [`super::all`], those left out that were deleted before the instant `since`.
///
/// # Errors
/// Any [`Error`].
pub async fn there_since(
    connection: &mut Connection,
    since: Timestamp,
    after: Option<WebhookId>,
    limit: u32,
) -> Result<Vec<(ProjectId, WebhookId)>, Error> {
    let rows = sqlx::query!(
        "-- webhooks::there_since
         SELECT project_id, id FROM webhooks
         WHERE ($1::uuid IS NULL OR id > $1) AND (deleted_at IS NULL OR deleted_at > $3)
         ORDER BY id LIMIT $2",
        after.map(WebhookId::as_uuid),
        i64::from(limit),
        to_sql(since),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (ProjectId::from_uuid(row.project_id), WebhookId::from_uuid(row.id)))
        .collect())
}

/// Those of the webhooks that are deleted.
///
/// # Errors
/// Any [`Error`].
pub async fn deleted(connection: &mut Connection, ids: &[WebhookId]) -> Result<Vec<WebhookId>, Error> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
    let deleted = sqlx::query_scalar!(
        "-- webhooks::deleted
         SELECT id FROM webhooks WHERE id = ANY($1) AND deleted_at IS NOT NULL",
        &ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(deleted.into_iter().map(WebhookId::from_uuid).collect())
}
