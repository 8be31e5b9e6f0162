//! A webhook in JSON, as requests have it.

use std::collections::BTreeMap;

use common::http::{FieldError, Problem};
use common::template::Templates;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::fields::{
    AnswerClass, BodyWord, OrderingBody, PauseWord, RateLimitBody, RetryBody, SecretKindWord, SignatureBody, Success,
};
use super::receiver::{AuthenticationBody, TlsBody};
use super::values::{HeaderBody, VariableBody};
use crate::changes::{Changes, ValueChange};
use crate::http::json::{Span, given, nullable};

/// A webhook to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewWebhook {
    /// 1 to 64 characters, unique in its project.
    #[schema(min_length = 1, max_length = 64, example = "slack")]
    name: String,
    /// The template it is made from; see `/v1/templates`. What is given beside it comes before what the template says.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, example = "slack")]
    template: Option<String>,
    /// What the template asks for.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    blanks: Option<BTreeMap<String, String>>,
    /// Where requests go: HTTPS and public, unless the operator allows otherwise. To be given where no template is.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, example = "https://hooks.example.com/in")]
    url: Option<String>,
    /// Patterns of event types: `*`, `invoice.paid`, `invoice.*`. To be given where no template is.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_items = 1, max_items = 100, example = json!(["invoice.*"]))]
    events: Option<Vec<String>>,
    /// What requests are signed with: `whsec_` and Base64, or any other text; `whsk_` and Base64 is an Ed25519 key. Absent: one is made up where the profile says so, and shown in the answer, this once. Null: none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    secret: Option<Option<String>>,
    /// What kind of secret is made up where none is given: v1, which both ends know, or v1a, a key pair of which receivers need the public key alone. Absent: v1.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    secret_kind: Option<SecretKindWord>,
    /// Headers of its own, sent with every request.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_items = 32)]
    headers: Option<Vec<HeaderBody>>,
    /// What its transform finds under `variables`.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_items = 32)]
    variables: Option<Vec<VariableBody>>,
    /// Off pauses it; `pause` says what becomes of what happens meanwhile.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    active: Option<bool>,
    /// For people; at most 400 characters.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_length = 400)]
    description: Option<String>,
    /// For finding it; at most 32. A key is 1 to 64 characters without `:` and `,`, a value at most 256.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, example = json!({"team": "blue"}))]
    labels: Option<BTreeMap<String, String>>,
    /// An event is sent only if it has each of these attributes with this value; at most 32.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, example = json!({"object_name": "checkout"}))]
    attributes: Option<BTreeMap<String, String>>,
    /// The profile's options, switched on or off.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    options: Option<BTreeMap<String, bool>>,
    /// When to try again; null: as the profile says.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<RetryBody>)]
    retry: Option<Option<RetryBody>>,
    /// Total time of one request, at most what the profile allows; null: as the profile says.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, example = "10s")]
    timeout: Option<Option<Span>>,
    /// A filter on the event; null: none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Object>)]
    filter: Option<Option<Value>>,
    /// The body, as JSON whose strings are template expressions; null: none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Object>)]
    transform: Option<Option<Value>>,
    /// How the body is made where there is no `transform`; null: as the profile says.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<BodyWord>)]
    body: Option<Option<BodyWord>>,
    /// How requests are signed; null: as the profile says.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<SignatureBody>)]
    signature: Option<Option<SignatureBody>>,
    /// Which answers count as delivered: 2xx, and 3xx if you say so; null: as the profile says.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Vec<AnswerClass>>)]
    success: Option<Option<Success>>,
    /// How many requests may begin in a window of time; null: no limit of its own.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<RateLimitBody>)]
    rate_limit: Option<Option<RateLimitBody>>,
    /// Requests under way at once; null: the operator's default.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100)]
    max_in_flight: Option<Option<u32>>,
    /// What becomes of what happens while it is paused; null: as the profile says.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<PauseWord>)]
    pause: Option<Option<PauseWord>>,
    /// Failed attempts in a row after which it has failed, 0 for never; null: as the profile says.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u32>, maximum = 10_000)]
    fail_after: Option<Option<u32>>,
    /// Which deliveries wait for which; null: none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<OrderingBody>)]
    ordering: Option<Option<OrderingBody>>,
    /// How many held deliveries may be released in a window of time once it is active again; null: as its lane drains.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<RateLimitBody>)]
    drain_rate: Option<Option<RateLimitBody>>,
    /// What its TLS sessions are made with beside what is the operator's, in place of all that was said of it; null: nothing.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<TlsBody>)]
    tls: Option<Option<TlsBody>>,
    /// How its requests say who they come from, in the header `authorization`, beside their signature; null: not at all.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<AuthenticationBody>)]
    authentication: Option<Option<AuthenticationBody>>,
}

