//! TLS and authentication in JSON: as requests have them, and as answers do, which hold nothing secret.

use serde::{Deserialize, Serialize};
use store::webhooks::{Authentication, Tls};
use utoipa::ToSchema;

use crate::changes::{AuthenticationChange, TlsChange};

/// What TLS sessions are made with, beside what is the operator's.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewTls)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct TlsBody {
    /// Certificates of authorities that the receiver's may come from, besides those that vouch for everybody, in PEM.
    #[schema(max_length = 16_384)]
    ca: Option<String>,
    /// The certificate to show to a receiver who asks for one, and those between it and its authority, in PEM.
    #[schema(max_length = 16_384)]
    client_certificate: Option<String>,
    /// Its private key in PEM, without a passphrase. Never given out again; absent or null, the stored one is kept.
    #[schema(max_length = 16_384)]
    client_key: Option<String>,
}

impl From<TlsBody> for TlsChange {
    fn from(body: TlsBody) -> Self {
        Self {
            ca: body.ca,
            client_certificate: body.client_certificate,
            client_key: body.client_key,
        }
    }
}

/// What TLS sessions are made with, beside what is the operator's.
#[derive(Serialize, ToSchema)]
#[schema(as = Tls)]
pub(in crate::http) struct TlsView {
    /// Certificates of further authorities, in PEM.
    #[schema(required)]
    ca: Option<String>,
    /// The certificate that is shown, in PEM. Its key is never given out.
    #[schema(required)]
    client_certificate: Option<String>,
}

impl TlsView {
    /// What may be shown.
    pub(in crate::http) fn of(tls: &Tls) -> Self {
        Self {
            ca: tls.ca.clone(),
            client_certificate: tls.client_certificate.as_ref().map(|own| own.chain.clone()),
        }
    }
}

/// How requests say who they come from.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewAuthentication)]
#[serde(tag = "type", deny_unknown_fields)]
pub(in crate::http) enum AuthenticationBody {
    /// HTTP Basic.
    #[serde(rename = "basic")]
    Basic {
        /// Without a colon.
        #[schema(min_length = 1, max_length = 256, example = "posthaste")]
        username: String,
        /// Never given out again; absent or null, the stored one is kept.
        #[schema(max_length = 1024)]
        password: Option<String>,
    },
    /// An access token by OAuth 2.0 client credentials, sent as a bearer token.
    #[serde(rename = "oauth2_client_credentials")]
    ClientCredentials {
        /// Where access tokens are had, by the same rules as `url`.
        #[schema(example = "https://id.example.com/oauth2/token")]
        token_url: String,
        /// Who asks for them, by HTTP Basic.
        #[schema(min_length = 1, max_length = 256, example = "posthaste")]
        client_id: String,
        /// Never given out again; absent or null, the stored one is kept, unless `token_url` is another.
        #[schema(max_length = 1024)]
        client_secret: Option<String>,
        /// What they are to be good for.
        #[schema(max_length = 1024, example = "hooks:write")]
        scope: Option<String>,
    },
}

impl From<AuthenticationBody> for AuthenticationChange {
    fn from(body: AuthenticationBody) -> Self {
        match body {
            AuthenticationBody::Basic { username, password } => Self::Basic { username, password },
            AuthenticationBody::ClientCredentials {
                token_url,
                client_id,
                client_secret,
                scope,
            } => Self::ClientCredentials {
                token_url,
                client_id,
                client_secret,
                scope,
            },
        }
    }
}

/// How requests say who they come from, without what proves it.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = Authentication)]
#[serde(tag = "type")]
pub(in crate::http) enum AuthenticationView {
    /// HTTP Basic.
    #[serde(rename = "basic")]
    Basic {
        /// The user's name.
        username: String,
    },
    /// An access token by OAuth 2.0 client credentials.
    #[serde(rename = "oauth2_client_credentials")]
    ClientCredentials {
        /// Where access tokens are had.
        token_url: String,
        /// Who asks for them.
        client_id: String,
        /// What they are to be good for.
        #[schema(required)]
        scope: Option<String>,
    },
}

impl AuthenticationView {
    /// What may be shown.
    pub(in crate::http) fn of(authentication: &Authentication) -> Self {
        match authentication.clone() {
            Authentication::Basic { username, .. } => Self::Basic { username },
            Authentication::ClientCredentials {
                token_url,
                client_id,
                scope,
                ..
            } => Self::ClientCredentials {
                token_url,
                client_id,
                scope,
            },
        }
    }
}

/// As a revision has it: what is secret is only known to have been there.
impl From<AuthenticationView> for Authentication {
    fn from(view: AuthenticationView) -> Self {
        match view {
            AuthenticationView::Basic { username } => Self::Basic {
                username,
                sealed_password: String::new(),
            },
            AuthenticationView::ClientCredentials {
                token_url,
                client_id,
                scope,
            } => Self::ClientCredentials {
                token_url,
                client_id,
                sealed_client_secret: String::new(),
                scope,
            },
        }
    }
}
