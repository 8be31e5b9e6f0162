//! Deliveries made again: each once, at their pace, and what becomes of the runs before.

use std::collections::BTreeSet;
use std::time::Duration;

use common::clock::Clock;
use jiff::Timestamp;
use proto_schemas::id::{AttemptRef, EventKey, ProjectId};
use proto_schemas::ledger::{EventAccepted, Fact, Outcome, SkipReason};
use retry_scheduler::metrics::Metrics;
use retry_scheduler::replay::Replayer;
use store::log::{self, State};
use store::pending_deliveries::replay as deliveries;
use store::projects::{self, Project};
use store::replays::{self, Kind, NewReplay, Replay, Selection};
use store::webhooks::{self, Webhook};
use uuid::Uuid;

use crate::support::*;

impl Ledger {
    fn replayer(&self, per_second: u32) -> Replayer {
        Replayer {
            store: self.store.clone(),
            clock: Clock::from(self.clock.clone()),
            wake: self.wake.clone(),
            per_second,
            patience: self.patience.clone(),
            metrics: Metrics::default(),
        }
    }

    /// The project, and webhooks 1 to `count` of it.
    async fn define(&self, count: u128) {
        let mut connection = self.store.connection().await.unwrap();
        let project = Project {
            id: PROJECT,
            name: "acme".into(),
            profile: "standard".into(),
            schema_check: None,
            alert_emails: Vec::new(),
            created_at: START,
        };
        projects::insert(&mut connection, &project).await.unwrap();
        for number in 1..=count {
            let hook = Webhook {
                name: format!("w{number}"),
                ..Webhook::blank(webhook(number), PROJECT, START)
            };
            webhooks::insert(&mut connection, &hook).await.unwrap();
        }
    }

    async fn order(&self, number: u128, kind: Kind, selection: Selection) -> Replay {
        let mut connection = self.store.connection().await.unwrap();
        let new = NewReplay {
            id: Uuid::from_u128(number),
            project: PROJECT,
            kind,
            selection: &selection,
            per_second: None,
            counted: None,
            token: Uuid::nil(),
            created_at: START,
        };
        replays::insert(&mut connection, &new).await.unwrap();
        self.replay(number).await
    }

    async fn replay(&self, number: u128) -> Replay {
        let mut connection = self.store.connection().await.unwrap();
        let id = Uuid::from_u128(number).to_string();
        replays::find(&mut connection, PROJECT, &id).await.unwrap().unwrap()
    }

    async fn cancel(&self, number: u128) {
        let mut connection = self.store.connection().await.unwrap();
        replays::cancel(&mut connection, Uuid::from_u128(number), START)
            .await
            .unwrap();
    }

    /// The one delivery of event `number` to webhook 1: its state and run.
    async fn pair(&self, number: u64) -> (State, u32) {
        let mut connection = self.store.connection().await.unwrap();
        let events = [key(number)];
        let filter = log::DeliveryFilter {
            events: Some(&events),
            ..log::DeliveryFilter::default()
        };
        let page = log::deliveries(&mut connection, PROJECT, &filter, None, 10)
            .await
            .unwrap();
        assert_eq!(page.deliveries.len(), 1, "one row for an event and a webhook");
        (page.deliveries[0].state, page.deliveries[0].run)
    }

    async fn dead_letters(&self) -> usize {
        let mut connection = self.store.connection().await.unwrap();
        let filter = log::DeliveryFilter {
            state: Some(State::Dead),
            ..log::DeliveryFilter::default()
        };
        let page = log::deliveries(&mut connection, PROJECT, &filter, None, 10_000)
            .await
            .unwrap();
        page.deliveries.len()
    }
}

fn dead() -> Selection {
    Selection {
        states: vec![State::Dead],
        ..Selection::default()
    }
}

/// What cannot be delivered, and is dead at once.
fn died(attempt: AttemptRef) -> Fact {
    Fact::AttemptFinished(finished(attempt, Outcome::FailedForGood))
}

