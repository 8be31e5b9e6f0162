//! Requests made to try a webhook: tests and endpoint checks.
//!
//! A trial is a delivery like any other, only marked as one. Its row and its place in the outbox are written in one
//! transaction, with whatever asked for it; the relay hands it out, dispatcher makes the request, and retry-scheduler
//! records the attempt. What came of a trial is read from there.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use common::http::{Code, Problem};
use common::model::{Pattern, limits};
use common::profile::Profile;
use common::render::Expressions;
use jiff::Timestamp;
use proto_schemas::delivery::{DeliveryDue, Trial, TrialKind};
use proto_schemas::event::Event;
use proto_schemas::id::{EventKey, ProjectId, WebhookId, is_event_type};
use proto_schemas::operational::is_operational;
use store::projects::{self, Project};
use store::tests::{self, NewTest, Test};
use store::webhooks::Webhook;
use store::{Connection, event_types};
use uuid::Uuid;

use crate::api::{Api, failed, new_id};
use crate::resolve;
use crate::webhooks::profile;

/// Tests and checks that a project may begin in a minute, whatever begins them. No lane bounds them, so this does: a
/// receiver that hangs holds no more requests than these.
const PER_MINUTE: u64 = 60;

/// The type of a test's event where neither the request nor the webhook's patterns name one.
const ANY_TYPE: &str = "posthaste.test";

/// The type of an endpoint check's event. It has none, but the log has to call it something.
const CHECK_TYPE: &str = "posthaste.check";

/// The catalogue of what Posthaste tells of itself.
const OPERATIONAL_CATALOGUE: &str = "posthaste";

/// What is to be tested.
#[derive(Debug)]
pub enum Target<'a> {
    /// A webhook as it stands when the request is made, whatever its state.
    Stored(&'a Webhook),
    /// A webhook that is not stored. Its secrets are sealed for its own id.
    Inline(&'a Webhook),
}

/// The event of a test.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Its type; `None`: one that the webhook wants.
    pub event_type: Option<String>,
    /// Its payload, in JSON; `None`: its type's example.
    pub data: Option<Bytes>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
}

/// Begins a test. Returns before the request is made.
///
/// # Errors
/// What is wrong with the sample, too many tests in a minute, or a failure of Postgres.
pub async fn begin(api: &Api, project: &Project, target: Target<'_>, sample: Sample) -> Result<Test, Problem> {
    let now = api.now();
    let (webhook, given) = match target {
        Target::Stored(webhook) => (webhook, None),
        Target::Inline(webhook) => {
            let definition = resolve::webhook(webhook, None, project, profile(api, project)?);
            (webhook, Some(Box::new(definition)))
        }
    };
    let stored = given.is_none().then_some(webhook.id);
    let trial = Trial {
        kind: TrialKind::Test,
        webhook: given,
    };
    let due = duty(event(api, project, webhook, sample, now).await?, webhook, trial);
    let mut transaction = api.begin_in(project.id).await?;
    let test = insert(&mut transaction, &due, TrialKind::Test, stored, now).await?;
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    Ok(test)
}

/// The event of a test or a preview: what the sample says, and its type's example where it says nothing. It has the
/// attributes that intake would give it.
///
/// # Errors
/// What is wrong with the sample, or a failure of Postgres.
pub async fn event(
    api: &Api,
    project: &Project,
    webhook: &Webhook,
    sample: Sample,
    now: Timestamp,
) -> Result<Event, Problem> {
    let profile = profile(api, project)?;
    let event_type = sample.event_type.unwrap_or_else(|| usual_type(api, profile, webhook));
    if !is_event_type(&event_type) {
        return Err(Problem::field("/type", "not an event type"));
    }
    if !limits::attributes_fit(&sample.attributes) {
        let (most, bytes) = (limits::ATTRIBUTES_MAX, limits::ATTRIBUTES_BYTES_MAX);
        let detail = format!("at most {most} attributes of {bytes} bytes together");
        return Err(Problem::field("/attributes", detail));
    }
    let payload = match sample.data {
        Some(data) => data,
        None => example(api, project, profile, &event_type).await?,
    };
    let mut event = Event {
        payload,
        attributes: sample.attributes,
        ..blank_event(now, project.id, event_type)
    };
    let added = Expressions::compile(&profile.event_attributes);
    let added = added.map_err(|(name, fault)| Problem::internal(std::io::Error::other(format!("{name}: {fault}"))))?;
    added.add_to(&mut event, &project.name);
    Ok(event)
}

/// An endpoint check that is to be made.
#[derive(Debug)]
pub struct Check {
    due: DeliveryDue,
    asked_at: Timestamp,
}

impl Check {
    /// A check of the webhook's endpoint as the webhook is now.
    #[must_use]
    pub fn of(api: &Api, project: &Project, profile: &Profile, webhook: &Webhook) -> Self {
        let asked_at = api.now();
        let trial = Trial {
            kind: TrialKind::Check,
            webhook: Some(Box::new(resolve::webhook(webhook, None, project, profile))),
        };
        Self {
            due: duty(
                blank_event(asked_at, webhook.project, CHECK_TYPE.to_owned()),
                webhook,
                trial,
            ),
            asked_at,
        }
    }

