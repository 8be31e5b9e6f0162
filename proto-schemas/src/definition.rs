//! Definitions, as config-api publishes them and ingest and dispatcher hold them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use prost::Message as _;

use crate::event::instant;
use crate::id::{ProjectId, WebhookId};
use crate::ledger::millis;
use crate::{DecodeError, VERSION, check_version, wire};

mod event_type;
mod named_value;
mod ordering;
mod receiver;
mod secret;

pub use self::event_type::{EventType, EventTypeVersion};
pub use self::named_value::{MaybeSealed, NamedValue, sealed_header, sealed_variable};
pub use self::ordering::{Ordering, RateLimit};
pub use self::receiver::{
    Authentication, ClientCertificate, SEALED_CLIENT_KEY, SEALED_CLIENT_SECRET, SEALED_PASSWORD, Tls,
};
pub use self::secret::{SEALED_SECRET, Secret, SecretKind};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Identity.
    pub id: ProjectId,
    /// Its name in paths and subjects.
    pub name: String,
    /// Gone; kept so that a late message is refused for the right reason.
    pub deleted: bool,
    /// What is done with an event that its type's schema refuses.
    pub schema_check: SchemaCheck,
    /// The catalogue whose event types are this project's.
    pub catalogue: Option<String>,
    /// Attributes of an event that its producer did not give: name and expression over the event.
    pub event_attributes: Vec<Expression>,
}

/// What is done with an event that its type's schema refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SchemaCheck {
    /// Schemas are not looked at.
    #[default]
    Off,
    /// It is accepted; what is wrong is kept with the event.
    Warn,
    /// It is refused.
    Reject,
}

impl SchemaCheck {
    /// The word in tables and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Warn => "warn",
            Self::Reject => "reject",
        }
    }

    // Off is what nothing said means, so no `wire_enum`.
    const fn to_wire(self) -> wire::SchemaCheck {
        match self {
            Self::Off => wire::SchemaCheck::Unspecified,
            Self::Warn => wire::SchemaCheck::Warn,
            Self::Reject => wire::SchemaCheck::Reject,
        }
    }

    fn from_wire(value: i32) -> Result<Self, DecodeError> {
        match wire::SchemaCheck::try_from(value) {
            Ok(wire::SchemaCheck::Unspecified) => Ok(Self::Off),
            Ok(wire::SchemaCheck::Warn) => Ok(Self::Warn),
            Ok(wire::SchemaCheck::Reject) => Ok(Self::Reject),
            Err(_) => Err(DecodeError::Invalid {
                field: "schema_check",
                found: value.to_string(),
            }),
        }
    }
}

/// A name and the template expression it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    /// What it is known by: an attribute's name, or the text of a placeholder.
    pub name: String,
    /// The expression, without braces.
    pub expression: String,
}

impl Expression {
    fn to_wire(&self) -> wire::Expression {
        wire::Expression {
            name: self.name.clone(),
            expression: self.expression.clone(),
        }
    }
}

impl From<wire::Expression> for Expression {
    fn from(wire: wire::Expression) -> Self {
        Self {
            name: wire.name,
            expression: wire.expression,
        }
    }
}

/// What a bearer of the token may do. The bucket's key is the token's SHA-256; the token itself is nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The one project it is good for; `None` for every project.
    pub project: Option<ProjectId>,
    /// What it allows.
    pub scopes: Vec<String>,
    /// From when on it is refused, if ever.
    pub expires_at: Option<Timestamp>,
    /// Refused from now on.
    pub revoked: bool,
}

