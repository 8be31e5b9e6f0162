//! A webhook's own headers.

use std::collections::HashSet;

use common::http::FieldError;
use common::profile::Profile;
use store::webhooks::{Header, HeaderValue, Webhook};

use super::{HeaderChange, Rules, note, seal};
use crate::validate;

/// The header that requests are signed in, the webhook's own or its profile's.
pub(crate) fn signature_header<'a>(webhook: &'a Webhook, profile: &'a Profile) -> Option<&'a str> {
    match &webhook.settings.signature {
        Some(signature) => signature.body_hmac_header.as_deref(),
        None => profile.signature.body_hmac_header.as_deref(),
    }
}

/// Refuses a signature that would stand in a header the webhook has.
pub(super) fn check_signature(webhook: &Webhook, rules: &Rules<'_>, errors: &mut Vec<FieldError>) {
    let Some(signature) = signature_header(webhook, rules.profile) else {
        return;
    };
    if let Some(header) = webhook
        .headers
        .iter()
        .find(|header| header.key.eq_ignore_ascii_case(signature))
    {
        let reason = format!(
            "the webhook has a header `{}` of its own; take that away first",
            header.key
        );
        errors.push(FieldError::new("/signature/body_hmac_header", reason));
    }
}

/// The headers to store.
pub(super) fn apply(
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
    let signature_header = signature_header(webhook, rules.profile);
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
