//! Facts on their way to Postgres.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use prost::Message as _;

use crate::delivery::TrialKind;
use crate::event::{Event, instant};
use crate::id::{AttemptRef, EventKey, OrderKey, ProjectId, WebhookId};
use crate::{DecodeError, VERSION, check_version, wire};

/// One fact.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// An event was accepted and fanned out.
    EventAccepted(EventAccepted),
    /// A message could not become an event.
    EventRejected(EventRejected),
    /// A request was made, or could not be.
    AttemptFinished(AttemptFinished),
    /// No request was made.
    DeliveryDeferred(DeliveryDeferred),
}

/// The event, who it is owed to, and who was skipped and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventAccepted {
    /// The event.
    pub event: Event,
    /// The webhooks it is owed to.
    pub owed: Vec<WebhookId>,
    /// The webhooks that match the event's type and get no delivery.
    pub skipped: Vec<(WebhookId, SkipReason)>,
    /// What the type's schema has against the event, where the project has such events accepted.
    pub warnings: Vec<String>,
    /// Those of the owed ones that no duty was made for, because they are paused and hold what comes meanwhile.
    pub held: Vec<WebhookId>,
    /// Those that no duty was made for, because their deliveries go out in order, and what is kept in order.
    pub ordered: Vec<(WebhookId, OrderKey)>,
}

/// Why a webhook that matches an event's type gets no delivery of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// The webhook is paused, and drops what happens meanwhile.
    Paused,
    /// The webhook is disabled or has failed.
    Disabled,
    /// The event did not pass the webhook's attributes or filter.
    Filtered,
}

impl SkipReason {
    /// The word in tables and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Disabled => "disabled",
            Self::Filtered => "filtered",
        }
    }
}

/// A message that cannot become an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRejected {
    /// Identity of the message, made like an event's.
    pub key: EventKey,
    /// The project, where the subject names one that exists.
    pub project: Option<ProjectId>,
    /// The subject it was published on.
    pub subject: String,
    /// One word of the closed list in `ingest::accept`.
    pub reason: String,
    /// What is wrong and what to do about it.
    pub detail: String,
    /// The first [`REJECTED_PAYLOAD_MAX`] bytes of the body.
    pub payload: Bytes,
    /// The whole body's size, in bytes.
    pub payload_size: u64,
    /// When JetStream stored it.
    pub received_at: Timestamp,
}

/// How much of a rejected message's body is kept, in bytes.
pub const REJECTED_PAYLOAD_MAX: usize = 64 * 1024;

/// What one HTTP request came to.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptFinished {
    /// Which attempt.
    pub attempt: AttemptRef,
    /// The event's id, as receivers see it.
    pub event_id: String,
    /// The event's type.
    pub event_type: String,
    /// The revision of the webhook's definition that the request was made by; 0 where there was none.
    pub webhook_revision: u64,
    /// When the request was begun.
    pub started_at: Timestamp,
    /// From begin to the end of the response.
    pub duration: Duration,
    /// What it came to.
    pub outcome: Outcome,
    /// The response's status code, if there was a response.
    pub status: Option<u16>,
    /// What went wrong, if anything.
    pub error_class: Option<ErrorClass>,
    /// What went wrong, in one line; empty if nothing did.
    pub error: String,
    /// The response's header lines.
    pub response_headers: Vec<(String, String)>,
    /// The first bytes of the response's body.
    pub response_body: Bytes,
    /// Whether the body went on.
    pub response_truncated: bool,
    /// How long the receiver asked us to wait, if it did.
    pub retry_after: Option<Duration>,
    /// SHA-256 of the request's body.
    pub request_sha256: Bytes,
    /// How often JetStream handed this attempt out; above 1 the receiver may have seen it before.
    pub handed_out: u32,
    /// The delays before each attempt, as the definition had them when the request was made.
    pub ladder: Vec<Duration>,
    /// Failed attempts in a row after which the webhook has failed, as its definition said then; `None`: never.
    pub fail_after: Option<u32>,
    /// Set where the request was made to try the webhook.
    pub trial: Option<TrialKind>,
    /// What else is known of the request and its connection.
    pub exchange: Exchange,
}

