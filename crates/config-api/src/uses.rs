//! Which tokens are used, so that one that nobody needs any more, or that should not be in use, is seen.
//!
//! ```text
//! request ── was it noted within a minute? ── a note in memory ── all notes, in one statement, aside of requests ── tokens
//! ```
//!
//! No request waits for it. What a process has not written when it dies is lost: the token's next request is noted. What
//! is published with a token goes to ingest, which has no database, and is not noted.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use store::tokens::{self, Token};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::api::Api;

/// Uses within so long of each other leave one mark.
const MARK_EVERY: Duration = Duration::from_secs(60);

/// How long notes are gathered for.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Tokens that were used and are not marked so yet.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    noted: Mutex<HashSet<Uuid>>,
    come: Notify,
}

impl Uses {
    /// Notes that the token, as it was just read, is used.
    pub(crate) fn note(&self, token: &Token, now: Timestamp) {
        let next = token.last_used_at.and_then(|last| last.checked_add(MARK_EVERY).ok());
        if next.is_none_or(|next| next <= now) {
            self.noted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(token.id);
            self.come.notify_one();
        }
    }

    fn take(&self) -> Vec<Uuid> {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.drain().collect()
    }
}

/// Writes what is noted, until `stop`.
pub(crate) async fn keep_marking(api: &Api, stop: &CancellationToken) {
    loop {
        let is_over = tokio::select! {
            () = stop.cancelled() => true,
            () = api.uses.come.notified() => false,
        };
        if let Err(error) = mark(api).await {
            tracing::debug!(%error, "it is not noted which tokens were used");
        }
        if is_over {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(WRITE_EVERY) => {}
        }
    }
}

async fn mark(api: &Api) -> Result<(), store::Error> {
    let used = api.uses.take();
    if used.is_empty() {
        return Ok(());
    }
    let mut connection = api.database.of_all_projects().connection().await?;
    tokens::mark_used(&mut connection, &used, api.now()).await
}
