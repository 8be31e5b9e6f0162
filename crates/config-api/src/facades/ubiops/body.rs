//! UbiOps' webhooks in JSON, and what they are in the model.
//!
//! | here | in the model |
//! |---|---|
//! | `object_type`, `object_name`, `version` | `attributes` of the same names; without `version`: `default_version` is `true` |
//! | `event` | the one pattern in `events` |
//! | `enabled`, `retry`, `include_result` | `active`, `retry` on or off, the option `include_result` |
//!
//! A webhook that cannot be said in these words, made over `/v1` with two event types for instance, is not shown here.

use std::collections::BTreeMap;
use std::time::Duration;

use common::http::FieldError;
use common::profile::Profile;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use store::tests::{Made, Test};
use store::webhooks::{MaybeSealed, Retry, Webhook};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::changes::{Changes, ValueChange};
use crate::facades::example;
use crate::trials::Sample;

/// What a webhook can be tied to.
const OBJECT_TYPES: [&str; 2] = ["deployment", "pipeline"];

/// What can happen to a request to one.
const STAGES: [&str; 4] = ["started", "completed", "failed", "finished"];

/// Attributes of webhooks and events.
const OBJECT_TYPE: &str = "object_type";
const OBJECT_NAME: &str = "object_name";
const VERSION: &str = "version";
const DEFAULT_VERSION: &str = "default_version";

/// The profile's option that puts a request's result into the body.
const INCLUDE_RESULT: &str = "include_result";

/// Seconds that a receiver has where the webhook does not say, and the most that it may say.
const TIMEOUT: u64 = 10;
const TIMEOUT_MAX: u64 = 30;

/// When to try again, with `retry`, where the project's profile says nothing of it.
const LADDER: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(8 * 3600),
];

/// A webhook to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = UbiopsNewWebhook)]
#[serde(deny_unknown_fields)]
pub(super) struct NewWebhook {
    /// Unique in its project.
    #[schema(min_length = 1, max_length = 64, example = "webhook-1")]
    name: String,
    #[schema(example = "https://hooks.example.com/in")]
    url: String,
    /// `deployment` or `pipeline`.
    #[schema(example = "deployment")]
    object_type: String,
    #[schema(min_length = 1, example = "deployment-1")]
    object_name: String,
    /// Null: the default version.
    #[schema(min_length = 1)]
    version: Option<String>,
    /// The object type, `_request_`, and `started`, `completed`, `failed` or `finished`.
    #[schema(example = "deployment_request_completed")]
    event: String,
    #[schema(max_items = 32)]
    headers: Option<Vec<HeaderBody>>,
    #[schema(max_length = 400)]
    description: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    /// In seconds; 10 where nothing is said.
    #[schema(minimum = 1, maximum = 30)]
    timeout: Option<u64>,
    enabled: Option<bool>,
    retry: Option<bool>,
    include_result: Option<bool>,
}

/// A test of a webhook that need not be there. It is one request, with or without `retry`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = UbiopsNewTest)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTest {
    #[schema(example = "https://hooks.example.com/in")]
    url: String,
    #[schema(example = "deployment")]
    object_type: String,
    #[schema(min_length = 1, example = "deployment-1")]
    object_name: String,
    #[schema(min_length = 1)]
    version: Option<String>,
    #[schema(example = "deployment_request_completed")]
    event: String,
    #[schema(max_items = 32)]
    headers: Option<Vec<HeaderBody>>,
    /// In seconds.
    #[schema(minimum = 1, maximum = 30)]
    timeout: Option<u64>,
    retry: Option<bool>,
    include_result: Option<bool>,
}

/// Changes to a webhook. What is absent or null stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = UbiopsChangedWebhook)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangedWebhook {
    #[schema(min_length = 1, max_length = 64)]
    name: Option<String>,
    url: Option<String>,
    event: Option<String>,
    #[schema(max_items = 32)]
    headers: Option<Vec<HeaderBody>>,
    #[schema(max_length = 400)]
    description: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    /// In seconds.
    #[schema(minimum = 1, maximum = 30)]
    timeout: Option<u64>,
    enabled: Option<bool>,
    retry: Option<bool>,
    include_result: Option<bool>,
}

