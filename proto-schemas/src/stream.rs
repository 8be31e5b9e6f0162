//! Streams, consumers and the CONFIG bucket: their names, and what every service insists on when it finds them.
//!
//! All three streams are work queues: an acked message is gone from the stream itself. A limits stream keeps what was
//! acked in a consumer state that is flushed lazily, and hands it out again after the server was killed.
//!
//! Two of them are worked off in [`SHARES`], so that a project with a backlog is not in front of the others.

use std::time::Duration;

use crate::id::{ProjectId, WebhookId};

/// One of the three streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// Name in JetStream.
    pub name: &'static str,
    /// What it captures.
    pub subjects: &'static str,
    /// The durable consumer that works it off; where it is worked off in shares, how the names of theirs begin.
    pub consumer: &'static str,
    /// How long JetStream remembers message ids.
    pub duplicate_window: Duration,
    /// How its messages are told apart by project, so that one project's backlog is not in front of another's message.
    pub shares: Shares,
}

/// Whether a stream has shares: parts of it that are worked off side by side. A project's messages are all in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shares {
    /// One line for all.
    None,
    /// The publisher names the share, as the token after the first.
    Published,
    /// The server finds the share by the token after the first (the project), and puts it in front of that.
    Transformed,
}

/// Shares of a stream that has any. Part of the contract: a change of it is one of subjects and consumers.
pub const SHARES: u16 = 32;

/// A durable consumer of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Its name.
    pub name: String,
    /// What it gets; `None`: everything.
    pub filter: Option<String>,
}

impl Stream {
    /// The consumers that together work the stream off. No message is for two of them.
    #[must_use]
    pub fn consumers(self) -> Vec<Consumer> {
        let Some(root) = self.subjects.strip_suffix(".>").filter(|_| self.shares != Shares::None) else {
            return vec![Consumer {
                name: self.consumer.to_owned(),
                filter: None,
            }];
        };
        let mut consumers: Vec<_> = (0..SHARES)
            .map(|share| Consumer {
                name: format!("{}-{share}", self.consumer),
                filter: Some(format!("{root}.{share}.>")),
            })
            .collect();
        if self.shares == Shares::Transformed {
            // What the transform does not apply to, because a part is missing.
            consumers.push(Consumer {
                name: format!("{}-rest", self.consumer),
                filter: Some(format!("{root}.*")),
            });
        }
        consumers
    }

    /// Source and destination of the server's subject transform, where there is one.
    #[must_use]
    pub fn transform(self) -> Option<(String, String)> {
        let root = self.subjects.strip_suffix(".>")?;
        (self.shares == Shares::Transformed).then(|| {
            (
                format!("{root}.*.>"),
                format!("{root}.{{{{partition({SHARES},1)}}}}.{{{{wildcard(1)}}}}.>"),
            )
        })
    }
}

/// What producers published and ingest has not worked off.
pub const EVENTS: Stream = Stream {
    name: "EVENTS",
    subjects: "events.>",
    consumer: "ingest",
    // As short as JetStream has it: what has the id of another is ingest's to judge (stream SEEN), and JetStream would drop
    // it unseen, whatever it says and whosever it is.
    duplicate_window: Duration::from_millis(100),
    shares: Shares::Transformed,
};
/// Attempts that are due now.
pub const DELIVERIES: Stream = Stream {
    name: "DELIVERIES",
    subjects: "deliveries.>",
    consumer: "dispatcher",
    duplicate_window: DUPLICATE_WINDOW,
    shares: Shares::Published,
};
/// Facts on their way to Postgres.
pub const LEDGER: Stream = Stream {
    name: "LEDGER",
    subjects: "ledger.>",
    consumer: "recorder",
    duplicate_window: DUPLICATE_WINDOW,
    shares: Shares::None,
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
    use crate::id::{is_event_type, is_word};
    use std::str::FromStr as _;

    /// A key that nothing is ever put under: a watch on it tells of nothing but the bucket itself.
    pub const NEVER_USED: &str = "never-used";

    const FILLED: &str = "filled";

    /// What a key of the bucket names.
    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
        /// That the bucket holds everything there is: config-api puts it there after all else, and again whenever it has
        /// compared everything. While it is not there, what is not in the bucket may still come.
        Filled,
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
                Self::Filled => FILLED.to_owned(),
            }
        }

        /// Reads a key of the bucket; `None` for one this release does not know, and for one whose parts are not what
        /// they should be.
        #[must_use]
        pub fn parse(text: &str) -> Option<Self> {
            if text == FILLED {
                return Some(Self::Filled);
            }
            let (kind, rest) = text.split_once('.')?;
            match kind {
                "project" => ProjectId::from_str(rest).ok().map(Self::Project),
                "token" => is_word(rest).then(|| Self::Token(rest.to_owned())),
                "webhook" => {
                    let (project, webhook) = rest.split_once('.')?;
                    Some(Self::Webhook(
                        ProjectId::from_str(project).ok()?,
                        WebhookId::from_str(webhook).ok()?,
                    ))
                }
                "type" => {
                    let (project, name) = rest.split_once('.').filter(|(_, name)| is_event_type(name))?;
                    Some(Self::EventType(ProjectId::from_str(project).ok()?, name.to_owned()))
                }
                "catalogue" => {
                    let (catalogue, name) = rest.split_once('.').filter(|(_, name)| is_event_type(name))?;
                    is_word(catalogue).then(|| Self::CatalogueType(catalogue.to_owned(), name.to_owned()))
                }
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_of_a_stream_has_one_consumer() {
        let filters = |stream: Stream| -> Vec<_> { stream.consumers().into_iter().map(|it| it.filter).collect() };
        assert_eq!(filters(LEDGER), [None]);
        let deliveries = filters(DELIVERIES);
        assert_eq!(deliveries.len(), usize::from(SHARES));
        assert_eq!(deliveries[7].as_deref(), Some("deliveries.7.>"));
        let events = filters(EVENTS);
        assert_eq!(events.len(), usize::from(SHARES) + 1);
        assert_eq!(events[31].as_deref(), Some("events.31.>"));
        assert_eq!(events[32].as_deref(), Some("events.*"));
    }

    #[test]
    fn the_server_puts_the_share_in_front_of_the_project() {
        let (source, destination) = EVENTS.transform().unwrap();
        assert_eq!(source, "events.*.>");
        assert_eq!(destination, "events.{{partition(32,1)}}.{{wildcard(1)}}.>");
        assert_eq!(DELIVERIES.transform(), None);
    }
}
