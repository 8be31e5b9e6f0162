//! The HTTP way in: publishes on NATS what was posted, and says so once JetStream has stored it.

mod events;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts};
use axum::http::request::Parts;
use axum::middleware::from_fn;
use common::bus::{Bus, Seen};
use common::clock::Clock;
use common::definitions::Definitions;
use common::http::auth::bearer;
use common::http::openapi::{self, About};
use common::http::rate_limit::{self, Proof, RateLimits};
use common::http::{Code, Path, Problem};
use common::token::{self, Scope};
use proto_schemas::definition::{Project, Token};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

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
    /// What each token may ask.
    pub rate_limits: Arc<RateLimits>,
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
    routes.layer(from_fn(rate_limit::announce)).with_state(Arc::new(intake))
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

/// The project of the path, to which the request's token may publish. It is an argument of each handler, in front of the
/// body: nothing of a body is read for who has no token.
#[derive(Debug)]
struct Publishing(Arc<Project>);

impl FromRequestParts<Arc<Intake>> for Publishing {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, intake: &Arc<Intake>) -> Result<Self, Problem> {
        let token = intake.token(parts)?;
        let Path(named) = Path::<String>::from_request_parts(parts, intake).await?;
        // A project that another token's bearer may not see is as if it were not there.
        let project = intake
            .definitions
            .project(&named)
            .filter(|project| token.project.is_none_or(|own| own == project.id))
            .ok_or_else(|| Problem::new(Code::NotFound, "there is no such project"))?;
        let allowed = token
            .scopes
            .iter()
            .filter_map(|scope| scope.parse::<Scope>().ok())
            .any(|scope| scope.allows(Scope::Publish));
        match allowed {
            true => Ok(Self(project)),
            false => Err(Problem::new(Code::MissingScope, "the token lacks the scope `publish`")),
        }
    }
}

impl Intake {
    /// The request's token, if it is a good one and has not asked for too much.
    fn token(&self, parts: &Parts) -> Result<Arc<Token>, Problem> {
        let bearer = bearer(&parts.headers)?;
        let proof = Proof {
            hash: token::hash(bearer),
            is_random: token::looks_like_token(bearer),
        };
        let is_good =
            |token: &Arc<Token>| !token.revoked && token.expires_at.is_none_or(|expiry| expiry > self.clock.now());
        let found = self.definitions.token(&hex::encode(proof.hash)).filter(is_good);
        // Looking it up costs nothing here, and nobody has guessed what is random: that does not wait for what its
        // neighbours send. What somebody may have invented does, right or wrong.
        if found.is_none() || !proof.is_random {
            self.rate_limits.may_try(parts, &proof)?;
        }
        let Some(token) = found else {
            self.rate_limits.count_refused(parts, &proof);
            return Err(Problem::new(
                Code::Unauthenticated,
                "the token is not known, has expired or was revoked",
            ));
        };
        // Its id is not known here; half of its hash, as long as an id, tells it from others as well.
        let counted_as = Uuid::from_slice(&proof.hash[..16]).unwrap_or_default();
        self.rate_limits.count(counted_as, None, parts)?;
        Ok(token)
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
