//! What the recorder makes of a webhook's health.

use std::sync::Arc;
use std::time::Duration;

use common::bus::Verdict;
use jiff::Timestamp;
use proto_schemas::delivery::TrialKind;
use proto_schemas::id::{AttemptRef, EventKey, WebhookId};
use proto_schemas::ledger::{AttemptFinished, Fact, Outcome};
use store::projects::Project;
use store::webhook_health::{Health, StoppedState};
use store::webhooks::Webhook;
use store::{outbox, projects, webhook_health, webhooks};

use crate::support::*;

const FAIL_AFTER: u32 = 3;

/// A recorder, and a webhook of the project.
struct World {
    ledger: Ledger,
    webhook: WebhookId,
}

impl World {
    /// The webhook has to pass `check`, where there is one.
    async fn start(check: Option<EventKey>) -> Self {
        let ledger = Ledger::start().await;
        let id = webhook(1);
        let project = Project {
            id: PROJECT,
            name: "acme".into(),
            profile: "standard".into(),
            schema_check: None,
            alert_emails: Vec::new(),
            created_at: START,
        };
        let row = Webhook {
            name: "one".into(),
            url: "https://example.com/".into(),
            events: vec!["*".into()],
            check: check.map(EventKey::as_uuid),
            ..Webhook::blank(id, PROJECT, START)
        };
        let mut connection = ledger.store.connection().await.unwrap();
        projects::insert(&mut connection, &project).await.unwrap();
        webhooks::insert(&mut connection, &row).await.unwrap();
        drop(connection);
        Self { ledger, webhook: id }
    }

    async fn health(&self) -> Option<Health> {
        let mut connection = self.ledger.store.connection().await.unwrap();
        webhook_health::find(&mut connection, &[self.webhook])
            .await
            .unwrap()
            .remove(&self.webhook)
    }

    /// How many definitions wait to be published.
    async fn noted(&self) -> usize {
        let mut connection = self.ledger.store.connection().await.unwrap();
        outbox::page(&mut connection, i64::MIN, 1000).await.unwrap().len()
    }

    async fn restarted(&self, at: Timestamp) {
        let mut transaction = self.ledger.store.begin().await.unwrap();
        let name = self.webhook.to_string();
        let found = webhooks::find_for_update(&mut transaction, PROJECT, &name)
            .await
            .unwrap();
        let row = Webhook {
            restarted_at: Some(at),
            ..found.unwrap()
        };
        webhooks::update(&mut transaction, &row).await.unwrap();
        transaction.commit().await.unwrap();
    }

    fn attempt(&self, number: u64, outcome: Outcome) -> Fact {
        self.attempt_of(first(number, self.webhook), number, outcome)
    }

    /// An attempt begun at `second`.
    fn attempt_of(&self, attempt: AttemptRef, second: u64, outcome: Outcome) -> Fact {
        Fact::AttemptFinished(AttemptFinished {
            started_at: START + Duration::from_secs(second),
            fail_after: Some(FAIL_AFTER),
            ..finished(attempt, outcome)
        })
    }

    fn trial(&self, number: u64, kind: TrialKind, outcome: Outcome) -> Fact {
        Fact::AttemptFinished(AttemptFinished {
            trial: Some(kind),
            fail_after: Some(1),
            ..finished(first(number, self.webhook), outcome)
        })
    }
}

#[tokio::test]
async fn failures_in_a_row_stop_the_webhook_and_are_noted_for_publication() {
    let world = World::start(None).await;
    world
        .ledger
        .record(&[
            world.attempt(1, Outcome::Delivered),
            world.attempt(2, Outcome::Failed),
            world.attempt(3, Outcome::Failed),
        ])
        .await;
    let health = world.health().await.unwrap();
    assert_eq!(
        (health.failures_in_a_row, health.stopped, world.noted().await),
        (2, None, 0)
    );
    assert_eq!(health.last_delivered_at, Some(START + Duration::from_millis(1020)));

    world.ledger.record(&[world.attempt(4, Outcome::Failed)]).await;
    let stopped = world.health().await.unwrap().stopped.unwrap();
    assert_eq!(stopped.state, StoppedState::Failed);
    assert_eq!(
        stopped.reason,
        "3 failed attempts in a row; the last: 503 Service Unavailable"
    );
    assert_eq!(world.noted().await, 1);
}

#[tokio::test]
async fn a_delivery_ends_the_row_of_failures() {
    let world = World::start(None).await;
    for number in 1..=2 {
        world.ledger.record(&[world.attempt(number, Outcome::Failed)]).await;
    }
    world.ledger.record(&[world.attempt(3, Outcome::Delivered)]).await;
    assert_eq!(world.health().await.unwrap().failures_in_a_row, 0);
    world.ledger.record(&[world.attempt(4, Outcome::Failed)]).await;
    let health = world.health().await.unwrap();
    assert_eq!((health.failures_in_a_row, health.stopped), (1, None));
}

