//! Whether an event was there before, by the id that its producer chose. Pure.
//!
//! Of one id in one project there is one event in a day. The same again is a repetition, whoever brings it and however;
//! another under the same id is refused. `common::bus::seen` holds what is known; here is what follows from it.

use async_nats::HeaderMap;
use common::bus::Message;
use proto_schemas::event::Event;
use proto_schemas::header;
use proto_schemas::id::EventKey;
use proto_schemas::seen::{Digest, SeenEvent};
use sha2::{Digest as _, Sha256};

/// What an event is, by what is known of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has the id.
    First,
    /// The id is claimed for what it says, and no message has it yet: it may take it.
    Claimed,
    /// Another message said the same before.
    Repeated,
    /// Another event has the id.
    Conflict,
}

/// Decides what an event is.
#[must_use]
pub fn decide(known: &SeenEvent, digest: &Digest, key: EventKey) -> Standing {
    match known.event {
        _ if known.digest != *digest => Standing::Conflict,
        Some(event) if event == key => Standing::First,
        Some(_) => Standing::Repeated,
        None => Standing::Claimed,
    }
}

/// The detail of a conflict.
#[must_use]
pub fn conflict(id: &str) -> String {
    format!("another event with the id `{id}` came within the last 24 hours; give each event an id of its own")
}

/// A hash of what an event's message says: its type, its body, and the headers that say more of it. Who was the first to
/// trace it does not belong to it.
#[must_use]
pub fn digest(event_type: &str, headers: Option<&HeaderMap>, payload: &[u8]) -> Digest {
    let mut lines: Vec<(String, &str)> = headers
        .into_iter()
        .flat_map(HeaderMap::iter)
        .filter_map(|(name, values)| {
            let name = name.to_string();
            let is_said = [header::TIME, header::ATTRIBUTES, header::CONTENT_TYPE].contains(&name.as_str())
                || name.get(..3).is_some_and(|front| front.eq_ignore_ascii_case("ce-"));
            is_said.then_some((name, values.first()?.as_str()))
        })
        .collect();
    lines.sort_unstable();
    let mut hash = Sha256::new();
    let parts = [event_type.as_bytes(), payload].into_iter().chain(
        lines
            .iter()
            .flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]),
    );
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let hash = hash.finalize();
    std::array::from_fn(|i| hash[i])
}

/// The digest of an event that its producer gave an id; `None` where the id was made up.
#[must_use]
pub fn digest_of(message: &Message, event: &Event) -> Option<Digest> {
    let headers = message.headers.as_ref();
    let is_made_up = headers.is_some_and(|headers| headers.get(header::ID_MADE_UP).is_some())
        || event.id == event.key.derived_event_id();
    (!is_made_up).then(|| digest(&event.event_type, headers, &message.payload))
}

/// The revision of the claim that a request made for this message; 0 for none.
#[must_use]
pub fn claim_of(message: &Message) -> u64 {
    let claim = message.headers.as_ref().and_then(|headers| headers.get(header::CLAIM));
    claim.and_then(|claim| claim.as_str().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn key(sequence: u64) -> EventKey {
        EventKey::of_message(Timestamp::UNIX_EPOCH, sequence)
    }

    #[test]
    fn an_event_is_the_first_a_repetition_or_a_conflict() {
        let (digest, other) = ([1; 16], [2; 16]);
        let known = |event| SeenEvent { digest, event };
        assert_eq!(decide(&known(Some(key(7))), &digest, key(7)), Standing::First);
        assert_eq!(decide(&known(Some(key(7))), &digest, key(8)), Standing::Repeated);
        assert_eq!(decide(&known(None), &digest, key(8)), Standing::Claimed);
        assert_eq!(decide(&known(None), &other, key(8)), Standing::Conflict);
        assert_eq!(decide(&known(Some(key(7))), &other, key(7)), Standing::Conflict);
    }

    #[test]
    fn a_digest_is_of_what_is_said_and_of_nothing_else() {
        let headers = |lines: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            lines.iter().for_each(|(name, value)| headers.insert(*name, *value));
            headers
        };
        let plain = digest("a", None, b"{}");
        let with = |lines: &[(&str, &str)]| digest("a", Some(&headers(lines)), b"{}");
        assert_eq!(with(&[]), plain);
        assert_eq!(
            with(&[("traceparent", "00-1"), ("Nats-Msg-Id", "x"), ("Posthaste-Claim", "9")]),
            plain
        );
        for lines in [
            [("Posthaste-Time", "2024-01-15T10:30:00Z")],
            [("Posthaste-Attributes", "{}")],
            [("Content-Type", "text/plain")],
            [("ce-source", "/shop")],
        ] {
            assert_ne!(with(&lines), plain, "{lines:?}");
        }
        assert_ne!(digest("b", None, b"{}"), plain);
        assert_ne!(digest("a", None, b"{} "), plain);
        assert_ne!(digest("a{}", None, b""), digest("a", None, b"{}"));
        assert_eq!(
            with(&[("ce-a", "1"), ("ce-b", "2")]),
            with(&[("ce-b", "2"), ("ce-a", "1")])
        );
    }
}
