//! `tokens`: who may do what. Written by config-api. Tokens themselves are nowhere, only their SHA-256.

use jiff::Timestamp;
use proto_schemas::id::ProjectId;
use sqlx::query_as;
use uuid::Uuid;

use crate::time::{from_sql, to_sql};
use crate::{Connection, Error};

/// A token, without the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Identity.
    pub id: Uuid,
    /// The one project it is good for; `None` for every project.
    pub project: Option<ProjectId>,
    /// What people call it.
    pub name: String,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// What it allows, in the words of the API.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused, if ever.
    pub expires_at: Option<Timestamp>,
    /// Since when it is refused, if it is.
    pub revoked_at: Option<Timestamp>,
    /// When a request to config-api last had it, to the minute.
    pub last_used_at: Option<Timestamp>,
}

impl Token {
    /// Whether it was good for anything at this instant, or is to be later.
    #[must_use]
    pub fn is_good_since(&self, since: Timestamp) -> bool {
        let ends = [self.revoked_at, self.expires_at];
        ends.into_iter().flatten().all(|end| end > since)
    }
}

struct Row {
    id: Uuid,
    project_id: Option<Uuid>,
    name: String,
    hash: Vec<u8>,
    scopes: Vec<String>,
    created_at: time::OffsetDateTime,
    expires_at: Option<time::OffsetDateTime>,
    revoked_at: Option<time::OffsetDateTime>,
    last_used_at: Option<time::OffsetDateTime>,
}

impl TryFrom<Row> for Token {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            id: row.id,
            project: row.project_id.map(ProjectId::from_uuid),
            name: row.name,
            hash: row.hash.try_into().map_err(|hash: Vec<u8>| Error::Unreadable {
                table: "tokens",
                reason: format!("the hash of {} has {} bytes instead of 32", row.id, hash.len()),
            })?,
            scopes: row.scopes,
            created_at: from_sql(row.created_at),
            expires_at: row.expires_at.map(from_sql),
            revoked_at: row.revoked_at.map(from_sql),
            last_used_at: row.last_used_at.map(from_sql),
        })
    }
}

/// Adds a token.
///
/// # Errors
/// Any [`Error`].
pub async fn insert(connection: &mut Connection, token: &Token) -> Result<(), Error> {
    sqlx::query!(
        "-- tokens::insert
         INSERT INTO tokens (id, project_id, name, hash, scopes, created_at, expires_at, revoked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        token.id,
        token.project.map(ProjectId::as_uuid),
        token.name,
        token.hash.as_slice(),
        &token.scopes,
        to_sql(token.created_at),
        token.expires_at.map(to_sql),
        token.revoked_at.map(to_sql),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The token with that SHA-256, revoked and expired ones included.
///
/// # Errors
/// Any [`Error`].
pub async fn by_hash(connection: &mut Connection, hash: &[u8; 32]) -> Result<Option<Token>, Error> {
    let row = query_as!(
        Row,
        "-- tokens::by_hash
         SELECT id, project_id, name, hash, scopes, created_at, expires_at, revoked_at, last_used_at FROM tokens
         WHERE hash = $1",
        hash.as_slice(),
    )
    .fetch_optional(connection)
    .await?;
    row.map(Token::try_from).transpose()
}

/// The token with that id, a revoked or expired one included.
///
/// # Errors
/// Any [`Error`].
pub async fn by_id(connection: &mut Connection, id: Uuid) -> Result<Option<Token>, Error> {
    let row = query_as!(
        Row,
        "-- tokens::by_id
         SELECT id, project_id, name, hash, scopes, created_at, expires_at, revoked_at, last_used_at FROM tokens
         WHERE id = $1",
        id,
    )
    .fetch_optional(connection)
    .await?;
    row.map(Token::try_from).transpose()
}

/// Whether a token is good for anything at this instant.
///
/// # Errors
/// Any [`Error`].
pub async fn is_valid(connection: &mut Connection, id: Uuid, now: Timestamp) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"-- tokens::is_valid
         SELECT EXISTS (SELECT FROM tokens
                        WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)) AS "valid!""#,
        id,
        to_sql(now),
    )
    .fetch_one(connection)
    .await?)
}

