//! `/v1/projects/{project}/webhooks`

mod body;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use common::egress::Refused;
use common::http::{Code, Json, Page, PageQuery, Path, Problem, Query};
use common::profile::Profile;
use common::sign;
use proto_schemas::id::WebhookId;
use proto_schemas::stream::config_key::Key;
use secrecy::ExposeSecret as _;
use serde_json::json;
use store::projects::Project;
use store::webhooks::{self, Settings, Webhook};
use store::{Connection, Error, webhook_health};
use uuid::Uuid;

use self::body::{ChangedWebhook, CreatedWebhook, NewWebhook, WebhookView};
use crate::access::{Caller, Configure, InProject, Read};
use crate::api::{Api, failed, new_id, note_changed};
use crate::changes::{Changes, Rules};

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Json(new): Json<NewWebhook>,
) -> Result<(StatusCode, Json<CreatedWebhook>), Problem> {
    let mut changes = Changes::from(new);
    let generated = match &changes.secret {
        Some(_) => None,
        None => Some(sign::Secret::generate()),
    };
    if let Some(secret) = &generated {
        changes.secret = Some(secret.expose_secret().to_owned());
    }
    let now = api.now();
    let mut webhook = Webhook {
        id: WebhookId::from_uuid(new_id(now, &mut rand::rng())),
        project: within.project.id,
        name: String::new(),
        url: String::new(),
        events: Vec::new(),
        headers: Vec::new(),
        sealed_secret: None,
        active: true,
        description: String::new(),
        labels: BTreeMap::new(),
        attributes: BTreeMap::new(),
        settings: Settings::default(),
        check: None,
        restarted_at: None,
        retry: None,
        timeout: None,
        revision: 1,
        created_at: now,
        updated_at: now,
        deleted_at: None,
    };
    apply(&api, &within.project, changes, &mut webhook)?;
    vet(&api, &webhook).await?;

    let mut transaction = api.store.begin().await.map_err(failed)?;
    webhooks::insert(&mut transaction, &webhook)
        .await
        .map_err(|error| name_taken(error, &webhook))?;
    let view = WebhookView::of(&webhook, None);
    let definition = serde_json::to_value(&view).map_err(Problem::internal)?;
    note_written(&mut transaction, &webhook, &definition, &within.caller).await?;
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    let secret = generated.map(|secret| secret.expose_secret().to_owned());
    Ok((StatusCode::CREATED, Json(CreatedWebhook { view, secret })))
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<WebhookView>>, Problem> {
    let before: Option<Uuid> = query.after()?;
    let mut connection = api.store.connection().await.map_err(failed)?;
    let limit = u32::from(query.limit) + 1;
    let rows = webhooks::page(
        &mut connection,
        within.project.id,
        before.map(WebhookId::from_uuid),
        limit,
    )
    .await;
    let page = Page::cut(rows.map_err(failed)?, &query, |webhook| webhook.id.as_uuid())?;
    let ids: Vec<WebhookId> = page.items.iter().map(|webhook| webhook.id).collect();
    let health = webhook_health::find(&mut connection, &ids).await.map_err(failed)?;
    Ok(Json(
        page.map(|webhook| WebhookView::of(&webhook, health.get(&webhook.id))),
    ))
}

pub(super) async fn show(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Path((_, named)): Path<(String, String)>,
) -> Result<Json<WebhookView>, Problem> {
    let mut connection = api.store.connection().await.map_err(failed)?;
    let webhook = webhooks::find(&mut connection, within.project.id, &named)
        .await
        .map_err(failed)?;
    let webhook = webhook.ok_or_else(absent)?;
    let health = webhook_health::find(&mut connection, &[webhook.id])
        .await
        .map_err(failed)?;
    Ok(Json(WebhookView::of(&webhook, health.get(&webhook.id))))
}

pub(super) async fn change(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Path((_, named)): Path<(String, String)>,
    Json(changed): Json<ChangedWebhook>,
) -> Result<Json<WebhookView>, Problem> {
    let changes = Changes::from(changed);
    if let Some(url) = &changes.url {
        // Before the transaction, because name servers may take seconds.
        vet_url(&api, url).await?;
    }
    let mut transaction = api.store.begin().await.map_err(failed)?;
    let stored = webhooks::find_for_update(&mut transaction, within.project.id, &named)
        .await
        .map_err(failed)?;
    let stored = stored.ok_or_else(absent)?;
    let health = webhook_health::find(&mut transaction, &[stored.id])
        .await
        .map_err(failed)?;
    let health = health.get(&stored.id);
    let mut webhook = stored.clone();
    apply(&api, &within.project, changes, &mut webhook)?;
    if webhook == stored {
        return Ok(Json(WebhookView::of(&stored, health)));
    }
    webhook.revision += 1;
    webhook.updated_at = api.now();
    webhooks::update(&mut transaction, &webhook)
        .await
        .map_err(|error| name_taken(error, &webhook))?;
    let view = WebhookView::of(&webhook, health);
    let definition = serde_json::to_value(&view).map_err(Problem::internal)?;
    note_written(&mut transaction, &webhook, &definition, &within.caller).await?;
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    Ok(Json(view))
}

pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Path((_, named)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let mut transaction = api.store.begin().await.map_err(failed)?;
    let stored = webhooks::find_for_update(&mut transaction, within.project.id, &named)
        .await
        .map_err(failed)?;
    let mut webhook = stored.ok_or_else(absent)?;
    let now = api.now();
    webhook.revision += 1;
    webhook.updated_at = now;
    webhook.deleted_at = Some(now);
    // Nothing is sent to it any more, so nothing secret of it is kept.
    webhook.sealed_secret = None;
    webhook.headers.clear();
    webhooks::update(&mut transaction, &webhook).await.map_err(failed)?;
    note_written(&mut transaction, &webhook, &json!({ "deleted": true }), &within.caller).await?;
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    Ok(StatusCode::NO_CONTENT)
}

/// What a request hears of a webhook that is not there.
pub(super) fn absent() -> Problem {
    Problem::new(Code::NotFound, "there is no such webhook in this project")
}

fn apply(api: &Api, project: &Project, changes: Changes, webhook: &mut Webhook) -> Result<(), Problem> {
    let profile = profile(api, project)?;
    let rules = Rules {
        guard: &api.guard,
        profile,
        keys: &api.keys,
    };
    changes.apply(webhook, &rules).map_err(Problem::fields)
}

/// The project's profile. One that another process knows and this one does not is the operator's mistake.
fn profile<'a>(api: &'a Api, project: &Project) -> Result<&'a Profile, Problem> {
    api.profiles.get(&project.profile).ok_or_else(|| {
        let reason = format!(
            "no profile `{}`: give every config-api the same --profiles-dir",
            project.profile
        );
        Problem::from(Code::Internal).because(std::io::Error::other(reason))
    })
}