/// The first attempt of a run, as it was released.
fn again(number: u64, run: u32) -> AttemptRef {
    AttemptRef {
        run,
        release: 1,
        ..first(number, webhook(1))
    }
}

async fn dead_events(ledger: &Ledger, count: u64) {
    for numbers in (0..count).collect::<Vec<_>>().chunks(300) {
        let facts: Vec<Fact> = numbers
            .iter()
            .flat_map(|number| [accepted(key(*number), &[webhook(1)]), died(first(*number, webhook(1)))])
            .collect();
        ledger.record(&facts).await;
    }
}

#[tokio::test]
async fn replayers_side_by_side_make_each_delivery_once() {
    let ledger = Ledger::start().await;
    ledger.define(1).await;
    dead_events(&ledger, 1_500).await;
    let replay = ledger.order(1, Kind::Replay, dead()).await;
    let looking = (0..3).map(|_| {
        let (replayer, clock) = (ledger.replayer(1_000), ledger.clock.clone());
        tokio::spawn(async move {
            for _ in 0..40 {
                replayer.look().await.unwrap();
                clock.advance(Duration::from_millis(50));
            }
        })
    });
    for looking in looking.collect::<Vec<_>>() {
        looking.await.unwrap();
    }
    let progress = ledger.replay(1).await.progress.unwrap();
    assert_eq!((progress.made, progress.waiting), (1_500, 1_500));
    assert!(progress.walked_at.is_some() && progress.finished_at.is_none());
    assert_eq!(ledger.count("parked").await, 1_500);
    let made: BTreeSet<EventKey> = ledger
        .pending()
        .await
        .keys()
        .filter(|delivery| delivery.run == replay.number)
        .map(|delivery| delivery.event)
        .collect();
    assert_eq!(made.len(), 1_500);
    // While they are made again, they are no dead letters, and are not selected by another replay.
    assert_eq!(ledger.dead_letters().await, 0);
    ledger.order(2, Kind::Replay, dead()).await;
    ledger.replayer(1_000).look().await.unwrap();
    let second = ledger.replay(2).await.progress.unwrap();
    assert_eq!(second.made, 0);
}

#[tokio::test]
async fn a_replay_goes_at_its_pace_and_never_far_ahead() {
    let ledger = Ledger::start().await;
    ledger.define(1).await;
    dead_events(&ledger, 600).await;
    ledger.order(1, Kind::Replay, dead()).await;
    let replayer = ledger.replayer(100);
    let made = async || ledger.replay(1).await.progress.map_or(0, |progress| progress.made);
    replayer.look().await.unwrap();
    assert_eq!(made().await, 50, "half a second's worth at once");
    assert!(!replayer.look().await.unwrap(), "not before its time");
    for _ in 0..10 {
        ledger.clock.advance(Duration::from_millis(100));
        while replayer.look().await.unwrap() {}
    }
    assert_eq!(made().await, 150);
    // Nothing is released, so no more is made than two seconds' worth.
    for _ in 0..100 {
        ledger.clock.advance(Duration::from_millis(200));
        while replayer.look().await.unwrap() {}
    }
    assert_eq!(made().await, 200);
}

#[tokio::test]
async fn a_dead_letter_that_is_delivered_is_none_and_one_that_dies_again_is_one() {
    let ledger = Ledger::start().await;
    ledger.define(1).await;
    dead_events(&ledger, 2).await;
    assert_eq!(ledger.dead_letters().await, 2);
    let run = ledger.order(1, Kind::Replay, dead()).await.number;
    ledger.replayer(100).look().await.unwrap();
    assert_eq!(ledger.pair(0).await, (State::Parked, run));
    for number in [0, 1] {
        ledger
            .released(AttemptRef {
                release: 0,
                ..again(number, run)
            })
            .await;
    }
    ledger.record(&[delivered(again(0, run)), died(again(1, run))]).await;
    assert_eq!(ledger.pair(0).await, (State::Delivered, run));
    assert_eq!(ledger.pair(1).await, (State::Dead, run));
    assert_eq!(ledger.dead_letters().await, 1);
    assert_eq!(ledger.count("dead").await, 1, "the letter of the first run is gone");

    ledger.clock.advance(Duration::from_secs(1));
    while ledger.replayer(100).look().await.unwrap() {}
    let progress = ledger.replay(1).await.progress.unwrap();
    assert_eq!((progress.delivered(), progress.failed, progress.waiting), (1, 1, 0));
    assert!(progress.finished_at.is_some());
    // Told again, it changes nothing.
    ledger
        .record(&[
            delivered(again(0, run)),
            died(again(1, run)),
            died(first(0, webhook(1))),
        ])
        .await;
    assert_eq!(ledger.dead_letters().await, 1);
}

