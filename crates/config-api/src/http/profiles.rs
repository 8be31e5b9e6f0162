//! `/v1/profiles`

use std::sync::Arc;

use axum::extract::State;
use common::http::{Code, Json, Page, Path, Problem, Tagged};
use common::profile::Profile;
use common::token::Scope;
use proto_schemas::definition::Body;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::json::Span;
use super::webhooks::PauseWord;
use crate::access::Caller;
use crate::api::Api;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show))
}

/// How a project's webhooks behave, where they do not say otherwise themselves.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Profile)]
struct ProfileView {
    /// Its name.
    name: String,
    /// For people.
    description: String,
    /// How a body is made: envelope, flat, raw, base64, cloudevents or template.
    #[schema(value_type = String)]
    body: &'static str,
    /// Whether requests have the headers of Standard Webhooks.
    standard_webhooks: bool,
    /// The header that holds the HMAC of the body; null: none.
    #[schema(required)]
    body_hmac_header: Option<String>,
    /// Whether a webhook that is made without a secret gets one.
    generate_secret: bool,
    /// The delay before each attempt.
    #[schema(value_type = Vec<String>)]
    delays: Vec<Span>,
    /// Total time of one request.
    #[schema(value_type = String)]
    timeout: Span,
    /// The most a webhook may ask for.
    #[schema(value_type = String)]
    timeout_max: Span,
    /// Whether a 3xx answer counts as delivered.
    redirect_is_success: bool,
    /// The catalogue whose event types are its projects'; null: none.
    #[schema(required)]
    catalogue: Option<String>,
    /// What is done with an event that its type's schema refuses: off, warn or reject.
    #[schema(value_type = String)]
    schema_check: &'static str,
    /// Failed attempts in a row after which a webhook has failed; null: never.
    #[schema(required)]
    fail_after: Option<u32>,
    /// What becomes of what happens while a webhook is paused.
    pause: PauseWord,
    /// Whether an endpoint has to answer a GET before its webhook gets events.
    endpoint_check: bool,
    /// Whether no two webhooks of a project may have the same url.
    unique_url: bool,
    /// Whether stored protected values go along when a webhook's url is given another host; otherwise they have to be given anew.
    protected_values_follow_url: bool,
    /// What a webhook may switch on or off.
    options: Vec<OptionView>,
    /// Texts that stand in a url or header for something of the event.
    placeholders: Vec<String>,
}

/// What a webhook may switch on or off.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProfileOption)]
struct OptionView {
    /// Its name among a webhook's `options`.
    name: String,
    /// For people.
    description: String,
    /// How it is where a webhook says nothing.
    default: bool,
}

impl From<&Profile> for ProfileView {
    fn from(profile: &Profile) -> Self {
        Self {
            name: profile.name.clone(),
            description: profile.description.clone(),
            body: match profile.body {
                Body::Envelope(_) => "envelope",
                Body::Flat => "flat",
                Body::Raw => "raw",
                Body::Base64 => "base64",
                Body::CloudEvents => "cloudevents",
                Body::Template(_) => "template",
            },
            standard_webhooks: profile.signature.standard_webhooks,
            body_hmac_header: profile.signature.body_hmac_header.clone(),
            generate_secret: profile.generate_secret,
            delays: profile.ladder.iter().copied().map(Span).collect(),
            timeout: Span(profile.timeout),
            timeout_max: Span(profile.timeout_max),
            redirect_is_success: profile.redirect_is_success,
            catalogue: profile.catalogue.clone(),
            schema_check: profile.schema_check.as_str(),
            fail_after: profile.fail_after,
            pause: PauseWord::of(profile.hold_while_paused),
            endpoint_check: profile.endpoint_check,
            unique_url: profile.unique_url,
            protected_values_follow_url: profile.protected_values_follow_url,
            options: profile
                .options
                .iter()
                .map(|option| OptionView {
                    name: option.name.clone(),
                    description: option.description.clone(),
                    default: option.default,
                })
                .collect(),
            placeholders: profile.placeholders.iter().map(|it| it.name.clone()).collect(),
        }
    }
}

/// List profiles
#[utoipa::path(
    get,
    path = "/v1/profiles",
    operation_id = "list_profiles",
    tag = "Profiles",
    responses((status = 200, description = "All profiles, by name", body = Page<ProfileView>))
)]
async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Page<ProfileView>>, Problem> {
    caller.require(Scope::Read)?;
    Ok(Json(Page {
        items: api.profiles.iter().map(ProfileView::from).collect(),
        next: None,
    }))
}

/// Show a profile
#[utoipa::path(
    get,
    path = "/v1/profiles/{profile}",
    operation_id = "show_profile",
    tag = "Profiles",
    responses((status = 200, description = "The profile", body = ProfileView, headers(("etag" = String, description = "Its version"))))
)]
async fn show(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Tagged<ProfileView>, Problem> {
    caller.require(Scope::Read)?;
    let absent = || {
        Problem::new(
            Code::NotFound,
            format!("there are the profiles {}", api.profiles.names()),
        )
    };
    Tagged::of(api.profiles.get(&name).ok_or_else(absent)?.into())
}