/// Marks tokens as used at this instant. One that somebody else is writing stays as it is: it is marked the next time.
///
/// # Errors
/// Any [`Error`].
pub async fn mark_used(connection: &mut Connection, ids: &[Uuid], now: Timestamp) -> Result<(), Error> {
    sqlx::query!(
        "-- tokens::mark_used
         UPDATE tokens SET last_used_at = $2 WHERE id IN (
             SELECT id FROM tokens WHERE id = ANY($1) AND (last_used_at IS NULL OR last_used_at < $2)
             FOR NO KEY UPDATE SKIP LOCKED
         )",
        ids,
        to_sql(now),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The tokens with those SHA-256, in no particular order.
///
/// # Errors
/// Any [`Error`].
pub async fn by_hashes(connection: &mut Connection, hashes: &[Vec<u8>]) -> Result<Vec<Token>, Error> {
    let rows = query_as!(
        Row,
        "-- tokens::by_hashes
         SELECT id, project_id, name, hash, scopes, created_at, expires_at, revoked_at, last_used_at FROM tokens
         WHERE hash = ANY($1)",
        hashes,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Token::try_from).collect()
}

/// A project's token, unless it is revoked.
///
/// # Errors
/// Any [`Error`].
pub async fn find(connection: &mut Connection, project: ProjectId, id: Uuid) -> Result<Option<Token>, Error> {
    let row = query_as!(
        Row,
        "-- tokens::find
         SELECT id, project_id, name, hash, scopes, created_at, expires_at, revoked_at, last_used_at FROM tokens
         WHERE project_id = $1 AND id = $2 AND revoked_at IS NULL",
        project.as_uuid(),
        id,
    )
    .fetch_optional(connection)
    .await?;
    row.map(Token::try_from).transpose()
}

/// Up to `limit` tokens of a project made before the token `before`, newest first; revoked ones are left out.
///
/// # Errors
/// Any [`Error`].
pub async fn page(
    connection: &mut Connection,
    project: ProjectId,
    before: Option<Uuid>,
    limit: u32,
) -> Result<Vec<Token>, Error> {
    let rows = query_as!(
        Row,
        "-- tokens::page
         SELECT id, project_id, name, hash, scopes, created_at, expires_at, revoked_at, last_used_at FROM tokens
         WHERE project_id = $1 AND revoked_at IS NULL AND ($2::uuid IS NULL OR id < $2)
         ORDER BY id DESC LIMIT $3",
        project.as_uuid(),
        before,
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Token::try_from).collect()
}

/// Up to `limit` tokens in the order of their ids, from after `after` on; those that were good for nothing any more at the
/// instant `since` are left out.
///
/// # Errors
/// Any [`Error`].
pub async fn good_since(
    connection: &mut Connection,
    since: Timestamp,
    after: Option<Uuid>,
    limit: u32,
) -> Result<Vec<Token>, Error> {
    let rows = query_as!(
        Row,
        "-- tokens::good_since
         SELECT id, project_id, name, hash, scopes, created_at, expires_at, revoked_at, last_used_at FROM tokens
         WHERE ($1::uuid IS NULL OR id > $1) AND (revoked_at IS NULL OR revoked_at > $3)
           AND (expires_at IS NULL OR expires_at > $3)
         ORDER BY id LIMIT $2",
        after,
        i64::from(limit),
        to_sql(since),
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Token::try_from).collect()
}

/// How many tokens of a project are good for something at this instant.
///
/// # Errors
/// Any [`Error`].
pub async fn count(connection: &mut Connection, project: ProjectId, now: Timestamp) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!(
        r#"-- tokens::count
         SELECT count(*) AS "count!" FROM tokens
         WHERE project_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)"#,
        project.as_uuid(),
        to_sql(now),
    )
    .fetch_one(connection)
    .await?)
}

/// Revokes a token of a project. Its hash, or `None` where there is no such token that is not already revoked.
///
/// # Errors
/// Any [`Error`].
pub async fn revoke(
    connection: &mut Connection,
    project: ProjectId,
    id: Uuid,
    now: Timestamp,
) -> Result<Option<Vec<u8>>, Error> {
    Ok(sqlx::query_scalar!(
        "-- tokens::revoke
         UPDATE tokens SET revoked_at = $3
         WHERE project_id = $1 AND id = $2 AND revoked_at IS NULL
         RETURNING hash",
        project.as_uuid(),
        id,
        to_sql(now),
    )
    .fetch_optional(connection)
    .await?)
}

/// Adds a token of no project, or brings it back if it had been revoked. False where the hash belongs to a token of a
/// project: nothing is changed then.
///
/// # Errors
/// Any [`Error`].
pub async fn upsert_global(connection: &mut Connection, token: &Token) -> Result<bool, Error> {
    let written = sqlx::query!(
        "-- tokens::upsert_global
         INSERT INTO tokens AS t (id, project_id, name, hash, scopes, created_at)
         VALUES ($1, NULL, $2, $3, $4, $5)
         ON CONFLICT ON CONSTRAINT tokens_hash_key
         DO UPDATE SET scopes = excluded.scopes, expires_at = NULL, revoked_at = NULL WHERE t.project_id IS NULL",
        token.id,
        token.name,
        token.hash.as_slice(),
        &token.scopes,
        to_sql(token.created_at),
    )
    .execute(connection)
    .await?;
    Ok(written.rows_affected() == 1)
}

/// Revokes every token of no project but one. The hashes of the revoked ones.
///
/// # Errors
/// Any [`Error`].
pub async fn revoke_globals_except(
    connection: &mut Connection,
    hash: &[u8; 32],
    now: Timestamp,
) -> Result<Vec<Vec<u8>>, Error> {
    Ok(sqlx::query_scalar!(
        "-- tokens::revoke_globals_except
         UPDATE tokens SET revoked_at = $2
         WHERE project_id IS NULL AND hash <> $1 AND revoked_at IS NULL
         RETURNING hash",
        hash.as_slice(),
        to_sql(now),
    )
    .fetch_all(connection)
    .await?)
}
