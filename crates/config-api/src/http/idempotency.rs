//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a POST that is repeated with its key is answered as
//! the first time, for a day.
//!
//! ```text
//! first ── the key's row ── the handler ── its answer, sealed, into the row
//! again ── the row has an answer: that one · has none yet: 409 · was of another request: 422
//! ```
//!
//! What failed for a reason of ours is forgotten, so that it can be tried again, and so is an answer for which nothing was
//! done: a preview, or a dry run. The change itself is a transaction of
//! its handler's: a process that dies between that and the row's answer, or cannot write that for a minute, leaves a row
//! without one. After a minute the same request may take it over, and is then done again; a name that is taken says so.
//!
//! A request counts as one however it is answered. An answer that shows a secret is in the audit trail each time it is
//! given, and shows it only as long as it is good for something: after a rotation without an overlap the old one is left
//! out. A token that may not write has nothing done once, and leaves no row.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body as AxumBody;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, response};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use common::crypto::Context;
use common::http::{Body, Code, Problem};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use proto_schemas::id::{ProjectId, WebhookId};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use store::idempotency_keys::{self, Claim, Key};
use store::{Store, tokens, webhooks};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::session;
use crate::access::Caller;
use crate::api::{Api, failed};
use crate::audit::{self, Reveal, Shown};

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Longest key, in characters.
const KEY_MAX: usize = 255;

/// How long an answer is kept.
pub(crate) const KEPT: Duration = Duration::from_secs(24 * 3600);

/// A request that has not been answered for so long will not be.
const ABANDONED: Duration = Duration::from_secs(60);

/// How often it is tried to keep an answer that could not be kept at once.
const TRY_AGAIN_EVERY: Duration = Duration::from_secs(1);

/// Answers that wait for that in one process, each in its memory: some hundred kilobytes at most.
static LATER: Semaphore = Semaphore::const_new(100);

/// Headers of an answer that belong to it, and not to the moment it was given.
const HEADERS: [HeaderName; 3] = [header::CONTENT_TYPE, header::ETAG, header::LOCATION];

/// An answer, as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    /// The secret that it shows. The release before does not say; its answers are gone within a day.
    #[serde(default)]
    reveal: Option<Reveal>,
}

/// Left with an answer for which nothing was done: it may as well be made anew, and is not kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct NothingDone;

impl NothingDone {
    /// The answer, so marked.
    pub(super) fn but(answer: impl IntoResponse) -> Response {
        (Extension(Self), answer).into_response()
    }
}

/// A layer: a POST with a key is done once.
pub(super) async fn answer_once(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let has_key = *request.method() == Method::POST && request.headers().contains_key(HEADER);
    // Whose the key of a login is, only its body says; and its cookie is its browser's alone.
    match has_key && request.uri().path() != session::PATH {
        true => once(api, request, next).await.unwrap_or_else(Problem::into_response),
        false => next.run(request).await,
    }
}

async fn once(api: Arc<Api>, request: Request, next: Next) -> Result<Response, Problem> {
    let key = key(request.headers())?;
    let (mut parts, body) = request.into_parts();
    let mut caller = match Caller::known(&parts, &api).await {
        Ok(caller) if caller.may_write() => caller,
        // The handler says what is wrong with the token.
        known => {
            if let Err(problem) = known {
                Caller::refuse_ahead(&mut parts, problem);
            }
            return Ok(next.run(Request::from_parts(parts, body)).await);
        }
    };
    caller.count_ahead(&mut parts, &api)?;
    let Body(body) = Body::from_request(Request::from_parts(parts.clone(), body), &()).await?;
    let mut digest = Sha256::new();
    // Over HTTP/2 the whole address is there, over HTTP/1.1 mostly not: it is the same request.
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    for part in [parts.method.as_str().as_bytes(), path.as_bytes(), &body] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let now = api.now();
    let row = Key {
        token: caller.token,
        key,
        fingerprint: digest.finalize().to_vec(),
        created_at: now,
    };
    let before = |ago: Duration| now.checked_sub(ago).unwrap_or(Timestamp::MIN);
    let store = api.database.of_project_or_all(caller.project);
    let mut connection = store.connection().await.map_err(failed)?;
    let claim = idempotency_keys::claim(&mut connection, &row, before(KEPT), before(ABANDONED)).await;
    drop(connection);
    match claim.map_err(failed)? {
        Claim::Made => {}
        Claim::Another => {
            return Err(Problem::new(
                Code::IdempotencyKeyReused,
                "this Idempotency-Key was sent with another request; take a new one for each",
            ));
        }
        Claim::AtWork => {
            return Err(Problem::new(
                Code::Conflict,
                "a request with this Idempotency-Key is being worked on; try again in a moment",
            ));
        }
        Claim::Answered(sealed) => return replay(&api, &parts, &mut caller, &row, &sealed).await,
    }
    // On its own, so that it comes to its end even if the client does not wait for it.
    let request = Request::from_parts(parts, AxumBody::from(body));
    let done = tokio::spawn(async move {
        let response = next.run(request).await;
        keep(&api, store, row, response).await
    });
    done.await.map_err(Problem::internal)?
}

