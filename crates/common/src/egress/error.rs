//! What can go wrong with a request, in the words of the attempt log.
//!
//! The text is for the webhook's owner: one line, nothing of our own network in it, and for every refused address the
//! same. The whole chain of causes goes to the debug log.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io;

use http::StatusCode;
use hyper_util::client::legacy;
use proto_schemas::ledger::{ErrorClass, TlsFault};
use rustls::{AlertDescription, CertificateError};

use super::connector::Failed;
use super::resolver;
use super::url_policy::Refused;

/// Why there is no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Error {
    /// One word of the closed list.
    pub class: ErrorClass,
    /// What was wrong with the TLS session, where that is the class.
    pub tls_fault: Option<TlsFault>,
    /// One line for the webhook's owner.
    pub text: Cow<'static, str>,
    /// The status, where the response began and then broke off or took too long.
    pub status: Option<StatusCode>,
}

impl Error {
    pub(super) fn new(class: ErrorClass, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            class,
            tls_fault: None,
            text: text.into(),
            status: None,
        }
    }

    pub(super) fn tls(fault: TlsFault, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            tls_fault: Some(fault),
            ..Self::new(ErrorClass::Tls, text)
        }
    }

    pub(super) fn refused_address() -> Self {
        Self::new(ErrorClass::RefusedAddress, Refused::Address.to_string())
    }

    /// No response within so long, or no complete one.
    #[must_use]
    pub fn timeout(after: std::time::Duration, status: Option<StatusCode>) -> Self {
        let what = if status.is_some() {
            "complete response"
        } else {
            "response"
        };
        Self {
            status,
            ..Self::new(
                ErrorClass::Timeout,
                format!("no {what} within {}", humantime::format_duration(after)),
            )
        }
    }

    /// The response had begun.
    pub(super) fn of_body(error: &hyper::Error, status: StatusCode) -> Self {
        log(error);
        Self {
            status: Some(status),
            ..Self::new(ErrorClass::Body, "the response broke off")
        }
    }

    /// The name leads nowhere.
    pub(super) fn of_name(error: &resolver::Error) -> Self {
        match error {
            resolver::Error::Refused => Self::refused_address(),
            error => Self::new(ErrorClass::Dns, error.to_string()),
        }
    }

    /// Nobody answers at the address.
    pub(super) fn of_dial(error: &io::Error) -> Self {
        Self::of_io(error).unwrap_or_else(|| Self::new(ErrorClass::Connect, "no connection"))
    }

    /// There is a connection and no TLS session.
    pub(super) fn of_handshake(error: &io::Error) -> Self {
        log(error);
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => of_tls(error),
            None => Self::tls(TlsFault::Ended, "the connection was closed during the TLS handshake"),
        }
    }

    /// The TLS session has ended with an error.
    pub(super) fn of_session(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<rustls::Error>().map(of_tls)
    }

    /// There was no response. `fault`: what ended the TLS session of the connection, if anything did.
    pub(super) fn of_request(error: &legacy::Error, fault: Option<Self>) -> Self {
        log(error);
        if let Some(fault) = fault {
            return fault;
        }
        causes(error)
            .find_map(Self::of_cause)
            .unwrap_or_else(|| Self::new(ErrorClass::Connect, "the connection was closed before a response came"))
    }

    /// What one link of the chain says for certain.
    fn of_cause(cause: &(dyn StdError + 'static)) -> Option<Self> {
        if let Some(failed) = cause.downcast_ref::<Failed>() {
            return Some(failed.error.clone());
        }
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return Some(of_tls(error));
        }
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            return error
                .is_parse()
                .then(|| Self::new(ErrorClass::Body, "the response is not valid HTTP"));
        }
        Self::of_io(cause.downcast_ref()?)
    }

    fn of_io(error: &io::Error) -> Option<Self> {
        let text = match error.kind() {
            io::ErrorKind::ConnectionRefused => "connection refused",
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                "the connection was reset"
            }
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "no route to the host",
            io::ErrorKind::TimedOut => "no connection in time",
            _ => return None,
        };
        Some(Self::new(ErrorClass::Connect, text))
    }
}

/// How far the connection got that failed, where that is why there was no response.
pub(super) fn failed_connection(error: &legacy::Error) -> Option<&Failed> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// Whether the receiver has said that it did not touch the request: it was told over HTTP/2 to go away without an error,
/// or to come again (RFC 9113 §8.7).
pub(super) fn is_untouched(error: &legacy::Error) -> bool {
    causes(error)
        .find_map(|cause| cause.downcast_ref::<h2::Error>())
        .is_some_and(|error| {
            let is_away = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
            let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            error.is_remote() && (is_away || is_refused)
        })
}

/// An error and the chain below it; and what `io::Error` wraps without declaring it a source.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |cause: &&'a (dyn StdError + 'static)| {
        let cause = *cause;
        match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => cause.source(),
        }
    })
}

fn log(error: &(dyn StdError + 'static)) {
    tracing::debug!(causes = %causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": "), "request failed");
}

fn of_tls(error: &rustls::Error) -> Error {
    use CertificateError as Certificate;
    let (fault, text) = match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            Certificate::Expired | Certificate::ExpiredContext { .. } => {
                (TlsFault::Expired, "the certificate has expired")
            }
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                (TlsFault::NotYetValid, "the certificate is not valid yet")
            }
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                (TlsFault::WrongName, "the certificate is for another host")
            }
            Certificate::UnknownIssuer => (
                TlsFault::UnknownIssuer,
                "the certificate is not from a known authority, or its intermediate certificates are not sent along",
            ),
            Certificate::Revoked => (TlsFault::Revoked, "the certificate has been revoked"),
            _ => (TlsFault::InvalidCertificate, "the certificate is not valid"),
        },
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::UnrecognisedName => (TlsFault::WrongName, "the server does not know this host name"),
            AlertDescription::CertificateRequired => {
                (TlsFault::CertificateWanted, "the server asks for a client certificate")
            }
            AlertDescription::ProtocolVersion => (TlsFault::Incompatible, "the server offers no TLS 1.2 or newer"),
            // Older servers say the same where they miss a client certificate.
            AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => (
                TlsFault::Incompatible,
                "the server has no cipher or key exchange in common with this client, or wants a client certificate",
            ),
            alert => {
                let text = format!("the server ended the TLS handshake: {alert:?}");
                return Error::tls(TlsFault::Ended, text);
            }
        },
        rustls::Error::InvalidMessage(_) => (TlsFault::NotTls, "the server does not speak TLS on this port"),
        rustls::Error::PeerIncompatible(_) => (TlsFault::Incompatible, "the server offers no TLS that is still safe"),
        _ => (TlsFault::Other, "the TLS handshake failed"),
    };
    Error::tls(fault, text)
}

#[cfg(test)]
mod tests;
