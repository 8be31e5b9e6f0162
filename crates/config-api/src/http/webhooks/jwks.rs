//! `/v1/projects/{project}/webhooks/{webhook}/jwks.json`
//!
//! Receivers fetch it, who have no token: what is in it is public, and nothing else is told. A webhook is found by its id
//! alone, which nobody guesses, so that nobody learns by trying how webhooks are called; and so many times a minute from one
//! address, so that trying keeps Postgres from nobody.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use common::http::{Code, Path, Problem};
use common::sign::PublicKey;
use proto_schemas::id::{ProjectId, WebhookId};
use serde::Serialize;
use store::{projects, webhooks};
use utoipa::ToSchema;
use uuid::Uuid;

use super::view::live;
use crate::api::{Api, failed};

/// A set of JSON Web Keys (RFC 7517).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JsonWebKeySet)]
pub(super) struct KeySet {
    /// The keys that requests are signed with, the current one first; none where the webhook has no key pair.
    keys: Vec<WebKey>,
}

/// A public Ed25519 key (RFC 8037).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JsonWebKey)]
struct WebKey {
    #[schema(example = "OKP")]
    kty: &'static str,
    #[schema(example = "Ed25519")]
    crv: &'static str,
    /// The key, in Base64url.
    x: String,
    #[schema(example = "sig")]
    r#use: &'static str,
    #[schema(example = "EdDSA")]
    alg: &'static str,
    /// The secret's id in the webhook.
    kid: Uuid,
}

/// How long receivers may keep an answer. During a rotation both keys sign for longer than that.
const KEPT: &str = "public, max-age=300";

/// Show a webhook's public keys
///
/// For receivers: no token is needed. By the webhook's id alone.
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/webhooks/{webhook}/jwks.json",
    operation_id = "show_public_keys",
    tag = "Webhooks",
    security(),
    responses((status = 200, description = "The keys", body = KeySet, content_type = "application/jwk-set+json"))
)]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Path((project, webhook)): Path<(String, String)>,
    parts: Parts,
) -> Result<Response, Problem> {
    let absent = || Problem::new(Code::NotFound, "there is no such webhook; name it by its id");
    let id = Uuid::parse_str(&webhook)
        .map(WebhookId::from_uuid)
        .map_err(|_| absent())?;
    api.rate_limits.count_public(&parts)?;
    let mut connection = api.database.of_all_projects().connection().await.map_err(failed)?;
    let found = webhooks::by_ids(&mut connection, &[id]).await.map_err(failed)?;
    let found = found.into_iter().find(|webhook| webhook.deleted_at.is_none());
    let webhook = found.ok_or_else(absent)?;
    let is_its = match Uuid::parse_str(&project) {
        Ok(id) => webhook.project == ProjectId::from_uuid(id),
        Err(_) => {
            let project = projects::by_name(&mut connection, &project).await.map_err(failed)?;
            project.is_some_and(|project| project.id == webhook.project)
        }
    };
    if !is_its {
        return Err(absent());
    }
    let keys = live(&webhook, api.now())
        .filter_map(|secret| {
            let public = PublicKey::parse(secret.public_key.as_deref()?)?;
            Some(WebKey {
                kty: "OKP",
                crv: "Ed25519",
                x: public.x(),
                r#use: "sig",
                alg: "EdDSA",
                kid: secret.sealed.id.as_uuid(),
            })
        })
        .collect();
    let headers = [
        (header::CONTENT_TYPE, "application/jwk-set+json"),
        (header::CACHE_CONTROL, KEPT),
    ];
    Ok((headers, Json(KeySet { keys })).into_response())
}
