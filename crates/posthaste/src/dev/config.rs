//! Settings of `posthaste dev`.

use std::net::SocketAddr;
use std::path::PathBuf;

use common::{crypto, telemetry};
use secrecy::SecretString;

/// Settings of `posthaste dev`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Write {"api","ingest","nats","database","admin_token"} as JSON to this file while everything is ready. It is
    /// readable by you alone
    #[arg(long, env = "POSTHASTE_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,

    /// Keep everything in this folder from one run to the next. Without it, all is gone at the end
    #[arg(long, env = "POSTHASTE_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Address of the API; port 0 picks a free one
    #[arg(
        long,
        env = "POSTHASTE_API_LISTEN",
        value_name = "IP:PORT",
        default_value = "127.0.0.1:0"
    )]
    pub api_listen: SocketAddr,

    /// Address to take events at over HTTP; port 0 picks a free one
    #[arg(
        long,
        env = "POSTHASTE_INGEST_LISTEN",
        value_name = "IP:PORT",
        default_value = "127.0.0.1:0"
    )]
    pub ingest_listen: SocketAddr,

    /// Use the NATS at this address instead of a private one
    #[arg(long, env = "NATS_URL", value_name = "URL", hide_env_values = true)]
    pub nats_url: Option<String>,

    /// Use the Postgres database at this address instead of a private one
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<SecretString>,

    /// The administrator's token. Without it, one is made up
    #[arg(long, env = "POSTHASTE_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<SecretString>,

    /// A file that holds the administrator's token
    #[arg(long, env = "POSTHASTE_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,

    /// Keys that secrets are encrypted with. Without them, one is made up
    #[command(flatten)]
    pub encryption: crypto::Config,

    /// Logs and traces
    #[command(flatten)]
    pub telemetry: telemetry::Config,
}