/// A webhook as it applies: profile, webhook and defaults already resolved into one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Identity.
    pub id: WebhookId,
    /// Its project.
    pub project: ProjectId,
    /// Its project's name.
    pub project_name: String,
    /// Its name.
    pub name: String,
    /// Counts the versions of the definition, from 1.
    pub revision: u64,
    /// Gone; kept so that late deliveries end with the right reason.
    pub deleted: bool,
    /// Whether it gets events.
    pub state: WebhookState,
    /// Where requests go, as it was normalised when it was saved.
    pub url: String,
    /// Event type patterns.
    pub events: Vec<String>,
    /// Headers of its own; their names in lower case.
    pub headers: Vec<NamedValue>,
    /// What its template and its placeholders' expressions find under `variables`.
    pub variables: Vec<NamedValue>,
    /// The first of the secrets of kind v1 once more, sealed as releases before `secrets` have it. Read
    /// [`signing_secrets`](Self::signing_secrets) instead.
    pub sealed_secret: Option<String>,
    /// What requests are signed with, the current one first. Some may have expired.
    pub secrets: Vec<Secret>,
    /// Total time of one request, response included.
    pub timeout: Duration,
    /// Delays before each attempt; one entry is one attempt, so it is never empty.
    pub ladder: Vec<Duration>,
    /// How the body is made.
    pub body: Body,
    /// How the request is signed.
    pub signature: Signature,
    /// Whether a 3xx answer counts as delivered.
    pub redirect_is_success: bool,
    /// An event is wanted only if it has each of these attributes with this value.
    pub attributes: BTreeMap<String, String>,
    /// A filter on the event, as JSON text.
    pub filter: Option<String>,
    /// Texts that stand in url and headers for what their expressions give for the event.
    pub placeholders: Vec<Expression>,
    /// The profile's options that are on.
    pub options: Vec<String>,
    /// Requests under way at once; `None`: the dispatcher's default.
    pub max_in_flight: Option<u32>,
    /// How many requests may begin in a window of time; `None`: as many as the lane takes.
    pub rate_limit: Option<RateLimit>,
    /// While paused, deliveries are kept rather than skipped.
    pub hold_while_paused: bool,
    /// Failed attempts in a row after which the webhook has failed; `None`: never.
    pub fail_after: Option<u32>,
    /// Which deliveries wait for which.
    pub ordering: Ordering,
    /// How many held deliveries may be released in a window of time once it is active again; `None`: as its lane drains.
    pub drain_rate: Option<RateLimit>,
    /// What its TLS sessions are made with, beside what the operator's are; `None`: nothing.
    pub tls: Option<Tls>,
    /// How its requests say who they come from; `None`: by their signature alone.
    pub authentication: Option<Authentication>,
}

/// Who moves a webhook: the user creates it active, or pending where its URL is checked first (the check activates it);
/// the user pauses and resumes it; deliveries fail or disable it, the user restarts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookState {
    /// Its URL has not been checked.
    Pending,
    /// Gets events.
    Active,
    /// The user has paused it.
    Paused,
    /// Too many failures in a row.
    Failed,
    /// The receiver said it is gone.
    Disabled,
}

impl WebhookState {
    /// The word in tables and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Failed => "failed",
            Self::Disabled => "disabled",
        }
    }
}

/// How a request's body is made from the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// An object with these members, in this order.
    Envelope(Vec<(String, EnvelopeSource)>),
    /// The payload, with `type` put in front where it is an object without one.
    Flat,
    /// The payload as it came.
    Raw,
    /// JSON text whose strings are template expressions.
    Template(String),
    /// The payload as Base64 text.
    Base64,
    /// A CloudEvents 1.0 document in JSON (structured mode).
    CloudEvents,
}

/// Where an envelope's member comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvelopeSource {
    /// The event's id.
    EventId,
    /// The event's type.
    EventType,
    /// When it happened.
    Timestamp,
    /// The project's name.
    ProjectName,
    /// The payload.
    Data,
}

/// How requests are signed; both may be on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signature {
    /// `webhook-id`, `webhook-timestamp`, `webhook-signature` (Standard Webhooks 1.0.0).
    pub standard_webhooks: bool,
    /// A header that holds `sha256=<hex HMAC-SHA256 of the body>`.
    pub body_hmac_header: Option<String>,
}

impl Project {
    /// The definition's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::ProjectDefinition {
            version: VERSION,
            project_id: self.id.to_wire(),
            name: self.name.clone(),
            deleted: self.deleted,
            schema_check: self.schema_check.to_wire().into(),
            catalogue: self.catalogue.clone().unwrap_or_default(),
            event_attributes: self.event_attributes.iter().map(Expression::to_wire).collect(),
        }
        .encode_to_vec()
    }

    /// Reads a definition.
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are not a definition this release can act on.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let wire = wire::ProjectDefinition::decode(bytes)?;
        check_version(wire.version)?;
        Ok(Self {
            id: ProjectId::from_wire("project_id", &wire.project_id)?,
            name: wire.name,
            deleted: wire.deleted,
            schema_check: SchemaCheck::from_wire(wire.schema_check)?,
            catalogue: text(wire.catalogue),
            event_attributes: wire.event_attributes.into_iter().map(Expression::from).collect(),
        })
    }
}

