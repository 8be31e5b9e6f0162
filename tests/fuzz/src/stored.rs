//! What lies in NATS, and what clients bring back to us.

use std::fmt::Debug;

use bytes::Bytes;
use common::http::cursor;
use jiff::Timestamp;
use proto_schemas::definition::{EventType, Project, Token, Webhook};
use proto_schemas::delivery::DeliveryDue;
use proto_schemas::id::parse_attempt_id;
use proto_schemas::ledger::Fact;
use proto_schemas::seen::SeenEvent;
use proto_schemas::stream::config_key::Key;
use proto_schemas::subject;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A list's cursor, read as the keys of our lists.
pub(crate) fn cursor(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(key) = cursor::decode::<(String, u64)>(&text) {
        again(&key);
    }
    if let Ok(key) = cursor::decode::<(Timestamp, uuid::Uuid)>(&text) {
        again(&key);
    }
    if let Ok(key) = cursor::decode::<Option<(i64, Option<String>)>>(&text) {
        again(&key);
    }
}

/// It says the same when it is written and read again.
fn again<K: Serialize + DeserializeOwned + PartialEq + Debug>(key: &K) {
    let Ok(text) = cursor::encode(key) else {
        panic!("{key:?} was read from such a text")
    };
    assert_eq!(cursor::decode::<K>(&text).ok().as_ref(), Some(key));
}

/// A message of ours, whichever it is meant to be; and the names that stand beside it. What can be read can be written,
/// and is then read as the same.
pub(crate) fn wire(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(delivery) = DeliveryDue::decode(bytes.clone()) {
        assert_eq!(
            DeliveryDue::decode(delivery.encode().into()).as_ref().ok(),
            Some(&delivery)
        );
    }
    for fact in Fact::decode_all(bytes.clone()).into_iter().flatten().flatten() {
        let again = Fact::decode_all(fact.encode().into()).expect("it was written by us");
        assert!(matches!(&again[..], [Ok(read)] if *read == fact), "{fact:?} {again:?}");
    }
    if let Ok(seen) = SeenEvent::decode(bytes.clone()) {
        assert_eq!(SeenEvent::decode(seen.encode().into()).as_ref().ok(), Some(&seen));
    }
    if let Ok(project) = Project::decode(bytes.clone()) {
        assert_eq!(Project::decode(project.encode().into()).as_ref().ok(), Some(&project));
    }
    if let Ok(token) = Token::decode(bytes.clone()) {
        assert_eq!(Token::decode(token.encode().into()).as_ref().ok(), Some(&token));
    }
    if let Ok(webhook) = Webhook::decode(bytes.clone()) {
        assert_eq!(Webhook::decode(webhook.encode().into()).as_ref().ok(), Some(&webhook));
    }
    if let Ok(event_type) = EventType::decode(bytes) {
        assert_eq!(
            EventType::decode(event_type.encode().into()).as_ref().ok(),
            Some(&event_type)
        );
    }
    let text = String::from_utf8_lossy(data);
    let _ = (Key::parse(&text), subject::parse_event(&text), parse_attempt_id(&text));
}
