//! How a webhook's receiver knows who asks it, and how it is known: TLS and authentication, each a JSON value beside the
//! rest of the row.

use serde::{Deserialize, Serialize};

/// What a webhook's TLS sessions are made with, beside what the operator's are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tls {
    /// Certificates of authorities that the receiver's may come from, too, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The certificate that is shown to receivers who ask for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
}

/// A certificate of the webhook's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate {
    /// The certificate and those between it and its authority, in PEM.
    pub chain: String,
    /// Its private key in PEM, encrypted.
    pub sealed_key: String,
}

/// How a webhook's requests say who they come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Authentication {
    /// HTTP Basic.
    #[serde(rename = "basic")]
    Basic {
        /// The user's name.
        username: String,
        /// The password, encrypted.
        sealed_password: String,
    },
    /// An access token by OAuth 2.0 client credentials.
    #[serde(rename = "oauth2_client_credentials")]
    ClientCredentials {
        /// Where access tokens are given out.
        token_url: String,
        /// Who asks for them.
        client_id: String,
        /// What proves that, encrypted.
        sealed_client_secret: String,
        /// What they are to be good for.
        #[serde(skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
    },
}
