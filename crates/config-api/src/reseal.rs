//! Seals anew what is sealed with a key that is not the current one, so that the key can be taken away.
//!
//! In: webhooks as they stand. Out: the same values under the current key, in Postgres and, by the outbox, in CONFIG; and
//! how many values each key still seals (metric `posthaste_sealed_values`). This is no revision: nobody changed anything.
//!
//! Guarantee: a webhook is read, sealed and written under its lock, in one transaction with its outbox entry. A crash
//! leaves it as it was or as it will be, and both open: the older keys stay in the ring until the operator has seen that
//! they seal nothing. Any number of processes may do this at once; what one has sealed, the other finds done.
//!
//! A process that is still running with the ring from before goes on sealing with its own current key, so this is done
//! again and again. Answers kept for repeated requests are not sealed anew: they are gone within a day.

use std::collections::BTreeMap;
use std::time::Duration;

use common::crypto::{Context, KeyRing, key_of};
use opentelemetry::metrics::Gauge;
use opentelemetry::{KeyValue, global};
use proto_schemas::definition::{
    SEALED_CLIENT_KEY, SEALED_CLIENT_SECRET, SEALED_PASSWORD, SEALED_SECRET, sealed_header, sealed_variable,
};
use proto_schemas::id::WebhookId;
use proto_schemas::stream::config_key;
use secrecy::ExposeSecret as _;
use store::webhooks::{self, Authentication, MaybeSealed, Webhook};
use tokio_util::sync::CancellationToken;

use crate::api::Api;

/// How often to look.
const EVERY: Duration = Duration::from_secs(600);

/// Webhooks read at once.
const PAGE: u32 = 500;

/// How many values each key seals.
pub type Tally = BTreeMap<String, u64>;

/// Seals anew until `stop`, beginning at once.
pub(crate) async fn keep_resealing(api: &Api, stop: &CancellationToken) {
    let sealed = global::meter("posthaste")
        .u64_gauge("posthaste_sealed_values")
        .with_description("Secrets and protected values of webhooks, by the encryption key they are sealed with")
        .build();
    let mut known = Tally::new();
    loop {
        match pass(api).await {
            Ok(found) => {
                // A key that seals nothing any more is told so, too.
                known.values_mut().for_each(|count| *count = 0);
                known.extend(found);
                report(&sealed, &known);
            }
            Err(error) => tracing::debug!(%error, "what older keys seal stays so for another while"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

fn report(sealed: &Gauge<u64>, known: &Tally) {
    for (key, count) in known {
        sealed.record(*count, &[KeyValue::new("key", key.clone())]);
    }
}

/// Looks at every webhook once, and seals anew what is to be; tells what is sealed with which key then.
///
/// # Errors
/// Any [`store::Error`]; what was sealed before it is sealed.
pub async fn pass(api: &Api) -> Result<Tally, store::Error> {
    let (mut tally, mut resealed, mut after) = (Tally::new(), 0_u64, None);
    loop {
        let mut connection = api.database.of_all_projects().connection().await?;
        let ids: Vec<WebhookId> = webhooks::all(&mut connection, after, PAGE)
            .await?
            .into_iter()
            .map(|(_, id)| id)
            .collect();
        let page = webhooks::by_ids(&mut connection, &ids).await?;
        drop(connection);
        for mut webhook in page {
            if is_behind(&api.keys, &mut webhook)
                && let Some(written) = reseal(api, webhook.id).await?
            {
                webhook = written;
                resealed += 1;
            }
            count(&mut webhook, &mut tally);
        }
        after = ids.last().copied();
        if ids.len() < PAGE as usize {
            break;
        }
    }
    if resealed > 0 {
        tracing::info!(webhooks = resealed, "sealed anew with the current encryption key");
    }
    Ok(tally)
}

/// Every sealed value of a webhook, and the field it is sealed for.
fn sealed_values(webhook: &mut Webhook) -> Vec<(String, &mut String)> {
    let mut values = Vec::new();
    for header in &mut webhook.headers {
        if let MaybeSealed::Sealed(sealed) = &mut header.value {
            values.push((sealed_header(&header.key.to_ascii_lowercase()), sealed));
        }
    }
    for variable in &mut webhook.variables {
        if let MaybeSealed::Sealed(sealed) = &mut variable.value {
            values.push((sealed_variable(&variable.key), sealed));
        }
    }
    for secret in &mut webhook.secrets {
        values.push((secret.sealed.id.sealed_for().into_owned(), &mut secret.sealed.sealed));
    }
    values.extend((webhook.sealed_secret.as_mut()).map(|sealed| (SEALED_SECRET.to_owned(), sealed)));
    if let Some(own) = webhook.tls.as_mut().and_then(|tls| tls.client_certificate.as_mut()) {
        values.push((SEALED_CLIENT_KEY.to_owned(), &mut own.sealed_key));
    }
    match &mut webhook.authentication {
        None => {}
        Some(Authentication::Basic { sealed_password, .. }) => {
            values.push((SEALED_PASSWORD.to_owned(), sealed_password));
        }
        Some(Authentication::ClientCredentials {
            sealed_client_secret, ..
        }) => values.push((SEALED_CLIENT_SECRET.to_owned(), sealed_client_secret)),
    }
    values
}

fn is_behind(keys: &KeyRing, webhook: &mut Webhook) -> bool {
    sealed_values(webhook)
        .iter()
        .any(|(_, sealed)| !keys.is_current(sealed) && keys.holds_key_of(sealed))
}

fn count(webhook: &mut Webhook, tally: &mut Tally) {
    for (_, sealed) in sealed_values(webhook) {
        if let Some(key) = key_of(sealed) {
            *tally.entry(key.to_owned()).or_default() += 1;
        }
    }
}

/// Seals one webhook's values anew; `None` where there is nothing to do any more.
async fn reseal(api: &Api, id: WebhookId) -> Result<Option<Webhook>, store::Error> {
    let mut transaction = api.database.of_all_projects().begin().await?;
    let Some(mut webhook) = webhooks::lock(&mut transaction, id).await? else {
        return Ok(None);
    };
    let (project, object) = (webhook.project, id.as_uuid());
    let mut changed = false;
    for (field, sealed) in sealed_values(&mut webhook) {
        if api.keys.is_current(sealed) {
            continue;
        }
        let context = Context {
            project,
            object,
            field: &field,
        };
        match api.keys.open(&context, sealed) {
            Ok(plain) => {
                *sealed = api.keys.seal(&context, plain.expose_secret());
                changed = true;
            }
            Err(error) => {
                tracing::error!(webhook = %id, field, %error, "a value cannot be sealed anew");
            }
        }
    }
    if !changed {
        return Ok(None);
    }
    webhooks::update(&mut transaction, &webhook).await?;
    let key = config_key::Key::Webhook(project, id);
    store::outbox::append(&mut transaction, &[key.to_text()]).await?;
    transaction.commit().await?;
    Ok(Some(webhook))
}
