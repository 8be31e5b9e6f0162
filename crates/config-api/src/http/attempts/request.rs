//! What was sent, made again.
//!
//! Of a request, only hashes are recorded: rendering is pure, so event and revision give the same body again, and the
//! hash says whether they did. Its headers are put together as dispatcher does it, with nothing in place of what is
//! secret: protected values and signatures; a checksum says whether they are the same. Where the webhook has protected
//! variables, hash and checksum are of what was made with them and not shown, and what is shown is made once more, with a
//! mask.

use axum::body::Bytes;
use common::egress;
use common::http::Problem;
use common::render::{Placeholders, Renderer, Subject, VARIABLES, Variables};
use common::request::{Opened, hidden};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use proto_schemas::definition::{self, Body, MaybeSealed};
use proto_schemas::delivery::{DeliveryDue, TrialKind};
use proto_schemas::event::Event;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use store::log::Attempt;
use store::projects::Project;
use store::webhooks;
use store::{Connection, events, tests};
use utoipa::ToSchema;

use super::super::json::Text;
use super::super::webhooks::recorded;
use crate::api::{Api, failed};
use crate::resolve;
use crate::webhooks::profile;

/// A request, as it was sent; protected variables read `***`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Request)]
pub(super) struct RequestView {
    /// Whether all below is what was sent, by the hashes that are on record.
    reproduced: bool,
    /// Why not, where it is not; what cannot be told is null.
    #[schema(required)]
    reason: Option<String>,
    #[schema(required)]
    method: Option<String>,
    #[schema(required)]
    url: Option<String>,
    /// The header lines, but for those of the connection itself.
    #[schema(required)]
    headers: Option<Vec<SentHeader>>,
    #[serde(flatten)]
    body: Text,
    /// SHA-256 of the body that was sent, in hexadecimal; null where protected variables may stand in it, of which it would
    /// tell.
    #[schema(
        required,
        example = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )]
    body_sha256: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct SentHeader {
    key: String,
    /// Null for what is secret: protected values and signatures.
    #[schema(required)]
    value: Option<String>,
    /// Whether it is.
    protected: bool,
}

/// A request made again.
struct Remade {
    method: Method,
    /// As it was sent, but for what is secret in its headers.
    sent: Parts,
    /// As it may be shown, where that is something else.
    masked: Option<Parts>,
    /// Those headers that are there only if a secret was live then.
    signatures: Vec<HeaderName>,
    uses_variables: bool,
}

/// What a request is made of.
struct Parts {
    url: String,
    headers: HeaderMap,
    body: Bytes,
}

/// What was sent in an attempt; `None` where no request was made.
///
/// # Errors
/// A failure of Postgres.
pub(super) async fn sent(
    api: &Api,
    connection: &mut Connection,
    project: &Project,
    attempt: &Attempt,
) -> Result<Option<RequestView>, Problem> {
    if attempt.webhook_revision == 0 || attempt.request_sha256.is_empty() {
        return Ok(None);
    }
    let remade = match subject(api, connection, project, attempt).await? {
        Ok((event, definition)) => remake(api, attempt, &event, &definition),
        Err(reason) => Err(reason),
    };
    Ok(Some(RequestView::of(attempt, remade)))
}

/// The event and the definition that a request was made of, or why they cannot be told.
async fn subject(
    api: &Api,
    connection: &mut Connection,
    project: &Project,
    attempt: &Attempt,
) -> Result<Result<(Event, definition::Webhook), String>, Problem> {
    let at = attempt.attempt;
    let (event, given) = if attempt.trial.is_some() {
        let duties = tests::duties(connection, &[at.event]).await.map_err(failed)?;
        let due = duties
            .into_iter()
            .next()
            .and_then(|(_, due)| DeliveryDue::decode(due.into()).ok());
        let Some(due) = due else {
            return Ok(Err("the test is not on record any more".to_owned()));
        };
        (due.event, due.trial.and_then(|trial| trial.webhook))
    } else {
        let found = events::load(connection, &[at.event]).await.map_err(failed)?;
        let Some(event) = found.into_iter().next() else {
            return Ok(Err("the event is not on record yet, or any more".to_owned()));
        };
        (event, None)
    };
    if let Some(given) = given {
        let is_gone = |value: &definition::NamedValue| value.value == MaybeSealed::Sealed(String::new());
        return Ok(match given.variables.iter().any(is_gone) {
            true => Err("the test had protected variables, which are not kept".to_owned()),
            false => Ok((event, *given)),
        });
    }
    let stored = webhooks::by_ids(connection, &[at.webhook]).await.map_err(failed)?;
    let Some(mut webhook) = stored.into_iter().find(|webhook| webhook.project == project.id) else {
        return Ok(Err("the webhook is not known any more".to_owned()));
    };
    if webhook.revision != attempt.webhook_revision {
        let revision = webhooks::revision(connection, at.webhook, attempt.webhook_revision).await;
        let Some(then) = revision
            .map_err(failed)?
            .and_then(|revision| recorded(&webhook, revision.definition))
        else {
            return Ok(Err("that revision of the webhook cannot be read any more".to_owned()));
        };
        webhook = then;
    }
    Ok(Ok((
        event,
        resolve::webhook(&webhook, None, project, profile(api, project)?),
    )))
}