/// Changes to a webhook. What is absent stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ChangedWebhook {
    /// 1 to 64 characters, unique in its project.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 1, max_length = 64, example = "slack")]
    name: Option<String>,
    /// Where requests go: HTTPS and public, unless the operator allows otherwise.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, example = "https://hooks.example.com/in")]
    url: Option<String>,
    /// Patterns of event types: `*`, `invoice.paid`, `invoice.*`.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_items = 1, max_items = 100, example = json!(["invoice.*"]))]
    events: Option<Vec<String>>,
    /// A new secret, in place of all there were, at once; null: none, requests go out unsigned. `:rotate-secret` lets the earlier ones go on for a while.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    secret: Option<Option<String>>,
    /// Headers of its own, sent with every request.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_items = 32)]
    headers: Option<Vec<HeaderBody>>,
    /// What its transform finds under `variables`.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_items = 32)]
    variables: Option<Vec<VariableBody>>,
    /// Off pauses it; `pause` says what becomes of what happens meanwhile.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    active: Option<bool>,
    /// For people; at most 400 characters.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_length = 400)]
    description: Option<String>,
    /// For finding it; at most 32. A key is 1 to 64 characters without `:` and `,`, a value at most 256.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, example = json!({"team": "blue"}))]
    labels: Option<BTreeMap<String, String>>,
    /// An event is sent only if it has each of these attributes with this value; at most 32.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, example = json!({"object_name": "checkout"}))]
    attributes: Option<BTreeMap<String, String>>,
    /// The profile's options, switched on or off.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    options: Option<BTreeMap<String, bool>>,
    /// When to try again; null: as the profile says.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<RetryBody>)]
    retry: Option<Option<RetryBody>>,
    /// Total time of one request, at most what the profile allows; null: as the profile says.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, example = "10s")]
    timeout: Option<Option<Span>>,
    /// A filter on the event; null: none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Object>)]
    filter: Option<Option<Value>>,
    /// The body, as JSON whose strings are template expressions; null: none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Object>)]
    transform: Option<Option<Value>>,
    /// How the body is made where there is no `transform`; null: as the profile says.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<BodyWord>)]
    body: Option<Option<BodyWord>>,
    /// How requests are signed; null: as the profile says.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<SignatureBody>)]
    signature: Option<Option<SignatureBody>>,
    /// Which answers count as delivered: 2xx, and 3xx if you say so; null: as the profile says.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Vec<AnswerClass>>)]
    success: Option<Option<Success>>,
    /// How many requests may begin in a window of time; null: no limit of its own.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<RateLimitBody>)]
    rate_limit: Option<Option<RateLimitBody>>,
    /// Requests under way at once; null: the operator's default.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100)]
    max_in_flight: Option<Option<u32>>,
    /// What becomes of what happens while it is paused; null: as the profile says.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<PauseWord>)]
    pause: Option<Option<PauseWord>>,
    /// Failed attempts in a row after which it has failed, 0 for never; null: as the profile says.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u32>, maximum = 10_000)]
    fail_after: Option<Option<u32>>,
    /// Which deliveries wait for which; null: none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<OrderingBody>)]
    ordering: Option<Option<OrderingBody>>,
    /// How many held deliveries may be released in a window of time once it is active again; null: as its lane drains.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<RateLimitBody>)]
    drain_rate: Option<Option<RateLimitBody>>,
    /// What its TLS sessions are made with beside what is the operator's, in place of all that was said of it; null: nothing.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<TlsBody>)]
    tls: Option<Option<TlsBody>>,
    /// How its requests say who they come from, in the header `authorization`, beside their signature; null: not at all.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<AuthenticationBody>)]
    authentication: Option<Option<AuthenticationBody>>,
}

