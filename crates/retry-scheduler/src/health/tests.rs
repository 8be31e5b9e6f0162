use bytes::Bytes;
use proto_schemas::delivery::TrialKind;
use proto_schemas::id::{AttemptRef, EventKey, ProjectId, WebhookId};

use uuid::Uuid;

use super::*;

const NOW: Timestamp = Timestamp::constant(1_770_000_000, 0);
const PROJECT: ProjectId = ProjectId::from_uuid(Uuid::from_u128(1));
const WEBHOOK: WebhookId = WebhookId::from_uuid(Uuid::from_u128(2));

fn at(second: u64) -> Timestamp {
    later(NOW, Duration::from_secs(second))
}

/// An attempt of a second that began at `second` and was answered with `status`.
fn fact(second: u64, status: u16) -> AttemptFinished {
    let delivered = status == 200;
    AttemptFinished {
        attempt: AttemptRef {
            event: EventKey::of_message(NOW, second),
            project: PROJECT,
            webhook: WEBHOOK,
            run: 0,
            attempt: 1,
            release: 0,
            handed_out_before: 0,
        },
        event_id: "evt".into(),
        event_type: "invoice.paid".into(),
        webhook_revision: 1,
        started_at: at(second),
        duration: Duration::from_secs(1),
        outcome: match status {
            200 => Outcome::Delivered,
            410 => Outcome::FailedForGood,
            _ => Outcome::Failed,
        },
        status: Some(status),
        error_class: (!delivered).then_some(ErrorClass::Status),
        error: if delivered {
            String::new()
        } else {
            format!("the receiver answered {status}")
        },
        response_headers: Vec::new(),
        response_body: Bytes::new(),
        response_truncated: false,
        retry_after: None,
        request_sha256: Bytes::new(),
        handed_out: 1,
        ladder: vec![Duration::ZERO],
        fail_after: Some(3),
        trial: None,
        exchange: proto_schemas::ledger::Exchange::default(),
    }
}

fn locked(health: Health) -> Locked {
    Locked {
        webhook: WEBHOOK,
        project: PROJECT,
        restarted_at: None,
        check: None,
        health,
    }
}

fn failures(in_a_row: u32, last: u64) -> Health {
    Health {
        failures_in_a_row: in_a_row,
        last_failed_at: Some(at(last)),
        ..Health::default()
    }
}

fn failed(facts: &[AttemptFinished]) -> News<'_> {
    News {
        failed: facts.iter().collect(),
        ..News::default()
    }
}

#[test]
fn as_many_failures_in_a_row_as_are_allowed_fail_the_webhook_and_one_fewer_does_not() {
    let facts = [fact(5, 503)];
    let (health, moved) = decide(&locked(failures(1, 1)), failed(&facts));
    assert_eq!((health.failures_in_a_row, health.stopped, moved), (2, None, false));

    let (health, moved) = decide(&locked(failures(2, 1)), failed(&facts));
    let stopped = health.stopped.unwrap();
    assert!(moved);
    assert_eq!(stopped.state, StoppedState::Failed);
    assert_eq!(
        stopped.reason,
        "3 failed attempts in a row; the last: the receiver answered 503"
    );
    assert_eq!(health.last_failed_at, Some(at(6)));
}

#[test]
fn a_webhook_that_never_fails_by_its_definition_does_not() {
    let facts = [AttemptFinished {
        fail_after: None,
        ..fact(5, 503)
    }];
    let (health, moved) = decide(&locked(failures(100, 1)), failed(&facts));
    assert_eq!((health.failures_in_a_row, health.stopped, moved), (101, None, false));
}

#[test]
fn a_delivery_between_them_ends_the_row() {
    let facts = [fact(1, 503), fact(2, 503), fact(7, 503)];
    let news = News {
        delivered_at: Some(at(5)),
        ..failed(&facts)
    };
    let (health, moved) = decide(&locked(failures(2, 0)), news);
    assert_eq!((health.failures_in_a_row, health.stopped, moved), (1, None, false));
    assert_eq!(health.last_delivered_at, Some(at(5)));
}

