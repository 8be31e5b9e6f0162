//! Webhook → what is the same in all its requests: address, headers, secret, and how the body is made. Made once per
//! version of a definition, never per event. What placeholders stand for is the one thing that an event changes in it.
//!
//! dispatcher sends what is made here, and config-api shows it beforehand, with a mask for what is protected.

mod variables;

mod authentication;

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;
use proto_schemas::definition::{
    Authentication, MaybeSealed, SEALED_CLIENT_KEY, SEALED_CLIENT_SECRET, SEALED_PASSWORD, Webhook, sealed_header,
};
use proto_schemas::event::Event;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};

pub use self::authentication::{ClientCredentials, bearer, hidden};
pub use self::variables::Opened;
use crate::crypto::{Context, KeyRing};
use crate::egress::{Guard, Refused, Target, Tls, TlsError};
use crate::render::{self, Failure, Missing, PlaceholderError, Placeholders, Rendered, Renderer, Subject, Variables};
use crate::sign::{self, Key};

/// Why no request can be made by a definition: our own fault or the operator's, never the receiver's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The url is not one requests may be sent to.
    #[error("the webhook's url is refused")]
    Url(#[from] Refused),
    /// The url that access tokens are had from is not one requests may be sent to.
    #[error("the webhook's token_url is refused")]
    TokenUrl(#[source] Refused),
    /// What its TLS sessions are to be made with cannot be used.
    #[error("the webhook's TLS settings cannot be used")]
    Tls(#[from] TlsError),
    /// A header's name or value cannot be sent.
    #[error("the webhook's header `{0}` cannot be sent")]
    Header(String),
    /// A sealed value cannot be opened.
    #[error("the webhook's {0} cannot be decrypted with the keys this service has")]
    Sealed(String, #[source] crate::crypto::OpenError),
    /// The secret is none.
    #[error("the webhook's signing secret cannot be used")]
    Secret(#[from] sign::Error),
    /// The template is none.
    #[error("the webhook's body cannot be made")]
    Body(#[from] render::Error),
    /// A placeholder's expression is none.
    #[error("the webhook's placeholder `{0}` cannot be worked out: {1}")]
    Placeholder(String, String),
}

/// Why an event cannot be sent by a definition that is in order. Another attempt would come to the same.
#[derive(Debug, thiserror::Error)]
pub enum Unsendable {
    /// The template reached a limit.
    #[error("the body could not be made: {0}")]
    Body(#[from] Failure),
    /// A placeholder's value has no place in the request.
    #[error("the request could not be made: {0}")]
    Placeholder(#[from] PlaceholderError),
    /// With the event's values the url is not one requests may be sent to.
    #[error("the url with its placeholders filled in is refused: {0}")]
    Url(Refused),
    /// With the event's values the url leads elsewhere. The placeholders' own rules keep that from happening.
    #[error("the url with its placeholders filled in leads to another host")]
    Host,
}

/// A webhook, ready for requests.
pub struct Prepared {
    /// The definition it was made of.
    pub webhook: Arc<Webhook>,
    /// Where requests go.
    pub target: Target,
    /// What its TLS sessions are made with, beside what is the operator's.
    pub tls: Option<Tls>,
    /// What the access token is had with that its requests are to hold, if they are.
    pub client_credentials: Option<ClientCredentials>,
    headers: HeaderMap,
    /// What signs, the current one first, and until when.
    keys: Vec<(Key, Option<Timestamp>)>,
    body_hmac_header: Option<HeaderName>,
    renderer: Renderer,
    variables: Opened,
    filled: Option<Filled>,
}

/// What has placeholders in it.
struct Filled {
    placeholders: Placeholders,
    guard: Guard,
    in_url: bool,
    /// Name, value and whether it is protected.
    headers: Vec<(HeaderName, String, bool)>,
}

/// What may be shown of an event's request: protected variables are masked.
pub struct Shown<'a> {
    /// The body.
    pub rendered: Rendered,
    /// What a template looked for and did not find.
    pub missing: Vec<Missing>,
    /// What the event changes.
    pub addressed: Addressed<'a>,
}

/// What an event changes in its request.
pub struct Addressed<'a> {
    /// Where the request goes.
    pub target: Cow<'a, Target>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Prepared {
    /// Makes the webhook ready.
    ///
    /// # Errors
    /// [`Error`]
    pub fn of(webhook: &Arc<Webhook>, keys: &KeyRing, guard: &Guard) -> Result<Self, Error> {
        let mut headers = HeaderMap::with_capacity(webhook.headers.len() + 8);
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        let mut with_placeholders = Vec::new();
        for defined in &webhook.headers {
            let wrong = || Error::Header(defined.name.clone());
            let name = HeaderName::from_bytes(defined.name.as_bytes()).map_err(|_| wrong())?;
            let value = match &defined.value {
                MaybeSealed::Plain(value) => HeaderValue::from_str(value).map_err(|_| wrong())?,
                MaybeSealed::Sealed(sealed) => {
                    let plain = open(webhook, keys, &sealed_header(&defined.name), sealed)?;
                    let mut value = HeaderValue::from_bytes(plain.expose_secret()).map_err(|_| wrong())?;
                    value.set_sensitive(true);
                    value
                }
            };
            if let Ok(text) = value.to_str()
                && Placeholders::occur(&webhook.placeholders, text)
            {
                with_placeholders.push((name, text.to_owned(), value.is_sensitive()));
                continue;
            }
            headers.insert(name, value);
        }
        let tls = tls(webhook, keys)?;
        let client_credentials = authenticate(webhook, guard, keys, &mut headers)?;
        let mut signing = Vec::new();
        for secret in webhook.signing_secrets().iter() {
            let plain = open(webhook, keys, &secret.id.sealed_for(), &secret.sealed)?;
            let key = Key::of_kind(secret.kind, &String::from_utf8_lossy(plain.expose_secret()))?;
            signing.push((key, secret.expires_at));
        }
        let body_hmac_header = webhook
            .signature
            .body_hmac_header
            .as_ref()
            .map(|name| HeaderName::from_bytes(name.as_bytes()).map_err(|_| Error::Header(name.clone())))
            .transpose()?;
        let target = guard.check(&webhook.url)?;
        Ok(Self {
            renderer: Renderer::compile(&webhook.body)?,
            variables: Opened::of(webhook, keys)?,
            filled: Filled::of(webhook, &target, guard, with_placeholders)?,
            target,
            tls,
            client_credentials,
            webhook: Arc::clone(webhook),
            headers,
            keys: signing,
            body_hmac_header,
        })
    }

    /// The body of every request that delivers the event.
    ///
    /// # Errors
    /// [`Unsendable::Body`]
    pub fn render(&self, event: &Event) -> Result<Rendered, Unsendable> {
        Ok(self.renderer.render(&self.subject(event, self.variables.real()))?)
    }

    /// What may be shown of the request that delivers the event.
    ///
    /// # Errors
    /// [`Unsendable`]
    pub fn show(&self, event: &Event) -> Result<Shown<'_>, Unsendable> {
        let (rendered, missing) = self.renderer.preview(&self.subject(event, self.variables.shown()))?;
        Ok(Shown {
            rendered,
            missing,
            addressed: self.address_with(event, self.variables.shown())?,
        })
    }

    /// Whether something is masked in what [`Self::show`] shows, or may be.
    #[must_use]
    pub const fn hides_variables(&self) -> bool {
        self.variables.real().has_secrets()
    }

    /// The values of variables that are protected.
    #[must_use]
    pub fn protected_variables(&self) -> &[SecretString] {
        self.variables.protected()
    }

    /// What the event puts in place of placeholders; nothing to do for a webhook without.
    ///
    /// # Errors
    /// [`Unsendable`]
    pub fn address(&self, event: &Event) -> Result<Addressed<'_>, Unsendable> {
        self.address_with(event, self.variables.real())
    }

    fn address_with(&self, event: &Event, variables: &Variables) -> Result<Addressed<'_>, Unsendable> {
        let Some(filled) = &self.filled else {
            return Ok(Addressed {
                target: Cow::Borrowed(&self.target),
                headers: Vec::new(),
            });
        };
        let values = filled.placeholders.values(&self.subject(event, variables))?;
        let target = match filled.in_url {
            false => Cow::Borrowed(&self.target),
            true => {
                let url = values.url(self.target.as_str())?;
                let target = filled.guard.check(&url).map_err(Unsendable::Url)?;
                match same_origin(&target, &self.target) {
                    true => Cow::Owned(target),
                    false => return Err(Unsendable::Host),
                }
            }
        };
        let mut headers = Vec::with_capacity(filled.headers.len());
        for (name, text, protected) in &filled.headers {
            let illegal = |_| PlaceholderError::Header(name.to_string());
            let mut value = HeaderValue::from_str(&values.header(text)?).map_err(illegal)?;
            value.set_sensitive(*protected);
            headers.push((name.clone(), value));
        }
        Ok(Addressed { target, headers })
    }

    fn subject<'a>(&'a self, event: &'a Event, variables: &'a Variables) -> Subject<'a> {
        Subject::new(event, &self.webhook.project_name, &self.webhook.options).with(variables)
    }

    /// The headers of an endpoint check: the webhook's own. The access token is missing, if it is to have one.
    #[must_use]
    pub fn check_headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    /// The names of the headers that hold signatures.
    pub fn signature_headers(&self) -> impl Iterator<Item = HeaderName> {
        std::iter::once(WEBHOOK_SIGNATURE).chain(self.body_hmac_header.clone())
    }

    /// The headers of one request, made at `now`, signature included; the access token is missing, if it is to have one.
    /// Every secret that is live then signs; a header with
    /// the body's HMAC has room for one, and holds the current one's.
    ///
    /// # Errors
    /// [`Error::Header`] where the event has something in it that no header can hold; intake lets none through.
    pub fn headers(
        &self,
        event: &Event,
        addressed: &Addressed<'_>,
        rendered: &Rendered,
        now: Timestamp,
    ) -> Result<HeaderMap, Error> {
        let value =
            |name: &HeaderName, text: &str| HeaderValue::from_str(text).map_err(|_| Error::Header(name.to_string()));
        let mut headers = self.headers.clone();
        // Not `extend`, which would leave the default beside it.
        for (name, value) in &addressed.headers {
            headers.insert(name, value.clone());
        }
        if !headers.contains_key(header::CONTENT_TYPE) {
            headers.insert(
                header::CONTENT_TYPE,
                value(&header::CONTENT_TYPE, &rendered.content_type)?,
            );
        }
        if !event.traceparent.is_empty() {
            headers.insert(TRACEPARENT, value(&TRACEPARENT, &event.traceparent)?);
        }
        let live = || {
            let live = |expires_at: &Option<Timestamp>| expires_at.is_none_or(|expiry| now < expiry);
            self.keys
                .iter()
                .filter_map(move |(key, expires_at)| live(expires_at).then_some(key))
        };
        if self.webhook.signature.standard_webhooks {
            headers.insert(WEBHOOK_ID, value(&WEBHOOK_ID, &event.id)?);
            headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(now.as_second()));
            let signature = sign::standard_webhooks(&event.id, now.as_second(), &rendered.body, live());
            if !signature.is_empty() {
                headers.insert(WEBHOOK_SIGNATURE, secretly(value(&WEBHOOK_SIGNATURE, &signature)?));
            }
        }
        let shared = live().find_map(|key| match key {
            Key::V1(secret) => Some(secret),
            Key::V1a(_) => None,
        });
        if let (Some(name), Some(secret)) = (&self.body_hmac_header, shared) {
            let signature = sign::body_hmac(&rendered.body, secret);
            headers.insert(name.clone(), secretly(value(name, &signature)?));
        }
        Ok(headers)
    }
}