/// What is known of a request and its connection, beside what they came to. The default: nothing, as of a request that
/// was not made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exchange {
    /// How long its parts took.
    pub timings: Timings,
    /// Who was talked to.
    pub peer: Option<SocketAddr>,
    /// What was wrong with the TLS session.
    pub tls_fault: Option<TlsFault>,
    /// Checksum of the request's method, url and header lines, secret values left out; what is shown of a request later
    /// is compared with it.
    pub request_head: Option<u32>,
}

/// How long the parts of a request took; to the microsecond.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Looking up the name, where a connection was made for the request; as the next two.
    pub dns: Option<Duration>,
    /// Connecting.
    pub connect: Option<Duration>,
    /// The TLS handshake.
    pub tls: Option<Duration>,
    /// From the begin of the request to the response's head.
    pub first_byte: Option<Duration>,
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Delivered,
    /// Not delivered; worth another attempt, if the ladder has one.
    Failed,
    /// Not delivered, and no later attempt can succeed.
    FailedForGood,
}

/// What can go wrong with a request; the closed list of the log, the API and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The host's name has no usable answer.
    Dns,
    /// The address is one no webhook may go to.
    RefusedAddress,
    /// No connection.
    Connect,
    /// No TLS session.
    Tls,
    /// The deadline passed.
    Timeout,
    /// The receiver answered outside the success set.
    Status,
    /// The response's body broke off.
    Body,
    /// The webhook's definition is gone or cannot be used; no request was made.
    Webhook,
    /// Handed out too often without an end.
    GaveUp,
    /// The access token that the request was to hold could not be had; no request was made.
    Authentication,
}

impl ErrorClass {
    /// Every class.
    pub const ALL: [Self; 10] = [
        Self::Dns,
        Self::RefusedAddress,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Status,
        Self::Body,
        Self::Webhook,
        Self::GaveUp,
        Self::Authentication,
    ];

    /// The word in tables, JSON and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::RefusedAddress => "refused_address",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Body => "body",
            Self::Webhook => "webhook",
            Self::GaveUp => "gave_up",
            Self::Authentication => "authentication",
        }
    }
}

/// What can be wrong with a TLS session; the closed list of the log and the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsFault {
    /// The certificate is of no authority that is trusted, or intermediate certificates are not sent along.
    UnknownIssuer,
    /// The certificate has expired.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// The certificate is for another host.
    WrongName,
    /// The certificate has been revoked.
    Revoked,
    /// Something else is wrong with the certificate.
    InvalidCertificate,
    /// The other side does not speak TLS.
    NotTls,
    /// The two sides have no version or cipher in common.
    Incompatible,
    /// The other side asks for a certificate of ours.
    CertificateWanted,
    /// The other side ended the handshake.
    Ended,
    /// The handshake took too long.
    Timeout,
    /// Anything else.
    Other,
}

impl TlsFault {
    /// The word in tables and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownIssuer => "unknown_issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongName => "wrong_name",
            Self::Revoked => "revoked",
            Self::InvalidCertificate => "invalid_certificate",
            Self::NotTls => "not_tls",
            Self::Incompatible => "incompatible",
            Self::CertificateWanted => "certificate_wanted",
            Self::Ended => "ended",
            Self::Timeout => "timeout",
            Self::Other => "other",
        }
    }
}

/// No request was made: the delivery waits in Postgres, or ends there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryDeferred {
    /// Which attempt was not made.
    pub attempt: AttemptRef,
    /// Why, in a few words.
    pub reason: String,
    /// How long it makes sense to wait before it is released again.
    pub retry_in: Duration,
    /// When it was deferred.
    pub deferred_at: Timestamp,
    /// What becomes of it.
    pub kind: Deferral,
}