/// The request that this event and this definition make.
fn remake(api: &Api, attempt: &Attempt, event: &Event, definition: &definition::Webhook) -> Result<Remade, String> {
    if attempt.trial.as_deref() == Some(TrialKind::Check.as_str()) {
        return Ok(Remade {
            method: Method::GET,
            sent: Parts {
                url: normal(api, definition.url.clone()),
                headers: own_headers(definition, None)?,
                body: Bytes::new(),
            },
            masked: None,
            signatures: Vec::new(),
            uses_variables: false,
        });
    }
    let variables = Opened::of(definition, &api.keys).map_err(|error| error.to_string())?;
    let (sent, signatures) = parts(api, attempt, event, definition, variables.real())?;
    let masked = match variables.real().has_secrets() {
        true => Some(parts(api, attempt, event, definition, variables.shown())?.0),
        false => None,
    };
    Ok(Remade {
        method: Method::POST,
        sent,
        masked,
        signatures,
        uses_variables: matches!(&definition.body, Body::Template(text) if text.contains(VARIABLES)),
    })
}

/// A url as the guard writes it: that is what was sent to.
fn normal(api: &Api, url: String) -> String {
    api.guard.normal_form(&url).unwrap_or(url)
}

/// The request's parts with these variables, and which of the headers are signatures.
fn parts(
    api: &Api,
    attempt: &Attempt,
    event: &Event,
    definition: &definition::Webhook,
    variables: &Variables,
) -> Result<(Parts, Vec<HeaderName>), String> {
    let subject = Subject::new(event, &definition.project_name, &definition.options).with(variables);
    let placeholders = Placeholders::compile(&definition.placeholders)
        .map_err(|(name, _)| format!("the placeholder {name} cannot be worked out any more"))?;
    let filled = |text: &str| -> Result<String, String> {
        let values = placeholders.values(&subject).map_err(|error| error.to_string())?;
        values.header(text).map_err(|error| error.to_string())
    };
    let url = normal(api, definition.url.clone());
    let url = match Placeholders::occur(&definition.placeholders, &url) {
        false => url,
        true => {
            let values = placeholders.values(&subject).map_err(|error| error.to_string())?;
            normal(api, values.url(&url).map_err(|error| error.to_string())?)
        }
    };
    let mut headers = own_headers(definition, Some(&filled))?;
    let renderer = Renderer::compile(&definition.body).map_err(|error| error.to_string())?;
    let rendered = renderer.render(&subject).map_err(|error| error.to_string())?;
    let signatures = add_headers(&mut headers, attempt, event, definition, &rendered.content_type)
        .map_err(|error| error.to_string())?;
    let body = rendered.body;
    Ok((Parts { url, headers, body }, signatures))
}

/// What stands in a header of the webhook's own, with its placeholders filled in.
type Filled<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// The headers that every request of the webhook has. A check has no event to fill placeholders in with, and is sent
/// without what holds one.
fn own_headers(definition: &definition::Webhook, filled: Option<Filled<'_>>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(egress::USER_AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    for own in &definition.headers {
        let illegal = || format!("the header {} cannot be read any more", own.name);
        let name = HeaderName::from_bytes(own.name.as_bytes()).map_err(|_| illegal())?;
        let value = match (&own.value, filled) {
            (MaybeSealed::Sealed(_), _) => hidden(),
            (MaybeSealed::Plain(text), _) if !Placeholders::occur(&definition.placeholders, text) => {
                HeaderValue::from_str(text).map_err(|_| illegal())?
            }
            (MaybeSealed::Plain(text), Some(filled)) => HeaderValue::from_str(&filled(text)?).map_err(|_| illegal())?,
            (MaybeSealed::Plain(_), None) => continue,
        };
        headers.insert(name, value);
    }
    if definition.authentication.is_some() {
        headers.insert(header::AUTHORIZATION, hidden());
    }
    Ok(headers)
}