fn tls(webhook: &Webhook, keys: &KeyRing) -> Result<Option<Tls>, Error> {
    let Some(tls) = &webhook.tls else {
        return Ok(None);
    };
    let own = match &tls.client_certificate {
        Some(own) => Some((
            own.chain.as_str(),
            open(webhook, keys, SEALED_CLIENT_KEY, &own.sealed_key)?,
        )),
        None => None,
    };
    let own = own.as_ref().map(|(chain, key)| (*chain, key.expose_secret()));
    Ok(Some(Tls::read(tls.ca.as_deref(), own)?))
}

/// Adds the header that says who asks, or makes ready what it is had with.
fn authenticate(
    webhook: &Webhook,
    guard: &Guard,
    keys: &KeyRing,
    headers: &mut HeaderMap,
) -> Result<Option<ClientCredentials>, Error> {
    match &webhook.authentication {
        None => Ok(None),
        Some(Authentication::Basic {
            username,
            sealed_password,
        }) => {
            let password = open(webhook, keys, SEALED_PASSWORD, sealed_password)?;
            let value = authentication::basic(username, password.expose_secret())?;
            headers.insert(header::AUTHORIZATION, value);
            Ok(None)
        }
        Some(Authentication::ClientCredentials {
            token_url,
            client_id,
            sealed_client_secret,
            scope,
        }) => {
            let secret = open(webhook, keys, SEALED_CLIENT_SECRET, sealed_client_secret)?;
            let target = guard.check(token_url).map_err(Error::TokenUrl)?;
            ClientCredentials::new(target, client_id, secret.expose_secret(), scope.as_deref()).map(Some)
        }
    }
}

