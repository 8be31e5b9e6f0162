//! Settings of config-api.

use std::path::PathBuf;
use std::time::Duration;

use common::{bus, catalogue, crypto, egress, profile};
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
