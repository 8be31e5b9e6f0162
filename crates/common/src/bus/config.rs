//! How to reach NATS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use super::Error;

/// How to reach NATS, and what to ask of its streams.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Where NATS is, nats://user:password@host:port; several addresses of one cluster are separated by commas.
    #[arg(
        long,
        env = "NATS_URL",
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true,
        value_parser = crate::config::secret_text
    )]
    pub nats_url: SecretString,
    /// File that holds the address of NATS; it goes before --nats-url.
    #[arg(long, env = "NATS_URL_FILE")]
    pub nats_url_file: Option<PathBuf>,
    /// Credentials file (JWT and seed) of the account this service uses.
    #[arg(long, env = "POSTHASTE_NATS_CREDENTIALS_FILE")]
    pub nats_credentials_file: Option<PathBuf>,
    /// Certificate authority to verify the server by, in PEM; the platform's own otherwise. With it, nothing goes to a
    /// server that has no TLS.
    #[arg(long, env = "POSTHASTE_NATS_CA_FILE")]
    pub nats_ca_file: Option<PathBuf>,
    /// Certificate to show to a server that asks for one, in PEM, with what leads to its authority.
    #[arg(
        long,
        env = "POSTHASTE_NATS_CLIENT_CERTIFICATE_FILE",
        requires = "nats_client_key_file"
    )]
    pub nats_client_certificate_file: Option<PathBuf>,
    /// The key of that certificate, in PEM.
    #[arg(
        long,
        env = "POSTHASTE_NATS_CLIENT_KEY_FILE",
        requires = "nats_client_certificate_file"
    )]
    pub nats_client_key_file: Option<PathBuf>,
    /// How long to wait for JetStream to ack a message.
    #[arg(long, env = "POSTHASTE_NATS_ACK_TIMEOUT", default_value = "2s", value_parser = crate::config::duration)]
    pub nats_ack_timeout: Duration,
    /// Copies of every stream and of the CONFIG bucket: 1, 3 or 5.
    #[arg(long, env = "POSTHASTE_NATS_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub nats_replicas: u8,
    /// Storage limit of stream EVENTS. When it is full, intake answers 503.
    #[arg(long, env = "POSTHASTE_NATS_EVENTS_BYTES", default_value = "1GiB", value_parser = crate::config::size::<u64>)]
    pub nats_events_bytes: u64,
    /// Storage limit of stream DELIVERIES.
    #[arg(long, env = "POSTHASTE_NATS_DELIVERIES_BYTES", default_value = "2GiB", value_parser = crate::config::size::<u64>)]
    pub nats_deliveries_bytes: u64,
    /// Storage limit of stream LEDGER: how much record can wait for Postgres.
    #[arg(long, env = "POSTHASTE_NATS_LEDGER_BYTES", default_value = "4GiB", value_parser = crate::config::size::<u64>)]
    pub nats_ledger_bytes: u64,
    /// Storage limit of stream SEEN, which remembers the ids of a day's events; when it is full, the oldest are forgotten
    /// early. A million ids take some 150 MiB.
    #[arg(long, env = "POSTHASTE_NATS_SEEN_BYTES", default_value = "1GiB", value_parser = crate::config::size::<u64>)]
    pub nats_seen_bytes: u64,
}

impl Config {
    /// The address, which may hold a password.
    pub(super) fn address(&self) -> Result<SecretString, Error> {
        let path = self.nats_url_file.as_deref();
        let in_file = crate::config::secret("NATS_URL", None, path).map_err(Error::Address)?;
        Ok(in_file.unwrap_or_else(|| self.nats_url.clone()))
    }

    /// The certificate that this service shows, and its key.
    pub(super) fn client_certificate(&self) -> Option<(&Path, &Path)> {
        let (certificate, key) = (&self.nats_client_certificate_file, &self.nats_client_key_file);
        certificate.as_deref().zip(key.as_deref())
    }

    /// Whether nothing may go in plain text: certificates are there for TLS.
    pub(super) fn wants_tls(&self) -> bool {
        self.nats_ca_file.is_some() || self.nats_client_certificate_file.is_some()
    }
}
