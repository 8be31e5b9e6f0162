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
    Body, EnvelopeSource, EventType, EventTypeVersion, Expression, MaybeSealed, NamedValue, Ordering, Project,
    RateLimit, SchemaCheck, Secret, SecretKind, Signature, Token, Webhook, WebhookState,
};
use proto_schemas::delivery::{DeliveryDue, Trial, TrialKind};
use proto_schemas::event::Event;
use proto_schemas::id::{AttemptRef, EventKey, OrderKey, ProjectId, SecretId, WebhookId};
use proto_schemas::ledger::{
    AttemptFinished, Deferral, DeliveryDeferred, ErrorClass, EventAccepted, EventRejected, Exchange, Fact, Outcome,
    SkipReason, Timings, TlsFault,
};
use proto_schemas::seen::SeenEvent;
use proto_schemas::stream::config_key::Key;
use proto_schemas::{DecodeError, wire};
use uuid::Uuid;

/// TLS and authentication.
#[path = "golden/receiver.rs"]
mod receiver;

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
        handed_out_before: 0,
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
                warnings: Vec::new(),
                held: Vec::new(),
                ordered: Vec::new(),
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
                fail_after: None,
                trial: None,
                exchange: Exchange::default(),
            }),
        ),
        (
            "delivery_deferred",
            Fact::DeliveryDeferred(DeliveryDeferred {
                attempt: attempt(),
                reason: "the webhook's lane is full".into(),
                retry_in: Duration::from_millis(1500),
                deferred_at: at("2024-01-15T10:30:01Z"),
                kind: Deferral::Park,
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
        trial: None,
        handed_out_before: 0,
    };
    let bytes = golden("delivery_due", &due.encode());
    assert_eq!(DeliveryDue::decode(bytes).unwrap(), due);

    let again = DeliveryDue {
        handed_out_before: 4,
        ..due
    };
    let bytes = golden("delivery_due_again", &again.encode());
    assert_eq!(DeliveryDue::decode(bytes).unwrap(), again);
    let deferred = Fact::DeliveryDeferred(DeliveryDeferred {
        attempt: again.attempt_ref(),
        reason: "the webhook's lane is full".into(),
        retry_in: Duration::from_millis(1500),
        deferred_at: at("2024-01-15T10:30:01Z"),
        kind: Deferral::Park,
    });
    let bytes = golden("delivery_deferred_again", &deferred.encode());
    assert_eq!(Fact::decode_all(bytes).unwrap(), [Ok(deferred)]);
}

#[test]
fn definitions_are_written_and_read_as_before() {
    let project = Project {
        id: project(),
        name: "acme".into(),
        deleted: false,
        schema_check: SchemaCheck::Off,
        catalogue: None,
        event_attributes: Vec::new(),
    };
    assert_eq!(Project::decode(golden("project", &project.encode())).unwrap(), project);

    let token = Token {
        project: Some(project.id),
        scopes: vec!["publish".into()],
        expires_at: Some(at("2030-01-01T00:00:00Z")),
        revoked: false,
    };
    assert_eq!(Token::decode(golden("token", &token.encode())).unwrap(), token);

    let webhook = webhook_definition();
    assert_eq!(Webhook::decode(golden("webhook", &webhook.encode())).unwrap(), webhook);
}

fn webhook_definition() -> Webhook {
    Webhook {
        id: webhook(),
        project: project(),
        project_name: "acme".into(),
        name: "orders".into(),
        revision: 5,
        deleted: false,
        state: WebhookState::Active,
        url: "https://example.com/in".into(),
        events: vec!["order.*".into()],
        headers: vec![
            NamedValue {
                name: "x-plain".into(),
                value: MaybeSealed::Plain("1".into()),
            },
            NamedValue {
                name: "authorization".into(),
                value: MaybeSealed::Sealed("v1|k|n|c".into()),
            },
        ],
        variables: Vec::new(),
        sealed_secret: Some("v1|k|n|s".into()),
        secrets: Vec::new(),
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
        attributes: BTreeMap::new(),
        filter: None,
        placeholders: Vec::new(),
        options: Vec::new(),
        max_in_flight: None,
        rate_limit: None,
        hold_while_paused: false,
        fail_after: None,
        ordering: Ordering::None,
        drain_rate: None,
        tls: None,
        authentication: None,
    }
}

/// The fields that were added to version 1 after its first files were written.
#[test]
fn added_fields_are_written_and_read_as_before() {
    let expression = |name: &str, expression: &str| Expression {
        name: name.into(),
        expression: expression.into(),
    };
    let project = Project {
        id: project(),
        name: "acme".into(),
        deleted: false,
        schema_check: SchemaCheck::Reject,
        catalogue: Some("ubiops".into()),
        event_attributes: vec![expression("object_name", "data.deployment_name")],
    };
    let bytes = golden("project_with_types", &project.encode());
    assert_eq!(Project::decode(bytes).unwrap(), project);

    let event_type = EventType {
        name: "order.paid".into(),
        versions: vec![EventTypeVersion {
            version: "1".into(),
            schema: r#"{"type":"object"}"#.into(),
            deprecated: true,
        }],
        deleted: false,
    };
    let bytes = golden("event_type", &event_type.encode());
    assert_eq!(EventType::decode(bytes).unwrap(), event_type);

    let webhook = Webhook {
        body: Body::Template(r#"{"text":"{{type}}"}"#.into()),
        attributes: BTreeMap::from([("object_name".to_owned(), "d-1".to_owned())]),
        filter: Some(r#"{"data":{"amount":{"$gt":3}}}"#.into()),
        placeholders: vec![expression(":iccid:", "attributes.iccid")],
        options: vec!["include_result".into()],
        max_in_flight: Some(4),
        rate_limit: Some(RateLimit {
            requests: 10,
            window: Duration::from_secs(1),
        }),
        hold_while_paused: true,
        fail_after: Some(5),
        ..webhook_definition()
    };
    let bytes = golden("webhook_with_settings", &webhook.encode());
    assert_eq!(Webhook::decode(bytes).unwrap(), webhook);
    for (name, body) in [
        ("webhook_base64", Body::Base64),
        ("webhook_cloudevents", Body::CloudEvents),
    ] {
        let webhook = Webhook {
            body,
            ..webhook_definition()
        };
        assert_eq!(Webhook::decode(golden(name, &webhook.encode())).unwrap(), webhook);
    }

    let due = DeliveryDue {
        event: event(),
        webhook: webhook.id,
        run: 0,
        attempt: 1,
        release: 0,
        trial: Some(Trial {
            kind: TrialKind::Test,
            webhook: Some(Box::new(webhook)),
        }),
        handed_out_before: 0,
    };
    let bytes = golden("delivery_due_trial", &due.encode());
    assert_eq!(DeliveryDue::decode(bytes).unwrap(), due);

    let Fact::EventAccepted(accepted) = facts().remove(0).1 else {
        panic!("the first fact is an event")
    };
    let Fact::AttemptFinished(finished) = facts().remove(2).1 else {
        panic!("the third fact is an attempt")
    };
    for (name, fact) in [
        (
            "event_accepted_with_warnings",
            Fact::EventAccepted(EventAccepted {
                warnings: vec!["#/amount: is not a number".into()],
                ..accepted
            }),
        ),
        (
            "attempt_finished_trial",
            Fact::AttemptFinished(AttemptFinished {
                fail_after: Some(5),
                trial: Some(TrialKind::Check),
                ..finished.clone()
            }),
        ),
        (
            "attempt_finished_exchange",
            Fact::AttemptFinished(AttemptFinished {
                exchange: Exchange {
                    timings: Timings {
                        dns: Some(Duration::from_micros(1_200)),
                        connect: Some(Duration::ZERO),
                        tls: None,
                        first_byte: Some(Duration::from_micros(40_000)),
                    },
                    peer: Some("192.0.2.7:443".parse().unwrap()),
                    tls_fault: Some(TlsFault::UnknownIssuer),
                    request_head: Some(0xdead_beef),
                },
                ..finished.clone()
            }),
        ),
        (
            "attempt_finished_ipv6",
            Fact::AttemptFinished(AttemptFinished {
                exchange: Exchange {
                    peer: Some("[2001:db8::7]:8443".parse().unwrap()),
                    ..Exchange::default()
                },
                ..finished
            }),
        ),
    ] {
        let bytes = golden(name, &fact.encode());
        assert_eq!(Fact::decode_all(bytes).unwrap(), [Ok(fact)], "{name}");
    }
}

#[test]
fn variables_are_written_and_read_as_before() {
    let variable = |name: &str, value| NamedValue {
        name: name.into(),
        value,
    };
    let webhook = Webhook {
        variables: vec![
            variable("team", MaybeSealed::Plain("blue".into())),
            variable("routing_key", MaybeSealed::Sealed("v1|k|n|r".into())),
        ],
        ..webhook_definition()
    };
    let bytes = golden("webhook_with_variables", &webhook.encode());
    assert_eq!(Webhook::decode(bytes).unwrap(), webhook);
}

/// The fields that keep deliveries back: held, ordered, cancelled.
#[test]
fn fields_that_keep_back_are_written_and_read_as_before() {
    let rate = RateLimit {
        requests: 50,
        window: Duration::from_secs(1),
    };
    for (name, ordering, drain_rate) in [
        ("webhook_ordered", Ordering::Webhook, Some(rate)),
        ("webhook_ordered_by_key", Ordering::Key("data.customer".into()), None),
    ] {
        let webhook = Webhook {
            ordering,
            drain_rate,
            ..webhook_definition()
        };
        assert_eq!(Webhook::decode(golden(name, &webhook.encode())).unwrap(), webhook);
    }

    let (Fact::EventAccepted(accepted), Fact::DeliveryDeferred(deferred)) = (facts().remove(0).1, facts().remove(3).1)
    else {
        panic!("the first fact is an event, the last a deferral")
    };
    let kept_back = EventAccepted {
        held: vec![webhook()],
        ordered: vec![(webhook(), OrderKey::from_uuid(Uuid::from_u128(0x4444)))],
        ..accepted
    };
    let deferred = |kind| {
        Fact::DeliveryDeferred(DeliveryDeferred {
            kind,
            ..deferred.clone()
        })
    };
    for (name, fact) in [
        ("event_accepted_kept_back", Fact::EventAccepted(kept_back)),
        ("delivery_deferred_held", deferred(Deferral::Hold)),
        ("delivery_deferred_cancelled", deferred(Deferral::Cancel)),
    ] {
        let bytes = golden(name, &fact.encode());
        assert_eq!(Fact::decode_all(bytes).unwrap(), [Ok(fact)], "{name}");
    }
}

#[test]
fn secrets_are_written_and_read_as_before() {
    let secret = |id: u128, kind, expires_at| Secret {
        id: SecretId::from_uuid(Uuid::from_u128(id)),
        kind,
        sealed: format!("v1|k|n|{id}"),
        created_at: at("2024-01-15T10:30:00.123456Z"),
        expires_at,
    };
    let webhook = Webhook {
        secrets: vec![
            secret(0x33, SecretKind::V1a, None),
            secret(0x32, SecretKind::V1, Some(at("2024-01-16T10:30:00.123456Z"))),
            secret(0, SecretKind::V1, Some(at("2024-01-16T10:00:00Z"))),
        ],
        ..webhook_definition()
    };
    let bytes = golden("webhook_with_secrets", &webhook.encode());
    assert_eq!(Webhook::decode(bytes).unwrap(), webhook);
    assert_eq!(*webhook.signing_secrets(), webhook.secrets);

    // What a release before wrote is read as one secret, sealed as that release did it.
    let before = Webhook::decode(golden("webhook", &webhook_definition().encode())).unwrap();
    let secrets = before.signing_secrets().into_owned();
    assert_eq!(secrets.len(), 1);
    assert_eq!(
        (secrets[0].id, secrets[0].sealed.as_str()),
        (SecretId::BEFORE, "v1|k|n|s")
    );
}

#[test]
fn what_is_known_of_an_id_is_written_and_read_as_before() {
    for (name, event) in [("seen_event", Some(event().key)), ("seen_event_claimed", None)] {
        let seen = SeenEvent { digest: [7; 16], event };
        let bytes = golden(name, &seen.encode());
        assert_eq!(SeenEvent::decode(bytes).unwrap(), seen, "{name}");
    }
    assert!(SeenEvent::decode(Bytes::from_static(b"\x08\x01\x12\x01\x00")).is_err());
}

#[test]
fn keys_of_the_bucket_read_back() {
    for text in [
        "type.00000000-0000-0000-0000-000000001111.order.paid",
        "catalogue.cloudthinker.recommendation.created",
    ] {
        assert_eq!(Key::parse(text).unwrap().to_text(), text);
    }
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
