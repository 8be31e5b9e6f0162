//! Settings of ingest.

use std::time::Duration;

use common::bus;
use common::http::rate_limit;
use common::model::limits::WEBHOOKS_MAX;
use proto_schemas::ledger::REJECTED_PAYLOAD_MAX;

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
    /// Requests a second that a token is good for over HTTP, at each process; 0: any number. Events over NATS are not counted.
    #[arg(
        long,
        env = "POSTHASTE_INGEST_RATE_LIMIT",
        value_name = "REQUESTS",
        default_value_t = 20_000
    )]
    pub rate_limit: u32,
    /// Requests that a token is good for at once over HTTP.
    #[arg(
        long,
        env = "POSTHASTE_INGEST_RATE_LIMIT_BURST",
        value_name = "REQUESTS",
        default_value_t = 40_000
    )]
    pub rate_limit_burst: u32,
    /// Requests a minute with a token that is not valid, from one address; 0: any number. One that is valid and was made over
    /// REST is never refused for them.
    #[arg(
        long,
        env = "POSTHASTE_REFUSED_TOKENS_PER_MINUTE",
        value_name = "REQUESTS",
        default_value_t = 60
    )]
    pub refused_tokens_per_minute: u32,
    /// Events worked on at once.
    // Enough to have many acknowledgements under way; what is held beyond that is only in front of other projects' events.
    #[arg(long, env = "POSTHASTE_INGEST_MAX_HELD", default_value_t = 512)]
    pub max_held: usize,
    /// How long to wait, once told to stop, for the events being worked on.
    #[arg(long, env = "POSTHASTE_INGEST_DRAIN", default_value = "10s", value_parser = common::config::duration)]
    pub drain: Duration,
}

/// What is put around an event's data on its way: ids, headers, attributes, media type, warnings, a rejection's detail,
/// protobuf framing. Each of them is bounded, and all come to half of this.
const ENVELOPE_BYTES: usize = 32 * 1024;

/// What one webhook comes to at most in what is said of an event: it is owed the event, holds it while it is paused, and
/// gets it in order.
const WEBHOOK_BYTES: usize = 74;

/// What is said of the webhooks of an event, in one message with it.
const WEBHOOKS_BYTES: usize = WEBHOOKS_MAX * WEBHOOK_BYTES;

impl Config {
    /// Largest event, in bytes.
    #[must_use]
    pub fn max_event_bytes(&self) -> usize {
        usize::try_from(self.max_event_bytes).unwrap_or(usize::MAX)
    }

    /// How much may be asked over HTTP.
    #[must_use]
    pub fn rate_limits(&self) -> rate_limit::Config {
        rate_limit::Config {
            rate_limit: self.rate_limit,
            rate_limit_burst: self.rate_limit_burst,
            // Whoever has more tokens may publish more.
            project_rate_limit: Some(0),
            project_rate_limit_burst: None,
            public_keys_per_minute: 0,
            refused_tokens_per_minute: self.refused_tokens_per_minute,
        }
    }

