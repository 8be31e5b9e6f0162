//! Signing secrets: made, replaced, rotated and erased.
//!
//! The current one comes first in a webhook's list, and every one that is live signs. Who rotates gives the earlier ones an
//! end; dispatcher heeds it by its own clock, so that nothing has to be published when it comes. What has expired is
//! erased here afterwards ([`erase_expired`]), from Postgres and from NATS.

use std::time::Duration;

use common::http::{FieldError, Problem};
use common::profile::Profile;
use common::sign::Key;
use jiff::{SignedDuration, Timestamp};
use proto_schemas::definition::{self, SEALED_SECRET, SecretKind};
use proto_schemas::delivery::DeliveryDue;
use proto_schemas::id::{SecretId, WebhookId};
use proto_schemas::stream::config_key;
use secrecy::{ExposeSecret as _, SecretString};
use store::Connection;
use store::projects::Project;
use store::webhooks::{self, Secret, Webhook};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::access::Caller;
use crate::api::{Api, failed, new_id};
use crate::audit::{Shown, note_reveal};
use crate::changes::{Rules, seal, signature_header};
use crate::webhooks::{absent, note_written, profile};

/// How many secrets of a webhook are live at most.
pub const LIVE_MAX: usize = 3;

/// How long earlier secrets go on signing where a rotation does not say.
pub const OVERLAP: Duration = Duration::from_secs(24 * 3600);

/// How long they may go on at most.
pub const OVERLAP_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// How often to look for what has expired. It signs nothing any more; this is how long it lies about.
const ERASE_EVERY: Duration = Duration::from_secs(5);

/// Webhooks looked at together.
const ERASE_AT_ONCE: u32 = 200;

/// How a secret is to be rotated.
#[derive(Debug, Default)]
pub struct Rotation {
    /// How long earlier secrets go on signing; `None`: [`OVERLAP`].
    pub overlap: Option<Duration>,
    /// The new secret; `None`: one is made up.
    pub secret: Option<String>,
    /// Its kind; `None`: the given one's, or what the current one is.
    pub kind: Option<SecretKind>,
}

/// A webhook whose secret has just been rotated.
#[derive(Debug)]
pub struct Rotated {
    /// The webhook.
    pub webhook: Webhook,
    /// The secret, where one was made up that the receiver has to know. It cannot be had again.
    pub secret: Option<SecretString>,
}

/// The secrets after a rotation at `now`. Pure.
///
/// Earlier ones end when the overlap does, or before, where an earlier rotation said so. Where more would be live than may
/// be, the oldest end at once; so do all, without an overlap.
#[must_use]
pub fn rotate(stored: &[Secret], new: Secret, overlap: Duration, now: Timestamp) -> Vec<Secret> {
    let end = SignedDuration::try_from(overlap)
        .ok()
        .and_then(|overlap| now.checked_add(overlap).ok())
        .unwrap_or(Timestamp::MAX);
    let mut secrets = vec![new];
    secrets.extend(stored.iter().cloned().filter_map(|mut earlier| {
        let expiry = earlier.sealed.expires_at.map_or(end, |expiry| expiry.min(end));
        earlier.sealed.expires_at = Some(expiry);
        earlier.is_live(now).then_some(earlier)
    }));
    secrets.truncate(LIVE_MAX);
    secrets
}

/// A key of this webhook, sealed.
fn sealed(webhook: &Webhook, key: &Key, rules: &Rules<'_>) -> Secret {
    let id = SecretId::from_uuid(new_id(rules.now, &mut rand::rng()));
    let text = key.text();
    Secret {
        sealed: definition::Secret {
            id,
            kind: key.kind(),
            sealed: seal(rules.keys, webhook, &id.sealed_for(), text.expose_secret()),
            created_at: rules.now,
            expires_at: None,
        },
        public_key: key.public().map(|public| public.text()),
    }
}

/// Writes a list whose first is `key`, if there is a key. What is kept of the earlier ones for the release before is the
/// first secret of kind v1, sealed as that release does it.
fn write(webhook: &mut Webhook, key: &Key, secrets: Vec<Secret>, rules: &Rules<'_>) {
    webhook.secrets = secrets;
    match key.kind() {
        SecretKind::V1 => {
            let text = key.text();
            webhook.sealed_secret = Some(seal(rules.keys, webhook, SEALED_SECRET, text.expose_secret()));
        }
        SecretKind::V1a => drop_unused(webhook),
    }
}

