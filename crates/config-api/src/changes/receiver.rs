//! How a webhook's receiver knows who asks it, and how it is known: TLS and authentication.

use common::crypto::Context;
use common::egress::{Tls, TlsError};
use common::http::FieldError;
use http::header;
use proto_schemas::definition::{SEALED_CLIENT_KEY, SEALED_CLIENT_SECRET, SEALED_PASSWORD};
use secrecy::ExposeSecret as _;
use store::webhooks::{self, ClientCertificate, Webhook};

use super::{Rules, note, seal};
use crate::validate;

/// What TLS sessions are to be made with, in place of all that was said of it.
#[derive(Debug, Clone, Default)]
pub struct TlsChange {
    /// Certificates of further authorities, in PEM.
    pub ca: Option<String>,
    /// A certificate to show and those between it and its authority, in PEM.
    pub client_certificate: Option<String>,
    /// Its private key in PEM; `None` keeps the stored one.
    pub client_key: Option<String>,
}

/// How requests are to say who they come from, in place of all that was said of it. Where what is secret is `None`, the
/// stored one is kept, if it is of the same kind and goes where it went before.
#[derive(Debug, Clone)]
pub enum AuthenticationChange {
    /// HTTP Basic.
    Basic {
        /// The user's name.
        username: String,
        /// The password.
        password: Option<String>,
    },
    /// An access token by OAuth 2.0 client credentials.
    ClientCredentials {
        /// Where access tokens are given out.
        token_url: String,
        /// Who asks for them.
        client_id: String,
        /// What proves that.
        client_secret: Option<String>,
        /// What they are to be good for.
        scope: Option<String>,
    },
}

/// Applies what the changes say of TLS.
pub(super) fn apply_tls(
    change: Option<TlsChange>,
    webhook: &mut Webhook,
    rules: &Rules<'_>,
    errors: &mut Vec<FieldError>,
) {
    let stored = webhook.tls.take().and_then(|tls| tls.client_certificate);
    let Some(change) = change else { return };
    let before = errors.len();
    for (field, pem) in [
        ("/tls/ca", &change.ca),
        ("/tls/client_certificate", &change.client_certificate),
        ("/tls/client_key", &change.client_key),
    ] {
        if let Some(pem) = pem {
            note(errors, field, validate::pem(pem));
        }
    }
    let sealed_key = match (&change.client_certificate, &change.client_key) {
        (None, None) => None,
        (None, Some(_)) => {
            let reason = "a key is of no use without its certificate; give both";
            errors.push(FieldError::new("/tls/client_certificate", reason));
            None
        }
        (Some(_), Some(key)) => Some(seal(rules.keys, webhook, SEALED_CLIENT_KEY, key)),
        (Some(_), None) => {
            if stored.is_none() {
                let reason = "give the key of the certificate: none is stored";
                errors.push(FieldError::new("/tls/client_key", reason));
            }
            stored.map(|own| own.sealed_key)
        }
    };
    if errors.len() > before {
        return;
    }
    check_tls(&change, sealed_key.as_deref(), webhook, rules, errors);
    let client_certificate = change.client_certificate.zip(sealed_key);
    let tls = webhooks::Tls {
        ca: change.ca,
        client_certificate: client_certificate.map(|(chain, sealed_key)| ClientCertificate { chain, sealed_key }),
    };
    webhook.tls = (tls != webhooks::Tls::default()).then_some(tls);
}

/// Refuses what no session could be made with.
fn check_tls(
    change: &TlsChange,
    sealed_key: Option<&str>,
    webhook: &Webhook,
    rules: &Rules<'_>,
    errors: &mut Vec<FieldError>,
) {
    let context = Context {
        project: webhook.project,
        object: webhook.id.as_uuid(),
        field: SEALED_CLIENT_KEY,
    };
    let Ok(key) = sealed_key.map(|sealed| rules.keys.open(&context, sealed)).transpose() else {
        let reason = "give the key anew: the stored one cannot be read any more";
        return errors.push(FieldError::new("/tls/client_key", reason));
    };
    let own = change
        .client_certificate
        .as_deref()
        .zip(key.as_ref().map(|key| key.expose_secret()));
    match Tls::read(change.ca.as_deref(), own) {
        Ok(tls) if tls.has_expired(rules.now) => {
            errors.push(FieldError::new("/tls/client_certificate", "it has expired"));
        }
        Ok(_) => {}
        Err(error) => {
            let field = match error {
                TlsError::Ca(_) => "/tls/ca",
                TlsError::Certificate(_) => "/tls/client_certificate",
                TlsError::Key(_) => "/tls/client_key",
            };
            errors.push(FieldError::new(field, error.reason()));
        }
    }
}

