//! The resources, one file each: what stands in their paths, queries and bodies.
//!
//! A `{project}` is a project's name or id, a `{webhook}` a webhook's. Lists answer `{"items": […], "next": …}`, newest
//! first, event types by name; `next` is the `cursor` of the next page, or null. What a handler does is said beside it,
//! and becomes the OpenAPI document; `make openapi` writes it to `docs/openapi.json`.

mod attempts;
mod audit;
mod dead_letters;
mod deliveries;
mod docs;
mod event_types;
mod events;
mod idempotency;
mod json;
mod profiles;
mod projects;
mod reconciliation;
mod rejected_events;
mod replays;
mod revisions;
mod root;
mod session;
mod source_addresses;
mod templates;
mod tests;
mod tokens;
pub(crate) mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use common::http::openapi::{self, About};
use common::http::{Problem, conditional, rate_limit};
use common::token::Scope;
use proto_schemas::id::{ProjectId, WebhookId};
use store::{Connection, webhooks as rows};
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use crate::api::{Api, failed};
use crate::audit::note_answers;

pub(crate) use self::idempotency::KEPT;

/// Largest body: a webhook with all the headers it may have is a tenth of it.
const BODY_MAX: usize = 256 * 1024;

const ABOUT: About = About {
    title: "Posthaste",
    description: "Projects, tokens, webhooks, and what became of each event. Events are published to the service `ingest`, \
                  which has a document of its own.",
    tags: &[
        ("Projects", "Tenants."),
        ("Tokens", "Who may do what."),
        ("Webhooks", "Where events go."),
        ("Templates", "Webhooks with blanks, to make webhooks from."),
        ("Tests", "Requests made to try a webhook."),
        (
            "Event types",
            "What events there are, and the schemas they are checked by.",
        ),
        (
            "Profiles",
            "How a project's webhooks behave, where they do not say otherwise themselves.",
        ),
        ("Record", "What became of each event."),
        (
            "UbiOps",
            "The webhooks in UbiOps' words. Under `/v2` there is the same.",
        ),
        (
            "1NCE",
            "The webhooks of the one project that the token is good for, as 1NCE's integrations.",
        ),
        ("Replays", "Deliveries made again, and dead letters put away."),
        ("Audit", "Who did what."),
        ("Session", "Logging in with a browser."),
    ],
    variables: &[
        ("project", "The project's name or id."),
        ("webhook", "The webhook's name or id."),
        ("token", "The token's id."),
        ("test", "The test's id."),
        ("event_type", "The event type's name."),
        ("version", "The version of the event type."),
        ("event", "The event's id."),
        ("attempt", "The attempt's id."),
        ("replay", "The replay's id or number."),
        ("revision", "The number of a revision."),
        ("profile", "The profile's name."),
        ("template", "The template's name."),
    ],
    scopes: [Scope::Read, Scope::Configure],
    idempotency_keys: true,
};

fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .merge(projects::routes())
        .merge(tokens::routes())
        .merge(webhooks::routes())
        .merge(revisions::routes())
        .merge(events::routes())
        .merge(attempts::routes())
        .merge(deliveries::routes())
        .merge(dead_letters::routes())
        .merge(replays::routes())
        .merge(rejected_events::routes())
        .merge(reconciliation::routes())
        .merge(profiles::routes())
        .merge(source_addresses::routes())
        .merge(templates::routes())
        .merge(event_types::routes())
        .merge(tests::routes())
        .merge(audit::routes())
        .merge(session::routes())
        .merge(OpenApiRouter::with_openapi(crate::facades::document()))
}

/// The routes, their document and the page that shows it.
pub fn router(api: Arc<Api>) -> Router {
    let (routes, _) = openapi::serve(routes(), &ABOUT);
    routes
        .merge(crate::facades::router())
        .layer(from_fn_with_state(Arc::clone(&api), note_answers))
        .layer(from_fn_with_state(Arc::clone(&api), idempotency::answer_once))
        .layer(from_fn(conditional::not_modified))
        .layer(from_fn(rate_limit::announce))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .route("/", get(root::show))
        .merge(docs::routes())
        .merge(console::routes())
        .layer(from_fn(keep_private))
        .with_state(api)
}

/// A layer: what is answered is neither kept on its way nor taken for what it is not, unless the answer says otherwise.
async fn keep_private(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}

/// The OpenAPI document, as it is served.
#[must_use]
pub fn document() -> String {
    openapi::text(&openapi::complete(routes().into_openapi(), &ABOUT))
}

/// The webhook that a filter names; by its id a deleted one's record can still be read.
async fn webhook_filter(
    connection: &mut Connection,
    project: ProjectId,
    named: Option<&str>,
) -> Result<Option<WebhookId>, Problem> {
    let Some(named) = named else { return Ok(None) };
    if let Ok(id) = Uuid::parse_str(named) {
        return Ok(Some(WebhookId::from_uuid(id)));
    }
    match rows::find(connection, project, named).await.map_err(failed)? {
        Some(webhook) => Ok(Some(webhook.id)),
        None => Err(crate::webhooks::absent()),
    }
}

#[cfg(test)]
mod openapi_tests {
    #[test]
    fn the_document_in_docs_is_what_the_handlers_say() {
        let kept = include_str!("../../../../docs/openapi.json");
        assert!(
            kept == super::document(),
            "run `make openapi` and commit docs/openapi.json"
        );
    }
}
