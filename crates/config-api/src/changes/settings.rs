//! How a webhook is delivered to, where it says so itself.

use std::collections::BTreeMap;

use common::http::FieldError;
use common::profile::Profile;
use store::webhooks::Webhook;

use super::{Changes, Rules, note, note_in_map};
use crate::validate;

/// Applies what the changes say of delivery.
pub(super) fn apply(changes: Changes, webhook: &mut Webhook, rules: &Rules<'_>, errors: &mut Vec<FieldError>) {
    let settings = &mut webhook.settings;
    if let Some(filter) = changes.filter {
        if let Some(filter) = &filter {
            note_within(errors, "/filter", validate::filter(filter));
        }
        settings.filter = filter;
    }
    if let Some(transform) = changes.transform {
        if let Some(transform) = &transform {
            note_within(errors, "/transform", validate::transform(transform));
        }
        settings.transform = transform;
    }
    if let Some(body) = changes.body {
        settings.body = body;
    }
    if settings.transform.is_some() && settings.body.is_some() {
        let reason = "a webhook with a `transform` has no other body; set one of the two to null";
        errors.push(FieldError::new("/body", reason));
    }
    if let Some(signature) = changes.signature {
        if let Some(name) = signature.as_ref().and_then(|it| it.body_hmac_header.as_deref()) {
            note(errors, "/signature/body_hmac_header", validate::signature_header(name));
        }
        settings.signature = signature;
    }
    if let Some(redirect_is_success) = changes.redirect_is_success {
        settings.redirect_is_success = redirect_is_success;
    }
    if let Some(rate_limit) = changes.rate_limit {
        if let Some(limit) = &rate_limit {
            if !validate::RATE_REQUESTS.contains(&limit.requests) {
                let (least, most) = (validate::RATE_REQUESTS.start(), validate::RATE_REQUESTS.end());
                errors.push(FieldError::new(
                    "/rate_limit/requests",
                    format!("it is {least} to {most}"),
                ));
            }
            if !validate::RATE_WINDOW_MS.contains(&limit.window_ms) {
                errors.push(FieldError::new("/rate_limit/per", "it is from 100ms to 1h"));
            }
        }
        settings.rate_limit = rate_limit;
    }
    if let Some(max_in_flight) = changes.max_in_flight {
        if max_in_flight.is_some_and(|most| !validate::IN_FLIGHT.contains(&most)) {
            let (least, most) = (validate::IN_FLIGHT.start(), validate::IN_FLIGHT.end());
            errors.push(FieldError::new("/max_in_flight", format!("it is {least} to {most}")));
        }
        settings.max_in_flight = max_in_flight;
    }
    if let Some(hold_while_paused) = changes.hold_while_paused {
        settings.hold_while_paused = hold_while_paused;
    }
    if let Some(fail_after) = changes.fail_after {
        if fail_after.is_some_and(|failures| failures > validate::FAIL_AFTER_MAX) {
            let most = validate::FAIL_AFTER_MAX;
            errors.push(FieldError::new(
                "/fail_after",
                format!("it is at most {most}; 0 is never"),
            ));
        }
        settings.fail_after = fail_after;
    }
    if let Some(options) = changes.options {
        note_in_map(errors, "/options", known(&options, rules.profile));
        settings.options = options;
    }
}

fn note_within(errors: &mut Vec<FieldError>, path: &str, checked: Result<(), (String, String)>) {
    if let Err((pointer, reason)) = checked {
        errors.push(FieldError::new(&format!("{path}{pointer}"), reason));
    }
}

/// Refuses options that the profile does not have.
fn known(options: &BTreeMap<String, bool>, profile: &Profile) -> Result<(), (Option<String>, String)> {
    let unknown = |name: &&String| !profile.options.iter().any(|option| option.name == **name);
    let Some(name) = options.keys().find(unknown) else {
        return Ok(());
    };
    let names: Vec<String> = profile
        .options
        .iter()
        .map(|option| format!("`{}`", option.name))
        .collect();
    let there = match names.is_empty() {
        true => format!("the profile `{}` has no options", profile.name),
        false => format!("the profile `{}` has {}", profile.name, names.join(", ")),
    };
    Err((Some(name.clone()), there))
}