/// Adds the headers that are the event's and the attempt's; which of them are signatures.
fn add_headers(
    headers: &mut HeaderMap,
    attempt: &Attempt,
    event: &Event,
    definition: &definition::Webhook,
    content_type: &str,
) -> Result<Vec<HeaderName>, http::Error> {
    if !headers.contains_key(header::CONTENT_TYPE) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(content_type)?);
    }
    if !event.traceparent.is_empty() {
        headers.insert("traceparent", HeaderValue::from_str(&event.traceparent)?);
    }
    let mut signatures = Vec::new();
    if definition.signature.standard_webhooks {
        headers.insert("webhook-id", HeaderValue::from_str(&event.id)?);
        let timestamp = attempt.started_at.as_second();
        headers.insert("webhook-timestamp", HeaderValue::from(timestamp));
        signatures.push(HeaderName::from_static("webhook-signature"));
    }
    if let Some(name) = &definition.signature.body_hmac_header {
        signatures.push(HeaderName::from_bytes(name.as_bytes())?);
    }
    for name in &signatures {
        headers.insert(name.clone(), hidden());
    }
    if attempt.attempt.run > 0 {
        headers.insert("posthaste-replay", HeaderValue::from(attempt.attempt.run));
    }
    if attempt.trial.is_some() {
        headers.insert("posthaste-test", HeaderValue::from_static("true"));
    }
    Ok(signatures)
}

impl Remade {
    /// The headers that may be shown, if by their checksum they are those that were sent. Secrets expire and are replaced,
    /// so which signatures there were then is not known any more; there are few, and the checksum tells.
    fn headers_as_sent(&self, recorded: u32) -> Option<HeaderMap> {
        let shown = self.shown();
        (0..1_u32 << self.signatures.len()).find_map(|left_out| {
            let without = |headers: &HeaderMap| {
                let mut headers = headers.clone();
                for (number, name) in self.signatures.iter().enumerate() {
                    if left_out & (1 << number) != 0 {
                        headers.remove(name);
                    }
                }
                headers
            };
            let checksum = egress::head_checksum(&self.method, &self.sent.url, &without(&self.sent.headers));
            (checksum == recorded).then(|| without(&shown.headers))
        })
    }

    fn shown(&self) -> &Parts {
        self.masked.as_ref().unwrap_or(&self.sent)
    }
}

impl RequestView {
    fn of(attempt: &Attempt, remade: Result<Remade, String>) -> Self {
        let mut view = Self {
            reproduced: false,
            reason: None,
            method: None,
            url: None,
            headers: None,
            body: Text::default(),
            body_sha256: None,
        };
        let remade = match remade {
            Ok(remade) => remade,
            Err(reason) => {
                view.reason = Some(reason);
                return view;
            }
        };
        let shown = remade.shown();
        // Whoever can guess what stands there could ask it whether they are right.
        view.body_sha256 = (remade.masked.is_none()).then(|| hex::encode(&attempt.request_sha256));
        let is_body = Sha256::digest(&remade.sent.body).as_slice() == attempt.request_sha256;
        // Requests of a release before have no checksum: what they say of the body has to do.
        let headers = match attempt.request_head {
            Some(recorded) => remade.headers_as_sent(recorded),
            None => is_body.then(|| shown.headers.clone()),
        };
        let is_head = headers.is_some();
        view.reproduced = is_body && is_head;
        let another = match (is_body, is_head) {
            (true, true) => None,
            (false, true) => Some("body"),
            (true, false) => Some("head"),
            (false, false) => Some("request"),
        };
        let changed = match remade.uses_variables {
            // Of a protected one, only what it is now is known.
            true => "the profile, the release or a protected variable",
            false => "the profile or the release",
        };
        view.reason = another.map(|another| format!("{changed} has changed since, and makes another {another}"));
        if is_body {
            view.body = Text::new(shown.body.to_vec(), false);
        }
        if let Some(headers) = headers {
            view.method = Some(remade.method.to_string());
            view.url = Some(shown.url.clone());
            view.headers = Some(lines(&headers));
        }
        view
    }
}

fn lines(headers: &HeaderMap) -> Vec<SentHeader> {
    headers
        .iter()
        .map(|(name, value)| SentHeader {
            key: name.to_string(),
            value: (!value.is_sensitive()).then(|| String::from_utf8_lossy(value.as_bytes()).into_owned()),
            protected: value.is_sensitive(),
        })
        .collect()
}
