//! Settings of retry-scheduler.

mod mail;

use std::time::Duration;

use common::bus;

pub use self::mail::{MailConfig, MailServer, Security};

/// Settings of retry-scheduler.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// NATS.
    #[command(flatten)]
    pub nats: bus::Config,
    /// Postgres.
    #[command(flatten)]
    pub postgres: store::Config,
    /// Parked deliveries of one webhook that are handed to dispatcher at once; more follow as these are settled.
    #[arg(long, env = "POSTHASTE_RELEASED_PER_WEBHOOK", value_name = "COUNT", default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Releases")]
    pub released_per_webhook: u32,
    /// When nothing is heard of a released delivery for this long, look whether it is still on its way.
    // Well above what is usual from release to record: a lane's patience and a request's timeout.
    #[arg(long, env = "POSTHASTE_RESCUE_AFTER", value_name = "TIME", default_value = "5m",
        value_parser = common::config::duration, help_heading = "Releases")]
    pub rescue_after: Duration,
    /// When a delivery has been missing for this long, neither on record nor in the pipe, make it due again.
    // Long enough that somebody who is called can still see what happened.
    #[arg(long, env = "POSTHASTE_REPAIR_AFTER", value_name = "TIME", default_value = "10m",
        value_parser = common::config::duration, help_heading = "Releases")]
    pub repair_after: Duration,
    /// Deliveries that all replays together begin in a second; one may be asked to go slower.
    // Well under what the pipe carries: what happens meanwhile waits for those of one step at most, which take two cores
    // some milliseconds.
    #[arg(long, env = "POSTHASTE_REPLAYS_PER_SECOND", value_name = "COUNT", default_value_t = 300,
        value_parser = clap::value_parser!(u32).range(1..=100_000), help_heading = "Releases")]
    pub replays_per_second: u32,
    /// Who is told by e-mail.
    #[command(flatten, next_help_heading = "E-mail")]
    pub mail: MailConfig,
    /// How long events, attempts and dead deliveries are kept; whole days (UTC) leave together.
    #[arg(long, env = "POSTHASTE_RETENTION", value_name = "TIME", default_value = "30d",
        value_parser = retention, help_heading = "Record")]
    pub retention: Duration,
}

/// At least a day, or today's record would leave under the recorder's hands.
fn retention(text: &str) -> Result<Duration, String> {
    let keep = common::config::duration(text)?;
    match keep >= Duration::from_secs(24 * 3600) {
        true => Ok(keep),
        false => Err("the record is kept for at least a day (1d)".to_owned()),
    }
}
