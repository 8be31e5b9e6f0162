//! What has been kept for long enough is deleted: answers to repeated requests, replays, entries of the audit trail,
//! sessions.
//!
//! A piece at a time, so that no statement takes longer than it may however much there is, and each kind by itself, so that
//! what cannot be deleted of one keeps nothing of another.

use std::time::Duration;

use jiff::Timestamp;
use store::{Database, Error, Store};
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::{http, sessions};

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// Rows deleted at once.
const PIECE: u32 = 1_000;

/// How long replays are known by. What they have made leaves with the record, which is kept for less in most places.
const REPLAYS_KEPT: Duration = Duration::from_secs(400 * 24 * 3600);

/// How long it is known who did what.
const AUDIT_KEPT: Duration = Duration::from_secs(400 * 24 * 3600);

/// Keeps deleting what is old, until `stop`.
pub(crate) async fn keep_forgetting(api: &Api, stop: &CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = forget_old(&api.database, api.now()) => {}
        }
    }
}

/// Deletes what is old at `now`. What cannot be deleted is said, and stays for another while.
pub async fn forget_old(database: &Database, now: Timestamp) {
    let store = database.of_all_projects();
    let ago = |duration| now.checked_sub(duration).unwrap_or(Timestamp::MIN);
    for (what, done) in [
        ("answers to repeated requests", answers(&store, ago(http::KEPT)).await),
        ("replays", replays(&store, ago(REPLAYS_KEPT)).await),
        ("entries of the audit trail", entries(&store, ago(AUDIT_KEPT)).await),
        (
            "sessions",
            sessions(&store, ago(sessions::LONGEST), ago(sessions::IDLE)).await,
        ),
    ] {
        if let Err(error) = done {
            tracing::warn!(%error, what, "what is old stays for another while");
        }
    }
}

async fn answers(store: &Store, expired: Timestamp) -> Result<(), Error> {
    loop {
        let mut connection = store.connection().await?;
        if store::idempotency_keys::delete_before(&mut connection, expired, PIECE).await? < u64::from(PIECE) {
            return Ok(());
        }
    }
}

async fn replays(store: &Store, expired: Timestamp) -> Result<(), Error> {
    let mut connection = store.connection().await?;
    store::replays::delete_before(&mut connection, expired).await.map(drop)
}

async fn entries(store: &Store, expired: Timestamp) -> Result<(), Error> {
    loop {
        let mut connection = store.connection().await?;
        if store::audit::delete_before(&mut connection, expired, PIECE).await? < u64::from(PIECE) {
            return Ok(());
        }
    }
}

async fn sessions(store: &Store, begun: Timestamp, seen: Timestamp) -> Result<(), Error> {
    let mut connection = store.connection().await?;
    store::sessions::delete_before(&mut connection, begun, seen).await
}
