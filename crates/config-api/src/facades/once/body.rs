//! 1NCE's integrations in JSON, and what they are in the model.
//!
//! | here | in the model |
//! |---|---|
//! | `eventTypes` | `events`; their version is always `1.0.0` |
//! | `headers`, a plain object | `headers`; none is given out again |
//! | `jsonPayloadEnabled` | the option `json_payload` |
//! | `state` | the webhook's state, in three words ([`Phase`]) |

use std::collections::BTreeMap;

use bytes::Bytes;
use common::http::FieldError;
use common::profile::Profile;
use jiff::Timestamp;
use proto_schemas::definition::WebhookState;
use serde::{Deserialize, Serialize, Serializer};
use store::tests::Test;
use store::webhooks::Webhook;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::changes::{Changes, ValueChange};
use crate::facades::example;
use crate::trials::Sample;

/// What an integration can be told of.
const EVENT_TYPES: [&str; 2] = ["TELEMETRY_DATA", "LIFECYCLE"];

/// The one version that event types have.
const VERSION: &str = "1.0.0";

/// The profile's option that sends payloads as JSON where they are JSON.
const JSON_PAYLOAD: &str = "json_payload";

/// An integration to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct NewIntegration {
    name: String,
    url: String,
    headers: Option<Headers>,
    /// Every type where it is absent.
    event_types: Option<Vec<EventType>>,
    json_payload_enabled: Option<bool>,
}

/// Changes to an integration. What is absent stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ChangedIntegration {
    name: Option<String>,
    url: Option<String>,
    headers: Option<Headers>,
    event_types: Option<Vec<EventType>>,
    json_payload_enabled: Option<bool>,
}

/// Names and values; in a change, a value that is null keeps the stored one.
type Headers = BTreeMap<String, Option<String>>;

/// What an integration is told of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[schema(as = IntegrationEventType)]
#[serde(deny_unknown_fields)]
struct EventType {
    /// `TELEMETRY_DATA` or `LIFECYCLE`.
    #[schema(example = "TELEMETRY_DATA")]
    r#type: String,
    /// There is but one.
    #[schema(example = "1.0.0")]
    #[serde(default = "version")]
    version: String,
}

fn version() -> String {
    VERSION.to_owned()
}

/// An integration as it is shown: as a list shows it, and with its url and `jsonPayloadEnabled`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Integration)]
#[serde(rename_all = "camelCase")]
pub(super) struct IntegrationView {
    id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "to_the_millisecond")]
    #[schema(value_type = String, format = DateTime, required = false)]
    last_successful_message_delivery: Option<Timestamp>,
    name: String,
    url: String,
    state: Phase,
    r#type: &'static str,
    #[serde(serialize_with = "to_the_millisecond")]
    #[schema(value_type = String, format = DateTime)]
    created_time: Option<Timestamp>,
    #[serde(serialize_with = "to_the_millisecond")]
    #[schema(value_type = String, format = DateTime)]
    updated_time: Option<Timestamp>,
    event_types: Vec<EventType>,
    json_payload_enabled: bool,
}

/// What an integration is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = IntegrationState)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Phase {
    /// Not in force yet: its endpoint has not been checked, or its definition is still on the way.
    RolloutStarted,
    /// Gets events.
    IntegrationActive,
    /// Gets none until it is restarted: too many failures in a row, gone by its own word, or paused over `/v1`, for
    /// which there is no word here.
    IntegrationFailed,
}

impl Phase {
    pub(super) fn of(state: WebhookState, is_published: bool) -> Self {
        match (state, is_published) {
            (WebhookState::Failed | WebhookState::Disabled | WebhookState::Paused, _) => Self::IntegrationFailed,
            (WebhookState::Active, true) => Self::IntegrationActive,
            (WebhookState::Active, false) | (WebhookState::Pending, _) => Self::RolloutStarted,
        }
    }
}

