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
    /// Deliveries held at once, waiting ones included.
    #[arg(long, env = "POSTHASTE_DISPATCHER_MAX_HELD", default_value_t = 8192)]
    pub max_held: usize,
    /// How long to wait, once told to stop, for the requests under way.
    #[arg(long, env = "POSTHASTE_DISPATCHER_DRAIN", default_value = "30s", value_parser = common::config::duration)]
    pub drain: Duration,
}
