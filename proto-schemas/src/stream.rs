//! Streams, consumers and the CONFIG bucket: their names, and what every service insists on when it finds them.
//!
//! All three streams are work queues: an acked message is gone from the stream itself. A limits stream keeps what was
//! acked in a consumer state that is flushed lazily, and hands it out again after the server was killed.

use std::time::Duration;

use crate::id::{ProjectId, WebhookId};

/// One of the three streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// Name in JetStream.
    pub name: &'static str,
    /// What it captures.
    pub subjects: &'static str,
    /// The one durable consumer that works it off.
    pub consumer: &'static str,
    /// How long JetStream remembers message ids.
    pub duplicate_window: Duration,
}

/// What producers published and ingest has not worked off.
pub const EVENTS: Stream = Stream {
    name: "EVENTS",
    subjects: "events.>",
    consumer: "ingest",
    // As short as JetStream has it: what has the id of another is ingest's to judge (stream SEEN), and JetStream would drop
    // it unseen, whatever it says and whosever it is.
    duplicate_window: Duration::from_millis(100),
};
/// Attempts that are due now.
pub const DELIVERIES: Stream = Stream {
    name: "DELIVERIES",
    subjects: "deliveries.>",
    consumer: "dispatcher",
    duplicate_window: DUPLICATE_WINDOW,
};
/// Facts on their way to Postgres.
pub const LEDGER: Stream = Stream {
    name: "LEDGER",
    subjects: "ledger.>",
    consumer: "recorder",
    duplicate_window: DUPLICATE_WINDOW,
};

/// How long JetStream remembers the message ids that we make.
pub const DUPLICATE_WINDOW: Duration = Duration::from_secs(600);

/// A stream that keeps the last message of each subject for a while; nobody works it off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Name in JetStream.
    pub name: &'static str,
    /// What it captures.
    pub subjects: &'static str,
    /// How long it keeps a message.
    pub kept: Duration,
}

/// The ids that producers chose for their events.
pub const SEEN: Memory = Memory {
    name: "SEEN",
    subjects: "seen.>",
    kept: Duration::from_secs(24 * 3600),
};

/// The key-value bucket with every definition ingest and dispatcher work by.
pub const CONFIG_BUCKET: &str = "CONFIG";

/// Keys of the CONFIG bucket.
pub mod config_key {
    use super::{ProjectId, WebhookId};
    use std::str::FromStr as _;

    /// What a key of the bucket names.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum Key {
        /// A project's definition.
        Project(ProjectId),
        /// A token's definition, by the SHA-256 of the token in lower-case hexadecimal.
        Token(String),
        /// A webhook's definition.
        Webhook(ProjectId, WebhookId),
        /// The schemas of a project's own event type.
        EventType(ProjectId, String),
        /// The schemas of a catalogue's event type: catalogue and type.
        CatalogueType(String, String),
    }

    impl Key {
        /// The key as the bucket knows it.
        #[must_use]
        pub fn to_text(&self) -> String {
            match self {
                Self::Project(project) => format!("project.{project}"),
                Self::Token(hash) => format!("token.{hash}"),
                Self::Webhook(project, webhook) => format!("webhook.{project}.{webhook}"),
                Self::EventType(project, name) => format!("type.{project}.{name}"),
                Self::CatalogueType(catalogue, name) => format!("catalogue.{catalogue}.{name}"),
            }
        }

        /// Reads a key of the bucket; `None` for one this release does not know.
        #[must_use]
        pub fn parse(text: &str) -> Option<Self> {
            let (kind, rest) = text.split_once('.')?;
            match kind {
                "project" => ProjectId::from_str(rest).ok().map(Self::Project),
                "token" => Some(Self::Token(rest.to_owned())),
                "webhook" => {
                    let (project, webhook) = rest.split_once('.')?;
                    Some(Self::Webhook(
                        ProjectId::from_str(project).ok()?,
                        WebhookId::from_str(webhook).ok()?,
                    ))
                }
                "type" => {
                    let (project, name) = rest.split_once('.')?;
                    Some(Self::EventType(ProjectId::from_str(project).ok()?, name.to_owned()))
                }
                "catalogue" => {
                    let (catalogue, name) = rest.split_once('.')?;
                    Some(Self::CatalogueType(catalogue.to_owned(), name.to_owned()))
                }
                _ => None,
            }
        }
    }
}
