//! How many webhooks and tokens a project may have: each is in the memory of every service that works by it.

use common::http::{Code, Problem};
use common::model::limits::{TOKENS_MAX, WEBHOOKS_A_DAY_MAX, WEBHOOKS_MAX};
use jiff::{SignedDuration, Timestamp};
use proto_schemas::id::ProjectId;
use store::{Connection, projects, tokens, webhooks};

use crate::api::failed;

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Refuses a webhook more than a project may have, or may have had within a day.
///
/// # Errors
/// 409
pub(crate) async fn for_webhook(
    connection: &mut Connection,
    project: ProjectId,
    now: Timestamp,
) -> Result<(), Problem> {
    // Two requests at once must not both find that there is room.
    projects::lock(connection, project).await.map_err(failed)?;
    let there = webhooks::count(connection, project).await.map_err(failed)?;
    if is_full(there, WEBHOOKS_MAX) {
        return Err(Problem::new(
            Code::Conflict,
            format!("the project has {there} webhooks, and {WEBHOOKS_MAX} is the most; delete one first"),
        ));
    }
    let deleted = webhooks::count_deleted(connection, project, now.checked_sub(DAY).unwrap_or(Timestamp::MIN));
    let deleted = deleted.await.map_err(failed)?;
    if is_full(there.saturating_add(deleted), WEBHOOKS_A_DAY_MAX) {
        return Err(Problem::new(
            Code::Conflict,
            format!(
                "the project has {there} webhooks and has deleted {deleted} within a day, and {WEBHOOKS_A_DAY_MAX} is the \
                 most together; change one that is there, or wait"
            ),
        ));
    }
    Ok(())
}

/// Refuses a token more than a project may have.
///
/// # Errors
/// 409
pub(crate) async fn for_token(connection: &mut Connection, project: ProjectId, now: Timestamp) -> Result<(), Problem> {
    projects::lock(connection, project).await.map_err(failed)?;
    let there = tokens::count(connection, project, now).await.map_err(failed)?;
    match is_full(there, TOKENS_MAX) {
        false => Ok(()),
        true => Err(Problem::new(
            Code::Conflict,
            format!("the project has {there} tokens, and {TOKENS_MAX} is the most; revoke one first"),
        )),
    }
}

fn is_full(there: i64, most: usize) -> bool {
    usize::try_from(there).is_ok_and(|there| there >= most)
}
