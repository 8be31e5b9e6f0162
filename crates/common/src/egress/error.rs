//! What can go wrong with a request, in the words of the attempt log.
//!
//! The text is for the webhook's owner: one line, nothing of our own network in it, and for every refused address the
//! same. The whole chain of causes goes to the debug log.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io;

use http::StatusCode;
use proto_schemas::ledger::ErrorClass;
use rustls::{AlertDescription, CertificateError};

use super::resolver;
use super::url_policy::Refused;

/// Why there is no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Error {
    /// One word of the closed list.
    pub class: ErrorClass,
    /// One line for the webhook's owner.
    pub text: Cow<'static, str>,
    /// The status, where the response began and then broke off or took too long.
    pub status: Option<StatusCode>,
}

impl Error {
    pub(super) fn new(class: ErrorClass, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            class,
            text: text.into(),
            status: None,
        }
    }

    pub(super) fn refused_address() -> Self {
        Self::new(ErrorClass::RefusedAddress, Refused::Address.to_string())
    }

    pub(super) fn timeout(after: std::time::Duration, status: Option<StatusCode>) -> Self {
        let what = if status.is_some() {
            "complete response"
        } else {
            "response"
        };
        Self {
            class: ErrorClass::Timeout,
            text: format!("no {what} within {}", humantime::format_duration(after)).into(),
            status,
        }
    }

    /// The response had begun.
    pub(super) fn of_body(error: &reqwest::Error, status: StatusCode) -> Self {
        log(error);
        Self {
            status: Some(status),
            ..Self::new(ErrorClass::Body, "the response broke off")
        }
    }

    /// There was no response.
    pub(super) fn of_request(error: &reqwest::Error) -> Self {
        log(error);
        causes(error)
            .find_map(Self::of_cause)
            .unwrap_or_else(|| match (error.is_connect(), error.is_timeout()) {
                (true, true) => Self::new(ErrorClass::Connect, "no connection in time"),
                (true, false) => Self::new(ErrorClass::Connect, "no connection"),
                (false, _) => Self::new(ErrorClass::Connect, "the connection was closed before a response came"),
            })
    }

    /// What one link of the chain says for certain.
    fn of_cause(cause: &(dyn StdError + 'static)) -> Option<Self> {
        if let Some(error) = cause.downcast_ref::<resolver::Error>() {
            return Some(match error {
                resolver::Error::Refused => Self::refused_address(),
                error => Self::new(ErrorClass::Dns, error.to_string()),
            });
        }
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return Some(Self::new(ErrorClass::Tls, tls_text(error)));
        }
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            return error
                .is_parse()
                .then(|| Self::new(ErrorClass::Body, "the response is not valid HTTP"));
        }
        let error = cause.downcast_ref::<io::Error>()?;
        Some(match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::new(ErrorClass::Connect, "connection refused"),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                Self::new(ErrorClass::Connect, "the connection was reset")
            }
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                Self::new(ErrorClass::Connect, "no route to the host")
            }
            io::ErrorKind::TimedOut => Self::new(ErrorClass::Connect, "no connection in time"),
            // Only a TLS handshake reads while it connects.
            io::ErrorKind::UnexpectedEof => {
                Self::new(ErrorClass::Tls, "the connection was closed during the TLS handshake")
            }
            _ => return None,
        })
    }
}

/// The chain below a reqwest error, which itself only says that there is one; and what `io::Error` wraps without
/// declaring it a source.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(error.source(), |cause: &&'_ (dyn StdError + 'static)| {
        let cause = *cause;
        match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => cause.source(),
        }
    })
}

fn log(error: &reqwest::Error) {
    // `error` itself is left out: its text holds the URL.
    tracing::debug!(causes = %causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": "), "request failed");
}

fn tls_text(error: &rustls::Error) -> Cow<'static, str> {
    use CertificateError as Certificate;
    match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            Certificate::Expired | Certificate::ExpiredContext { .. } => "the certificate has expired",
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => "the certificate is not valid yet",
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                "the certificate is for another host"
            }
            Certificate::UnknownIssuer => {
                "the certificate is not from a known authority, or its intermediate certificates are not sent along"
            }
            Certificate::Revoked => "the certificate has been revoked",
            _ => "the certificate is not valid",
        }
        .into(),
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::UnrecognisedName => "the server does not know this host name".into(),
            AlertDescription::CertificateRequired => "the server asks for a client certificate".into(),
            AlertDescription::ProtocolVersion => "the server offers no TLS 1.2 or newer".into(),
            alert => format!("the server ended the TLS handshake: {alert:?}").into(),
        },
        rustls::Error::InvalidMessage(_) => "the server does not speak TLS on this port".into(),
        rustls::Error::PeerIncompatible(_) => "the server offers no TLS that is still safe".into(),
        _ => "the TLS handshake failed".into(),
    }
}
