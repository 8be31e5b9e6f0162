//! Ids. Each kind has a type of its own, so that one cannot be passed for another.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use bytes::Bytes;
use uuid::Uuid;

use crate::DecodeError;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID within.
            #[must_use]
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }

            pub(crate) fn to_wire(self) -> Bytes {
                Bytes::copy_from_slice(self.0.as_bytes())
            }

            pub(crate) fn from_wire(field: &'static str, bytes: &[u8]) -> Result<Self, DecodeError> {
                match bytes.len() {
                    0 => Err(DecodeError::Missing(field)),
                    _ => Uuid::from_slice(bytes).map(Self).map_err(|error| DecodeError::Invalid {
                        field,
                        found: error.to_string(),
                    }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::from_str(text).map(Self)
            }
        }
    };
}

uuid_id! {
    /// A project (tenant).
    ProjectId
}
uuid_id! {
    /// A webhook (a subscription).
    WebhookId
}
uuid_id! {
    /// A webhook's signing secret.
    SecretId
}
uuid_id! {
    /// What deliveries of a webhook are kept in order by: those with the same key go out one after the other. Made of
    /// what the webhook's key expression gives for the event.
    OrderKey
}

impl OrderKey {
    /// The key of every delivery of a webhook whose deliveries all go out in order.
    pub const WHOLE: Self = Self(Uuid::nil());
}

uuid_id! {
    /// An accepted event. Made of the time and sequence JetStream gave the message, so reading the message again, after
    /// a crash or a redelivery, gives the same key; and keys sort by time of acceptance (UUID version 7 layout,
    /// RFC 9562 §5.7).
    EventKey
}

impl EventKey {
    /// The key of the message that stream EVENTS holds at `sequence`, stored at `stored_at`.
    #[must_use]
    pub fn of_message(stored_at: jiff::Timestamp, sequence: u64) -> Self {
        let millis = u64::try_from(stored_at.as_millisecond()).unwrap_or(0);
        // The sequence's 64 bits fill the variable part below the version and variant bits: 2 in rand_a, 62 in rand_b.
        let low = u128::from(sequence) & ((1 << 62) - 1);
        let high = (u128::from(sequence) >> 62) & 0xfff;
        Self(Uuid::from_u128(
            (u128::from(millis & 0xffff_ffff_ffff) << 80) | (0x7 << 76) | (high << 64) | (0b10 << 62) | low,
        ))
    }

    /// The smallest key of any event accepted at or after `instant`; bounds a partition or a range query.
    #[must_use]
    pub fn floor(instant: jiff::Timestamp) -> Self {
        let millis = u64::try_from(instant.as_millisecond()).unwrap_or(0);
        Self(Uuid::from_u128(u128::from(millis & 0xffff_ffff_ffff) << 80))
    }

    /// When the event was accepted, to the millisecond.
    #[must_use]
    pub fn accepted_at(self) -> jiff::Timestamp {
        let millis = (self.0.as_u128() >> 80) as i64;
        jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// The id receivers see of an event that was made to try them: `test_` and 32 hexadecimal digits. Its key is a UUID
    /// version 7 like any other's, its lower part being random: there is no message that it could be made of.
    #[must_use]
    pub fn test_event_id(self) -> String {
        format!("test_{}", self.0.as_simple())
    }

    /// The id receivers see where the producer gave none: `evt_` and 32 hexadecimal digits.
    #[must_use]
    pub fn derived_event_id(self) -> String {
        format!("evt_{}", self.0.as_simple())
    }
}

/// Whether `text` is a word of `A-Z a-z 0-9 _ -`: one token of a NATS subject, whatever else it is.
#[must_use]
pub fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Longest event id a producer may choose, in bytes.
pub const EVENT_ID_MAX: usize = 64;

/// Whether `id` may be an event's id: 1 to 64 of `A-Z a-z 0-9 _ -`. No dot: the id is signed between dots
/// (Standard Webhooks 1.0.0); no NATS metacharacter: it becomes part of message ids.
#[must_use]
pub fn is_event_id(id: &str) -> bool {
    id.len() <= EVENT_ID_MAX && is_word(id)
}

/// Longest event type, in bytes.
pub const EVENT_TYPE_MAX: usize = 128;

/// Whether `event_type` may be an event's type: words of `A-Z a-z 0-9 _ -` joined by single dots, at most 128 bytes.
/// Such a type is also a valid tail of a NATS subject.
#[must_use]
pub fn is_event_type(event_type: &str) -> bool {
    event_type.len() <= EVENT_TYPE_MAX && event_type.split('.').all(is_word)
}

/// Whether `name` may be a project's name: 1 to 63 of `a-z 0-9 -`, starting and ending with a letter or digit, and not
/// readable as a UUID (a path may hold either). Such a name is one token of a NATS subject and a DNS label.
#[must_use]
pub fn is_project_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
        && Uuid::parse_str(name).is_err()
}

