//! What is done to a webhook, whoever asks for it: `/v1` and the façades come together here, so a webhook is the same
//! one from whichever side it is looked at.
//!
//! Each of these is one transaction: the row, its revision and its place in the outbox. They return when the change has
//! been published, or will be shortly.

use std::collections::BTreeMap;

use common::egress::Refused;
use common::http::{Code, Problem};
use common::profile::Profile;
use common::sign;
use proto_schemas::id::WebhookId;
use proto_schemas::stream::config_key::Key;
use secrecy::ExposeSecret as _;
use serde_json::json;
use store::projects::Project;
use store::webhooks::{self, Settings, Webhook};
use store::{Connection, Error};

use crate::access::Caller;
use crate::api::{Api, failed, new_id, note_changed};
use crate::changes::{Changes, Rules};
use crate::http::webhooks::definition;

/// A webhook that was made, and the secret that was made up for it, if one was.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) webhook: Webhook,
    pub(crate) secret: Option<String>,
}

/// Makes a webhook.
pub(crate) async fn create(
    api: &Api,
    project: &Project,
    caller: &Caller,
    mut changes: Changes,
) -> Result<Created, Problem> {
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
        project: project.id,
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
    apply(api, project, changes, &mut webhook)?;
    vet(api, &webhook.url).await?;

    let mut transaction = api.store.begin().await.map_err(failed)?;
    webhooks::insert(&mut transaction, &webhook)
        .await
        .map_err(|error| name_taken(error, &webhook))?;
    note_written(&mut transaction, &webhook, &definition(&webhook)?, caller).await?;
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    Ok(Created {
        webhook,
        secret: generated.map(|secret| secret.expose_secret().to_owned()),
    })
}

/// Changes a webhook. `adapt` sees it as it stands, with nobody else changing it, and may refuse, or fit the changes to
/// it; their url is looked at before. What changes nothing makes no revision.
pub(crate) async fn change(
    api: &Api,
    project: &Project,
    caller: &Caller,
    named: &str,
    mut changes: Changes,
    adapt: impl FnOnce(&Webhook, &mut Changes) -> Result<(), Problem> + Send,
) -> Result<Webhook, Problem> {
    if let Some(url) = &changes.url {
        // Before the transaction, because name servers may take seconds.
        vet(api, url).await?;
    }
    let mut transaction = api.store.begin().await.map_err(failed)?;
    let stored = webhooks::find_for_update(&mut transaction, project.id, named)
        .await
        .map_err(failed)?;
    let stored = stored.ok_or_else(absent)?;
    adapt(&stored, &mut changes)?;
    let mut webhook = stored.clone();
    apply(api, project, changes, &mut webhook)?;
    if webhook == stored {
        return Ok(stored);
    }
    webhook.revision += 1;
    webhook.updated_at = api.now();
    webhooks::update(&mut transaction, &webhook)
        .await
        .map_err(|error| name_taken(error, &webhook))?;
    note_written(&mut transaction, &webhook, &definition(&webhook)?, caller).await?;
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    Ok(webhook)
}

/// Removes a webhook, where `allowed` has nothing against it as it stands.
pub(crate) async fn remove(
    api: &Api,
    project: &Project,
    caller: &Caller,
    named: &str,
    allowed: impl FnOnce(&Webhook) -> Result<(), Problem> + Send,
) -> Result<(), Problem> {
    let mut transaction = api.store.begin().await.map_err(failed)?;
    let stored = webhooks::find_for_update(&mut transaction, project.id, named)
        .await
        .map_err(failed)?;
    let mut webhook = stored.ok_or_else(absent)?;
    allowed(&webhook)?;
    let now = api.now();
    webhook.revision += 1;
    webhook.updated_at = now;
    webhook.deleted_at = Some(now);
    // Nothing is sent to it any more, so nothing secret of it is kept.
    webhook.sealed_secret = None;
    webhook.headers.clear();
    webhooks::update(&mut transaction, &webhook).await.map_err(failed)?;
    note_written(&mut transaction, &webhook, &json!({ "deleted": true }), caller).await?;
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    Ok(())
}

/// What a request hears of a webhook that is not there.
pub(crate) fn absent() -> Problem {
    Problem::new(Code::NotFound, "there is no such webhook in this project")
}

fn apply(api: &Api, project: &Project, changes: Changes, webhook: &mut Webhook) -> Result<(), Problem> {
    let rules = Rules {
        guard: &api.guard,
        profile: profile(api, project)?,
        keys: &api.keys,
    };
    changes.apply(webhook, &rules).map_err(Problem::fields)
}

/// The project's profile. One that another process knows and this one does not is the operator's mistake.
pub(crate) fn profile<'a>(api: &'a Api, project: &Project) -> Result<&'a Profile, Problem> {
    api.profiles.get(&project.profile).ok_or_else(|| {
        let reason = format!(
            "no profile `{}`: give every config-api the same --profiles-dir",
            project.profile
        );
        Problem::from(Code::Internal).because(std::io::Error::other(reason))
    })
}

/// Refuses an address whose name leads to where no webhook may go. One whose shape is wrong is refused elsewhere.
async fn vet(api: &Api, url: &str) -> Result<(), Problem> {
    match api.guard.check(url) {
        Ok(target) => api.guard.vet(&target).await.map_err(refused),
        Err(_) => Ok(()),
    }
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
