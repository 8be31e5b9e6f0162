//! How a receiver knows who asks it, and how it is known: TLS and authentication.

use super::text;
use crate::{DecodeError, wire};

/// What a webhook's TLS sessions are made with, beside what the operator's are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Certificates of authorities that the receiver's may come from, too, in PEM.
    pub ca: Option<String>,
    /// The certificate that is shown to receivers who ask for one.
    pub client_certificate: Option<ClientCertificate>,
}

/// A certificate of the webhook's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate and those between it and its authority, in PEM.
    pub chain: String,
    /// Its private key in PEM, encrypted for the field [`SEALED_CLIENT_KEY`].
    pub sealed_key: String,
}

/// How a webhook's requests say who they come from, in the header `authorization`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// HTTP Basic (RFC 7617).
    Basic {
        /// The user's name.
        username: String,
        /// The password, encrypted for the field [`SEALED_PASSWORD`].
        sealed_password: String,
    },
    /// An access token by OAuth 2.0 client credentials (RFC 6749 §4.4), sent as a bearer token (RFC 6750).
    ClientCredentials {
        /// Where access tokens are given out.
        token_url: String,
        /// Who asks for them.
        client_id: String,
        /// What proves that, encrypted for the field [`SEALED_CLIENT_SECRET`].
        sealed_client_secret: String,
        /// What they are to be good for; `None`: what the token endpoint thinks.
        scope: Option<String>,
    },
}

/// The field that a client certificate's key is sealed for.
pub const SEALED_CLIENT_KEY: &str = "tls:client_key";
/// The field that a password is sealed for.
pub const SEALED_PASSWORD: &str = "authentication:password";
/// The field that a client secret is sealed for.
pub const SEALED_CLIENT_SECRET: &str = "authentication:client_secret";

impl Tls {
    pub(super) fn to_wire(&self) -> wire::TlsDefinition {
        wire::TlsDefinition {
            ca: self.ca.clone().unwrap_or_default(),
            client_certificate: self.client_certificate.as_ref().map(|own| wire::ClientCertificate {
                chain: own.chain.clone(),
                sealed_key: own.sealed_key.clone(),
            }),
        }
    }

    pub(super) fn from_wire(wire: wire::TlsDefinition) -> Self {
        Self {
            ca: text(wire.ca),
            client_certificate: wire.client_certificate.map(|own| ClientCertificate {
                chain: own.chain,
                sealed_key: own.sealed_key,
            }),
        }
    }
}

impl Authentication {
    pub(super) fn to_wire(&self) -> wire::AuthenticationDefinition {
        use wire::authentication_definition::Kind;
        let kind = match self.clone() {
            Self::Basic {
                username,
                sealed_password,
            } => Kind::Basic(wire::BasicAuthentication {
                username,
                sealed_password,
            }),
            Self::ClientCredentials {
                token_url,
                client_id,
                sealed_client_secret,
                scope,
            } => Kind::ClientCredentials(wire::ClientCredentials {
                token_url,
                client_id,
                sealed_client_secret,
                scope: scope.unwrap_or_default(),
            }),
        };
        wire::AuthenticationDefinition { kind: Some(kind) }
    }

    pub(super) fn from_wire(wire: wire::AuthenticationDefinition) -> Result<Self, DecodeError> {
        use wire::authentication_definition::Kind;
        // A kind of a later release is nothing this one can do without: the receiver would get requests from nobody.
        Ok(match wire.kind.ok_or(DecodeError::Missing("authentication"))? {
            Kind::Basic(basic) => Self::Basic {
                username: basic.username,
                sealed_password: basic.sealed_password,
            },
            Kind::ClientCredentials(credentials) => Self::ClientCredentials {
                token_url: credentials.token_url,
                client_id: credentials.client_id,
                sealed_client_secret: credentials.sealed_client_secret,
                scope: text(credentials.scope),
            },
        })
    }
}