/// The request's key: visible ASCII, in quotes or not.
fn key(headers: &HeaderMap) -> Result<String, Problem> {
    let refused = || {
        let detail = format!("the header Idempotency-Key is one text of 1 to {KEY_MAX} visible ASCII characters");
        Problem::new(Code::MalformedHeader, detail)
    };
    let mut values = headers.get_all(HEADER).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(refused());
    };
    let text = value.to_str().map_err(|_| refused())?.trim();
    let key = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text);
    match (1..=KEY_MAX).contains(&key.len()) && key.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        true => Ok(key.to_owned()),
        false => Err(refused()),
    }
}

/// Keeps the answer, or forgets the key where the answer says nothing of the request. What is done is done: the client has
/// the answer whatever becomes of that, and where it cannot be kept at once, it is tried again aside of the request.
async fn keep(api: &Api, store: Store, row: Key, response: Response) -> Result<Response, Problem> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(Problem::internal)?.to_bytes();
    match sealed(api, &row, &parts, &body) {
        Ok(sealed) => {
            if let Err(error) = write(&store, &row, sealed.as_deref()).await {
                tracing::warn!(%error, token = %row.token, "an answer to be repeated is not kept yet");
                keep_trying(store, row, sealed);
            }
        }
        Err(error) => tracing::error!(%error, token = %row.token, "an answer to be repeated cannot be kept"),
    }
    Ok(Response::from_parts(parts, AxumBody::from(body)))
}

/// The answer as it is kept; `None`: it is not.
fn sealed(api: &Api, row: &Key, answer: &response::Parts, body: &Bytes) -> Result<Option<String>, serde_json::Error> {
    let status = answer.status;
    let passing = status.is_server_error()
        || answer.extensions.get::<NothingDone>().is_some()
        || [
            StatusCode::UNAUTHORIZED,
            StatusCode::FORBIDDEN,
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::TOO_MANY_REQUESTS,
        ]
        .contains(&status);
    if passing {
        return Ok(None);
    }
    let text = |name: &HeaderName| Some((name.to_string(), answer.headers.get(name)?.to_str().ok()?.to_owned()));
    let kept = Kept {
        status: status.as_u16(),
        headers: HEADERS.iter().filter_map(text).collect(),
        body: String::from_utf8_lossy(body).into_owned(),
        reveal: answer.extensions.get().cloned(),
    };
    let json = serde_json::to_vec(&kept)?;
    Ok(Some(api.keys.seal(&context(row, &field(row)), &json)))
}

/// Keeps a sealed answer, or forgets the key where there is none.
async fn write(store: &Store, row: &Key, sealed: Option<&str>) -> Result<(), store::Error> {
    let mut connection = store.connection().await?;
    match sealed {
        None => idempotency_keys::forget(&mut connection, row).await,
        Some(sealed) => {
            if !idempotency_keys::answer(&mut connection, row, sealed).await? {
                tracing::warn!(token = %row.token, "an answer to be repeated came too late: its key was taken over");
            }
            Ok(())
        }
    }
}