#[tokio::test]
async fn an_attempt_told_again_is_not_counted_again() {
    let world = World::start(None).await;
    let failures: Vec<_> = (1..=2).map(|number| world.attempt(number, Outcome::Failed)).collect();
    for _ in 0..3 {
        world.ledger.record(&failures).await;
    }
    let twice: Vec<_> = failures.iter().chain(&failures).cloned().collect();
    world.ledger.record(&twice).await;
    assert_eq!(world.health().await.unwrap().failures_in_a_row, 2);
    // Nor does a delivery that was told again end the row.
    let delivered = world.attempt(3, Outcome::Delivered);
    world.ledger.record(std::slice::from_ref(&delivered)).await;
    world.ledger.record(&[world.attempt(4, Outcome::Failed)]).await;
    world.ledger.record(&[delivered]).await;
    assert_eq!(world.health().await.unwrap().failures_in_a_row, 1);
}

#[tokio::test]
async fn recorders_at_the_same_time_count_every_failure_once() {
    let world = Arc::new(World::start(None).await);
    let facts: Vec<Fact> = (1..=200)
        .map(|number| match world.attempt(number, Outcome::Failed) {
            Fact::AttemptFinished(fact) => Fact::AttemptFinished(AttemptFinished {
                fail_after: Some(1000),
                ..fact
            }),
            other => other,
        })
        .collect();
    let mut recorders = tokio::task::JoinSet::new();
    for part in 0..4 {
        // Each has half of what the next has.
        let facts: Vec<Fact> = facts.iter().cycle().skip(part * 50).take(100).cloned().collect();
        let world = Arc::clone(&world);
        recorders.spawn(async move {
            for batch in facts.chunks(10) {
                assert_eq!(world.ledger.recorder.record(messages(batch)).await, Verdict::Done);
            }
        });
    }
    recorders.join_all().await;
    assert_eq!(world.health().await.unwrap().failures_in_a_row, 200);
}

#[tokio::test]
async fn a_test_never_changes_what_is_known_of_the_webhook_and_is_no_delivery() {
    let world = World::start(None).await;
    world
        .ledger
        .record(&[
            world.trial(1, TrialKind::Test, Outcome::Failed),
            world.trial(2, TrialKind::Test, Outcome::Delivered),
            world.trial(3, TrialKind::Check, Outcome::Failed),
        ])
        .await;
    assert!(
        world.ledger.made(first(1, world.webhook)).await.is_some(),
        "it is on record"
    );
    let health = world.health().await.unwrap_or_default();
    assert_eq!(health, Health::default());
    assert_eq!(world.noted().await, 0);
    for state in ["scheduled", "released", "parked", "dead"] {
        assert_eq!(world.ledger.count(state).await, 0, "{state}");
    }
}

#[tokio::test]
async fn the_check_that_a_webhook_has_to_pass_is_noted_with_what_was_wrong() {
    let world = World::start(Some(key(7))).await;
    world
        .ledger
        .record(&[world.trial(6, TrialKind::Check, Outcome::Delivered)])
        .await;
    assert_eq!(world.health().await.unwrap_or_default().check, None, "another check");
    assert_eq!(world.noted().await, 0);
    let failed = world.trial(7, TrialKind::Check, Outcome::Failed);
    world.ledger.record(std::slice::from_ref(&failed)).await;
    let check = world.health().await.unwrap().check.unwrap();
    assert_eq!(
        (check.id, check.error.as_deref()),
        (key(7), Some("503 Service Unavailable"))
    );
    world.ledger.record(&[failed]).await;
    assert_eq!(world.noted().await, 1, "told again, it is no news");
}

#[tokio::test]
async fn a_restart_makes_void_what_was_begun_before() {
    let world = World::start(None).await;
    world
        .ledger
        .record(&[world.attempt(1, Outcome::Failed), world.attempt(2, Outcome::Failed)])
        .await;
    world.restarted(START + Duration::from_secs(10)).await;
    world.ledger.record(&[world.attempt(9, Outcome::Failed)]).await;
    let health = world.health().await.unwrap();
    assert_eq!((health.failures_in_a_row, health.stopped), (0, None));
    world
        .ledger
        .record(&[
            world.attempt(11, Outcome::Failed),
            world.attempt(12, Outcome::Failed),
            world.attempt(13, Outcome::Failed),
        ])
        .await;
    assert!(world.health().await.unwrap().stopped.is_some());
}

#[tokio::test]
async fn an_event_is_recorded_with_what_its_schema_has_against_it() {
    let world = World::start(None).await;
    let mut facts = [accepted(key(1), &[]), accepted(key(2), &[]), accepted(key(3), &[])];
    if let Fact::EventAccepted(fact) = &mut facts[1] {
        fact.warnings = vec!["/amount: not a number".into(), "a, \"b\" and {c}".into()];
    }
    world.ledger.record(&facts).await;
    let mut connection = world.ledger.store.connection().await.unwrap();
    for (number, warnings) in [(1, 0), (2, 2), (3, 0)] {
        let found = store::log::event(&mut connection, PROJECT, &key(number).derived_event_id()).await;
        let found = found.unwrap().unwrap();
        assert_eq!(found.warnings.len(), warnings);
        if warnings > 0 {
            assert_eq!(found.warnings[1], "a, \"b\" and {c}");
        }
    }
}