/// What becomes of a delivery of which no request was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deferral {
    /// Its lane has no room: it is released again by and by.
    #[default]
    Park,
    /// Its webhook gets nothing just now: it is kept until the webhook is active again.
    Hold,
    /// Its webhook is gone: it ends.
    Cancel,
}

impl Deferral {
    // To park is what nothing said means, so no `wire_enum`.
    const fn to_wire(self) -> wire::Deferral {
        match self {
            Self::Park => wire::Deferral::Unspecified,
            Self::Hold => wire::Deferral::Hold,
            Self::Cancel => wire::Deferral::Cancel,
        }
    }

    fn from_wire(value: i32) -> Result<Self, DecodeError> {
        match wire::Deferral::try_from(value) {
            Ok(wire::Deferral::Unspecified) => Ok(Self::Park),
            Ok(wire::Deferral::Hold) => Ok(Self::Hold),
            Ok(wire::Deferral::Cancel) => Ok(Self::Cancel),
            Err(_) => Err(DecodeError::Invalid {
                field: "kind",
                found: value.to_string(),
            }),
        }
    }
}

impl Fact {
    /// The bytes of an entry with this fact. Such bytes one after the other are an entry with all their facts.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        use wire::fact::Kind as W;
        let kind = match self {
            Self::EventAccepted(fact) => W::EventAccepted(wire::EventAccepted {
                event: Some(fact.event.to_wire()),
                owed: fact.owed.iter().map(|id| id.to_wire()).collect(),
                skipped: fact
                    .skipped
                    .iter()
                    .map(|(webhook, reason)| wire::SkippedWebhook {
                        webhook_id: webhook.to_wire(),
                        reason: wire::SkipReason::from(*reason).into(),
                    })
                    .collect(),
                warnings: fact.warnings.clone(),
                held: fact.held.iter().map(|id| id.to_wire()).collect(),
                ordered: fact
                    .ordered
                    .iter()
                    .map(|(webhook, key)| wire::OrderedWebhook {
                        webhook_id: webhook.to_wire(),
                        key: key.to_wire(),
                    })
                    .collect(),
            }),
            Self::EventRejected(fact) => W::EventRejected(wire::EventRejected {
                key: fact.key.to_wire(),
                project_id: fact.project.map(ProjectId::to_wire).unwrap_or_default(),
                subject: fact.subject.clone(),
                reason: fact.reason.clone(),
                detail: fact.detail.clone(),
                payload: fact.payload.clone(),
                payload_size: fact.payload_size,
                received_at_us: fact.received_at.as_microsecond(),
            }),
            Self::AttemptFinished(fact) => W::AttemptFinished(fact.to_wire()),
            Self::DeliveryDeferred(fact) => W::DeliveryDeferred(wire::DeliveryDeferred {
                r#ref: Some(fact.attempt.to_wire()),
                reason: fact.reason.clone(),
                retry_in_ms: millis(fact.retry_in),
                deferred_at_us: fact.deferred_at.as_microsecond(),
                kind: fact.kind.to_wire().into(),
            }),
        };
        wire::LedgerEntry {
            version: VERSION,
            facts: vec![wire::Fact { kind: Some(kind) }],
        }
        .encode_to_vec()
    }

    /// Reads an entry: its facts, each by itself, so that one nobody can act on does not take the others with it.
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are not an entry this release can read.
    pub fn decode_all(bytes: Bytes) -> Result<Vec<Result<Self, DecodeError>>, DecodeError> {
        let entry = wire::LedgerEntry::decode(bytes)?;
        check_version(entry.version)?;
        Ok(entry.facts.into_iter().map(Self::from_wire).collect())
    }

    fn from_wire(fact: wire::Fact) -> Result<Self, DecodeError> {
        use wire::fact::Kind as W;
        Ok(match fact.kind.ok_or(DecodeError::Missing("kind"))? {
            W::EventAccepted(fact) => Self::EventAccepted(EventAccepted::from_wire(fact)?),
            W::EventRejected(fact) => Self::EventRejected(EventRejected {
                key: EventKey::from_wire("key", &fact.key)?,
                project: match fact.project_id.is_empty() {
                    true => None,
                    false => Some(ProjectId::from_wire("project_id", &fact.project_id)?),
                },
                subject: fact.subject,
                reason: fact.reason,
                detail: fact.detail,
                payload: fact.payload,
                payload_size: fact.payload_size,
                received_at: instant("received_at_us", fact.received_at_us)?,
            }),
            W::AttemptFinished(fact) => Self::AttemptFinished(AttemptFinished::from_wire(fact)?),
            W::DeliveryDeferred(fact) => Self::DeliveryDeferred(DeliveryDeferred {
                attempt: AttemptRef::from_wire(fact.r#ref)?,
                reason: fact.reason,
                retry_in: Duration::from_millis(fact.retry_in_ms),
                deferred_at: instant("deferred_at_us", fact.deferred_at_us)?,
                kind: Deferral::from_wire(fact.kind)?,
            }),
        })
    }
}