    /// The check that a webhook has to pass anew, where its profile has endpoints checked: before its first event, and
    /// whenever its url has changed. Notes in the webhook that it has to.
    #[must_use]
    pub fn wanted(
        api: &Api,
        project: &Project,
        profile: &Profile,
        before: Option<&Webhook>,
        webhook: &mut Webhook,
    ) -> Option<Self> {
        let is_new_url = before.is_none_or(|before| before.url != webhook.url);
        let check = (profile.endpoint_check && is_new_url).then(|| Self::of(api, project, profile, webhook))?;
        webhook.check = Some(check.id());
        Some(check)
    }

    /// What the webhook's row calls it.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.due.event.key.as_uuid()
    }

    /// Begins it, with the transaction that has written the webhook.
    ///
    /// # Errors
    /// Too many tests and checks in a minute, or a failure of Postgres.
    pub async fn begin(self, connection: &mut Connection) -> Result<Test, Problem> {
        let webhook = Some(self.due.webhook);
        insert(connection, &self.due, TrialKind::Check, webhook, self.asked_at).await
    }
}

/// Refuses a test where there were too many in the last minute.
///
/// # Errors
/// 429, or a failure of Postgres.
async fn not_too_many(connection: &mut Connection, project: ProjectId, now: Timestamp) -> Result<(), Problem> {
    // Of requests at once no two must find the same place free.
    projects::lock(connection, project).await.map_err(failed)?;
    let since = now - Duration::from_secs(60);
    match tests::count_since(connection, project, since).await.map_err(failed)? {
        begun if begun < PER_MINUTE => Ok(()),
        _ => Err(Problem::new(
            Code::TooManyRequests,
            format!("at most {PER_MINUTE} tests and checks a minute in one project"),
        )),
    }
}

/// A test of the project.
///
/// # Errors
/// A failure of Postgres.
pub async fn find(api: &Api, project: &Project, id: EventKey) -> Result<Option<Test>, Problem> {
    let mut connection = api.connection_in(project.id).await?;
    tests::find(&mut connection, project.id, id).await.map_err(failed)
}

fn blank_event(now: Timestamp, project: ProjectId, event_type: String) -> Event {
    let key = EventKey::from_uuid(new_id(now, &mut rand::rng()));
    Event {
        key,
        id: key.test_event_id(),
        project,
        event_type,
        occurred_at: now,
        accepted_at: now,
        attributes: BTreeMap::new(),
        content_type: String::new(),
        payload: Bytes::new(),
        traceparent: String::new(),
    }
}

fn duty(event: Event, webhook: &Webhook, trial: Trial) -> DeliveryDue {
    DeliveryDue {
        event,
        webhook: webhook.id,
        run: 0,
        attempt: 1,
        release: 0,
        trial: Some(trial),
        handed_out_before: 0,
    }
}

async fn insert(
    connection: &mut Connection,
    due: &DeliveryDue,
    kind: TrialKind,
    stored: Option<WebhookId>,
    now: Timestamp,
) -> Result<Test, Problem> {
    not_too_many(connection, due.event.project, now).await?;
    let new = NewTest {
        id: due.event.key,
        project: due.event.project,
        kind,
        webhook: stored,
        target: due.webhook,
        event_type: &due.event.event_type,
        due: &due.encode(),
        holds_secrets: due.trial.as_ref().is_some_and(|trial| trial.webhook.is_some()),
        created_at: now,
    };
    tests::insert(connection, &new).await.map_err(failed)?;
    Ok(Test {
        id: new.id,
        kind: kind.as_str().to_owned(),
        webhook: stored,
        target: new.target,
        event_type: due.event.event_type.clone(),
        created_at: now,
        made: None,
    })
}

/// The type of a test that names none: the first that the webhook names in full, else the first of the profile's catalogue
/// that it wants.
fn usual_type(api: &Api, profile: &Profile, webhook: &Webhook) -> String {
    if let Some(named) = webhook.events.iter().find(|pattern| is_event_type(pattern)) {
        return named.clone();
    }
    let patterns: Vec<Pattern> = webhook
        .events
        .iter()
        .filter_map(|text| Pattern::parse(text).ok())
        .collect();
    let catalogue = profile.catalogue.as_deref().and_then(|name| api.catalogues.get(name));
    let wanted = catalogue
        .into_iter()
        .flat_map(|types| types.keys())
        .find(|name| patterns.iter().any(|pattern| pattern.matches(name)));
    wanted.cloned().unwrap_or_else(|| ANY_TYPE.to_owned())
}

/// What a test sends where the request says nothing: the type's own example, of its last version that is not deprecated.
async fn example(api: &Api, project: &Project, profile: &Profile, event_type: &str) -> Result<Bytes, Problem> {
    let mut connection = api.connection_in(project.id).await?;
    let own = event_types::versions(&mut connection, project.id, &[event_type.to_owned()]).await;
    let own = own
        .map_err(failed)?
        .into_iter()
        .rev()
        .find(|version| !version.deprecated);
    if let Some(example) = own.and_then(|version| version.example) {
        return Ok(example.into());
    }
    let catalogue = match is_operational(event_type) {
        true => Some(OPERATIONAL_CATALOGUE),
        false => profile.catalogue.as_deref(),
    };
    if let Some(found) = catalogue.and_then(|catalogue| api.catalogues.event_type(catalogue, event_type)) {
        return Ok(found.example.clone().into());
    }
    let message = format!("This is a test of {event_type}.");
    Ok(serde_json::json!({ "message": message }).to_string().into())
}
