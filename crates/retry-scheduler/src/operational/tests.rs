use std::time::Duration;

use bytes::Bytes;
use common::schema::Schema;
use jiff::Timestamp;
use proto_schemas::id::{EventKey, ProjectId, SecretId, WebhookId, is_event_id};
use proto_schemas::ledger::{ErrorClass, Outcome};
use serde_json::Value;
use store::webhook_health::Stopped;
use uuid::Uuid;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn attempt() -> AttemptRef {
    AttemptRef {
        event: EventKey::from_uuid(Uuid::from_u128(3)),
        project: ProjectId::from_uuid(Uuid::from_u128(1)),
        webhook: WebhookId::from_uuid(Uuid::from_u128(2)),
        run: 0,
        attempt: 6,
        release: 5,
        handed_out_before: 0,
    }
}

fn fact(event_type: &str, started_at: Timestamp) -> AttemptFinished {
    AttemptFinished {
        attempt: attempt(),
        event_id: "e1".into(),
        event_type: event_type.into(),
        webhook_revision: 1,
        started_at,
        duration: Duration::from_secs(1),
        outcome: Outcome::Failed,
        status: Some(503),
        error_class: Some(ErrorClass::Status),
        error: "the receiver answered 503".into(),
        response_headers: Vec::new(),
        response_body: Bytes::new(),
        response_truncated: false,
        retry_after: None,
        request_sha256: Bytes::new(),
        handed_out: 1,
        ladder: vec![Duration::ZERO],
        fail_after: Some(1),
        trial: None,
        exchange: proto_schemas::ledger::Exchange::default(),
    }
}

fn locked(stopped: Option<Stopped>, restarted_at: Option<Timestamp>) -> Locked {
    Locked {
        webhook: attempt().webhook,
        project: attempt().project,
        restarted_at,
        check: None,
        health: Health {
            stopped,
            ..Health::default()
        },
    }
}

fn stop(state: StoppedState, second: i64) -> Stopped {
    Stopped {
        state,
        reason: "so".into(),
        at: at(second),
    }
}

fn rejection(subject: &str) -> EventRejected {
    EventRejected {
        key: EventKey::from_uuid(Uuid::from_u128(9)),
        project: Some(attempt().project),
        subject: subject.into(),
        reason: "malformed_json".into(),
        detail: "the body is not JSON".into(),
        payload: Bytes::new(),
        payload_size: 0,
        received_at: at(1),
    }
}

/// Every event that is raised, as it goes out.
fn all() -> Vec<OperationalEvent> {
    let health = |state| Health {
        failures_in_a_row: 5,
        stopped: Some(stop(state, 50)),
        ..Health::default()
    };
    let failed = fact("order.paid", at(50));
    let secret = ExpiringSecret {
        project: attempt().project,
        webhook: attempt().webhook,
        secret: SecretId::from_uuid(Uuid::from_u128(4)),
        expires_at: at(100),
    };
    vec![
        dead(&failed, "gave up").unwrap(),
        rejected(&rejection("events.acme.order.paid")).unwrap(),
        expiring(&secret, at(1)),
        stopped(&locked(None, None), &health(StoppedState::Disabled), &[&failed]).unwrap(),
        stopped(&locked(None, None), &health(StoppedState::Failed), &[&failed]).unwrap(),
        recovered(&locked(None, None), at(50), at(70)),
    ]
}

#[test]
fn each_is_what_the_catalogue_says_and_has_an_id_of_its_own() {
    let all = all();
    let types: Vec<&str> = all.iter().map(|raised| raised.event_type).collect();
    assert_eq!(types, operational::TYPES);
    let mut ids: Vec<&str> = all.iter().map(|raised| raised.id.as_str()).collect();
    assert!(ids.iter().all(|id| is_event_id(id)), "{ids:?}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all.len());
    for raised in &all {
        let catalogue = proto_schemas::catalogue::get("posthaste").unwrap();
        let found = catalogue
            .types
            .iter()
            .find(|found| found.name == raised.event_type)
            .unwrap();
        let mut data: Value = raised.detail.clone();
        data["webhook"] = match raised.webhook {
            Some(webhook) => json!({ "id": webhook.as_uuid(), "name": "orders" }),
            None => Value::Null,
        };
        data["reason"] = json!(raised.reason);
        let faults = Schema::compile(found.schema)
            .unwrap()
            .check_text(data.to_string().as_bytes());
        assert!(faults.is_empty(), "{}: {faults:?} {data}", raised.event_type);
    }
}

#[test]
fn the_same_cause_has_the_same_id() {
    let ids = |all: Vec<OperationalEvent>| all.into_iter().map(|raised| raised.id).collect::<Vec<_>>();
    assert_eq!(ids(all()), ids(all()));
    let replay = AttemptFinished {
        attempt: AttemptRef { run: 1, ..attempt() },
        ..fact("order.paid", at(50))
    };
    assert_ne!(
        dead(&replay, "x").unwrap().id,
        dead(&fact("order.paid", at(50)), "x").unwrap().id
    );
}

#[test]
fn nothing_is_told_of_what_becomes_of_an_operational_event() {
    for event_type in operational::TYPES {
        let failed = fact(event_type, at(50));
        assert_eq!(dead(&failed, "gave up"), None);
        for state in [StoppedState::Failed, StoppedState::Disabled] {
            let health = Health {
                stopped: Some(stop(state, 50)),
                ..Health::default()
            };
            assert_eq!(stopped(&locked(None, None), &health, &[&failed]), None);
        }
        for subject in [
            format!("events.acme.{event_type}"),
            subject::operational(attempt().project, event_type),
        ] {
            assert_eq!(rejected(&rejection(&subject)), None);
        }
    }
}

#[test]
fn a_webhook_that_stays_stopped_is_told_of_once() {
    let health = Health {
        stopped: Some(stop(StoppedState::Failed, 50)),
        ..Health::default()
    };
    let known = locked(health.stopped.clone(), None);
    assert_eq!(stopped(&known, &health, &[]), None);
}

#[test]
fn a_webhook_recovers_by_what_is_delivered_after_its_restart() {
    let stopped = || Some(stop(StoppedState::Failed, 50));
    assert!(!may_recover(&locked(None, Some(at(60))), at(70)));
    assert!(!may_recover(&locked(stopped(), None), at(70)));
    assert!(
        !may_recover(&locked(stopped(), Some(at(40))), at(70)),
        "stopped again since"
    );
    assert!(!may_recover(&locked(stopped(), Some(at(60))), at(60)));
    assert!(may_recover(&locked(stopped(), Some(at(60))), at(61)));
}

#[test]
fn a_reason_is_cut_whoever_wrote_it() {
    let long = "é".repeat(REASON_MAX);
    let rejection = EventRejected {
        detail: long.clone(),
        ..rejection("events.acme.order.paid")
    };
    let health = Health {
        stopped: Some(Stopped {
            reason: long.clone(),
            ..stop(StoppedState::Failed, 50)
        }),
        ..Health::default()
    };
    let failed = fact("order.paid", at(50));
    for raised in [
        rejected(&rejection).unwrap(),
        dead(&failed, &long).unwrap(),
        stopped(&locked(None, None), &health, &[&failed]).unwrap(),
    ] {
        assert_eq!(raised.reason.len(), REASON_MAX, "{}", raised.event_type);
    }
}
