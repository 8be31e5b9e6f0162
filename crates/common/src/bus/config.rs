//! How to reach NATS.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use super::Error;

/// How to reach NATS, and what to ask of its streams.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Where NATS is; several addresses of one cluster are separated by commas.
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222")]
    pub nats_url: String,
    /// Credentials file (JWT and seed) of the account this service uses.
    #[arg(long, env = "POSTHASTE_NATS_CREDENTIALS_FILE")]
    pub nats_credentials_file: Option<PathBuf>,
    /// Certificate authority to verify the server by, in PEM; the platform's own otherwise.
    #[arg(long, env = "POSTHASTE_NATS_CA_FILE")]
    pub nats_ca_file: Option<PathBuf>,
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
    /// Connects, trying again until the deadline; keeps `connected` true to the connection from then on.
    pub(super) async fn connect(
        &self,
        service: &str,
        patience: Duration,
        connected: watch::Sender<bool>,
    ) -> Result<async_nats::Client, Error> {
        let deadline = tokio::time::Instant::now() + patience;
        let mut said = false;
        loop {
            match self.try_connect(service, connected.clone()).await {
                Ok(client) => return Ok(client),
                Err(source) if tokio::time::Instant::now() >= deadline => {
                    return Err(Error::Unreachable {
                        url: self.display_url(),
                        source,
                    });
                }
                Err(error) => {
                    if !said {
                        tracing::info!(url = self.display_url(), %error, "waiting for NATS");
                        said = true;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn try_connect(
        &self,
        service: &str,
        connected: watch::Sender<bool>,
    ) -> Result<async_nats::Client, async_nats::ConnectError> {
        let mut options = async_nats::ConnectOptions::new();
        if let Some(path) = &self.nats_credentials_file {
            options = options.credentials_file(path).await.map_err(|error| {
                async_nats::ConnectError::with_source(async_nats::ConnectErrorKind::Authentication, error)
            })?;
        }
        if let Some(path) = &self.nats_ca_file {
            options = options.add_root_certificates(path.clone());
        }
        let servers: Vec<&str> = self.nats_url.split(',').map(str::trim).collect();
        options
            .name(format!("posthaste {service}"))
            .connection_timeout(Duration::from_secs(5))
            .ping_interval(Duration::from_secs(5))
            // A burst of publishes and acks must find room in the client's own queue.
            .client_capacity(64 * 1024)
            .subscription_capacity(256 * 1024)
            .reconnect_delay_callback(|attempts| Duration::from_millis((50 * attempts as u64).min(1_000)))
            .max_reconnects(None)
            .event_callback(move |event| {
                let connected = connected.clone();
                async move {
                    match event {
                        async_nats::Event::Connected => drop(connected.send_replace(true)),
                        async_nats::Event::Closed => drop(connected.send_replace(false)),
                        async_nats::Event::Disconnected => {
                            connected.send_replace(false);
                            tracing::warn!("lost the connection to NATS; reconnecting");
                        }
                        async_nats::Event::SlowConsumer(subscription) => {
                            tracing::warn!(subscription, "NATS messages arrive faster than they are taken");
                        }
                        async_nats::Event::ServerError(error) => tracing::error!(%error, "NATS reports an error"),
                        async_nats::Event::ClientError(error) => tracing::warn!(%error, "NATS client reports an error"),
                        async_nats::Event::LameDuckMode | async_nats::Event::Draining => {}
                    }
                }
            })
            .connect(servers)
            .await
    }

    /// The URL without user and password.
    fn display_url(&self) -> String {
        self.nats_url
            .split(',')
            .map(|server| match (server.find("://"), server.rfind('@')) {
                (Some(scheme), Some(at)) if at > scheme => format!("{}{}", &server[..scheme + 3], &server[at + 1..]),
                _ => server.to_owned(),
            })
            .collect::<Vec<_>>()
            .join(",")
    }
}