#[test]
fn gone_disables_at_once() {
    let facts = [fact(1, 410)];
    let (health, moved) = decide(&locked(Health::default()), failed(&facts));
    let stopped = health.stopped.unwrap();
    assert!(moved);
    assert_eq!(
        (stopped.state, stopped.reason.as_str()),
        (StoppedState::Disabled, "the receiver answered 410")
    );
}

#[test]
fn what_was_begun_before_the_restart_does_not_count() {
    let webhook = Locked {
        restarted_at: Some(at(10)),
        ..locked(failures(2, 9))
    };
    let early = [fact(9, 503), fact(8, 410)];
    let (health, moved) = decide(&webhook, failed(&early));
    assert_eq!((health.failures_in_a_row, health.stopped, moved), (0, None, false));
    let late = [fact(11, 503)];
    let (health, _) = decide(&webhook, failed(&late));
    assert_eq!(health.failures_in_a_row, 1, "the count begins anew");
}

#[test]
fn a_stop_stays_as_it_was_until_the_restart_makes_it_void() {
    let before = Health {
        stopped: Some(Stopped {
            state: StoppedState::Failed,
            reason: "the first".into(),
            at: at(1),
        }),
        ..failures(3, 2)
    };
    let facts = [fact(20, 410)];
    let (health, moved) = decide(&locked(before.clone()), failed(&facts));
    assert_eq!((health.stopped.unwrap().reason.as_str(), moved), ("the first", false));
    let restarted = Locked {
        restarted_at: Some(at(10)),
        ..locked(before)
    };
    let (health, moved) = decide(&restarted, failed(&facts));
    assert_eq!((health.stopped.unwrap().state, moved), (StoppedState::Disabled, true));
}

#[test]
fn what_is_not_the_receivers_fault_does_not_count() {
    let facts = [ErrorClass::Webhook, ErrorClass::GaveUp].map(|class| AttemptFinished {
        error_class: Some(class),
        status: None,
        ..fact(5, 503)
    });
    let (health, moved) = decide(&locked(failures(2, 1)), failed(&facts));
    assert_eq!((health.failures_in_a_row, health.stopped, moved), (2, None, false));
}

#[test]
fn only_the_check_that_is_wanted_counts() {
    let check = |status| AttemptFinished {
        trial: Some(TrialKind::Check),
        ..fact(3, status)
    };
    let (wrong, right) = (check(404), check(200));
    let wanted = Locked {
        check: Some(wrong.attempt.event),
        ..locked(Health::default())
    };
    let news = |fact| News {
        checks: vec![fact],
        ..News::default()
    };
    let (health, moved) = decide(&wanted, news(&wrong));
    let found = health.check.unwrap();
    assert_eq!(
        (found.error.as_deref(), moved),
        (Some("the receiver answered 404"), true)
    );
    assert_eq!((health.failures_in_a_row, health.last_failed_at), (0, None));

    let (health, moved) = decide(&wanted, news(&right));
    assert_eq!((health.check.unwrap().error, moved), (None, true));

    let known = Locked {
        health: Health {
            check: Some(Check {
                id: right.attempt.event,
                error: None,
            }),
            ..Health::default()
        },
        ..wanted.clone()
    };
    assert!(
        !decide(&known, news(&wrong)).1,
        "what it came to first is what it came to"
    );

    let another = Locked {
        check: Some(EventKey::of_message(NOW, 77)),
        ..wanted
    };
    assert_eq!(decide(&another, news(&wrong)), (Health::default(), false));
}

#[test]
fn a_healthy_webhooks_row_is_left_alone_for_a_while() {
    let delivered = |second| News {
        delivered_at: Some(at(second)),
        ..News::default()
    };
    let healthy = Health {
        last_delivered_at: Some(at(0)),
        ..Health::default()
    };
    assert!(delivered(0).matters(None));
    assert!(!delivered(9).matters(Some(&healthy)));
    assert!(delivered(10).matters(Some(&healthy)));
    assert!(delivered(1).matters(Some(&failures(1, 0))));
    assert!(!News::default().matters(Some(&healthy)));
}
