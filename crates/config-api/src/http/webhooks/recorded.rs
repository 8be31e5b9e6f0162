//! A webhook as a revision has it: what its requests were made by.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use store::webhooks::{Authentication, Header, HeaderValue, Settings, Webhook};

use super::fields::{BodyWord, SignatureBody};
use super::receiver::AuthenticationView;

/// What of a recorded definition its requests depend on.
#[derive(Deserialize)]
struct Then {
    url: String,
    has_secret: bool,
    headers: Vec<HeaderThen>,
    #[serde(default)]
    options: BTreeMap<String, bool>,
    transform: Option<Value>,
    body: Option<BodyWord>,
    signature: Option<SignatureBody>,
    authentication: Option<AuthenticationView>,
}

#[derive(Deserialize)]
struct HeaderThen {
    key: String,
    value: Option<String>,
}

/// The webhook as its recorded definition says; what is secret is only known to have been there. `None` where the
/// definition says that it was deleted, or is not one this release can read.
pub(in crate::http) fn recorded(webhook: &Webhook, definition: Value) -> Option<Webhook> {
    let then: Then = serde_json::from_value(definition).ok()?;
    Some(Webhook {
        url: then.url,
        sealed_secret: then.has_secret.then(String::new),
        headers: then
            .headers
            .into_iter()
            .map(|header| Header {
                key: header.key,
                value: header
                    .value
                    .map_or_else(|| HeaderValue::Sealed(String::new()), HeaderValue::Plain),
            })
            .collect(),
        authentication: then.authentication.map(Authentication::from),
        settings: Settings {
            options: then.options,
            transform: then.transform,
            body: then.body.map(Into::into),
            signature: then.signature.map(Into::into),
            ..webhook.settings.clone()
        },
        ..webhook.clone()
    })
}