impl NewWebhook {
    /// What it asks for, the template's part included.
    pub(super) fn changes(mut self, templates: &Templates) -> Result<Changes, Problem> {
        match self.template.take() {
            Some(name) => self.fill(&name, templates)?,
            None if self.blanks.is_some() => {
                return Err(Problem::field("/blanks", "only a `template` has blanks; name one"));
            }
            None => {}
        }
        let missing = |field: &str| {
            let detail = format!("missing field `{field}`; only a `template` has one of its own");
            FieldError::new(&format!("/{field}"), detail)
        };
        let absent: Vec<FieldError> = [("url", self.url.is_none()), ("events", self.events.is_none())]
            .into_iter()
            .filter(|(_, absent)| *absent)
            .map(|(field, _)| missing(field))
            .collect();
        match absent.is_empty() {
            true => Ok(self.into()),
            false => Err(Problem::fields(absent)),
        }
    }

    /// Takes from a template what is not given.
    fn fill(&mut self, name: &str, templates: &Templates) -> Result<(), Problem> {
        let template = templates.get(name).ok_or_else(|| {
            let known: Vec<&str> = templates.iter().map(|template| template.name.as_str()).collect();
            let detail = format!("there is no template `{name}`; there are: {}", known.join(", "));
            Problem::field("/template", detail)
        })?;
        let blanks = self.blanks.take().unwrap_or_default();
        let applied = template
            .apply(&blanks)
            .map_err(|error| Problem::field("/blanks", error.to_string()))?;
        self.url.get_or_insert(applied.url);
        self.events.get_or_insert(applied.events);
        let headers = applied.headers.into_iter().map(|header| HeaderBody {
            key: header.key,
            value: Some(header.value),
            protected: header.protected.then_some(true),
        });
        let own = self.headers.take().unwrap_or_default();
        let taken: Vec<HeaderBody> = headers
            .filter(|header| !own.iter().any(|it| it.key.eq_ignore_ascii_case(&header.key)))
            .collect();
        self.headers = Some(taken.into_iter().chain(own).collect());
        let variables = applied.variables.into_iter().map(|variable| VariableBody {
            key: variable.key,
            value: Some(variable.value),
            protected: variable.protected.then_some(true),
        });
        let own = self.variables.take().unwrap_or_default();
        let taken: Vec<VariableBody> = variables
            .filter(|variable| !own.iter().any(|it| it.key == variable.key))
            .collect();
        self.variables = Some(taken.into_iter().chain(own).collect());
        if self.body.as_ref().is_none_or(Option::is_none) {
            self.transform.get_or_insert(Some(applied.transform));
        }
        Ok(())
    }
}

impl From<NewWebhook> for Changes {
    fn from(new: NewWebhook) -> Self {
        let secret_kind = new.secret_kind.map(Into::into);
        let changes = Self::from(ChangedWebhook {
            name: Some(new.name),
            url: new.url,
            events: new.events,
            secret: new.secret,
            headers: new.headers,
            variables: new.variables,
            active: new.active,
            description: new.description,
            labels: new.labels,
            attributes: new.attributes,
            options: new.options,
            retry: new.retry,
            timeout: new.timeout,
            filter: new.filter,
            transform: new.transform,
            body: new.body,
            signature: new.signature,
            success: new.success,
            rate_limit: new.rate_limit,
            max_in_flight: new.max_in_flight,
            pause: new.pause,
            fail_after: new.fail_after,
            ordering: new.ordering,
            drain_rate: new.drain_rate,
            tls: new.tls,
            authentication: new.authentication,
        });
        Self { secret_kind, ..changes }
    }
}

