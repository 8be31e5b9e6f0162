//! Settings of dispatcher.

use std::time::Duration;

use common::{bus, crypto, egress};

/// Settings of dispatcher.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// NATS.
    #[command(flatten)]
    pub nats: bus::Config,
    /// Keys that secrets and protected headers are encrypted with.
    #[command(flatten)]
    pub encryption: crypto::Config,
    /// Where requests may go.
    #[command(flatten)]
    pub egress: egress::Config,
    /// Requests under way at once to one webhook.
    #[arg(long, env = "POSTHASTE_MAX_IN_FLIGHT_PER_WEBHOOK", default_value_t = 10, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub max_in_flight_per_webhook: usize,
    /// Requests under way at once, over all webhooks; beyond it, webhooks that answer slowly are held to one each.
    #[arg(long, env = "POSTHASTE_MAX_IN_FLIGHT", default_value_t = 1024)]
    pub max_in_flight: usize,
    /// Longest a delivery may expect to wait for its webhook's turn here; beyond it, it waits in Postgres instead.
    #[arg(long, env = "POSTHASTE_PATIENCE", default_value = "1s", value_parser = common::config::duration)]
    pub patience: Duration,
    /// Deliveries that may wait here for one webhook's turn; beyond it, they wait in Postgres instead.
    // Half of what is held at once, so that one webhook leaves room for the others.
    #[arg(long, env = "POSTHASTE_MAX_WAITING_PER_WEBHOOK", default_value_t = 4096)]
    pub max_waiting_per_webhook: usize,
    /// Failures in a row after which a receiver is left alone and only probed from time to time; 0: it never is.
    #[arg(long, env = "POSTHASTE_BREAKER_FAILURES", default_value_t = 5)]
    pub breaker_failures: u32,
    /// How long a receiver that fails is left alone at first; twice as long each time it fails when it is probed.
    #[arg(long, env = "POSTHASTE_BREAKER_WAIT", default_value = "2s", value_parser = common::config::duration)]
    pub breaker_wait: Duration,
    /// How long a receiver that fails is left alone at most, but for a fifth by which this is spread.
    // What waits in Postgres comes back within a minute, whatever is said here.
    #[arg(long, env = "POSTHASTE_BREAKER_WAIT_MAX", default_value = "60s", value_parser = common::config::duration)]
    pub breaker_wait_max: Duration,
    /// Deliveries held at once, waiting ones included.
    #[arg(long, env = "POSTHASTE_DISPATCHER_MAX_HELD", default_value_t = 8192)]
    pub max_held: usize,
    /// How long to wait, once told to stop, for the requests under way: what takes longer is made again. No shorter than
    /// the longest timeout that profiles allow, and some seconds for its result.
    #[arg(long, env = "POSTHASTE_DISPATCHER_DRAIN", default_value = "70s", value_parser = common::config::duration)]
    pub drain: Duration,
}