    /// Checks the settings against the server's.
    ///
    /// # Errors
    /// Where the largest event would not fit into a NATS message, together with whom it is owed to.
    pub fn check(&self, max_payload: usize) -> anyhow::Result<()> {
        let accepted = self.max_event_bytes().saturating_add(WEBHOOKS_BYTES);
        let needed = accepted.max(REJECTED_PAYLOAD_MAX).saturating_add(ENVELOPE_BYTES);
        anyhow::ensure!(
            needed <= max_payload,
            "--max-event-bytes {} needs a NATS max_payload of at least {needed}; the server has {max_payload}: lower the one or raise the other",
            self.max_event_bytes
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use clap::Parser as _;
    use common::model::limits::{ATTRIBUTES_BYTES_MAX, ATTRIBUTES_MAX};
    use jiff::Timestamp;
    use proto_schemas::event::Event;
    use proto_schemas::id::{EVENT_ID_MAX, EVENT_TYPE_MAX, EventKey, OrderKey, ProjectId, WebhookId};
    use proto_schemas::ledger::{EventAccepted, EventRejected, Fact};
    use uuid::Uuid;

    use super::*;
    use crate::accept::{CONTENT_TYPE_MAX, DETAIL_MAX};

    /// What nats-server takes unless it is told otherwise.
    const MAX_PAYLOAD: usize = 1024 * 1024;

    #[derive(clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        config: Config,
    }

    fn config(arguments: &[&str]) -> Config {
        Arguments::parse_from([&["test"], arguments].concat()).config
    }

    fn id(number: usize) -> WebhookId {
        WebhookId::from_uuid(Uuid::from_u128(u128::MAX - number as u128))
    }

    /// As large as an event may be in every respect.
    fn largest(config: &Config) -> Event {
        let each = ATTRIBUTES_BYTES_MAX / ATTRIBUTES_MAX;
        let attributes = (0..ATTRIBUTES_MAX).map(|n| (format!("{n:03}"), "x".repeat(each - 3)));
        Event {
            key: EventKey::of_message(Timestamp::MAX, u64::MAX),
            id: "x".repeat(EVENT_ID_MAX),
            project: ProjectId::from_uuid(Uuid::max()),
            event_type: "x".repeat(EVENT_TYPE_MAX),
            occurred_at: Timestamp::MIN,
            accepted_at: Timestamp::MIN,
            attributes: attributes.collect::<BTreeMap<_, _>>(),
            content_type: "x".repeat(CONTENT_TYPE_MAX),
            payload: Bytes::from(vec![b'x'; config.max_event_bytes()]),
            traceparent: "x".repeat(55),
        }
    }

    #[test]
    fn whatever_comes_of_a_message_fits_a_message() {
        let config = config(&[]);
        config.check(MAX_PAYLOAD).unwrap();
        let webhooks: Vec<WebhookId> = (0..WEBHOOKS_MAX).map(id).collect();
        let accepted = Fact::EventAccepted(EventAccepted {
            event: largest(&config),
            owed: webhooks.clone(),
            skipped: Vec::new(),
            warnings: vec!["x".repeat(4100)],
            held: webhooks.clone(),
            ordered: webhooks
                .into_iter()
                .map(|it| (it, OrderKey::from_uuid(Uuid::max())))
                .collect(),
        });
        let size = accepted.encode().len();
        assert!(
            size > WEBHOOKS_BYTES + config.max_event_bytes(),
            "no less than is reckoned with: {size}"
        );
        assert!(
            size < WEBHOOKS_BYTES + config.max_event_bytes() + ENVELOPE_BYTES / 2,
            "half of the envelope is enough: {size}"
        );
        let rejected = Fact::EventRejected(EventRejected {
            key: EventKey::of_message(Timestamp::MAX, u64::MAX),
            project: Some(ProjectId::from_uuid(Uuid::max())),
            // The longest that a server reads (max_control_line).
            subject: "x".repeat(4096),
            reason: "malformed_cloudevent".to_owned(),
            detail: "x".repeat(DETAIL_MAX),
            payload: Bytes::from(vec![b'x'; REJECTED_PAYLOAD_MAX]),
            payload_size: u64::MAX,
            received_at: Timestamp::MAX,
        });
        assert!(rejected.encode().len() < REJECTED_PAYLOAD_MAX + ENVELOPE_BYTES / 2);
    }

    #[test]
    fn settings_that_the_server_has_no_room_for_are_refused() {
        config(&[]).check(MAX_PAYLOAD).unwrap();
        let refused = config(&["--max-event-bytes", "512KiB"])
            .check(MAX_PAYLOAD)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("max_payload of at least 1297056"), "{refused}");
        config(&["--max-event-bytes", "512KiB"]).check(2 * MAX_PAYLOAD).unwrap();
        config(&["--max-event-bytes", "1KiB"])
            .check(WEBHOOKS_BYTES)
            .unwrap_err();
    }
}