/// A text that says nothing when it is empty.
fn text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl Token {
    /// The definition's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::TokenDefinition {
            version: VERSION,
            project_id: self.project.map(ProjectId::to_wire).unwrap_or_default(),
            scopes: self.scopes.clone(),
            expires_at_us: self.expires_at.map_or(0, Timestamp::as_microsecond),
            revoked: self.revoked,
        }
        .encode_to_vec()
    }

    /// Reads a definition.
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are not a definition this release can act on.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let wire = wire::TokenDefinition::decode(bytes)?;
        check_version(wire.version)?;
        Ok(Self {
            project: match wire.project_id.is_empty() {
                true => None,
                false => Some(ProjectId::from_wire("project_id", &wire.project_id)?),
            },
            scopes: wire.scopes,
            expires_at: match wire.expires_at_us {
                0 => None,
                micros => Some(instant("expires_at_us", micros)?),
            },
            revoked: wire.revoked,
        })
    }
}

impl Webhook {
    /// The same with nothing secret in it: no secrets, and nothing in place of what is sealed.
    #[must_use]
    pub fn without_secrets(mut self) -> Self {
        self.sealed_secret = None;
        self.secrets.clear();
        for value in self.headers.iter_mut().chain(&mut self.variables) {
            if let MaybeSealed::Sealed(sealed) = &mut value.value {
                sealed.clear();
            }
        }
        if let Some(own) = self.tls.as_mut().and_then(|tls| tls.client_certificate.as_mut()) {
            own.sealed_key.clear();
        }
        match &mut self.authentication {
            Some(Authentication::Basic { sealed_password, .. }) => sealed_password.clear(),
            Some(Authentication::ClientCredentials {
                sealed_client_secret, ..
            }) => sealed_client_secret.clear(),
            None => {}
        }
        self
    }

    /// An active webhook that says nothing but who it is: every event, unsigned, as it came, in one attempt.
    #[must_use]
    pub fn blank(id: WebhookId, project: ProjectId) -> Self {
        Self {
            id,
            project,
            project_name: String::new(),
            name: String::new(),
            revision: 1,
            deleted: false,
            state: WebhookState::Active,
            url: String::new(),
            events: vec!["*".to_owned()],
            headers: Vec::new(),
            variables: Vec::new(),
            sealed_secret: None,
            secrets: Vec::new(),
            timeout: Duration::from_secs(30),
            ladder: vec![Duration::ZERO],
            body: Body::Raw,
            signature: Signature::default(),
            redirect_is_success: false,
            attributes: BTreeMap::new(),
            filter: None,
            placeholders: Vec::new(),
            options: Vec::new(),
            max_in_flight: None,
            rate_limit: None,
            hold_while_paused: false,
            fail_after: None,
            ordering: Ordering::None,
            drain_rate: None,
            tls: None,
            authentication: None,
        }
    }