/// A header. In a change, a value that is null or absent keeps the stored one.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = UbiopsNewHeader)]
#[serde(deny_unknown_fields)]
struct HeaderBody {
    key: String,
    value: Option<String>,
    protected: Option<bool>,
}

/// A webhook as it is shown. A protected header's value is never in it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UbiopsWebhook)]
pub(super) struct WebhookView {
    id: Uuid,
    name: String,
    url: String,
    headers: Vec<HeaderView>,
    object_type: String,
    object_name: String,
    #[schema(required)]
    version: Option<String>,
    description: String,
    labels: BTreeMap<String, String>,
    event: String,
    timeout: u64,
    enabled: bool,
    retry: bool,
    include_result: bool,
    #[schema(value_type = String, format = DateTime)]
    creation_date: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    last_updated: Timestamp,
}

/// A header as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UbiopsHeader)]
struct HeaderView {
    key: String,
    /// Null where it is protected, or empty: the published client takes no empty value.
    #[schema(required)]
    value: Option<String>,
    protected: bool,
}

impl From<NewTest> for NewWebhook {
    fn from(test: NewTest) -> Self {
        Self {
            name: "webhook-test".to_owned(),
            url: test.url,
            object_type: test.object_type,
            object_name: test.object_name,
            version: test.version,
            event: test.event,
            headers: test.headers,
            description: None,
            labels: None,
            timeout: test.timeout,
            enabled: None,
            retry: test.retry,
            include_result: test.include_result,
        }
    }
}

