//! A webhook's own headers.

use common::http::FieldError;
use common::profile::Profile;
use proto_schemas::definition::sealed_header;
use store::webhooks::{NamedValue, Webhook};

use super::values::List;
use super::{Rules, ValueChange};
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
    changes: Vec<ValueChange>,
    webhook: &Webhook,
    rules: &Rules<'_>,
    errors: &mut Vec<FieldError>,
) -> Vec<NamedValue> {
    let signature_header = signature_header(webhook, rules.profile);
    let list = List {
        field: "headers",
        stored: &webhook.headers,
        check_key: &|key| validate::header_name(key, signature_header),
        check_value: validate::header_value,
        name: |key| key.to_ascii_lowercase(),
        sealed_for: sealed_header,
    };
    list.apply(changes, webhook, rules, errors)
}