    /// The definition's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.to_wire().encode_to_vec()
    }

    pub(crate) fn to_wire(&self) -> wire::WebhookDefinition {
        use wire::body_definition::Kind;
        let kind = match &self.body {
            Body::Envelope(members) => Kind::Envelope(wire::EnvelopeBody {
                members: members
                    .iter()
                    .map(|(name, source)| wire::EnvelopeMember {
                        name: name.clone(),
                        source: wire::EnvelopeSource::from(*source).into(),
                    })
                    .collect(),
            }),
            Body::Flat => Kind::Flat(wire::FlatBody {}),
            Body::Raw => Kind::Raw(wire::RawBody {}),
            Body::Template(template) => Kind::Template(wire::TemplateBody {
                template: template.clone(),
            }),
            Body::Base64 => Kind::Base64(wire::Base64Body {}),
            Body::CloudEvents => Kind::Cloudevents(wire::CloudEventsBody {}),
        };
        wire::WebhookDefinition {
            version: VERSION,
            webhook_id: self.id.to_wire(),
            project_id: self.project.to_wire(),
            project_name: self.project_name.clone(),
            name: self.name.clone(),
            revision: self.revision,
            deleted: self.deleted,
            state: wire::WebhookState::from(self.state).into(),
            url: self.url.clone(),
            events: self.events.clone(),
            headers: self.headers.iter().map(NamedValue::to_wire).collect(),
            sealed_secret: self.sealed_secret.clone().unwrap_or_default(),
            timeout_ms: u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX),
            ladder_ms: self.ladder.iter().copied().map(millis).collect(),
            body: Some(wire::BodyDefinition { kind: Some(kind) }),
            signature: Some(wire::SignatureDefinition {
                standard_webhooks: self.signature.standard_webhooks,
                body_hmac_header: self.signature.body_hmac_header.clone().unwrap_or_default(),
            }),
            redirect_is_success: self.redirect_is_success,
            attributes: self.attributes.clone(),
            filter: self.filter.clone().unwrap_or_default(),
            placeholders: self.placeholders.iter().map(Expression::to_wire).collect(),
            options: self.options.clone(),
            max_in_flight: self.max_in_flight.unwrap_or_default(),
            rate_limit: self.rate_limit.map(RateLimit::to_wire),
            hold_while_paused: self.hold_while_paused,
            fail_after: self.fail_after.unwrap_or_default(),
            secrets: self.secrets.iter().map(Secret::to_wire).collect(),
            ordering: match self.ordering {
                Ordering::None => wire::Ordering::Unspecified,
                Ordering::Webhook => wire::Ordering::Webhook,
                Ordering::Key(_) => wire::Ordering::Key,
            }
            .into(),
            ordering_key: match &self.ordering {
                Ordering::Key(expression) => expression.clone(),
                Ordering::None | Ordering::Webhook => String::new(),
            },
            drain_rate: self.drain_rate.map(RateLimit::to_wire),
            tls: self.tls.as_ref().map(Tls::to_wire),
            authentication: self.authentication.as_ref().map(Authentication::to_wire),
            variables: self.variables.iter().map(NamedValue::to_wire).collect(),
        }
    }

    /// Reads a definition.
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are not a definition this release can act on.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        Self::from_wire(wire::WebhookDefinition::decode(bytes)?)
    }

    pub(crate) fn from_wire(wire: wire::WebhookDefinition) -> Result<Self, DecodeError> {
        use wire::body_definition::Kind;
        check_version(wire.version)?;
        if wire.ladder_ms.is_empty() {
            return Err(DecodeError::Missing("ladder_ms"));
        }
        let signature = wire.signature.ok_or(DecodeError::Missing("signature"))?;
        let body = match wire
            .body
            .and_then(|body| body.kind)
            .ok_or(DecodeError::Missing("body"))?
        {
            Kind::Envelope(envelope) => Body::Envelope(
                envelope
                    .members
                    .into_iter()
                    .map(|member| Ok((member.name, EnvelopeSource::from_wire(member.source)?)))
                    .collect::<Result<_, DecodeError>>()?,
            ),
            Kind::Flat(wire::FlatBody {}) => Body::Flat,
            Kind::Raw(wire::RawBody {}) => Body::Raw,
            Kind::Template(template) => Body::Template(template.template),
            Kind::Base64(wire::Base64Body {}) => Body::Base64,
            Kind::Cloudevents(wire::CloudEventsBody {}) => Body::CloudEvents,
        };
        Ok(Self {
            id: WebhookId::from_wire("webhook_id", &wire.webhook_id)?,
            project: ProjectId::from_wire("project_id", &wire.project_id)?,
            project_name: wire.project_name,
            name: wire.name,
            revision: wire.revision,
            deleted: wire.deleted,
            state: WebhookState::from_wire(wire.state)?,
            url: wire.url,
            events: wire.events,
            headers: wire
                .headers
                .into_iter()
                .map(NamedValue::from_wire)
                .collect::<Result<_, _>>()?,
            sealed_secret: (!wire.sealed_secret.is_empty()).then_some(wire.sealed_secret),
            timeout: Duration::from_millis(wire.timeout_ms.into()),
            ladder: wire.ladder_ms.into_iter().map(Duration::from_millis).collect(),
            body,
            signature: Signature {
                standard_webhooks: signature.standard_webhooks,
                body_hmac_header: (!signature.body_hmac_header.is_empty()).then_some(signature.body_hmac_header),
            },
            redirect_is_success: wire.redirect_is_success,
            attributes: wire.attributes,
            filter: text(wire.filter),
            placeholders: wire.placeholders.into_iter().map(Expression::from).collect(),
            options: wire.options,
            max_in_flight: (wire.max_in_flight > 0).then_some(wire.max_in_flight),
            rate_limit: wire.rate_limit.and_then(RateLimit::from_wire),
            hold_while_paused: wire.hold_while_paused,
            fail_after: (wire.fail_after > 0).then_some(wire.fail_after),
            secrets: wire
                .secrets
                .into_iter()
                .map(Secret::from_wire)
                .collect::<Result<_, _>>()?,
            ordering: Ordering::from_wire(wire.ordering, wire.ordering_key)?,
            drain_rate: wire.drain_rate.and_then(RateLimit::from_wire),
            tls: wire.tls.map(Tls::from_wire),
            authentication: wire.authentication.map(Authentication::from_wire).transpose()?,
            variables: wire
                .variables
                .into_iter()
                .map(NamedValue::from_wire)
                .collect::<Result<_, _>>()?,
        })
    }
}

crate::wire_enum!(WebhookState, "state", { Pending, Active, Paused, Failed, Disabled });
crate::wire_enum!(EnvelopeSource, "source", { EventId, EventType, Timestamp, ProjectName, Data });
