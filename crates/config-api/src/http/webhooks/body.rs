//! A webhook in JSON.

use std::fmt;

use jiff::Timestamp;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use store::webhook_health::Health;
use store::webhooks::{HeaderValue, Retry, Webhook};
use uuid::Uuid;

use crate::changes::{Changes, HeaderChange};
use crate::http::json::{Span, nullable};
use crate::resolve;

/// A webhook to be made.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewWebhook {
    name: String,
    url: String,
    events: Vec<String>,
    /// One is generated, and shown in the answer, where none is given.
    secret: Option<String>,
    headers: Option<Vec<HeaderBody>>,
    active: Option<bool>,
    retry: Option<RetryBody>,
    timeout: Option<Span>,
}

/// Changes to a webhook. What is absent stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ChangedWebhook {
    name: Option<String>,
    url: Option<String>,
    events: Option<Vec<String>>,
    secret: Option<String>,
    headers: Option<Vec<HeaderBody>>,
    active: Option<bool>,
    /// Null: as the profile says.
    #[serde(default, deserialize_with = "nullable")]
    retry: Option<Option<RetryBody>>,
    /// Null: as the profile says.
    #[serde(default, deserialize_with = "nullable")]
    timeout: Option<Option<Span>>,
}

/// A header. In a change, a value that is null or absent keeps the stored one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderBody {
    key: String,
    value: Option<String>,
    protected: Option<bool>,
}

impl From<HeaderBody> for HeaderChange {
    fn from(header: HeaderBody) -> Self {
        Self {
            key: header.key,
            value: header.value,
            protected: header.protected,
        }
    }
}

impl From<NewWebhook> for Changes {
    fn from(new: NewWebhook) -> Self {
        Self {
            name: Some(new.name),
            url: Some(new.url),
            events: Some(new.events),
            secret: new.secret,
            headers: new
                .headers
                .map(|headers| headers.into_iter().map(HeaderChange::from).collect()),
            active: new.active,
            retry: new.retry.map(|retry| Some(retry.0)),
            timeout: new.timeout.map(|timeout| Some(timeout.0)),
        }
    }
}

impl From<ChangedWebhook> for Changes {
    fn from(changed: ChangedWebhook) -> Self {
        Self {
            name: changed.name,
            url: changed.url,
            events: changed.events,
            secret: changed.secret,
            headers: changed
                .headers
                .map(|headers| headers.into_iter().map(HeaderChange::from).collect()),
            active: changed.active,
            retry: changed.retry.map(|retry| retry.map(|retry| retry.0)),
            timeout: changed.timeout.map(|timeout| timeout.map(|timeout| timeout.0)),
        }
    }
}

/// `false`, or `{"delays": ["0s", "1m"]}`.
struct RetryBody(Retry);

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Delays {
    delays: Vec<Span>,
}

impl<'de> Deserialize<'de> for RetryBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = RetryBody;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("false, null, or {\"delays\": [\"0s\", \"1m\"]}")
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<RetryBody, E> {
                match value {
                    false => Ok(RetryBody(Retry::Never)),
                    true => Err(E::custom(
                        "`true` says not when; leave it out for the profile's delays, or give `delays`",
                    )),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RetryBody, A::Error> {
                let delays = Delays::deserialize(MapAccessDeserializer::new(map))?.delays;
                Ok(RetryBody(Retry::Delays(
                    delays.into_iter().map(|span| span.0).collect(),
                )))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl Serialize for RetryBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Retry::Never => serializer.serialize_bool(false),
            Retry::Delays(delays) => Delays {
                delays: delays.iter().copied().map(Span).collect(),
            }
            .serialize(serializer),
        }
    }
}

