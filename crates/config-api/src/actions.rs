//! What can be done with a webhook besides changing it: pause, resume, restart, check.

use common::http::Problem;
use proto_schemas::definition::WebhookState;
use proto_schemas::stream::config_key::Key;
use store::projects::Project;
use store::tests::Test;
use store::webhooks::{self, Webhook};
use store::{Connection, webhook_health};

use crate::access::Caller;
use crate::api::{Api, failed, note_changed};
use crate::changes::Changes;
use crate::resolve;
use crate::trials::Check;
use crate::webhooks::{absent, change, note_written, profile};

/// Switches the webhook of that name or id on or off.
///
/// # Errors
/// 404
pub async fn set_active(
    api: &Api,
    project: &Project,
    caller: &Caller,
    named: &str,
    active: bool,
) -> Result<Webhook, Problem> {
    let changes = Changes {
        active: Some(active),
        ..Changes::default()
    };
    change(api, project, caller, named, |_| Ok(()), changes).await
}

/// Restarts the webhook of that name or id: whatever stopped it is void, and failures are counted anew. What waits for it
/// is delivered by and by. Where its endpoint has yet to be checked, another check is begun.
///
/// # Errors
/// 404, or too many checks and tests in a minute.
pub async fn restart(api: &Api, project: &Project, caller: &Caller, named: &str) -> Result<Webhook, Problem> {
    let profile = profile(api, project)?;
    let mut transaction = api.begin_in(project.id).await?;
    let mut webhook = lock(&mut transaction, project, named).await?;
    let now = api.now();
    webhook.restarted_at = Some(now);
    webhook.revision += 1;
    webhook.updated_at = now;
    let check = match is_pending(&mut transaction, &webhook).await? {
        true => Some(Check::of(api, project, profile, &webhook)),
        false => None,
    };
    if let Some(check) = &check {
        webhook.check = Some(check.id());
    }
    webhooks::update(&mut transaction, &webhook).await.map_err(failed)?;
    note_written(&mut transaction, &webhook, caller).await?;
    if let Some(check) = check {
        check.begin(&mut transaction).await?;
    }
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    Ok(webhook)
}

/// Checks the endpoint of the webhook of that name or id. A pending webhook is active when it passes; of any other, the
/// check changes nothing.
///
/// # Errors
/// 404, or too many checks and tests in a minute.
pub async fn check(api: &Api, project: &Project, named: &str) -> Result<Test, Problem> {
    let profile = profile(api, project)?;
    let mut transaction = api.begin_in(project.id).await?;
    let mut webhook = lock(&mut transaction, project, named).await?;
    let check = Check::of(api, project, profile, &webhook);
    if is_pending(&mut transaction, &webhook).await? {
        webhook.check = Some(check.id());
        // Its definition is what it was, so this is no revision.
        webhooks::update(&mut transaction, &webhook).await.map_err(failed)?;
        note_changed(&mut transaction, &Key::Webhook(webhook.project, webhook.id)).await?;
    }
    let test = check.begin(&mut transaction).await?;
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    Ok(test)
}

async fn lock(connection: &mut Connection, project: &Project, named: &str) -> Result<Webhook, Problem> {
    let stored = webhooks::find_for_update(connection, project.id, named).await;
    stored.map_err(failed)?.ok_or_else(absent)
}

/// Whether the webhook has yet to pass its endpoint check, be it paused or stopped meanwhile or not.
async fn is_pending(connection: &mut Connection, webhook: &Webhook) -> Result<bool, Problem> {
    let health = webhook_health::find(connection, &[webhook.id]).await;
    let mut health = health.map_err(failed)?.remove(&webhook.id);
    if let Some(health) = &mut health {
        health.stopped = None;
    }
    let running = Webhook {
        active: true,
        ..webhook.clone()
    };
    Ok(resolve::standing(&running, health.as_ref()).state == WebhookState::Pending)
}
