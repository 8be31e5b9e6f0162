//! `POST /v1/projects/{project}/webhooks/{webhook}:preview` and `POST /v1/projects/{project}/webhooks:preview`

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use common::http::{FieldError, Json, Problem};
use common::render::VARIABLES;
use http::HeaderValue;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use store::webhooks as rows;
use utoipa::ToSchema;

use super::body::{ChangedWebhook, NewWebhook};
use crate::access::{Configure, InProject};
use crate::api::{Api, failed};
use crate::changes::Changes;
use crate::http::idempotency::NothingDone;
use crate::http::json::{Text, given};
use crate::http::tests::HeaderLine;
use crate::previews::{self, Preview};
use crate::trials::Sample;
use crate::webhooks::{self, absent, profile};

/// What is to be shown of a webhook.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = Preview)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct PreviewBody {
    /// The event's type. Absent: the first that the webhook names in full, or that its profile's catalogue has for it.
    r#type: Option<String>,
    /// The event's payload. Absent: its type's example.
    #[schema(value_type = Option<Object>)]
    data: Option<Box<RawValue>>,
    /// The event's attributes.
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    /// Changes to the webhook, as `PATCH` takes them. Nothing of them is stored.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    changes: Option<ChangedWebhook>,
}

/// What is to be shown of a webhook that is not stored.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewPreview {
    /// The webhook, as `POST` takes it. Nothing of it is stored. Without a secret, where one would be made up, it is signed
    /// with one that nobody has.
    webhook: NewWebhook,
    /// The event's type. Absent: the first that the webhook names in full, or that its profile's catalogue has for it.
    r#type: Option<String>,
    /// The event's payload. Absent: its type's example.
    #[schema(value_type = Option<Object>)]
    data: Option<Box<RawValue>>,
    /// The event's attributes.
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

/// A request that would be sent.
#[derive(Serialize, ToSchema)]
#[schema(as = PreviewOfRequest)]
pub(in crate::http) struct PreviewView {
    event: EventView,
    /// Whether the webhook wants such an event; whether it would get one is for its state to say.
    wanted: bool,
    matches: MatchesView,
    request: RequestView,
    /// What its template looks for, in the event or among its variables, and does not find: that is null alone, and nothing within text.
    warnings: Vec<Warning>,
}

/// The event of a preview.
#[derive(Serialize, ToSchema)]
#[schema(as = PreviewedEvent)]
struct EventView {
    /// Begins with `test_`, so that its signature is good for nothing else.
    id: String,
    r#type: String,
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    /// Those that were given, and those that are found in the payload.
    attributes: BTreeMap<String, String>,
}

/// By what the webhook wants the event, or does not.
#[derive(Serialize, ToSchema)]
#[schema(as = Matches)]
struct MatchesView {
    /// By its patterns of types.
    events: bool,
    /// By its attributes.
    attributes: bool,
    /// By its filter.
    filter: bool,
}

/// The request, byte for byte, but for protected variables: they read `***`.
#[derive(Serialize, ToSchema)]
#[schema(as = PreviewedRequest)]
struct RequestView {
    #[schema(example = "POST")]
    method: &'static str,
    url: String,
    /// All but those of the connection, `host` and `content-length`.
    headers: Vec<HeaderLine>,
    #[serde(flatten)]
    body: Text,
}

/// What a template looks for and does not find.
#[derive(Serialize, ToSchema)]
struct Warning {
    /// Which string of the template: a JSON pointer, into the request's body or the webhook where the template is its own.
    #[schema(example = "#/transform/text")]
    pointer: String,
    /// The expression in it.
    #[schema(example = "data.titel")]
    expression: String,
    /// In one line.
    detail: String,
}

