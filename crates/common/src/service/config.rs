//! What every service is told in the same words.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{duration, size};
use crate::egress::Cidrs;
use crate::http::server::{self, Limits, Proxies};

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
    /// Open HTTP connections at once from one address (from one /64 network of IPv6); further ones are closed.
    #[arg(long, env = "POSTHASTE_MAX_CONNECTIONS_PER_ADDRESS", default_value_t = server::MAX_CONNECTIONS_PER_ADDRESS,
        value_name = "COUNT", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub max_connections_per_address: usize,
    /// Memory that the bodies of HTTP requests may take together; who finds none left is told to come again (503).
    #[arg(long, env = "POSTHASTE_MAX_BODY_MEMORY", default_value = "256MiB", value_parser = body_memory, value_name = "BYTES")]
    pub max_body_memory: usize,
    /// Proxies in front of this service, which say in X-Forwarded-For or Forwarded where a request comes from.
    #[arg(long, env = "POSTHASTE_TRUSTED_PROXIES", default_value = "", value_name = "CIDR,…")]
    pub trusted_proxies: Cidrs,
}

/// The least that leaves room for two of the largest bodies.
const LEAST_BODY_MEMORY: usize = 16 * 1024 * 1024;

fn body_memory(text: &str) -> Result<usize, String> {
    match size(text)? {
        bytes if bytes < LEAST_BODY_MEMORY => Err("at least 16MiB: one body may have 8MiB".to_owned()),
        bytes => Ok(bytes),
    }
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
            max_connections_per_address: server::MAX_CONNECTIONS_PER_ADDRESS,
            max_body_memory: server::MAX_BODY_MEMORY,
            trusted_proxies: Cidrs::default(),
        }
    }

    /// What its HTTP server puts up with.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            max_connections: self.max_connections,
            max_connections_per_address: self.max_connections_per_address,
            max_body_memory: self.max_body_memory,
            ..Limits::default()
        }
    }

    pub(super) fn proxies(&self) -> Proxies {
        Proxies(self.trusted_proxies.clone())
    }
}
