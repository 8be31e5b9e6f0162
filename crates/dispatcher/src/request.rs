//! Webhook → what is the same in all its requests: address, headers, secret, and how the body is made. Made once per
//! version of a definition, never per event. What placeholders stand for is the one thing that an event changes in it.

use std::borrow::Cow;
use std::sync::Arc;

use common::crypto::{Context, KeyRing};
use common::egress::{Guard, Refused, Target};
use common::render::{self, Failure, PlaceholderError, Placeholders, Rendered, Renderer, Subject};
use common::sign::{self, Secret};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use proto_schemas::definition::{HeaderValue as Defined, Webhook};
use proto_schemas::event::Event;
use proto_schemas::id::WebhookId;
use secrecy::ExposeSecret as _;

/// Why no request can be made by a definition: our own fault or the operator's, never the receiver's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The url is not one requests may be sent to.
    #[error("the webhook's url is refused")]
    Url(#[from] Refused),
    /// A header's name or value cannot be sent.
    #[error("the webhook's header `{0}` cannot be sent")]
    Header(String),
    /// A sealed value cannot be opened.
    #[error("the webhook's {0} cannot be decrypted with the keys this service has")]
    Sealed(String, #[source] common::crypto::OpenError),
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
    headers: HeaderMap,
    secret: Option<Secret>,
    body_hmac_header: Option<HeaderName>,
    renderer: Renderer,
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

/// What an event changes in its request.
pub struct Addressed<'a> {
    /// Where the request goes.
    pub target: Cow<'a, Target>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Prepared {
    fn of(webhook: &Arc<Webhook>, keys: &KeyRing, guard: &Guard) -> Result<Self, Error> {
        let open = |field: &str, sealed: &str| {
            let context = Context {
                project: webhook.project,
                object: webhook.id.as_uuid(),
                field,
            };
            keys.open(&context, sealed)
                .map_err(|error| Error::Sealed(field.to_owned(), error))
        };
        let mut headers = HeaderMap::with_capacity(webhook.headers.len() + 8);
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        let mut with_placeholders = Vec::new();
        for defined in &webhook.headers {
            let wrong = || Error::Header(defined.name.clone());
            let name = HeaderName::from_bytes(defined.name.as_bytes()).map_err(|_| wrong())?;
            let value = match &defined.value {
                Defined::Plain(value) => HeaderValue::from_str(value).map_err(|_| wrong())?,
                Defined::Sealed(sealed) => {
                    let plain = open(&format!("header:{}", defined.name), sealed)?;
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
        let secret = match &webhook.sealed_secret {
            Some(sealed) => {
                let plain = open("secret", sealed)?;
                Some(Secret::parse(&String::from_utf8_lossy(plain.expose_secret()))?)
            }
            None => None,
        };
        let body_hmac_header = webhook
            .signature
            .body_hmac_header
            .as_ref()
            .map(|name| HeaderName::from_bytes(name.as_bytes()).map_err(|_| Error::Header(name.clone())))
            .transpose()?;
        let target = guard.check(&webhook.url)?;
        Ok(Self {
            renderer: Renderer::compile(&webhook.body)?,
            filled: Filled::of(webhook, &target, guard, with_placeholders)?,
            target,
            webhook: Arc::clone(webhook),
            headers,
            secret,
            body_hmac_header,
        })
    }

    /// The body of every request that delivers the event.
    ///
    /// # Errors
    /// [`Unsendable::Body`]
    pub fn render(&self, event: &Event) -> Result<Rendered, Unsendable> {
        Ok(self.renderer.render(&self.subject(event))?)
    }

    /// What the event puts in place of placeholders; nothing to do for a webhook without.
    ///
    /// # Errors
    /// [`Unsendable`]
    pub fn address(&self, event: &Event) -> Result<Addressed<'_>, Unsendable> {
        let Some(filled) = &self.filled else {
            return Ok(Addressed {
                target: Cow::Borrowed(&self.target),
                headers: Vec::new(),
            });
        };
        let values = filled.placeholders.values(&self.subject(event))?;
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

    fn subject<'a>(&'a self, event: &'a Event) -> Subject<'a> {
        Subject::new(event, &self.webhook.project_name, &self.webhook.options)
    }

    /// The headers of an endpoint check: the webhook's own.
    #[must_use]
    pub fn check_headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    /// The headers of one request, signature included. `timestamp` is the attempt's, in seconds since 1970.
    ///
    /// # Errors
    /// [`Error::Header`] where the event has something in it that no header can hold; intake lets none through.
    pub fn headers(
        &self,
        event: &Event,
        addressed: &Addressed<'_>,
        rendered: &Rendered,
        timestamp: i64,
    ) -> Result<HeaderMap, Error> {
        let value =
            |name: &HeaderName, text: &str| HeaderValue::from_str(text).map_err(|_| Error::Header(name.to_string()));
        let mut headers = self.headers.clone();
        headers.extend(addressed.headers.iter().cloned());
        if !headers.contains_key(header::CONTENT_TYPE) {
            headers.insert(
                header::CONTENT_TYPE,
                value(&header::CONTENT_TYPE, &rendered.content_type)?,
            );
        }
        if !event.traceparent.is_empty() {
            headers.insert(TRACEPARENT, value(&TRACEPARENT, &event.traceparent)?);
        }
        if self.webhook.signature.standard_webhooks {
            headers.insert(WEBHOOK_ID, value(&WEBHOOK_ID, &event.id)?);
            headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(timestamp));
            if let Some(secret) = &self.secret {
                let signature = sign::standard_webhooks(&event.id, timestamp, &rendered.body, [secret]);
                headers.insert(WEBHOOK_SIGNATURE, value(&WEBHOOK_SIGNATURE, &signature)?);
            }
        }
        if let (Some(name), Some(secret)) = (&self.body_hmac_header, &self.secret) {
            headers.insert(name.clone(), value(name, &sign::body_hmac(&rendered.body, secret))?);
        }
        Ok(headers)
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

/// Prepared webhooks, each made again when its definition has changed.
pub struct Requests {
    keys: KeyRing,
    guard: Guard,
    prepared: papaya::HashMap<WebhookId, Arc<Prepared>>,
}

impl Requests {
    /// None prepared yet.
    #[must_use]
    pub fn new(keys: KeyRing, guard: Guard) -> Self {
        Self {
            keys,
            guard,
            prepared: papaya::HashMap::new(),
        }
    }

    /// The webhook, ready for requests.
    ///
    /// # Errors
    /// [`Error`]
    pub fn prepare(&self, webhook: &Arc<Webhook>) -> Result<Arc<Prepared>, Error> {
        let prepared = self.prepared.pin();
        if let Some(found) = prepared.get(&webhook.id)
            && Arc::ptr_eq(&found.webhook, webhook)
        {
            return Ok(Arc::clone(found));
        }
        let made = Arc::new(Prepared::of(webhook, &self.keys, &self.guard)?);
        prepared.insert(webhook.id, Arc::clone(&made));
        Ok(made)
    }

    /// The same of a definition that may never be seen again.
    ///
    /// # Errors
    /// [`Error`]
    pub fn prepare_once(&self, webhook: &Arc<Webhook>) -> Result<Arc<Prepared>, Error> {
        Prepared::of(webhook, &self.keys, &self.guard).map(Arc::new)
    }
}
