//! A webhook as a revision has it: what its requests were made by.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use store::webhooks::{Authentication, MaybeSealed, NamedValue, Settings, Webhook};

use super::fields::{BodyWord, SignatureBody};
use super::receiver::AuthenticationView;

/// What of a recorded definition its requests depend on.
#[derive(Deserialize)]
struct Then {
    url: String,
    has_secret: bool,
    headers: Vec<ValueThen>,
    /// Releases before there were any have recorded none.
    #[serde(default)]
    variables: Vec<ValueThen>,
    #[serde(default)]
    options: BTreeMap<String, bool>,
    transform: Option<Value>,
    body: Option<BodyWord>,
    signature: Option<SignatureBody>,
    authentication: Option<AuthenticationView>,
}

#[derive(Deserialize)]
struct ValueThen {
    key: String,
    value: Option<String>,
}

/// The webhook as its recorded definition says; what is secret is only known to have been there. A protected variable is
/// the one that is there now, if there is one: whoever shows a body made with it has a hash that says whether it was the
/// same then. `None` where the definition says that it was deleted, or is not one this release can read.
pub(in crate::http) fn recorded(webhook: &Webhook, definition: Value) -> Option<Webhook> {
    let then: Then = serde_json::from_value(definition).ok()?;
    let protected_now = |key: &str| {
        let now = webhook.variables.iter().find(|variable| variable.key == key);
        now.map(|variable| variable.value.clone())
            .filter(|value| matches!(value, MaybeSealed::Sealed(_)))
    };
    Some(Webhook {
        url: then.url,
        sealed_secret: then.has_secret.then(String::new),
        authentication: then.authentication.map(Authentication::from),
        headers: values(then.headers, |_| Some(MaybeSealed::Sealed(String::new()))),
        variables: values(then.variables, protected_now),
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

/// Values as they were; a protected one is what `protected` says, and is left out where that is nothing.
fn values(then: Vec<ValueThen>, protected: impl Fn(&str) -> Option<MaybeSealed>) -> Vec<NamedValue> {
    then.into_iter()
        .filter_map(|then| {
            let value = match then.value {
                Some(value) => MaybeSealed::Plain(value),
                None => protected(&then.key)?,
            };
            Some(NamedValue { key: then.key, value })
        })
        .collect()
}