/// Drops what is kept for the release before once no secret of its kind is left. The earlier ones end in the order of
/// their age, so the first of a kind is the last to go, and what is kept is never another's.
fn drop_unused(webhook: &mut Webhook) {
    if !webhook
        .secrets
        .iter()
        .any(|secret| secret.sealed.kind == SecretKind::V1)
    {
        webhook.sealed_secret = None;
    }
}

/// Takes all secrets away.
pub fn clear(webhook: &mut Webhook) {
    webhook.secrets.clear();
    webhook.sealed_secret = None;
}

/// Puts one secret, or none, in place of all there were; they end at once.
pub fn replace(
    webhook: &mut Webhook,
    secret: Option<&str>,
    kind: Option<SecretKind>,
    rules: &Rules<'_>,
    errors: &mut Vec<FieldError>,
) {
    let Some(secret) = secret else {
        if kind.is_some() {
            errors.push(FieldError::new(
                "/secret_kind",
                "there is no secret for it to be the kind of",
            ));
        }
        return clear(webhook);
    };
    match given(secret, kind) {
        Ok(key) => {
            let secrets = vec![sealed(webhook, &key, rules)];
            write(webhook, &key, secrets, rules);
        }
        Err(error) => errors.push(FieldError::new("/secret", error)),
    }
}

/// Reads a secret that was given, of this kind.
fn given(text: &str, kind: Option<SecretKind>) -> Result<Key, String> {
    let key = Key::parse(text).map_err(|error| error.to_string())?;
    match kind {
        Some(kind) if kind != key.kind() => Err(format!(
            "it is of kind {}, and {} is wanted: `whsk_…` is a private key (v1a), all else a secret (v1)",
            key.kind().as_str(),
            kind.as_str()
        )),
        _ => Ok(key),
    }
}

/// Refuses a current secret that the webhook's signature cannot be made with: a header with the body's HMAC needs a secret
/// that both ends know.
pub fn check_kind(webhook: &Webhook, profile: &Profile, errors: &mut Vec<FieldError>) {
    let (Some(header), Some(current)) = (signature_header(webhook, profile), webhook.secrets.first()) else {
        return;
    };
    if current.sealed.kind == SecretKind::V1a {
        let reason = format!("the header `{header}` is made with a secret of kind v1, and this webhook's is v1a");
        errors.push(FieldError::new("/signature/body_hmac_header", reason));
    }
}

/// What of a key that was made up is shown, once: nothing of a private one, which nobody but us needs.
pub fn shown(key: &Key) -> Option<SecretString> {
    match key {
        Key::V1(_) => Some(key.text()),
        Key::V1a(_) => None,
    }
}

/// Notes that the webhook's current secret will be shown, in the transaction that writes it.
///
/// # Errors
/// A [`Problem`] where it cannot be noted.
pub(crate) async fn note_shown(connection: &mut Connection, webhook: &Webhook, caller: &Caller) -> Result<(), Problem> {
    let current = webhook.secrets.first();
    let current = current.map_or(Uuid::nil(), |secret| secret.sealed.id.as_uuid());
    note_reveal(connection, caller, Shown::Secret(webhook.id.as_uuid(), current)).await
}

