//! The HTTP way in: publishes on NATS what was posted, and says so once JetStream has stored it.

mod events;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::HeaderMap;
use common::bus::{Bus, Seen};
use common::clock::Clock;
use common::definitions::Definitions;
use common::http::auth::bearer;
use common::http::openapi::{self, About};
use common::http::{Code, Problem};
use common::token::{self, Scope};
use proto_schemas::definition::Project;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What the handlers work with.
#[derive(Debug, Clone)]
pub struct Intake {
    /// NATS.
    pub bus: Bus,
    /// The ids that are taken.
    pub seen: Seen,
    /// Projects and tokens.
    pub definitions: Arc<Definitions>,
    /// Time of ids and of tokens' expiry.
    pub clock: Clock,
    /// Largest event, in bytes of its data.
    pub max_event_bytes: usize,
    /// Most events in one batch.
    pub max_batch: usize,
}

/// What is around an event's data in a request body: type, id, time, attributes.
const AROUND_EVENT: usize = 16 * 1024;

/// Largest batch, in bytes.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// The routes of intake.
pub fn router(intake: Intake) -> Router {
    let one = DefaultBodyLimit::max(intake.max_event_bytes + AROUND_EVENT);
    let batch = DefaultBodyLimit::max(MAX_BATCH_BYTES.max(intake.max_event_bytes + AROUND_EVENT));
    let routes = OpenApiRouter::new()
        .merge(OpenApiRouter::new().routes(routes!(events::publish)).layer(one))
        .merge(OpenApiRouter::new().routes(routes!(events::publish_batch)).layer(batch));
    let (routes, _) = openapi::serve(routes, &ABOUT);
    routes.with_state(Arc::new(intake))
}

const ABOUT: About = About {
    title: "Posthaste intake",
    description: "Where events are published. All else is in the document of the service `config-api`.",
    tags: &[("Events", "What happened.")],
    variables: &[("project", "The project's name or id.")],
    scopes: [Scope::Publish; 2],
    idempotency_keys: false,
};

/// The OpenAPI document, as it is served.
#[must_use]
pub fn document() -> String {
    let routes: OpenApiRouter<Arc<Intake>> = OpenApiRouter::new()
        .routes(routes!(events::publish))
        .routes(routes!(events::publish_batch));
    openapi::text(&openapi::complete(routes.into_openapi(), &ABOUT))
}

impl Intake {
    /// The project of the path, if the request's token may publish to it.
    fn authorise(&self, headers: &HeaderMap, project: &str) -> Result<Arc<Project>, Problem> {
        let refused = || {
            Problem::new(
                Code::Unauthenticated,
                "the token is not known, has expired or was revoked",
            )
        };
        let hash = hex::encode(token::hash(bearer(headers)?));
        let token = self.definitions.token(&hash).ok_or_else(refused)?;
        if token.revoked || token.expires_at.is_some_and(|expiry| expiry <= self.clock.now()) {
            return Err(refused());
        }
        // A project that another token's bearer may not see is as if it were not there.
        let project = self
            .definitions
            .project(project)
            .filter(|project| token.project.is_none_or(|own| own == project.id))
            .ok_or_else(|| Problem::new(Code::NotFound, "there is no such project"))?;
        let allowed = token
            .scopes
            .iter()
            .filter_map(|scope| scope.parse::<Scope>().ok())
            .any(|scope| scope.allows(Scope::Publish));
        match allowed {
            true => Ok(project),
            false => Err(Problem::new(Code::MissingScope, "the token lacks the scope `publish`")),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_in_docs_is_what_the_handlers_say() {
        let kept = include_str!("../../../../docs/openapi-ingest.json");
        assert!(
            kept == super::document(),
            "run `make openapi` and commit docs/openapi-ingest.json"
        );
    }
}
