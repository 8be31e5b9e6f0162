//! Settings of ingest.

use std::time::Duration;

use common::bus;

/// Settings of ingest.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// NATS.
    #[command(flatten)]
    pub nats: bus::Config,
    /// Largest event, in bytes of its data. Must leave room below NATS' max_payload for what is put around it.
    #[arg(long, env = "POSTHASTE_MAX_EVENT_BYTES", default_value = "256KiB", value_parser = common::config::size::<u64>)]
    pub max_event_bytes: u64,
    /// Most events in one batch over HTTP.
    #[arg(long, env = "POSTHASTE_MAX_BATCH", default_value_t = 500)]
    pub max_batch: usize,
    /// Events worked on at once.
    // Enough to have many acknowledgements under way; what is held beyond that is only in front of other projects' events.
    #[arg(long, env = "POSTHASTE_INGEST_MAX_HELD", default_value_t = 512)]
    pub max_held: usize,
    /// How long to wait, once told to stop, for the events being worked on.
    #[arg(long, env = "POSTHASTE_INGEST_DRAIN", default_value = "10s", value_parser = common::config::duration)]
    pub drain: Duration,
}

/// What is put around an event's data on its way: ids, headers, attributes, protobuf framing.
const ENVELOPE_BYTES: usize = 32 * 1024;

impl Config {
    /// Largest event, in bytes.
    #[must_use]
    pub fn max_event_bytes(&self) -> usize {
        usize::try_from(self.max_event_bytes).unwrap_or(usize::MAX)
    }

    /// Checks the settings against the server's.
    ///
    /// # Errors
    /// Where the largest event would not fit into a NATS message.
    pub fn check(&self, max_payload: usize) -> anyhow::Result<()> {
        let needed = self.max_event_bytes().saturating_add(ENVELOPE_BYTES);
        anyhow::ensure!(
            needed <= max_payload,
            "--max-event-bytes {} needs a NATS max_payload of at least {needed}; the server has {max_payload}: lower the one or raise the other",
            self.max_event_bytes
        );
        Ok(())
    }
}
