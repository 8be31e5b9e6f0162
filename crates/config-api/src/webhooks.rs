//! Webhooks made, changed and deleted: what REST and the façades have in common.
//!
//! A change and its revision, and the note that the definition is to be published, are one transaction. What a webhook
//! may be is said in [`crate::changes`].

use common::egress::Refused;
use common::http::{Code, Problem};
use common::profile::Profile;
use common::sign::Key;
use proto_schemas::definition::SecretKind;
use proto_schemas::id::WebhookId;
use proto_schemas::stream::config_key;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use store::projects::{self, Project};
use store::webhooks::{self, Authentication, Webhook};
use store::{Connection, Error};

use crate::access::Caller;
use crate::api::{Api, failed, new_id, note_changed};
use crate::changes::{AuthenticationChange, Changes, Rules};
use crate::http::webhooks::Definition;
use crate::trials::Check;
use crate::{room, secrets};

/// Where access tokens are had, as a field of a request.
const TOKEN_URL: &str = "/authentication/token_url";

/// A webhook that has just been made.
#[derive(Debug)]
pub struct Created {
    /// The webhook.
    pub webhook: Webhook,
    /// The secret, where one was made up that the receiver has to know, and is to be shown. It cannot be had again.
    pub secret: Option<SecretString>,
}

/// What the answer says of a secret that was made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MadeUp {
    /// All of it, this once; which is in the audit trail.
    IsShown,
    /// Nothing.
    IsNotShown,
}

/// Makes a webhook. Where the changes say nothing of a secret, one is made up if they say of what kind, or the profile wants
/// it so.
///
/// # Errors
/// What is wrong with the changes, a name that is taken, or too many endpoint checks in a minute.
pub async fn create(
    api: &Api,
    project: &Project,
    caller: &Caller,
    mut changes: Changes,
    made_up: MadeUp,
) -> Result<Created, Problem> {
    let profile = profile(api, project)?;
    let key = make_up_secret(&mut changes, profile);
    let mut webhook = blank(api, project);
    apply(api, profile, changes, &mut webhook)?;
    // Before the transaction, because name servers may take seconds.
    vet(api, "/url", &webhook.url).await?;
    if let Some(Authentication::ClientCredentials { token_url, .. }) = &webhook.authentication {
        vet(api, TOKEN_URL, token_url).await?;
    }

    let check = Check::wanted(api, project, profile, None, &mut webhook);
    let mut transaction = api.begin_in(project.id).await?;
    room::for_webhook(&mut transaction, project.id, api.now()).await?;
    url_is_free(&mut transaction, profile, &webhook).await?;
    webhooks::insert(&mut transaction, &webhook)
        .await
        .map_err(|error| name_taken(error, &webhook))?;
    note_written(&mut transaction, &webhook, caller).await?;
    let secret = key
        .as_ref()
        .and_then(secrets::shown)
        .filter(|_| made_up == MadeUp::IsShown);
    if secret.is_some() {
        secrets::note_shown(&mut transaction, &webhook, caller).await?;
    }
    if let Some(check) = check {
        check.begin(&mut transaction).await?;
    }
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    Ok(Created { webhook, secret })
}

/// Puts a new secret into the changes, where a webhook that is made by them is to have one and they give none.
pub(crate) fn make_up_secret(changes: &mut Changes, profile: &Profile) -> Option<Key> {
    let wanted = changes.secret_kind.is_some() || profile.generate_secret;
    let key =
        (changes.secret.is_none() && wanted).then(|| Key::generate(changes.secret_kind.unwrap_or(SecretKind::V1)))?;
    changes.secret = Some(Some(key.text().expose_secret().to_owned()));
    Some(key)
}

/// Changes the webhook of that name or id. `condition` sees it as it stands, while nobody else can change it.
///
/// # Errors
/// 404, what `condition` says, what is wrong with the changes, or a name that is taken.
pub async fn change(
    api: &Api,
    project: &Project,
    caller: &Caller,
    named: &str,
    condition: impl FnOnce(&Webhook) -> Result<(), Problem> + Send,
    changes: Changes,
) -> Result<Webhook, Problem> {
    let url = changes.url.clone();
    if let Some(Some(AuthenticationChange::ClientCredentials { token_url, .. })) = &changes.authentication {
        vet(api, TOKEN_URL, token_url).await?;
    }
    let changes = |stored: &Webhook| condition(stored).map(|()| changes);
    change_with(api, project, caller, named, url, changes).await
}

