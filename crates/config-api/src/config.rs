//! Settings of config-api.

use std::path::PathBuf;
use std::time::Duration;

use common::http::rate_limit;
use common::{bus, catalogue, crypto, egress, profile};
use ipnet::IpNet;
use secrecy::SecretString;

/// Settings of config-api.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Postgres.
    #[command(flatten, next_help_heading = "Postgres")]
    pub postgres: store::Config,
    /// NATS.
    #[command(flatten, next_help_heading = "NATS")]
    pub nats: bus::Config,
    /// Keys that secrets are stored with.
    #[command(flatten, next_help_heading = "Encryption")]
    pub encryption: crypto::Config,
    /// Where webhooks may go.
    #[command(flatten, next_help_heading = "Where webhooks may go")]
    pub egress: egress::Config,
    /// How projects' webhooks behave.
    #[command(flatten, next_help_heading = "Profiles")]
    pub profiles: profile::Config,
    /// Which event types come with profiles.
    #[command(flatten, next_help_heading = "Catalogues")]
    pub catalogues: catalogue::Config,
    /// The administrator's token, good for every project and everything; at least 20 characters. A change of it revokes
    /// the one before
    #[arg(
        long,
        env = "POSTHASTE_ADMIN_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        value_parser = common::config::secret_text,
        help_heading = "Access"
    )]
    pub admin_token: Option<SecretString>,
    /// File that holds the administrator's token
    #[arg(
        long,
        env = "POSTHASTE_ADMIN_TOKEN_FILE",
        value_name = "PATH",
        help_heading = "Access"
    )]
    pub admin_token_file: Option<PathBuf>,
    /// How much clients may ask.
    #[command(flatten, next_help_heading = "Access")]
    pub rate_limit: rate_limit::Config,
    /// Streams of attempts that may be open at once, at each process
    #[arg(
        long,
        env = "POSTHASTE_MAX_STREAMS",
        value_name = "STREAMS",
        default_value_t = 200,
        help_heading = "Access"
    )]
    pub max_streams: usize,
    /// Addresses that requests to webhooks come from, for receivers to let in; separated by commas
    #[arg(
        long,
        env = "POSTHASTE_SOURCE_ADDRESSES",
        value_name = "ADDRESSES",
        value_delimiter = ',',
        value_parser = addresses,
        help_heading = "Where webhooks may go"
    )]
    pub source_addresses: Vec<IpNet>,
    /// How often every definition in NATS is compared with the database
    // Changes are published when they are made; this repairs what was done to the bucket behind our back.
    #[arg(
        long,
        env = "POSTHASTE_RESYNC_INTERVAL",
        value_name = "TIME",
        default_value = "5m",
        value_parser = common::config::duration,
        help_heading = "Definitions"
    )]
    pub resync_interval: Duration,
}

/// Reads an address, or a network of them.
fn addresses(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let address = text.parse::<std::net::IpAddr>().map(IpNet::from);
    address
        .or_else(|_| text.parse())
        .map_err(|_| "write an address like 192.0.2.7, or a network like 192.0.2.0/28".to_owned())
}