impl EventAccepted {
    fn from_wire(wire: wire::EventAccepted) -> Result<Self, DecodeError> {
        let webhooks = |field, ids: &[Bytes]| {
            let ids = ids.iter().map(|id| WebhookId::from_wire(field, id));
            ids.collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            event: Event::from_wire(wire.event)?,
            owed: webhooks("owed", &wire.owed)?,
            skipped: wire
                .skipped
                .iter()
                .map(|skipped| {
                    Ok((
                        WebhookId::from_wire("webhook_id", &skipped.webhook_id)?,
                        SkipReason::from_wire(skipped.reason)?,
                    ))
                })
                .collect::<Result<_, DecodeError>>()?,
            warnings: wire.warnings,
            held: webhooks("held", &wire.held)?,
            ordered: wire
                .ordered
                .iter()
                .map(|ordered| {
                    Ok((
                        WebhookId::from_wire("webhook_id", &ordered.webhook_id)?,
                        OrderKey::from_wire("key", &ordered.key)?,
                    ))
                })
                .collect::<Result<_, DecodeError>>()?,
        })
    }
}

impl AttemptFinished {
    fn to_wire(&self) -> wire::AttemptFinished {
        wire::AttemptFinished {
            r#ref: Some(self.attempt.to_wire()),
            event_id: self.event_id.clone(),
            event_type: self.event_type.clone(),
            webhook_revision: self.webhook_revision,
            started_at_us: self.started_at.as_microsecond(),
            duration_us: micros(self.duration),
            outcome: wire::Outcome::from(self.outcome).into(),
            status: self.status.map_or(0, u32::from),
            error_class: self
                .error_class
                .map_or(wire::ErrorClass::Unspecified, wire::ErrorClass::from)
                .into(),
            error: self.error.clone(),
            response_headers: self
                .response_headers
                .iter()
                .map(|(name, value)| wire::Header {
                    name: name.clone(),
                    value: value.clone(),
                })
                .collect(),
            response_body: self.response_body.clone(),
            response_truncated: self.response_truncated,
            retry_after_ms: self.retry_after.map_or(0, millis),
            request_sha256: self.request_sha256.clone(),
            handed_out: self.handed_out,
            ladder_ms: self.ladder.iter().copied().map(millis).collect(),
            fail_after: self.fail_after.unwrap_or_default(),
            trial: self
                .trial
                .map_or(wire::TrialKind::Unspecified, wire::TrialKind::from)
                .into(),
            dns_us: self.exchange.timings.dns.map(micros),
            connect_us: self.exchange.timings.connect.map(micros),
            tls_us: self.exchange.timings.tls.map(micros),
            first_byte_us: self.exchange.timings.first_byte.map(micros),
            peer: self.exchange.peer.map_or_else(Bytes::new, peer_to_wire),
            tls_fault: self
                .exchange
                .tls_fault
                .map_or(wire::TlsFault::Unspecified, wire::TlsFault::from)
                .into(),
            request_head: self.exchange.request_head.unwrap_or_default(),
        }
    }

