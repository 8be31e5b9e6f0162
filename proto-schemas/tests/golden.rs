//! Every message, byte for byte, in every version that was ever written. A file under `golden/` is never edited: old
//! bytes may still be in somebody's stream. A message without a file yet gets one with `POSTHASTE_GOLDEN=add`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use prost::Message as _;
use proto_schemas::definition::{
    Body, EnvelopeSource, Header, HeaderValue, Project, Signature, Token, Webhook, WebhookState,
};
use proto_schemas::delivery::DeliveryDue;
use proto_schemas::event::Event;
use proto_schemas::id::{AttemptRef, EventKey, ProjectId, WebhookId};
use proto_schemas::ledger::{
    AttemptFinished, DeliveryDeferred, ErrorClass, EventAccepted, EventRejected, Fact, Outcome, SkipReason,
};
use proto_schemas::{DecodeError, wire};
use uuid::Uuid;

fn golden(name: &str, bytes: &[u8]) -> Bytes {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/v1")
        .join(format!("{name}.bin"));
    if !path.exists() && std::env::var("POSTHASTE_GOLDEN").is_ok_and(|value| value == "add") {
        std::fs::write(&path, bytes).unwrap();
    }
    let stored =
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; see this file's head", path.display()));
    assert_eq!(
        hex::encode(&stored),
        hex::encode(bytes),
        "{name} is written differently than before"
    );
    stored.into()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn project() -> ProjectId {
    ProjectId::from_uuid(Uuid::from_u128(0x1111))
}

fn webhook() -> WebhookId {
    WebhookId::from_uuid(Uuid::from_u128(0x2222))
}

fn event() -> Event {
    Event {
        key: EventKey::of_message(at("2024-01-15T10:30:00.123Z"), 77),
        id: "evt_abc123".into(),
        project: project(),
        event_type: "recommendation.created".into(),
        occurred_at: at("2024-01-15T10:29:59.5Z"),
        accepted_at: at("2024-01-15T10:30:00.123456Z"),
        attributes: BTreeMap::from([
            ("region".to_owned(), "eu".to_owned()),
            ("tier".to_owned(), "1".to_owned()),
        ]),
        content_type: "application/json".into(),
        payload: Bytes::from_static(br#"{"potential_savings": 150.00}"#),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
    }
}

fn attempt() -> AttemptRef {
    AttemptRef {
        event: event().key,
        project: project(),
        webhook: webhook(),
        run: 1,
        attempt: 2,
        release: 3,
    }
}

fn facts() -> Vec<(&'static str, Fact)> {
    vec![
        (
            "event_accepted",
            Fact::EventAccepted(EventAccepted {
                event: event(),
                owed: vec![webhook()],
                skipped: vec![(WebhookId::from_uuid(Uuid::from_u128(3)), SkipReason::Paused)],
            }),
        ),
        (
            "event_rejected",
            Fact::EventRejected(EventRejected {
                key: event().key,
                project: None,
                subject: "events.nobody.a".into(),
                reason: "unknown_project".into(),
                detail: "there is no project `nobody`".into(),
                payload: Bytes::from_static(b"{}"),
                payload_size: 2,
                received_at: at("2024-01-15T10:30:00.123456Z"),
            }),
        ),
        (
            "attempt_finished",
            Fact::AttemptFinished(AttemptFinished {
                attempt: attempt(),
                event_id: "evt_abc123".into(),
                event_type: "recommendation.created".into(),
                webhook_revision: 4,
                started_at: at("2024-01-15T10:30:01Z"),
                duration: Duration::from_micros(1500),
                outcome: Outcome::Failed,
                status: Some(503),
                error_class: Some(ErrorClass::Status),
                error: "the receiver answered 503".into(),
                response_headers: vec![("retry-after".into(), "3".into())],
                response_body: Bytes::from_static(b"later"),
                response_truncated: true,
                retry_after: Some(Duration::from_secs(3)),
                request_sha256: Bytes::from_static(&[7; 32]),
                handed_out: 1,
                ladder: vec![Duration::ZERO, Duration::from_secs(60)],
            }),
        ),
        (
            "delivery_deferred",
            Fact::DeliveryDeferred(DeliveryDeferred {
                attempt: attempt(),
                reason: "the webhook's lane is full".into(),
                retry_in: Duration::from_millis(1500),
                deferred_at: at("2024-01-15T10:30:01Z"),
            }),
        ),
    ]
}

#[test]
fn facts_are_written_and_read_as_before() {
    for (name, fact) in facts() {
        let bytes = golden(name, &fact.encode());
        assert_eq!(Fact::decode_all(bytes).unwrap(), [Ok(fact)], "{name}");
    }
}

#[test]
fn entries_one_after_the_other_are_one_entry() {
    let (bytes, wanted): (Vec<Vec<u8>>, Vec<_>) =
        facts().into_iter().map(|(_, fact)| (fact.encode(), Ok(fact))).unzip();
    assert_eq!(Fact::decode_all(bytes.concat().into()).unwrap(), wanted);
}

#[test]
fn a_fact_nobody_can_act_on_leaves_the_others_alone() {
    let (_, good) = facts().remove(0);
    let bad = wire::LedgerEntry {
        version: 1,
        facts: vec![wire::Fact { kind: None }],
    }
    .encode_to_vec();
    let read = Fact::decode_all([bad, good.encode()].concat().into()).unwrap();
    assert_eq!(read, [Err(DecodeError::Missing("kind")), Ok(good)]);
}

#[test]
fn a_delivery_is_written_and_read_as_before() {
    let due = DeliveryDue {
        event: event(),
        webhook: webhook(),
        run: 1,
        attempt: 2,
        release: 3,
    };
    let bytes = golden("delivery_due", &due.encode());
    assert_eq!(DeliveryDue::decode(bytes).unwrap(), due);
}

#[test]
fn definitions_are_written_and_read_as_before() {
    let project = Project {
        id: project(),
        name: "acme".into(),
        deleted: false,
    };
    assert_eq!(Project::decode(golden("project", &project.encode())).unwrap(), project);

    let token = Token {
        project: Some(project.id),
        scopes: vec!["publish".into()],
        expires_at: Some(at("2030-01-01T00:00:00Z")),
        revoked: false,
    };
    assert_eq!(Token::decode(golden("token", &token.encode())).unwrap(), token);

    let webhook = Webhook {
        id: webhook(),
        project: project.id,
        project_name: "acme".into(),
        name: "orders".into(),
        revision: 5,
        deleted: false,
        state: WebhookState::Active,
        url: "https://example.com/in".into(),
        events: vec!["order.*".into()],
        headers: vec![
            Header {
                name: "x-plain".into(),
                value: HeaderValue::Plain("1".into()),
            },
            Header {
                name: "authorization".into(),
                value: HeaderValue::Sealed("v1|k|n|c".into()),
            },
        ],
        sealed_secret: Some("v1|k|n|s".into()),
        timeout: Duration::from_secs(30),
        ladder: vec![Duration::ZERO, Duration::from_secs(60)],
        body: Body::Envelope(vec![
            ("id".into(), EnvelopeSource::EventId),
            ("workspace_id".into(), EnvelopeSource::ProjectName),
            ("data".into(), EnvelopeSource::Data),
        ]),
        signature: Signature {
            standard_webhooks: true,
            body_hmac_header: Some("x-signature".into()),
        },
        redirect_is_success: true,
    };
    assert_eq!(Webhook::decode(golden("webhook", &webhook.encode())).unwrap(), webhook);
}

#[test]
fn what_a_newer_release_wrote_is_refused_and_says_to_update() {
    let newer = wire::LedgerEntry {
        version: 2,
        facts: Vec::new(),
    }
    .encode_to_vec();
    let error = Fact::decode_all(newer.into()).unwrap_err();
    assert_eq!(error, DecodeError::TooNew { found: 2 });
    assert!(error.to_string().contains("update this service first"));
}

#[test]
fn what_means_nothing_is_refused_by_field() {
    assert_eq!(
        Fact::decode_all(Bytes::new()).unwrap_err(),
        DecodeError::Missing("version")
    );
    let empty = wire::DeliveryDue {
        version: 1,
        attempt: 1,
        ..Default::default()
    }
    .encode_to_vec();
    assert_eq!(
        DeliveryDue::decode(empty.into()).unwrap_err(),
        DecodeError::Missing("event")
    );
    assert!(matches!(
        Fact::decode_all(Bytes::from_static(b"\xff\xff")).unwrap_err(),
        DecodeError::Malformed(_)
    ));
}

#[test]
fn ids_are_made_as_before() {
    let attempt = attempt();
    assert_eq!(attempt.event.to_string(), "018d0cab-c4bb-7000-8000-00000000004d");
    assert_eq!(
        attempt.delivery_message_id(),
        "AY0Mq8S7cACAAAAAAAAATQAAAAAAAAAAAAAAAAAAIiI.1.2.3"
    );
    let id = attempt.attempt_id();
    assert_eq!(
        proto_schemas::id::parse_attempt_id(&id),
        Some((attempt.event, attempt.webhook, 1, 2))
    );
    assert_eq!(proto_schemas::id::parse_attempt_id("att_"), None);
    assert_eq!(attempt.event.accepted_at(), at("2024-01-15T10:30:00.123Z"));
}

#[test]
fn keys_sort_by_time_then_sequence() {
    let early = EventKey::of_message(at("2024-01-15T10:30:00Z"), u64::MAX);
    let late = EventKey::of_message(at("2024-01-15T10:30:00.001Z"), 1);
    assert!(early < late);
    assert!(
        EventKey::of_message(at("2024-01-15T10:30:00Z"), 1) < EventKey::of_message(at("2024-01-15T10:30:00Z"), 1 << 63)
    );
    assert!(EventKey::floor(at("2024-01-15T10:30:00Z")) <= EventKey::of_message(at("2024-01-15T10:30:00Z"), 0));
}