impl NewWebhook {
    /// What to make, in the model's words.
    pub(super) fn into_changes(self, profile: &Profile) -> Result<Changes, Vec<FieldError>> {
        let mut errors = Vec::new();
        if !OBJECT_TYPES.contains(&self.object_type.as_str()) {
            let reason = format!("it is `{}`", OBJECT_TYPES.join("` or `"));
            errors.push(FieldError::new("/object_type", reason));
        } else {
            check_event(&self.event, &self.object_type, &mut errors);
        }
        if self.object_name.is_empty() {
            errors.push(FieldError::new("/object_name", "it is at least one character long"));
        }
        if self.version.as_deref() == Some("") {
            errors.push(FieldError::new("/version", "it is at least one character long"));
        }
        let timeout = check_timeout(self.timeout.unwrap_or(TIMEOUT), &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        let tied_to_version = match self.version {
            Some(version) => (VERSION.to_owned(), version),
            None => (DEFAULT_VERSION.to_owned(), "true".to_owned()),
        };
        let has_option = profile.options.iter().any(|option| option.name == INCLUDE_RESULT);
        Ok(Changes {
            name: Some(self.name),
            url: Some(self.url),
            events: Some(vec![self.event]),
            attributes: Some(BTreeMap::from([
                (OBJECT_TYPE.to_owned(), self.object_type),
                (OBJECT_NAME.to_owned(), self.object_name),
                tied_to_version,
            ])),
            headers: self.headers.map(changed_headers),
            description: self.description,
            labels: self.labels,
            timeout: Some(Some(timeout)),
            active: self.enabled,
            retry: Some(retry(self.retry.unwrap_or(false), profile)),
            // Off where the profile does not know it either is how it is.
            options: self
                .include_result
                .filter(|on| *on || has_option)
                .map(|on| BTreeMap::from([(INCLUDE_RESULT.to_owned(), on)])),
            ..Changes::default()
        })
    }
}

impl NewTest {
    /// The event to test with: the documented example, of the object and version that the test is for.
    pub(super) fn sample(&self) -> Sample {
        let example = example("ubiops", &self.event).and_then(|(_, example)| serde_json::from_str(example).ok());
        let mut data: Map<String, Value> = example.unwrap_or_default();
        let mut say = |member: &str, text: &str| data.insert(format!("{}_{member}", self.object_type), text.into());
        say("name", &self.object_name);
        if let Some(version) = &self.version {
            say("version_name", version);
        }
        Sample {
            event_type: Some(self.event.clone()),
            data: Some(Value::Object(data).to_string().into()),
            ..Sample::default()
        }
    }
}

/// A test, and what came of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UbiopsTest)]
pub(super) struct TestView {
    id: Uuid,
    /// `pending`, `completed` or `failed`.
    status: &'static str,
    #[schema(required)]
    error_message: Option<String>,
}

impl TestView {
    pub(super) fn of(test: &Test) -> Self {
        let (status, error_message) = match &test.made {
            None => ("pending", None),
            Some(made) if made.delivered => ("completed", None),
            Some(made) => ("failed", Some(why(made))),
        };
        Self {
            id: test.id.as_uuid(),
            status,
            error_message,
        }
    }
}

/// Why a test has failed; where the endpoint could not be reached, in the documented words.
fn why(made: &Made) -> String {
    let error = made.error.as_deref().unwrap_or("no success");
    match made.error_class.as_deref() {
        Some("connect") => format!("Connection error: {error}"),
        _ => error.to_owned(),
    }
}

impl ChangedWebhook {
    /// Where it is to go from now on, if that is among the changes.
    pub(super) fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// What to change in a webhook as it stands, in the model's words.
    pub(super) fn into_changes(self, stored: &Webhook, profile: &Profile) -> Result<Changes, Vec<FieldError>> {
        let mut errors = Vec::new();
        if let (Some(event), Some(object_type)) = (&self.event, stored.attributes.get(OBJECT_TYPE)) {
            check_event(event, object_type, &mut errors);
        }
        let timeout = self.timeout.map(|seconds| check_timeout(seconds, &mut errors));
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Changes {
            name: self.name,
            url: self.url,
            events: self.event.map(|event| vec![event]),
            headers: self.headers.map(changed_headers),
            description: self.description,
            labels: self.labels,
            timeout: timeout.map(Some),
            active: self.enabled,
            // Delays of its own stay where it is to be tried again anyway.
            retry: self
                .retry
                .filter(|on| *on != retries(stored, profile))
                .map(|on| retry(on, profile)),
            options: self
                .include_result
                .filter(|on| *on != option(stored, profile))
                .map(|on| {
                    let mut options = stored.settings.options.clone();
                    options.insert(INCLUDE_RESULT.to_owned(), on);
                    options
                }),
            ..Changes::default()
        })
    }
}

fn changed_headers(headers: Vec<HeaderBody>) -> Vec<ValueChange> {
    headers
        .into_iter()
        .map(|header| ValueChange {
            key: header.key,
            value: header.value,
            protected: header.protected,
        })
        .collect()
}

fn check_event(event: &str, object_type: &str, errors: &mut Vec<FieldError>) {
    let events = STAGES.map(|stage| format!("{object_type}_request_{stage}"));
    if !events.iter().any(|known| known == event) {
        let reason = format!("for a {object_type} it is one of `{}`", events.join("`, `"));
        errors.push(FieldError::new("/event", reason));
    }
}

fn check_timeout(seconds: u64, errors: &mut Vec<FieldError>) -> Duration {
    if !(1..=TIMEOUT_MAX).contains(&seconds) {
        errors.push(FieldError::new(
            "/timeout",
            format!("it is 1 to {TIMEOUT_MAX}, in whole seconds"),
        ));
    }
    Duration::from_secs(seconds)
}

fn retry(on: bool, profile: &Profile) -> Option<Retry> {
    match (on, profile.ladder.len()) {
        (false, _) => Some(Retry::Never),
        (true, 0 | 1) => Some(Retry::Delays(LADDER.to_vec())),
        (true, _) => None,
    }
}