    fn from_wire(wire: wire::AttemptFinished) -> Result<Self, DecodeError> {
        Ok(Self {
            attempt: AttemptRef::from_wire(wire.r#ref)?,
            event_id: wire.event_id,
            event_type: wire.event_type,
            webhook_revision: wire.webhook_revision,
            started_at: instant("started_at_us", wire.started_at_us)?,
            duration: Duration::from_micros(wire.duration_us.into()),
            outcome: Outcome::from_wire(wire.outcome)?,
            status: match wire.status {
                0 => None,
                status => Some(u16::try_from(status).map_err(|_| DecodeError::Invalid {
                    field: "status",
                    found: status.to_string(),
                })?),
            },
            error_class: ErrorClass::known(wire.error_class)?,
            error: wire.error,
            response_headers: wire
                .response_headers
                .into_iter()
                .map(|header| (header.name, header.value))
                .collect(),
            response_body: wire.response_body,
            response_truncated: wire.response_truncated,
            retry_after: (wire.retry_after_ms > 0).then(|| Duration::from_millis(wire.retry_after_ms)),
            request_sha256: wire.request_sha256,
            handed_out: wire.handed_out,
            ladder: wire.ladder_ms.into_iter().map(Duration::from_millis).collect(),
            fail_after: (wire.fail_after > 0).then_some(wire.fail_after),
            trial: TrialKind::known(wire.trial)?,
            exchange: Exchange {
                timings: Timings {
                    dns: wire.dns_us.map(from_micros),
                    connect: wire.connect_us.map(from_micros),
                    tls: wire.tls_us.map(from_micros),
                    first_byte: wire.first_byte_us.map(from_micros),
                },
                peer: peer_from_wire(&wire.peer)?,
                tls_fault: TlsFault::known(wire.tls_fault)?,
                request_head: (wire.request_head != 0).then_some(wire.request_head),
            },
        })
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

fn from_micros(micros: u32) -> Duration {
    Duration::from_micros(micros.into())
}

fn peer_to_wire(peer: SocketAddr) -> Bytes {
    let port = peer.port().to_be_bytes();
    match peer.ip() {
        IpAddr::V4(address) => Bytes::from([address.octets().as_slice(), &port].concat()),
        IpAddr::V6(address) => Bytes::from([address.octets().as_slice(), &port].concat()),
    }
}

fn peer_from_wire(bytes: &[u8]) -> Result<Option<SocketAddr>, DecodeError> {
    let invalid = || DecodeError::Invalid {
        field: "peer",
        found: format!("{} bytes", bytes.len()),
    };
    let Some((address, port)) = bytes.split_last_chunk::<2>() else {
        return bytes.is_empty().then_some(None).ok_or_else(invalid);
    };
    let address = match address.len() {
        4 => <[u8; 4]>::try_from(address).map(|octets| IpAddr::from(Ipv4Addr::from(octets))),
        _ => <[u8; 16]>::try_from(address).map(|octets| IpAddr::from(Ipv6Addr::from(octets))),
    };
    let address = address.map_err(|_| invalid())?;
    Ok(Some(SocketAddr::new(address, u16::from_be_bytes(*port))))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

crate::wire_enum!(SkipReason, "reason", { Paused, Disabled, Filtered });
crate::wire_enum!(Outcome, "outcome", { Delivered, Failed, FailedForGood });
crate::wire_enum!(TlsFault, "tls_fault", {
    UnknownIssuer, Expired, NotYetValid, WrongName, Revoked, InvalidCertificate, NotTls, Incompatible, CertificateWanted,
    Ended, Timeout, Other,
});
crate::wire_enum!(ErrorClass, "error_class", { Dns, RefusedAddress, Connect, Tls, Timeout, Status, Body, Webhook, GaveUp, Authentication });