#[tokio::test]
async fn a_delivery_that_dies_after_a_replay_of_it_was_delivered_is_no_dead_letter() {
    let ledger = Ledger::start().await;
    ledger.define(1).await;
    ledger
        .record(&[accepted(key(0), &[webhook(1)]), failed(first(0, webhook(1)))])
        .await;
    let selection = Selection {
        webhooks: Some(vec![webhook(1)]),
        events: Some(vec![key(0)]),
        ..Selection::default()
    };
    let run = ledger.order(1, Kind::Replay, selection).await.number;
    ledger.replayer(100).look().await.unwrap();
    ledger
        .released(AttemptRef {
            release: 0,
            ..again(0, run)
        })
        .await;
    ledger.record(&[delivered(again(0, run))]).await;
    let last = AttemptRef {
        attempt: 2,
        ..first(0, webhook(1))
    };
    ledger.record(&[died(last)]).await;
    assert_eq!(ledger.pair(0).await, (State::Delivered, run));
    assert_eq!(ledger.dead_letters().await, 0);
}

#[tokio::test]
async fn what_a_cancelled_replay_has_not_begun_is_as_it_was() {
    let ledger = Ledger::start().await;
    ledger.define(1).await;
    dead_events(&ledger, 100).await;
    let run = ledger.order(1, Kind::Replay, dead()).await.number;
    let replayer = ledger.replayer(100);
    replayer.look().await.unwrap();
    assert_eq!(ledger.dead_letters().await, 50);
    // Two are under way when it is cancelled.
    for number in [0, 1] {
        ledger
            .released(AttemptRef {
                release: 0,
                ..again(number, run)
            })
            .await;
    }
    ledger.cancel(1).await;
    replayer.look().await.unwrap();
    let progress = ledger.replay(1).await.progress.unwrap();
    assert_eq!((progress.made, progress.withdrawn, progress.waiting), (50, 48, 2));
    assert_eq!(ledger.dead_letters().await, 98);
    ledger.record(&[delivered(again(0, run)), failed(again(1, run))]).await;
    ledger.clock.advance(Duration::from_secs(1));
    while replayer.look().await.unwrap() {}
    let progress = ledger.replay(1).await.progress.unwrap();
    assert_eq!((progress.delivered(), progress.withdrawn, progress.waiting), (1, 49, 0));
    assert!(progress.finished_at.is_some());
    assert_eq!(ledger.pair(0).await, (State::Delivered, run));
    assert_eq!(ledger.pair(1).await, (State::Dead, 0));
    assert_eq!(ledger.dead_letters().await, 99);

    // A duty whose release was not on record comes back when all is over.
    ledger.record(&[failed(again(2, run))]).await;
    assert_eq!(ledger.pair(2).await, (State::Scheduled, run));
    let mut connection = ledger.store.connection().await.unwrap();
    let withdrawn = deliveries::withdraw_late(&mut connection, START).await.unwrap();
    assert_eq!(withdrawn, 1);
    assert_eq!(ledger.pair(2).await, (State::Dead, 0));
}