fn retries(webhook: &Webhook, profile: &Profile) -> bool {
    let attempts = match &webhook.retry {
        None => profile.ladder.len(),
        Some(Retry::Never) => 1,
        Some(Retry::Delays(delays)) => delays.len(),
    };
    attempts > 1
}

fn option(webhook: &Webhook, profile: &Profile) -> bool {
    let option = profile.options.iter().find(|option| option.name == INCLUDE_RESULT);
    let said = webhook.settings.options.get(INCLUDE_RESULT).copied();
    option.is_some_and(|option| said.unwrap_or(option.default))
}

impl WebhookView {
    /// The webhook in UbiOps' words; `None` where it cannot be said in them.
    pub(super) fn of(webhook: &Webhook, profile: &Profile) -> Option<Self> {
        let attribute = |name: &str| webhook.attributes.get(name).cloned();
        let object_type = attribute(OBJECT_TYPE).filter(|it| OBJECT_TYPES.contains(&it.as_str()))?;
        let [event] = webhook.events.as_slice() else {
            return None;
        };
        let timeout = webhook.timeout.unwrap_or(profile.timeout);
        Some(Self {
            id: webhook.id.as_uuid(),
            name: webhook.name.clone(),
            url: as_given(&webhook.url),
            headers: webhook
                .headers
                .iter()
                .map(|header| HeaderView {
                    key: header.key.clone(),
                    value: match &header.value {
                        MaybeSealed::Plain(value) => Some(value.clone()).filter(|value| !value.is_empty()),
                        MaybeSealed::Sealed(_) => None,
                    },
                    protected: matches!(&header.value, MaybeSealed::Sealed(_)),
                })
                .collect(),
            object_type,
            object_name: attribute(OBJECT_NAME)?,
            version: attribute(VERSION),
            description: webhook.description.clone(),
            labels: webhook.labels.clone(),
            event: event.clone(),
            // The client reads whole seconds.
            timeout: timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0),
            enabled: webhook.active,
            retry: retries(webhook, profile),
            include_result: option(webhook, profile),
            creation_date: webhook.created_at,
            last_updated: webhook.updated_at,
        })
    }

    /// Whether a list is asked for it.
    pub(super) fn is_wanted(&self, filter: &Filter) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        is(&filter.object_type, &self.object_type)
            && is(&filter.event, &self.event)
            && filter
                .labels
                .iter()
                .all(|(label, value)| self.labels.get(label) == Some(value))
    }
}

/// What a list is to hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) labels: Vec<(String, String)>,
    pub(super) object_type: Option<String>,
    pub(super) event: Option<String>,
}

/// Reads `label:value,label:value`.
pub(super) fn labels(text: &str) -> Result<Vec<(String, String)>, String> {
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once(':') {
            Some((label, value)) => Ok((label.to_owned(), value.to_owned())),
            None => Err(format!(
                "`labels` is `label:value`, several joined by commas; `{pair}` has no colon"
            )),
        })
        .collect()
}

/// A URL without a path is stored with one, `/`, and given back as it is documented, without.
fn as_given(url: &str) -> String {
    let bare = url.strip_suffix('/').filter(|rest| {
        rest.split_once("://")
            .is_some_and(|(_, host)| !host.contains(['/', '?', '#']))
    });
    bare.unwrap_or(url).to_owned()
}

/// The field that the model's is here.
pub(super) fn named(pointer: &str) -> Option<String> {
    let pointer = pointer.to_owned();
    if pointer.starts_with("/events") {
        return Some("/event".to_owned());
    }
    if let Some(attribute) = pointer.strip_prefix("/attributes/") {
        let field = if attribute == DEFAULT_VERSION {
            VERSION
        } else {
            attribute
        };
        return Some(format!("/{field}"));
    }
    match pointer.strip_prefix("/options") {
        Some(_) => Some(format!("/{INCLUDE_RESULT}")),
        None => pointer.starts_with("/retry").then(|| "/retry".to_owned()),
    }
}

#[cfg(test)]
mod tests;