/// A webhook. Its secret and the values of its protected headers are never in it.
#[derive(Serialize)]
pub(in crate::http) struct WebhookView {
    id: Uuid,
    name: String,
    url: String,
    events: Vec<String>,
    headers: Vec<HeaderView>,
    active: bool,
    /// Null: as the profile says.
    retry: Option<RetryBody>,
    /// Null: as the profile says.
    timeout: Option<Span>,
    state: &'static str,
    /// Why it gets no events; null where it does.
    state_reason: Option<String>,
    /// Since when it is failed, disabled or pending; null for the other states.
    state_since: Option<Timestamp>,
    /// How its deliveries go.
    health: HealthView,
    revision: u64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// How a webhook's deliveries go.
#[derive(Serialize)]
struct HealthView {
    /// Failed attempts since the last delivered one.
    failures_in_a_row: u32,
    /// May be ten seconds behind.
    last_delivered_at: Option<Timestamp>,
    last_failed_at: Option<Timestamp>,
}

impl From<Option<&Health>> for HealthView {
    fn from(health: Option<&Health>) -> Self {
        Self {
            failures_in_a_row: health.map_or(0, |health| health.failures_in_a_row),
            last_delivered_at: health.and_then(|health| health.last_delivered_at),
            last_failed_at: health.and_then(|health| health.last_failed_at),
        }
    }
}

/// A webhook that has just been made.
#[derive(Serialize)]
pub(in crate::http) struct CreatedWebhook {
    #[serde(flatten)]
    pub(super) view: WebhookView,
    /// The secret that was generated. It is not shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<String>,
}

#[derive(Serialize)]
struct HeaderView {
    key: String,
    /// Null for a protected header.
    value: Option<String>,
    protected: bool,
}

impl WebhookView {
    pub(super) fn of(webhook: &Webhook, health: Option<&Health>) -> Self {
        let standing = resolve::standing(webhook, health);
        Self {
            id: webhook.id.as_uuid(),
            name: webhook.name.clone(),
            url: webhook.url.clone(),
            events: webhook.events.clone(),
            headers: webhook
                .headers
                .iter()
                .map(|header| match &header.value {
                    HeaderValue::Plain(value) => HeaderView {
                        key: header.key.clone(),
                        value: Some(value.clone()),
                        protected: false,
                    },
                    HeaderValue::Sealed(_) => HeaderView {
                        key: header.key.clone(),
                        value: None,
                        protected: true,
                    },
                })
                .collect(),
            active: webhook.active,
            retry: webhook.retry.clone().map(RetryBody),
            timeout: webhook.timeout.map(Span),
            state: standing.state.as_str(),
            state_reason: standing.reason,
            state_since: standing.since,
            health: HealthView::from(health),
            revision: webhook.revision,
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use common::http::parse;

    use super::*;

    fn retry(text: &str) -> Result<Option<Option<Retry>>, String> {
        let body = format!(r#"{{"retry":{text}}}"#);
        parse::<ChangedWebhook>(body.as_bytes())
            .map(|changed| Changes::from(changed).retry)
            .map_err(|problem| problem.detail().unwrap_or_default().to_owned())
    }

    #[test]
    fn retry_is_false_null_or_delays() {
        assert_eq!(retry("false"), Ok(Some(Some(Retry::Never))));
        assert_eq!(retry("null"), Ok(Some(None)));
        let delays = vec![Duration::ZERO, Duration::from_secs(90)];
        assert_eq!(
            retry(r#"{"delays":["0s","1m 30s"]}"#),
            Ok(Some(Some(Retry::Delays(delays))))
        );
        assert_eq!(Changes::from(parse::<ChangedWebhook>(b"{}").unwrap()).retry, None);
    }

    #[test]
    fn any_other_retry_is_refused_in_its_place() {
        assert!(retry("true").unwrap_err().contains("`delays`"));
        assert!(retry("3").unwrap_err().contains("{\"delays\": [\"0s\", \"1m\"]}"));
        assert!(
            retry(r#"{"delays":["0s","soon"]}"#)
                .unwrap_err()
                .contains("#/retry/delays/1: ")
        );
        assert!(
            retry(r#"{"delay":[]}"#)
                .unwrap_err()
                .contains("#/retry/delay: unknown field `delay`")
        );
    }

    #[test]
    fn a_misspelt_field_is_named() {
        let problem = parse::<NewWebhook>(br#"{"name":"a","url":"b","event":["*"]}"#)
            .err()
            .unwrap();
        assert!(problem.detail().unwrap().contains("#/event: unknown field `event`"));
        let problem = parse::<NewWebhook>(br#"{"name":"a","url":"b"}"#).err().unwrap();
        assert!(problem.detail().unwrap().contains("#/events: missing field `events`"));
    }
}