impl Filled {
    /// `None` where no placeholder is used.
    fn of(
        webhook: &Webhook,
        target: &Target,
        guard: &Guard,
        headers: Vec<(HeaderName, String, bool)>,
    ) -> Result<Option<Self>, Error> {
        let in_url = Placeholders::occur(&webhook.placeholders, target.as_str());
        if !in_url && headers.is_empty() {
            return Ok(None);
        }
        let wrong = |name: String, reason: String| Error::Placeholder(name, reason);
        if let Err(error) = Placeholders::check_url(&webhook.placeholders, target.as_str()) {
            return Err(wrong("in the url".to_owned(), error.to_string()));
        }
        let placeholders =
            Placeholders::compile(&webhook.placeholders).map_err(|(name, fault)| wrong(name, fault.reason))?;
        Ok(Some(Self {
            placeholders,
            guard: guard.clone(),
            in_url,
            headers,
        }))
    }
}

/// Opens a sealed value of the webhook.
fn open(webhook: &Webhook, keys: &KeyRing, field: &str, sealed: &str) -> Result<SecretSlice<u8>, Error> {
    let context = Context {
        project: webhook.project,
        object: webhook.id.as_uuid(),
        field,
    };
    keys.open(&context, sealed)
        .map_err(|error| Error::Sealed(field.to_owned(), error))
}

/// A signature is as good as what it signs: the log shows that there was one.
fn secretly(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

fn same_origin(a: &Target, b: &Target) -> bool {
    a.url().origin() == b.url().origin()
}

/// Standard Webhooks 1.0.0, "Webhook headers".
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// Marks the request of a test; no header of a webhook's own begins like this.
pub const TEST: HeaderName = HeaderName::from_static("posthaste-test");
/// Marks the request of a replay: its number. No header of a webhook's own begins like this.
pub const REPLAY: HeaderName = HeaderName::from_static("posthaste-replay");
/// W3C Trace Context §3.2.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const USER_AGENT: &str = concat!("Posthaste/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests;