impl From<Preview> for PreviewView {
    fn from(preview: Preview) -> Self {
        let template = if preview.own_template { "/transform" } else { "" };
        let warnings = preview.missing.into_iter().map(|missing| {
            let detail = match missing.expression.contains(VARIABLES) {
                true => format!(
                    "neither the event nor the webhook has anything for `{}`",
                    missing.expression
                ),
                false => format!("the event has nothing for `{}`", missing.expression),
            };
            let FieldError { pointer, detail } = FieldError::at(&format!("{template}{}", missing.pointer), detail);
            Warning {
                pointer,
                expression: missing.expression,
                detail,
            }
        });
        Self {
            wanted: preview.matches.all(),
            matches: MatchesView {
                events: preview.matches.events,
                attributes: preview.matches.attributes,
                filter: preview.matches.filter,
            },
            request: RequestView {
                method: "POST",
                url: preview.url,
                headers: preview
                    .headers
                    .iter()
                    .map(|(name, value)| HeaderLine {
                        key: name.to_string(),
                        value: shown(value),
                    })
                    .collect(),
                body: Text::new(preview.body.to_vec(), false),
            },
            warnings: warnings.collect(),
            event: EventView {
                id: preview.event.id,
                r#type: preview.event.event_type,
                timestamp: preview.event.occurred_at,
                attributes: preview.event.attributes,
            },
        }
    }
}

fn shown(value: &HeaderValue) -> Option<String> {
    (!value.is_sensitive()).then(|| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn sample(event_type: Option<String>, data: Option<Box<RawValue>>, attributes: BTreeMap<String, String>) -> Sample {
    Sample {
        event_type,
        data: data.map(|data| Bytes::from(data.get().to_owned())),
        attributes,
    }
}

/// Makes the preview of a stored webhook.
pub(super) async fn of_stored(
    api: &Api,
    within: &InProject<Configure>,
    named: &str,
    body: PreviewBody,
) -> Result<PreviewView, Problem> {
    let mut connection = api.connection_in(within.project.id).await?;
    let webhook = rows::find(&mut connection, within.project.id, named).await;
    drop(connection);
    let mut webhook = webhook.map_err(failed)?.ok_or_else(absent)?;
    if let Some(changes) = body.changes {
        let applied = webhooks::apply(api, profile(api, &within.project)?, changes.into(), &mut webhook);
        applied.map_err(|problem| beneath(problem, "/changes"))?;
    }
    let sample = sample(body.r#type, body.data, body.attributes);
    Ok(previews::make(api, &within.project, &webhook, sample).await?.into())
}

/// Preview a webhook that is not stored
///
/// The request that an example event would come to: body and headers, signature included, protected values left out.
/// Nothing is sent.
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/webhooks:preview",
    operation_id = "preview_new_webhook",
    tag = "Webhooks",
    request_body = NewPreview,
    responses((status = 200, description = "The request", body = PreviewView))
)]
pub(in crate::http) async fn of_new(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Json(new): Json<NewPreview>,
) -> Result<Response, Problem> {
    let profile = profile(&api, &within.project)?;
    let in_webhook = |problem| beneath(problem, "/webhook");
    let mut changes: Changes = new.webhook.changes(&api.templates).map_err(in_webhook)?;
    webhooks::make_up_secret(&mut changes, profile);
    let mut webhook = webhooks::blank(&api, &within.project);
    webhooks::apply(&api, profile, changes, &mut webhook).map_err(in_webhook)?;
    let sample = sample(new.r#type, new.data, new.attributes);
    let preview = previews::make(&api, &within.project, &webhook, sample).await?;
    Ok(NothingDone::but(Json(PreviewView::from(preview))))
}

/// The same problem, of fields that stand beneath another one.
fn beneath(problem: Problem, field: &str) -> Problem {
    if problem.errors().is_empty() {
        return problem;
    }
    let errors = problem.errors().iter().map(|error| {
        let pointer = error.pointer.strip_prefix('#').unwrap_or(&error.pointer);
        FieldError::new(&format!("{field}{pointer}"), error.detail.clone())
    });
    Problem::fields(errors.collect())
}
