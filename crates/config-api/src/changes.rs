//! Changes to a webhook: what a request asks for, applied to a webhook as it stands. Creating one is changing a blank
//! one. Everything is checked, and all that is wrong is said at once; secrets are sealed here and leave unsealed nowhere.

use std::collections::HashSet;
use std::time::Duration;

use common::crypto::{Context, KeyRing};
use common::egress::Guard;
use common::http::FieldError;
use common::model::limits;
use common::profile::Profile;
use common::sign;
use store::webhooks::{Header, HeaderValue, Retry, Webhook};

use crate::validate;

/// What a request asks for. `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// A new name.
    pub name: Option<String>,
    /// A new address.
    pub url: Option<String>,
    /// New event type patterns, in place of all there were.
    pub events: Option<Vec<String>>,
    /// A new signing secret.
    pub secret: Option<String>,
    /// New headers, in place of all there were.
    pub headers: Option<Vec<HeaderChange>>,
    /// On or off.
    pub active: Option<bool>,
    /// When to try again; `Some(None)`: as the profile says.
    pub retry: Option<Option<Retry>>,
    /// Total time of one request; `Some(None)`: as the profile says.
    pub timeout: Option<Option<Duration>>,
}

/// A header as a request gives it.
#[derive(Debug, Clone)]
pub struct HeaderChange {
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
}

impl Changes {
    /// Applies the changes. Where there is an error the webhook is left half-changed: do not store it.
    ///
    /// # Errors
    /// Everything that is wrong, field by field.
    pub fn apply(self, webhook: &mut Webhook, rules: &Rules<'_>) -> Result<(), Vec<FieldError>> {
        let mut errors = Vec::new();
        if let Some(name) = self.name {
            note(&mut errors, "/name", validate::name(&name));
            webhook.name = name;
        }
        if let Some(url) = self.url {
            match rules.guard.check(&url) {
                Ok(target) => webhook.url = target.as_str().to_owned(),
                Err(refused) => errors.push(FieldError::new("/url", refused.to_string())),
            }
        }
        if let Some(events) = self.events {
            note_in_list(&mut errors, "/events", validate::patterns(&events));
            webhook.events = events;
        }
        if let Some(secret) = self.secret {
            match sign::Secret::parse(&secret) {
                Ok(secret) => webhook.sealed_secret = Some(seal(rules.keys, webhook, "secret", secret.text())),
                Err(error) => errors.push(FieldError::new("/secret", error.to_string())),
            }
        }
        if let Some(headers) = self.headers {
            webhook.headers = apply_headers(headers, webhook, rules, &mut errors);
        }
        if let Some(active) = self.active {
            webhook.active = active;
        }
        if let Some(retry) = self.retry {
            if let Some(Retry::Delays(delays)) = &retry {
                note_in_list(&mut errors, "/retry/delays", limits::check_ladder(delays));
            }
            webhook.retry = retry;
        }
        if let Some(timeout) = self.timeout {
            if let Some(timeout) = timeout {
                note(&mut errors, "/timeout", limits::check_timeout(timeout));
            }
            webhook.timeout = timeout;
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

fn apply_headers(
    changes: Vec<HeaderChange>,
    webhook: &Webhook,
    rules: &Rules<'_>,
    errors: &mut Vec<FieldError>,
) -> Vec<Header> {
    if changes.len() > validate::HEADERS_MAX {
        errors.push(FieldError::new(
            "/headers",
            format!("at most {} headers", validate::HEADERS_MAX),
        ));
        return Vec::new();
    }
    let signature_header = rules.profile.signature.body_hmac_header.as_deref();
    let mut names = HashSet::new();
    let mut bytes = 0;
    let mut headers = Vec::with_capacity(changes.len());
    for (index, change) in changes.into_iter().enumerate() {
        let path = |field: &str| format!("/headers/{index}/{field}");
        note(
            errors,
            &path("key"),
            validate::header_name(&change.key, signature_header),
        );
        let name = change.key.to_ascii_lowercase();
        if !names.insert(name.clone()) {
            errors.push(FieldError::new(&path("key"), format!("`{name}` is there twice")));
        }
        if let Some(value) = &change.value {
            note(errors, &path("value"), validate::header_value(value));
        }
        let stored = webhook
            .headers
            .iter()
            .find(|header| header.key.eq_ignore_ascii_case(&change.key));
        bytes += name.len() + size(change.value.as_deref(), stored.map(|header| &header.value));
        match header_value(&change, stored.map(|header| &header.value), |value| {
            seal(rules.keys, webhook, &format!("header:{name}"), value)
        }) {
            Ok(value) => headers.push(Header { key: change.key, value }),
            Err(reason) => errors.push(FieldError::new(&path("value"), reason)),
        }
    }
    if bytes > validate::HEADERS_BYTES_MAX {
        let most = validate::HEADERS_BYTES_MAX;
        errors.push(FieldError::new(
            "/headers",
            format!("headers come to at most {most} bytes together"),
        ));
    }
    headers
}

/// The size of the value that a header will have.
fn size(value: Option<&str>, stored: Option<&HeaderValue>) -> usize {
    match (value, stored) {
        (Some(value), _) => value.len(),
        (None, Some(HeaderValue::Plain(value))) => value.len(),
        // Three bytes make four digits of base64.
        (None, Some(HeaderValue::Sealed(sealed))) => sealed.len() / 4 * 3,
        (None, None) => 0,
    }
}

/// The value to store: a new one, or the stored one where none is given.
fn header_value(
    change: &HeaderChange,
    stored: Option<&HeaderValue>,
    seal: impl FnOnce(&str) -> String,
) -> Result<HeaderValue, &'static str> {
    let was_protected = stored.map(|value| matches!(value, HeaderValue::Sealed(_)));
    let protected = change
        .protected
        .or(was_protected)
        .unwrap_or_else(|| validate::is_protected_by_name(&change.key));
    match (change.value.as_deref(), stored, protected) {
        (Some(value), _, true) => Ok(HeaderValue::Sealed(seal(value))),
        (Some(value), _, false) => Ok(HeaderValue::Plain(value.to_owned())),
        (None, None, _) => Err("give a value: none is stored under this name"),
        (None, Some(HeaderValue::Sealed(_)), false) => {
            Err("give the value anew: a protected one does not become readable")
        }
        (None, Some(HeaderValue::Plain(value)), true) => Ok(HeaderValue::Sealed(seal(value))),
        (None, Some(value), _) => Ok(value.clone()),
    }
}

/// Seals a value of this webhook. The dispatcher opens it for the same project, webhook and field.
fn seal(keys: &KeyRing, webhook: &Webhook, field: &str, value: &str) -> String {
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

#[cfg(test)]
mod tests;