/// Tries again, until it is kept or the request counts as abandoned and may be done anew.
fn keep_trying(store: Store, row: Key, sealed: Option<String>) {
    let Ok(place) = LATER.try_acquire() else {
        tracing::warn!(token = %row.token, "too many answers wait to be kept: this one is not");
        return;
    };
    tokio::spawn(async move {
        let _place = place;
        let tries = async {
            loop {
                tokio::time::sleep(TRY_AGAIN_EVERY).await;
                match write(&store, &row, sealed.as_deref()).await {
                    Ok(()) => return,
                    Err(error) => tracing::debug!(%error, "an answer to be repeated is still not kept"),
                }
            }
        };
        if tokio::time::timeout(ABANDONED, tries).await.is_err() {
            tracing::warn!(token = %row.token, "an answer to be repeated was not kept: its request may be done anew");
        }
    });
}

/// The answer that was kept.
async fn replay(api: &Api, parts: &Parts, caller: &mut Caller, row: &Key, sealed: &str) -> Result<Response, Problem> {
    let json = api
        .keys
        .open(&context(row, &field(row)), sealed)
        .map_err(Problem::internal)?;
    let mut kept: Kept = serde_json::from_slice(json.expose_secret()).map_err(Problem::internal)?;
    if let Some(reveal) = &kept.reveal {
        let project = reveal.project.map(ProjectId::from_uuid);
        if is_good(api, project, reveal.shown).await? {
            let location = kept.headers.iter().find(|(name, _)| *name == header::LOCATION.as_str());
            let location = location.map(|(_, value)| value.as_str());
            audit::note_reveal_again(parts, api, caller, project, kept.status, location).await?;
        } else {
            kept.body = without(&kept.body, reveal.shown).map_err(Problem::internal)?;
        }
    }
    let mut response = Response::new(AxumBody::from(kept.body));
    *response.status_mut() = StatusCode::from_u16(kept.status).map_err(Problem::internal)?;
    let headers = response.headers_mut();
    for (name, value) in kept.headers {
        let name = HeaderName::try_from(name).map_err(Problem::internal)?;
        headers.insert(name, HeaderValue::try_from(value).map_err(Problem::internal)?);
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

/// Whether what an answer shows is still good for anything.
async fn is_good(api: &Api, project: Option<ProjectId>, shown: Shown) -> Result<bool, Problem> {
    let now = api.now();
    let store = api.database.of_project_or_all(project);
    let mut connection = store.connection().await.map_err(failed)?;
    match shown {
        Shown::Token(id) => tokens::is_valid(&mut connection, id, now).await.map_err(failed),
        Shown::Secret(webhook, secret) => {
            let found = webhooks::by_ids(&mut connection, &[WebhookId::from_uuid(webhook)]).await;
            let found = found.map_err(failed)?;
            let mut live = (found.iter())
                .filter(|webhook| webhook.deleted_at.is_none())
                .flat_map(|webhook| &webhook.secrets)
                .filter(|secret| secret.is_live(now));
            Ok(live.any(|live| live.sealed.id.as_uuid() == secret))
        }
    }
}

/// The body without what it shows.
fn without(body: &str, shown: Shown) -> Result<String, serde_json::Error> {
    let mut members: serde_json::Map<String, serde_json::Value> = serde_json::from_str(body)?;
    members.remove(match shown {
        Shown::Token(_) => "token",
        Shown::Secret(..) => "secret",
    });
    serde_json::to_string(&members)
}

/// What an answer is sealed for: this key of this token's.
fn field(row: &Key) -> String {
    format!("idempotency:{}", hex::encode(Sha256::digest(&row.key)))
}

fn context<'a>(row: &Key, field: &'a str) -> Context<'a> {
    Context {
        // Tokens are of no project or of one, and never move.
        project: ProjectId::from_uuid(Uuid::nil()),
        object: row.token,
        field,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_visible_text_in_quotes_or_not() {
        let read = |values: &[&str]| {
            let headers = values
                .iter()
                .map(|value| (HEADER, HeaderValue::try_from(*value).unwrap()));
            key(&headers.collect()).ok()
        };
        assert_eq!(read(&["abc"]).as_deref(), Some("abc"));
        assert_eq!(read(&["\"abc\""]).as_deref(), Some("abc"));
        assert_eq!(read(&[&"x".repeat(255)]).map(|key| key.len()), Some(255));
        let long = "x".repeat(256);
        for wrong in [&[""] as &[&str], &["\"\""], &["a", "b"], &["a\tb"], &[&long]] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
