//! Who did what.
//!
//! Every request that may change something is noted before it is carried out, at the one place where it is found that it
//! may be ([`crate::access`]), and what it was answered with afterwards. Where it cannot be noted, it is not carried out.
//! A crash in between leaves an entry without an answer: what was asked for may have been done, and no change is without
//! an entry.
//!
//! What is noted is who, what and when, never what was said: bodies hold secrets. What a webhook was before and after is in
//! its revisions.

use std::sync::{Arc, OnceLock};

use axum::extract::{OriginalUri, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::Response;
use common::http::rate_limit::Peer;
use common::http::{Problem, RequestId};
use proto_schemas::id::ProjectId;
use serde::{Deserialize, Serialize};
use store::Connection;
use store::audit::{self, NewEntry};
use uuid::Uuid;

use crate::access::Caller;
use crate::api::{Api, failed, new_id};

/// Longest path that is kept, in bytes; no path of the API's is as long.
const PATH_MAX: usize = 1024;

/// Where the entry of a request is left, for its answer to be noted.
#[derive(Debug, Clone, Default)]
struct Slot(Arc<OnceLock<Entry>>);

/// An entry in the trail.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    id: Uuid,
    /// `None`: the installation's.
    project: Option<ProjectId>,
    reveal: Arc<OnceLock<Reveal>>,
}

/// A secret that an answer shows. Left with the answer, for who may give it again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reveal {
    /// Whose it is; `None`: the installation's.
    pub(crate) project: Option<Uuid>,
    /// What it is.
    pub(crate) shown: Shown,
}

/// What an answer shows.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Shown {
    /// The token with this id.
    Token(Uuid),
    /// The secret of a webhook, by the ids of both.
    Secret(Uuid, Uuid),
}

/// A layer: notes what a request was answered with, where it was noted.
pub(crate) async fn note_answers(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let slot = Slot::default();
    request.extensions_mut().insert(slot.clone());
    let mut response = next.run(request).await;
    if let Some(entry) = slot.0.get() {
        if let Some(reveal) = entry.reveal.get() {
            response.extensions_mut().insert(reveal.clone());
        }
        let location = response.headers().get(header::LOCATION);
        let location = location.and_then(|location| location.to_str().ok()).map(str::to_owned);
        let status = response.status().as_u16();
        let noted = async {
            let store = api.database.of_project_or_all(entry.project);
            audit::finish(&mut *store.connection().await?, entry.id, status, location.as_deref()).await
        };
        if let Err(error) = noted.await {
            tracing::warn!(%error, entry = %entry.id, "a request's answer is not in the audit trail");
        }
    }
    response
}

/// Notes a request that is about to be carried out; nothing to do for one that only reads.
///
/// # Errors
/// A [`Problem`] where it cannot be noted.
pub(crate) async fn begin(
    parts: &Parts,
    api: &Api,
    connection: &mut Connection,
    caller: &mut Caller,
    project: Option<ProjectId>,
) -> Result<(), Problem> {
    if [Method::GET, Method::HEAD].contains(&parts.method) {
        return Ok(());
    }
    let now = api.now();
    // Where routers are nested, the uri is what is left of it.
    let original = parts.extensions.get::<OriginalUri>();
    let path = original.map_or(&parts.uri, |OriginalUri(uri)| uri).path();
    let entry = NewEntry {
        id: new_id(now, &mut rand::rng()),
        project,
        token: caller.token,
        method: parts.method.to_string(),
        path: path[..path.floor_char_boundary(PATH_MAX)].to_owned(),
        request_id: (parts.extensions.get::<RequestId>()).map_or_else(String::new, |id| id.as_str().to_owned()),
        address: (parts.extensions.get::<Peer>()).map(|Peer(address)| address.to_string()),
        begun_at: now,
    };
    audit::begin(connection, &entry).await.map_err(failed)?;
    let entry = Entry {
        id: entry.id,
        project,
        reveal: Arc::default(),
    };
    caller.entry = Some(entry.clone());
    if let Some(Slot(slot)) = parts.extensions.get() {
        // One request has one entry.
        let _ = slot.set(entry);
    }
    Ok(())
}

/// Notes that the answer to the caller's request will show a secret, in the transaction that makes it: what were noted
/// afterwards, and could not be, would leave a secret that nobody has seen and nobody can see any more.
///
/// # Errors
/// A [`Problem`] where it cannot be noted; then the secret must not be made.
pub(crate) async fn note_reveal(connection: &mut Connection, caller: &Caller, shown: Shown) -> Result<(), Problem> {
    let Some(entry) = &caller.entry else { return Ok(()) };
    audit::note_reveal(connection, entry.id).await.map_err(failed)?;
    let project = entry.project.map(ProjectId::as_uuid);
    let _ = entry.reveal.set(Reveal { project, shown });
    Ok(())
}

/// Notes that an answer that shows a secret is given once more, without anything being done for it.
///
/// # Errors
/// A [`Problem`] where it cannot be noted; then it must not be shown.
pub(crate) async fn note_reveal_again(
    parts: &Parts,
    api: &Api,
    caller: &mut Caller,
    project: Option<ProjectId>,
    status: u16,
    location: Option<&str>,
) -> Result<(), Problem> {
    let store = api.database.of_project_or_all(project);
    let mut connection = store.connection().await.map_err(failed)?;
    begin(parts, api, &mut connection, caller, project).await?;
    let Some(entry) = &caller.entry else { return Ok(()) };
    audit::note_reveal(&mut connection, entry.id).await.map_err(failed)?;
    let finished = audit::finish(&mut connection, entry.id, status, location).await;
    finished.map_err(failed)
}