#[tokio::test]
async fn what_was_skipped_can_be_made_but_what_a_filter_kept_out_only_by_that_name() {
    let ledger = Ledger::start().await;
    ledger.define(2).await;
    let skipped = |number: u64, reason| {
        Fact::EventAccepted(EventAccepted {
            event: event(key(number)),
            owed: Vec::new(),
            skipped: vec![(webhook(1), reason)],
            warnings: Vec::new(),
            held: Vec::new(),
            ordered: Vec::new(),
        })
    };
    let reasons = [SkipReason::Paused, SkipReason::Disabled, SkipReason::Filtered];
    let facts: Vec<Fact> = (0..)
        .zip(reasons)
        .map(|(number, reason)| skipped(number, reason))
        .collect();
    ledger.record(&facts).await;
    let made = async |number, selection: Selection| {
        ledger.order(number, Kind::Replay, selection).await;
        let replayer = ledger.replayer(1_000);
        while replayer.look().await.unwrap() {}
        ledger.replay(number).await.progress.unwrap().made
    };
    let all = Selection {
        states: vec![State::Skipped],
        ..Selection::default()
    };
    let filtered = Selection {
        reasons: Some(vec!["filtered".into()]),
        ..all.clone()
    };
    assert_eq!(made(1, all.clone()).await, 2);
    assert_eq!(ledger.pair(0).await.0, State::Parked);
    assert_eq!(ledger.pair(2).await, (State::Skipped, 0));
    assert_eq!(made(2, filtered).await, 1);
    // To a webhook that was never to get it, by name.
    let named = Selection {
        webhooks: Some(vec![webhook(2)]),
        events: Some(vec![key(0)]),
        ..Selection::default()
    };
    assert_eq!(made(3, named).await, 1);
    // By type, time and webhook.
    let none = Selection {
        types: Some(vec!["order.*".into()]),
        ..all.clone()
    };
    assert_eq!(made(4, none).await, 0);
    let later = Selection {
        from: Some(EventKey::floor(START + Duration::from_secs(1))),
        ..all
    };
    assert_eq!(made(5, later).await, 0);
    let elsewhere = Selection {
        webhooks: Some(vec![webhook(2)]),
        ..dead()
    };
    assert_eq!(made(6, elsewhere).await, 0);
}

#[tokio::test]
async fn discarded_letters_are_cancelled_with_a_reason_and_can_still_be_made_again() {
    let ledger = Ledger::start().await;
    ledger.define(1).await;
    dead_events(&ledger, 1_200).await;
    ledger.order(1, Kind::Discard, dead()).await;
    let replayer = ledger.replayer(10);
    while replayer.look().await.unwrap() {}
    let progress = ledger.replay(1).await.progress.unwrap();
    assert_eq!(progress.made, 1_200);
    assert!(progress.finished_at.is_some());
    assert_eq!(
        (ledger.count("dead").await, ledger.count("cancelled").await),
        (0, 1_200)
    );
    assert_eq!(ledger.pair(7).await, (State::Cancelled, 0));

    let one = Selection {
        states: vec![State::Cancelled],
        to: Some(EventKey::floor(Timestamp::MAX)),
        ..Selection::default()
    };
    let run = ledger.order(2, Kind::Replay, one).await.number;
    replayer.look().await.unwrap();
    assert_eq!(ledger.pair(0).await, (State::Parked, run));
}

#[tokio::test]
async fn a_deleted_webhook_gets_nothing_again_and_another_projects_is_not_touched() {
    let ledger = Ledger::start().await;
    ledger.define(1).await;
    dead_events(&ledger, 3).await;
    let mut connection = ledger.store.connection().await.unwrap();
    let mut hook = webhooks::by_ids(&mut connection, &[webhook(1)])
        .await
        .unwrap()
        .remove(0);
    hook.deleted_at = Some(START);
    webhooks::update(&mut connection, &hook).await.unwrap();
    ledger.order(1, Kind::Replay, dead()).await;
    let replayer = ledger.replayer(1_000);
    while replayer.look().await.unwrap() {}
    assert_eq!(ledger.replay(1).await.progress.unwrap().made, 0);
    let other = ProjectId::from_uuid(Uuid::from_u128(0xb));
    let found = replays::find(&mut connection, other, "1").await.unwrap();
    assert_eq!(found, None);
}