/// Rotates the secret of the webhook of that name or id.
///
/// # Errors
/// 404, or what is wrong with the rotation.
pub async fn rotate_secret(
    api: &Api,
    project: &Project,
    caller: &Caller,
    named: &str,
    rotation: Rotation,
) -> Result<Rotated, Problem> {
    let profile = profile(api, project)?;
    let overlap = rotation.overlap.unwrap_or(OVERLAP);
    if overlap > OVERLAP_MAX {
        return Err(Problem::field(
            "/overlap",
            "an overlap is at most 30 days; 0s ends the earlier secrets at once",
        ));
    }
    let given = rotation.secret.as_deref().map(|secret| given(secret, rotation.kind));
    let given = given.transpose().map_err(|error| Problem::field("/secret", error))?;

    let mut transaction = api.begin_in(project.id).await?;
    let stored = webhooks::find_for_update(&mut transaction, project.id, named).await;
    let mut webhook = stored.map_err(failed)?.ok_or_else(absent)?;
    let rules = Rules {
        guard: &api.guard,
        profile,
        keys: &api.keys,
        // After the lock, so that rotations follow each other in time, too.
        now: api.now(),
    };
    let current = webhook.secrets.first().map(|secret| secret.sealed.kind);
    let kind = rotation.kind.or(current).unwrap_or(SecretKind::V1);
    let (key, made_up) = match given {
        Some(key) => (key, false),
        None => (Key::generate(kind), true),
    };
    let secrets = rotate(&webhook.secrets, sealed(&webhook, &key, &rules), overlap, rules.now);
    write(&mut webhook, &key, secrets, &rules);
    let mut errors = Vec::new();
    check_kind(&webhook, profile, &mut errors);
    if let Some(error) = errors.pop() {
        return Err(Problem::field("/kind", error.detail));
    }
    webhook.revision += 1;
    webhook.updated_at = rules.now;
    webhooks::update(&mut transaction, &webhook).await.map_err(failed)?;
    note_written(&mut transaction, &webhook, caller).await?;
    let secret = made_up.then(|| shown(&key)).flatten();
    if secret.is_some() {
        note_shown(&mut transaction, &webhook, caller).await?;
    }
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    Ok(Rotated { webhook, secret })
}

/// Erases secrets that have expired, until `stop`: their rows are written without them, and so are the definitions in NATS.
/// So it does with those that tests have brought along.
pub(crate) async fn keep_erasing(api: &Api, stop: &CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(ERASE_EVERY) => {}
        }
        if let Err(error) = erase_expired(api).await {
            tracing::debug!(%error, "expired secrets stay for another while; they sign nothing");
        }
        if let Err(error) = erase_from_tests(api).await {
            tracing::debug!(%error, "tests keep their secrets for another while");
        }
    }
}

/// Erases the secrets that have expired by now, and those that the release before has replaced; tells of how many
/// webhooks.
///
/// # Errors
/// Any [`store::Error`]; what was erased before it is erased.
pub async fn erase_expired(api: &Api) -> Result<usize, store::Error> {
    let mut erased = 0;
    loop {
        let now = api.now();
        let found = webhooks::with_secrets_to_erase(
            &mut *api.database.of_all_projects().connection().await?,
            now,
            ERASE_AT_ONCE,
        )
        .await?;
        for (_, webhook) in &found {
            erase(api, *webhook, now).await?;
        }
        erased += found.len();
        if found.len() < ERASE_AT_ONCE as usize {
            return Ok(erased);
        }
    }
}

async fn erase(api: &Api, id: WebhookId, now: Timestamp) -> Result<(), store::Error> {
    let mut transaction = api.database.of_all_projects().begin().await?;
    let Some(mut webhook) = webhooks::lock(&mut transaction, id).await? else {
        return Ok(());
    };
    match webhook.deleted_at {
        Some(_) => {
            clear(&mut webhook);
            (webhook.tls, webhook.authentication) = (None, None);
        }
        None => webhook.secrets.retain(|secret| secret.is_live(now)),
    }
    drop_unused(&mut webhook);
    // Nobody has changed the definition: what it says has come true. So this is no revision.
    webhooks::update(&mut transaction, &webhook).await?;
    let key = config_key::Key::Webhook(webhook.project, webhook.id);
    store::outbox::append(&mut transaction, &[key.to_text()]).await?;
    transaction.commit().await
}

/// Takes the secrets out of tests that are handed out: what is left says what was tried, and not how it was signed.
async fn erase_from_tests(api: &Api) -> Result<(), store::Error> {
    loop {
        let mut connection = api.database.of_all_projects().connection().await?;
        let found = store::tests::with_secrets_to_forget(&mut connection, ERASE_AT_ONCE).await?;
        for (id, due) in &found {
            // What cannot be read any more is of no use to anybody.
            let bare = DeliveryDue::decode(due.clone().into()).map(|due| without_secrets(due).encode());
            store::tests::forget_secrets(&mut connection, *id, &bare.unwrap_or_default()).await?;
        }
        if found.len() < ERASE_AT_ONCE as usize {
            return Ok(());
        }
    }
}

fn without_secrets(mut due: DeliveryDue) -> DeliveryDue {
    if let Some(trial) = &mut due.trial {
        trial.webhook = trial.webhook.take().map(|webhook| Box::new(webhook.without_secrets()));
    }
    due
}

#[cfg(test)]
mod tests;