impl From<ChangedWebhook> for Changes {
    fn from(changed: ChangedWebhook) -> Self {
        Self {
            name: changed.name,
            url: changed.url,
            events: changed.events,
            secret: changed.secret,
            secret_kind: None,
            headers: changed
                .headers
                .map(|headers| headers.into_iter().map(ValueChange::from).collect()),
            variables: changed
                .variables
                .map(|variables| variables.into_iter().map(ValueChange::from).collect()),
            active: changed.active,
            retry: changed.retry.map(|retry| retry.map(|retry| retry.0)),
            timeout: changed.timeout.map(|timeout| timeout.map(|timeout| timeout.0)),
            description: changed.description,
            labels: changed.labels,
            attributes: changed.attributes,
            filter: changed.filter,
            transform: changed.transform,
            body: changed.body.map(|body| body.map(Into::into)),
            signature: changed.signature.map(|signature| signature.map(Into::into)),
            redirect_is_success: changed.success.map(|success| success.map(|success| success.redirects)),
            rate_limit: changed.rate_limit.map(|limit| limit.map(Into::into)),
            max_in_flight: changed.max_in_flight,
            hold_while_paused: changed.pause.map(|pause| pause.map(PauseWord::holds)),
            fail_after: changed.fail_after,
            ordering: changed.ordering.map(|ordering| ordering.map(Into::into)),
            drain_rate: changed.drain_rate.map(|limit| limit.map(Into::into)),
            tls: changed.tls.map(|tls| tls.map(Into::into)),
            authentication: changed.authentication.map(|given| given.map(Into::into)),
            options: changed.options,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use common::http::parse;
    use store::webhooks::Retry;

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
        let without_events: NewWebhook = parse(br#"{"name":"a","url":"b"}"#).unwrap();
        let problem = without_events.changes(&Templates::load().unwrap()).unwrap_err();
        assert!(problem.detail().unwrap().contains("#/events: missing field `events`"));
    }

    #[test]
    fn null_resets_what_may_be_reset_and_is_refused_elsewhere() {
        let changes =
            Changes::from(parse::<ChangedWebhook>(br#"{"body":null,"fail_after":null,"secret":null}"#).unwrap());
        assert_eq!((changes.fail_after, changes.secret), (Some(None), Some(None)));
        assert!(changes.body.is_some_and(|body| body.is_none()));
        for field in [
            "name",
            "url",
            "events",
            "active",
            "labels",
            "headers",
            "variables",
            "description",
            "options",
        ] {
            let problem = parse::<ChangedWebhook>(format!(r#"{{"{field}":null}}"#).as_bytes())
                .err()
                .unwrap();
            assert!(
                problem
                    .detail()
                    .unwrap()
                    .contains(&format!("#/{field}: invalid type: null")),
                "{field}"
            );
        }
    }

    #[test]
    fn redirects_are_a_success_only_beside_successes() {
        let read = |text: &str| {
            parse::<ChangedWebhook>(format!(r#"{{"success":{text}}}"#).as_bytes())
                .map(|changed| Changes::from(changed).redirect_is_success)
                .ok()
        };
        assert_eq!(read(r#"["2xx"]"#), Some(Some(Some(false))));
        assert_eq!(read(r#"["2xx","3xx"]"#), Some(Some(Some(true))));
        assert_eq!(read("null"), Some(Some(None)));
        for wrong in ["[]", r#"["3xx"]"#, r#"["2xx","2xx"]"#, r#"["4xx"]"#, r#""2xx""#] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