/// What proves who asks, as a change has it.
struct Secret {
    field: &'static str,
    sealed_for: &'static str,
    given: Option<String>,
    /// The stored one, sealed, or why it cannot stand in for one that is not given.
    stored: Result<String, &'static str>,
}

impl Secret {
    /// What to store.
    fn sealed(self, webhook: &Webhook, rules: &Rules<'_>, errors: &mut Vec<FieldError>) -> String {
        let Some(given) = self.given else {
            return self.stored.unwrap_or_else(|reason| {
                errors.push(FieldError::new(self.field, reason));
                String::new()
            });
        };
        note(errors, self.field, validate::credential(&given));
        seal(rules.keys, webhook, self.sealed_for, &given)
    }
}

/// Applies what the changes say of authentication.
pub(super) fn apply_authentication(
    change: Option<AuthenticationChange>,
    webhook: &mut Webhook,
    rules: &Rules<'_>,
    errors: &mut Vec<FieldError>,
) {
    let stored = webhook.authentication.take();
    webhook.authentication = match change {
        None => None,
        Some(AuthenticationChange::Basic { username, password }) => {
            let stored = match stored {
                Some(webhooks::Authentication::Basic { sealed_password, .. }) => Some(sealed_password),
                _ => None,
            };
            let secret = Secret {
                field: "/authentication/password",
                sealed_for: SEALED_PASSWORD,
                given: password,
                stored: stored.ok_or("give it: none is stored"),
            };
            let sealed_password = secret.sealed(webhook, rules, errors);
            note(errors, "/authentication/username", validate::username(&username));
            Some(webhooks::Authentication::Basic {
                username,
                sealed_password,
            })
        }
        Some(AuthenticationChange::ClientCredentials {
            token_url,
            client_id,
            client_secret,
            scope,
        }) => {
            let token_url = match rules.guard.check(&token_url) {
                Ok(target) => target.as_str().to_owned(),
                Err(refused) => {
                    errors.push(FieldError::new("/authentication/token_url", refused.to_string()));
                    token_url
                }
            };
            let stored = match stored {
                Some(webhooks::Authentication::ClientCredentials {
                    token_url: before,
                    sealed_client_secret,
                    ..
                }) => match before == token_url {
                    true => Ok(sealed_client_secret),
                    // Whoever may write the webhook need not know the secret, and would have it sent to them.
                    false => Err("give it anew: the stored one is for another `token_url`"),
                },
                _ => Err("give it: none is stored"),
            };
            let secret = Secret {
                field: "/authentication/client_secret",
                sealed_for: SEALED_CLIENT_SECRET,
                given: client_secret,
                stored,
            };
            let sealed_client_secret = secret.sealed(webhook, rules, errors);
            note(errors, "/authentication/client_id", validate::client_id(&client_id));
            if let Some(scope) = &scope {
                note(errors, "/authentication/scope", validate::scope(scope));
            }
            Some(webhooks::Authentication::ClientCredentials {
                token_url,
                client_id,
                sealed_client_secret,
                scope,
            })
        }
    };
}

/// Refuses a header of the webhook's own that its authentication is to set. `given`: whether the change is of the headers.
pub(super) fn check_header(webhook: &Webhook, given: bool, errors: &mut Vec<FieldError>) {
    if webhook.authentication.is_none() {
        return;
    }
    let mut headers = webhook.headers.iter();
    let Some(index) = headers.position(|own| own.key.eq_ignore_ascii_case(header::AUTHORIZATION.as_str())) else {
        return;
    };
    errors.push(match given {
        true => FieldError::new(
            &format!("/headers/{index}/key"),
            "the webhook's `authentication` sets this header; leave one of the two out",
        ),
        false => FieldError::new(
            "/authentication",
            "the webhook has a header `Authorization` of its own; take that away first",
        ),
    });
}
