//! Changes to a webhook: what a request asks for, applied to a webhook as it stands. Creating one is changing a blank
//! one. Everything is checked, and all that is wrong is said at once; secrets are sealed here and leave unsealed nowhere.

mod headers;
mod moved;
mod receiver;
mod settings;
mod values;

pub(crate) use self::headers::signature_header;
pub use self::receiver::{AuthenticationChange, TlsChange};

use std::collections::BTreeMap;
use std::time::Duration;

use common::crypto::{Context, KeyRing};
use common::egress::Guard;
use common::http::FieldError;
use common::model::limits;
use common::profile::Profile;
use common::render::Placeholders;
use jiff::Timestamp;
use proto_schemas::definition::SecretKind;
use serde_json::Value;
use store::webhooks::{BodyKind, Ordering, RateLimit, Retry, SignatureSettings, Webhook};

use crate::{secrets, validate};

/// What a request asks for. `None` leaves a field as it is; where there are two, `Some(None)` is: as the profile says.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// A new name.
    pub name: Option<String>,
    /// A new address.
    pub url: Option<String>,
    /// New event type patterns, in place of all there were.
    pub events: Option<Vec<String>>,
    /// A new signing secret, in place of all there were; `Some(None)`: none, requests go out unsigned.
    pub secret: Option<Option<String>>,
    /// What kind of secret is made up where none is given; beside a secret, what kind it has to be.
    pub secret_kind: Option<SecretKind>,
    /// New headers, in place of all there were.
    pub headers: Option<Vec<ValueChange>>,
    /// New variables, in place of all there were.
    pub variables: Option<Vec<ValueChange>>,
    /// On or off.
    pub active: Option<bool>,
    /// When to try again.
    pub retry: Option<Option<Retry>>,
    /// Total time of one request.
    pub timeout: Option<Option<Duration>>,
    /// A new text for people.
    pub description: Option<String>,
    /// New labels, in place of all there were.
    pub labels: Option<BTreeMap<String, String>>,
    /// What an event's attributes have to be, in place of all that was said of them.
    pub attributes: Option<BTreeMap<String, String>>,
    /// A filter on the event; `Some(None)`: none.
    pub filter: Option<Option<Value>>,
    /// The body as a template; `Some(None)`: none.
    pub transform: Option<Option<Value>>,
    /// How the body is made.
    pub body: Option<Option<BodyKind>>,
    /// How requests are signed.
    pub signature: Option<Option<SignatureSettings>>,
    /// Whether a 3xx answer counts as delivered.
    pub redirect_is_success: Option<Option<bool>>,
    /// How many requests may begin in a window of time; `Some(None)`: as many as the lane takes.
    pub rate_limit: Option<Option<RateLimit>>,
    /// Requests under way at once; `Some(None)`: the dispatcher's default.
    pub max_in_flight: Option<Option<u32>>,
    /// Whether what happens while it is paused is kept for it.
    pub hold_while_paused: Option<Option<bool>>,
    /// Failed attempts in a row after which it has failed; 0: never.
    pub fail_after: Option<Option<u32>>,
    /// Which deliveries wait for which; `Some(None)`: none.
    pub ordering: Option<Option<Ordering>>,
    /// How many held deliveries may be released in a window of time; `Some(None)`: as its lane drains.
    pub drain_rate: Option<Option<RateLimit>>,
    /// What TLS sessions are made with beside what is the operator's; `Some(None)`: nothing.
    pub tls: Option<Option<TlsChange>>,
    /// How requests say who they come from, beside their signature; `Some(None)`: not at all.
    pub authentication: Option<Option<AuthenticationChange>>,
    /// The profile's options, in place of all that was said of them.
    pub options: Option<BTreeMap<String, bool>>,
}

/// A header or a variable as a request gives it.
#[derive(Debug, Clone)]
pub struct ValueChange {
    /// Its name.
    pub key: String,
    /// Its value; `None` keeps the one stored under this name.
    pub value: Option<String>,
    /// Whether it is never given out again; `None`: as it was, or by its name.
    pub protected: Option<bool>,
}

/// What changes are checked against and sealed with.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Where webhooks may go.
    pub guard: &'a Guard,
    /// The project's profile.
    pub profile: &'a Profile,
    /// Seals secrets.
    pub keys: &'a KeyRing,
    /// What time it is.
    pub now: Timestamp,
}

