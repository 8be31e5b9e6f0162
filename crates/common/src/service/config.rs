//! What every service is told in the same words.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::duration;
use crate::http::server;

/// How a service is run; what it does is its own [`super::Service::Config`].
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Process")]
pub struct Args {
    /// Address to serve HTTP on; port 0 picks a free one.
    #[arg(long, env = "POSTHASTE_LISTEN", value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// Write {"service","listen"} as JSON to this file while the service is ready.
    #[arg(long, env = "POSTHASTE_READY_FILE", value_name = "PATH")]
    pub ready_file: Option<PathBuf>,
    /// Give up starting when NATS or Postgres cannot be reached for this long.
    #[arg(long, env = "POSTHASTE_STARTUP_TIMEOUT", default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub startup_timeout: Duration,
    /// Go on serving for this long after SIGTERM, not ready, so that load balancers notice first.
    #[arg(long, env = "POSTHASTE_DRAIN_DELAY", default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub drain_delay: Duration,
    /// Open HTTP connections at once; further ones wait to be accepted.
    #[arg(long, env = "POSTHASTE_MAX_CONNECTIONS", default_value_t = server::MAX_CONNECTIONS, value_name = "COUNT",
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub max_connections: usize,
}

impl Args {
    /// For a service started within another process: as by default, but stopping without delay.
    #[must_use]
    pub fn local(listen: SocketAddr) -> Self {
        Self {
            listen,
            ready_file: None,
            startup_timeout: Duration::from_secs(30),
            drain_delay: Duration::ZERO,
            max_connections: server::MAX_CONNECTIONS,
        }
    }
}