/// Refuses an address whose name leads to where no webhook may go. One whose shape is wrong is refused elsewhere.
async fn vet_url(api: &Api, url: &str) -> Result<(), Problem> {
    match api.guard.check(url) {
        Ok(target) => api.guard.vet(&target).await.map_err(refused),
        Err(_) => Ok(()),
    }
}

async fn vet(api: &Api, webhook: &Webhook) -> Result<(), Problem> {
    vet_url(api, &webhook.url).await
}

fn refused(refused: Refused) -> Problem {
    Problem::field("/url", refused.to_string())
}

/// Notes what was written: the revision, and that the definition has changed.
async fn note_written(
    connection: &mut Connection,
    webhook: &Webhook,
    definition: &serde_json::Value,
    caller: &Caller,
) -> Result<(), Problem> {
    webhooks::note_revision(connection, webhook, definition, caller.token)
        .await
        .map_err(failed)?;
    note_changed(connection, &Key::Webhook(webhook.project, webhook.id)).await
}

fn name_taken(error: Error, webhook: &Webhook) -> Problem {
    match error.constraint() {
        Some(webhooks::NAME_KEY) => Problem::new(
            Code::Conflict,
            format!("there is a webhook `{}` already in this project", webhook.name),
        ),
        _ => failed(error),
    }
}