impl NewIntegration {
    /// What to make, in the model's words.
    pub(super) fn into_changes(self, profile: &Profile) -> Result<Changes, Vec<FieldError>> {
        let every = || EVENT_TYPES.map(str::to_owned).to_vec();
        let events = self.event_types.map(events).transpose()?.unwrap_or_else(every);
        let has_option = profile.options.iter().any(|option| option.name == JSON_PAYLOAD);
        Ok(Changes {
            name: Some(self.name),
            url: Some(https(self.url)),
            events: Some(events),
            headers: self.headers.map(changed_headers),
            // Off where the profile does not know it either is how it is.
            options: self
                .json_payload_enabled
                .filter(|on| *on || has_option)
                .map(|on| BTreeMap::from([(JSON_PAYLOAD.to_owned(), on)])),
            ..Changes::default()
        })
    }

    /// The names of the headers, in the model's order.
    pub(super) fn header_names(&self) -> Vec<String> {
        names(self.headers.as_ref())
    }
}

impl ChangedIntegration {
    /// Where it is to go from now on, if that is among the changes.
    pub(super) fn url(&self) -> Option<String> {
        self.url.clone().map(https)
    }

    /// What to change in a webhook as it stands, in the model's words.
    pub(super) fn into_changes(self, stored: &Webhook, profile: &Profile) -> Result<Changes, Vec<FieldError>> {
        let url = self.url();
        Ok(Changes {
            name: self.name,
            url,
            events: self.event_types.map(events).transpose()?,
            headers: self.headers.map(changed_headers),
            options: self
                .json_payload_enabled
                .filter(|on| *on != json_payload(stored, profile))
                .map(|on| {
                    let mut options = stored.settings.options.clone();
                    options.insert(JSON_PAYLOAD.to_owned(), on);
                    options
                }),
            ..Changes::default()
        })
    }

    /// The names of the headers, in the model's order.
    pub(super) fn header_names(&self) -> Vec<String> {
        names(self.headers.as_ref())
    }
}

impl IntegrationView {
    pub(super) fn of(webhook: &Webhook, profile: &Profile, state: Phase, delivered_at: Option<Timestamp>) -> Self {
        Self {
            id: webhook.id.as_uuid(),
            last_successful_message_delivery: delivered_at,
            name: webhook.name.clone(),
            url: webhook.url.clone(),
            state,
            r#type: "WEBHOOK",
            created_time: Some(webhook.created_at),
            updated_time: Some(webhook.updated_at),
            event_types: webhook
                .events
                .iter()
                .map(|event| EventType {
                    r#type: event.clone(),
                    version: version(),
                })
                .collect(),
            json_payload_enabled: json_payload(webhook, profile),
        }
    }
}

/// A test that has begun.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IntegrationTest)]
#[serde(rename_all = "camelCase")]
pub(super) struct TestView {
    /// By this id, `/v1` tells what came of it.
    test_id: Uuid,
}

impl TestView {
    pub(super) fn of(test: &Test) -> Self {
        Self {
            test_id: test.id.as_uuid(),
        }
    }
}

/// The message of a test: the documented example of the first event type that the webhook is for.
pub(super) fn sample(webhook: &Webhook) -> Sample {
    let known = webhook.events.iter().find_map(|name| example("once", name));
    match known {
        Some((event_type, data)) => Sample {
            event_type: Some(event_type.to_owned()),
            data: Some(Bytes::from_static(data.as_bytes())),
            ..Sample::default()
        },
        None => Sample::default(),
    }
}