/// One attempt of one delivery: which event, for which webhook, in which run, the how-manieth attempt, and which release
/// of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttemptRef {
    /// The event.
    pub event: EventKey,
    /// The webhook's project.
    pub project: ProjectId,
    /// The webhook.
    pub webhook: WebhookId,
    /// 0 for the event's own delivery; each replay has a number of its own.
    pub run: u32,
    /// Counts from 1.
    pub attempt: u32,
    /// How often the delivery was released from Postgres; 0 straight from ingest.
    pub release: u32,
    /// How often this attempt was handed out before this release without its end being known: the receiver may have seen
    /// it as often. Says how much is known of an attempt, and is not part of which one it is.
    pub handed_out_before: u32,
}

impl AttemptRef {
    /// The `Nats-Msg-Id` of the duty to make this attempt. The release is part of it: a parked delivery that is released
    /// again within the duplicate window must not be taken for its first release.
    #[must_use]
    pub fn delivery_message_id(&self) -> String {
        use base64::Engine as _;
        let mut bytes = [0_u8; 32];
        bytes[..16].copy_from_slice(self.event.0.as_bytes());
        bytes[16..].copy_from_slice(self.webhook.0.as_bytes());
        let mut id = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        // Writing to a String cannot fail.
        let _ = write!(id, ".{}.{}.{}", self.run, self.attempt, self.release);
        id
    }