impl Changes {
    /// Applies the changes. Where there is an error the webhook is left half-changed: do not store it.
    ///
    /// # Errors
    /// Everything that is wrong, field by field.
    pub fn apply(mut self, webhook: &mut Webhook, rules: &Rules<'_>) -> Result<(), Vec<FieldError>> {
        let mut errors = Vec::new();
        let before = webhook.clone();
        self.apply_identity(webhook, rules, &mut errors);
        if let Some(secret) = self.secret.take() {
            secrets::replace(webhook, secret.as_deref(), self.secret_kind, rules, &mut errors);
        }
        if let Some(active) = self.active {
            webhook.active = active;
        }
        if let Some(retry) = self.retry.take() {
            if let Some(Retry::Delays(delays)) = &retry {
                note_in_list(&mut errors, "/retry/delays", limits::check_ladder(delays));
            }
            webhook.retry = retry;
        }
        if let Some(timeout) = self.timeout {
            if let Some(timeout) = timeout {
                note(&mut errors, "/timeout", validate::timeout(timeout, rules.profile));
            }
            webhook.timeout = timeout;
        }
        if let Some(tls) = self.tls.take() {
            receiver::apply_tls(tls, webhook, rules, &mut errors);
        }
        if let Some(authentication) = self.authentication.take() {
            receiver::apply_authentication(authentication, webhook, rules, &mut errors);
        }
        if let Some(variables) = self.variables.take() {
            webhook.variables = values::apply_variables(variables, webhook, rules, &mut errors);
        }
        let headers = self.headers.take();
        let headers_given = headers.is_some();
        // The headers come last: none may have the name of the one that holds the signature.
        settings::apply(self, webhook, rules, &mut errors);
        match headers {
            Some(headers) => webhook.headers = headers::apply(headers, webhook, rules, &mut errors),
            None => headers::check_signature(webhook, rules, &mut errors),
        }
        receiver::check_header(webhook, headers_given, &mut errors);
        secrets::check_kind(webhook, rules.profile, &mut errors);
        if !rules.profile.protected_values_follow_url {
            moved::check(&before, webhook, &mut errors);
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn apply_identity(&mut self, webhook: &mut Webhook, rules: &Rules<'_>, errors: &mut Vec<FieldError>) {
        if let Some(name) = self.name.take() {
            note(errors, "/name", validate::name(&name));
            webhook.name = name;
        }
        if let Some(url) = self.url.take() {
            match rules.guard.check(&url) {
                Ok(target) => {
                    let url = target.as_str().to_owned();
                    let placed = Placeholders::check_url(&rules.profile.placeholders, &url);
                    note(errors, "/url", placed.map_err(|error| error.to_string()));
                    webhook.url = url;
                }
                Err(refused) => errors.push(FieldError::new("/url", refused.to_string())),
            }
        }
        if let Some(events) = self.events.take() {
            note_in_list(errors, "/events", validate::patterns(&events));
            webhook.events = events;
        }
        if let Some(description) = self.description.take() {
            note(errors, "/description", validate::description(&description));
            webhook.description = description;
        }
        if let Some(labels) = self.labels.take() {
            note_in_map(errors, "/labels", validate::labels(&labels));
            webhook.labels = labels;
        }
        if let Some(attributes) = self.attributes.take() {
            note_in_map(errors, "/attributes", validate::attributes(&attributes));
            webhook.attributes = attributes;
        }
    }
}

/// Seals a value of this webhook. The dispatcher opens it for the same project, webhook and field.
pub(crate) fn seal(keys: &KeyRing, webhook: &Webhook, field: &str, value: &str) -> String {
    let context = Context {
        project: webhook.project,
        object: webhook.id.as_uuid(),
        field,
    };
    keys.seal(&context, value.as_bytes())
}

fn note(errors: &mut Vec<FieldError>, path: &str, checked: Result<(), String>) {
    if let Err(reason) = checked {
        errors.push(FieldError::new(path, reason));
    }
}

fn note_in_list(errors: &mut Vec<FieldError>, path: &str, checked: Result<(), (Option<usize>, String)>) {
    if let Err((index, reason)) = checked {
        let path = index.map_or_else(|| path.to_owned(), |index| format!("{path}/{index}"));
        errors.push(FieldError::new(&path, reason));
    }
}

fn note_in_map(errors: &mut Vec<FieldError>, path: &str, checked: Result<(), (Option<String>, String)>) {
    match checked {
        Ok(()) => {}
        Err((Some(key), reason)) => errors.push(FieldError::at(
            &format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")),
            reason,
        )),
        Err((None, reason)) => errors.push(FieldError::new(path, reason)),
    }
}

#[cfg(test)]
mod tests;