fn events(types: Vec<EventType>) -> Result<Vec<String>, Vec<FieldError>> {
    let mut errors = Vec::new();
    for (index, event) in types.iter().enumerate() {
        if !EVENT_TYPES.contains(&event.r#type.as_str()) {
            let reason = format!("it is one of `{}`", EVENT_TYPES.join("`, `"));
            errors.push(FieldError::new(&format!("/eventTypes/{index}/type"), reason));
        }
        if event.version != VERSION {
            let reason = format!("the only version there is is `{VERSION}`");
            errors.push(FieldError::new(&format!("/eventTypes/{index}/version"), reason));
        }
    }
    match errors.is_empty() {
        true => Ok(types.into_iter().map(|event| event.r#type).collect()),
        false => Err(errors),
    }
}

fn json_payload(webhook: &Webhook, profile: &Profile) -> bool {
    let option = profile.options.iter().find(|option| option.name == JSON_PAYLOAD);
    let said = webhook.settings.options.get(JSON_PAYLOAD).copied();
    option.is_some_and(|option| said.unwrap_or(option.default))
}

fn changed_headers(headers: Headers) -> Vec<ValueChange> {
    headers
        .into_iter()
        .map(|(key, value)| ValueChange {
            key,
            value,
            protected: None,
        })
        .collect()
}

fn names(headers: Option<&Headers>) -> Vec<String> {
    headers
        .map(|headers| headers.keys().cloned().collect())
        .unwrap_or_default()
}

/// The documented `www.example.com` has no scheme; requests go out over TLS, so https is what is meant.
fn https(url: String) -> String {
    match url.contains("://") {
        true => url,
        false => format!("https://{url}"),
    }
}

/// The field that the model's is here.
pub(super) fn named(pointer: &str, headers: &[String]) -> Option<String> {
    if let Some(rest) = pointer.strip_prefix("/events") {
        let index = rest.strip_prefix('/');
        return Some(index.map_or_else(|| "/eventTypes".to_owned(), |index| format!("/eventTypes/{index}/type")));
    }
    if let Some(rest) = pointer.strip_prefix("/headers/") {
        let index: usize = rest.split('/').next()?.parse().ok()?;
        let name = headers.get(index)?.replace('~', "~0").replace('/', "~1");
        return Some(format!("/headers/{name}"));
    }
    pointer
        .starts_with("/options")
        .then(|| "/jsonPayloadEnabled".to_owned())
}

#[expect(clippy::ref_option, reason = "serde gives it so")]
fn to_the_millisecond<S: Serializer>(instant: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match instant {
        Some(instant) => serializer.collect_str(&format_args!("{instant:.3}")),
        None => serializer.serialize_none(),
    }
}

/// The page of a list that is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct PageQuery {
    /// Counts from 1.
    #[serde(default = "first")]
    #[param(minimum = 1, default = 1)]
    page: usize,
    /// Integrations on a page.
    #[serde(default = "page_size")]
    #[param(minimum = 1, maximum = 250, default = 50)]
    page_size: usize,
}

/// Integrations on a page where the client says nothing, and the most that it may ask for.
const PAGE_SIZE: usize = 50;
const PAGE_SIZE_MAX: usize = 250;

fn first() -> usize {
    1
}

fn page_size() -> usize {
    PAGE_SIZE
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page<T> {
    page: usize,
    page_amount: usize,
    pub(super) items: Vec<T>,
}

impl<T> Page<T> {
    /// The same page with other items.
    pub(super) fn with<U>(&self, items: Vec<U>) -> Page<U> {
        Page {
            page: self.page,
            page_amount: self.page_amount,
            items,
        }
    }
}

impl PageQuery {
    /// What is wrong with it, if anything is.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.page == 0 {
            return Err("`page` counts from 1".to_owned());
        }
        match (1..=PAGE_SIZE_MAX).contains(&self.page_size) {
            true => Ok(()),
            false => Err(format!("`pageSize` is 1 to {PAGE_SIZE_MAX}")),
        }
    }

    /// The page of `all`; behind the last one there are empty ones. An empty list has one page.
    pub(super) fn cut<T>(&self, all: Vec<T>) -> Page<T> {
        let page_amount = all.len().div_ceil(self.page_size).max(1);
        let before = (self.page - 1).saturating_mul(self.page_size);
        Page {
            page: self.page,
            page_amount,
            items: all.into_iter().skip(before).take(self.page_size).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