    /// The id of the attempt in the log and in the API: `att_` and 54 base64url digits. It holds the whole reference, so
    /// looking one up needs no index of its own; the release is left out, because a request is the same attempt however
    /// often it had to be released.
    #[must_use]
    pub fn attempt_id(&self) -> String {
        use base64::Engine as _;
        let mut bytes = [0_u8; 40];
        bytes[..16].copy_from_slice(self.event.0.as_bytes());
        bytes[16..32].copy_from_slice(self.webhook.0.as_bytes());
        bytes[32..36].copy_from_slice(&self.run.to_be_bytes());
        bytes[36..].copy_from_slice(&self.attempt.to_be_bytes());
        format!("att_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(crate) fn to_wire(self) -> crate::wire::AttemptRef {
        crate::wire::AttemptRef {
            event_key: self.event.to_wire(),
            webhook_id: self.webhook.to_wire(),
            run: self.run,
            attempt: self.attempt,
            release: self.release,
            project_id: self.project.to_wire(),
            handed_out_before: self.handed_out_before,
        }
    }

    pub(crate) fn from_wire(wire: Option<crate::wire::AttemptRef>) -> Result<Self, DecodeError> {
        let wire = wire.ok_or(DecodeError::Missing("ref"))?;
        if wire.attempt == 0 {
            return Err(DecodeError::Missing("attempt"));
        }
        Ok(Self {
            event: EventKey::from_wire("event_key", &wire.event_key)?,
            project: ProjectId::from_wire("project_id", &wire.project_id)?,
            webhook: WebhookId::from_wire("webhook_id", &wire.webhook_id)?,
            run: wire.run,
            attempt: wire.attempt,
            release: wire.release,
            handed_out_before: wire.handed_out_before,
        })
    }
}

/// Reads an id made by [`AttemptRef::attempt_id`]: event, webhook, run, attempt.
#[must_use]
pub fn parse_attempt_id(id: &str) -> Option<(EventKey, WebhookId, u32, u32)> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(id.strip_prefix("att_")?)
        .ok()?;
    let bytes: [u8; 40] = bytes.try_into().ok()?;
    let part = |at: usize| -> [u8; 16] { std::array::from_fn(|i| bytes[at + i]) };
    let number = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| bytes[at + i]));
    Some((
        EventKey(Uuid::from_bytes(part(0))),
        WebhookId(Uuid::from_bytes(part(16))),
        number(32),
        number(36),
    ))
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use super::*;
    use crate::stream::config_key::Key;
    use crate::subject;

    /// What makes another subject, or none: an empty token, wildcards, what ends a token or a line, what is not ASCII.
    const NO_TOKENS: [&str; 24] = [
        "",
        ".",
        "..",
        "a.",
        ".a",
        "a..b",
        "*",
        ">",
        "a*",
        "*a",
        "a>",
        "a.*",
        "a.>",
        "a.*.b",
        " ",
        "a b",
        "\t",
        "a\nb",
        "a\r\nPUB ledger.facts 1\r\n1\r\n",
        "a\0",
        "\u{7f}",
        "\u{1f}",
        "é",
        "\u{a0}",
    ];

    #[test]
    fn no_text_that_is_no_token_becomes_part_of_a_subject_or_key() {
        let project = ProjectId::from_uuid(Uuid::from_u128(1));
        for text in NO_TOKENS {
            assert!(!is_word(text), "{text:?}");
            assert!(!is_event_id(text), "{text:?}");
            assert!(!is_event_type(text), "{text:?}");
            assert!(!is_project_name(text), "{text:?}");
            // Nor beside what is good.
            for around in [format!("{text}.a"), format!("a.{text}")] {
                assert!(!is_event_type(&around), "{around:?}");
                assert!(!is_event_id(&around), "{around:?}");
                assert!(!is_project_name(&around), "{around:?}");
            }
            for key in [
                format!("token.{text}"),
                format!("project.{text}"),
                format!("webhook.{project}.{text}"),
                format!("type.{project}.{text}"),
                format!("type.{text}.a"),
                format!("catalogue.{text}.a"),
                format!("catalogue.a.{text}"),
            ] {
                // `catalogue.a..b` and the like are what they read as, or nothing.
                assert_eq!(Key::parse(&key).filter(|read| read.to_text() == key), None, "{key:?}");
            }
        }
    }

    #[test]
    fn a_token_has_what_letters_it_may_have_and_no_more() {
        for (text, id, event_type, project) in [
            ("a", true, true, true),
            ("a-b", true, true, true),
            ("a_b", true, true, false),
            ("A", true, true, false),
            ("a.b", false, true, false),
            ("-a", true, true, false),
            ("a-", true, true, false),
            ("_posthaste", true, true, false),
            // The id of a project, in every form that one is read in.
            ("00000000-0000-0000-0000-000000000001", true, true, false),
            ("00000000000000000000000000000001", true, true, false),
            ("0000000000000000000000000000000g", true, true, true),
        ] {
            assert_eq!(is_event_id(text), id, "{text}");
            assert_eq!(is_event_type(text), event_type, "{text}");
            assert_eq!(is_project_name(text), project, "{text}");
        }
        for (length, id, event_type, project) in [
            (63, true, true, true),
            (64, true, true, false),
            (65, false, true, false),
            (128, false, true, false),
            (129, false, false, false),
        ] {
            let text = "a".repeat(length);
            assert_eq!(is_event_id(&text), id, "{length}");
            assert_eq!(is_event_type(&text), event_type, "{length}");
            assert_eq!(is_project_name(&text), project, "{length}");
        }
    }

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let (project, webhook) = (
            ProjectId::from_uuid(Uuid::from_u128(1)),
            WebhookId::from_uuid(Uuid::from_u128(2)),
        );
        let keys = [
            Key::Project(project),
            Key::Token("0af7".to_owned()),
            Key::Webhook(project, webhook),
            Key::EventType(project, "order.paid".to_owned()),
            Key::CatalogueType("uniskai".to_owned(), "spot-recreated".to_owned()),
            Key::Filled,
        ];
        for key in keys {
            assert_eq!(Key::parse(&key.to_text()), Some(key));
        }
    }

    #[test]
    fn what_is_a_project_of_its_own_is_read_as_no_other() {
        let id = ProjectId::from_uuid(Uuid::from_u128(1));
        // Events on `events.<id>.…` are that project's; nobody can have it for a name.
        assert_eq!(
            subject::parse_event(&subject::event(&id.to_string(), "a.b")),
            Some((id.to_string().as_str(), "a.b"))
        );
        assert!(!is_project_name(&id.to_string()));
        assert_eq!(ProjectId::from_str(&id.to_string()), Ok(id));
    }
}