/// [`change`], with changes that depend on how the webhook stands. Their url, `url`, is looked at before.
///
/// # Errors
/// 404, what `changes` says, what is wrong with them, a name that is taken, or too many endpoint checks in a minute.
pub async fn change_with(
    api: &Api,
    project: &Project,
    caller: &Caller,
    named: &str,
    url: Option<String>,
    changes: impl FnOnce(&Webhook) -> Result<Changes, Problem> + Send,
) -> Result<Webhook, Problem> {
    let profile = profile(api, project)?;
    if let Some(url) = &url {
        vet(api, "/url", url).await?;
    }
    let mut transaction = api.begin_in(project.id).await?;
    let stored = webhooks::find_for_update(&mut transaction, project.id, named).await;
    let stored = stored.map_err(failed)?.ok_or_else(absent)?;
    let changes = changes(&stored)?;
    let mut webhook = stored.clone();
    apply(api, profile, changes, &mut webhook)?;
    if webhook == stored {
        return Ok(stored);
    }
    if webhook.url != stored.url {
        url_is_free(&mut transaction, profile, &webhook).await?;
    }
    webhook.revision += 1;
    webhook.updated_at = api.now();
    let check = Check::wanted(api, project, profile, Some(&stored), &mut webhook);
    webhooks::update(&mut transaction, &webhook)
        .await
        .map_err(|error| name_taken(error, &webhook))?;
    note_written(&mut transaction, &webhook, caller).await?;
    if let Some(check) = check {
        check.begin(&mut transaction).await?;
    }
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    Ok(webhook)
}

/// Deletes the webhook of that name or id. `condition` sees it as it stands, while nobody else can change it.
///
/// # Errors
/// 404, or what `condition` says.
pub async fn remove(
    api: &Api,
    project: &Project,
    caller: &Caller,
    named: &str,
    condition: impl FnOnce(&Webhook) -> Result<(), Problem> + Send,
) -> Result<(), Problem> {
    let mut transaction = api.begin_in(project.id).await?;
    let stored = webhooks::find_for_update(&mut transaction, project.id, named).await;
    let mut webhook = stored.map_err(failed)?.ok_or_else(absent)?;
    condition(&webhook)?;
    let now = api.now();
    webhook.revision += 1;
    webhook.updated_at = now;
    webhook.deleted_at = Some(now);
    // Nothing is sent to it any more, so nothing secret of it is kept.
    secrets::clear(&mut webhook);
    webhook.headers.clear();
    (webhook.tls, webhook.authentication) = (None, None);
    webhook.variables.clear();
    webhooks::update(&mut transaction, &webhook).await.map_err(failed)?;
    note_written(&mut transaction, &webhook, caller).await?;
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    Ok(())
}

/// What a request hears of a webhook that is not there.
pub fn absent() -> Problem {
    Problem::new(Code::NotFound, "there is no such webhook in this project")
}

/// The project's profile. One that another process knows and this one does not is the operator's mistake.
///
/// # Errors
/// 500
pub fn profile<'a>(api: &'a Api, project: &Project) -> Result<&'a Profile, Problem> {
    api.profiles.get(&project.profile).ok_or_else(|| {
        let reason = format!(
            "no profile `{}`: give every config-api the same --profiles-dir",
            project.profile
        );
        Problem::from(Code::Internal).because(std::io::Error::other(reason))
    })
}

/// A webhook of which nothing has been said yet.
pub(crate) fn blank(api: &Api, project: &Project) -> Webhook {
    let now = api.now();
    let id = WebhookId::from_uuid(new_id(now, &mut rand::rng()));
    Webhook::blank(id, project.id, now)
}

/// Applies the changes, by the rules of the project's profile.
pub(crate) fn apply(api: &Api, profile: &Profile, changes: Changes, webhook: &mut Webhook) -> Result<(), Problem> {
    let rules = Rules {
        guard: &api.guard,
        profile,
        keys: &api.keys,
        now: api.now(),
    };
    changes.apply(webhook, &rules).map_err(Problem::fields)
}

/// Refuses an address, given as this field, whose name leads to where no webhook may go. One whose shape is wrong is
/// refused elsewhere.
pub(crate) async fn vet(api: &Api, field: &str, url: &str) -> Result<(), Problem> {
    let refused = |refused: Refused| Problem::field(field, refused.to_string());
    match api.guard.check(url) {
        Ok(target) => api.guard.vet(&target).await.map_err(refused),
        Err(_) => Ok(()),
    }
}

/// Where the profile wants every url to have one webhook at most, refuses one that has another already.
async fn url_is_free(connection: &mut Connection, profile: &Profile, webhook: &Webhook) -> Result<(), Problem> {
    if !profile.unique_url {
        return Ok(());
    }
    // Two requests at once must not both find that nobody has it.
    projects::lock(connection, webhook.project).await.map_err(failed)?;
    let other = webhooks::with_url(connection, webhook.project, &webhook.url, webhook.id).await;
    match other.map_err(failed)? {
        None => Ok(()),
        Some(name) => Err(Problem::new(
            Code::Conflict,
            format!("the webhook `{name}` has this url already, and in this project each has one of its own"),
        )),
    }
}

/// Notes what was written: the revision, and that the definition has changed.
pub(crate) async fn note_written(
    connection: &mut Connection,
    webhook: &Webhook,
    caller: &Caller,
) -> Result<(), Problem> {
    let definition = match webhook.deleted_at {
        None => serde_json::to_value(Definition::of(webhook, webhook.updated_at)).map_err(Problem::internal)?,
        Some(_) => json!({ "deleted": true }),
    };
    webhooks::note_revision(connection, webhook, &definition, caller.token)
        .await
        .map_err(failed)?;
    note_changed(connection, &config_key::Key::Webhook(webhook.project, webhook.id)).await
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
