//! Deliveries that go out in order: whatever happens, of one key each goes out when the one before it is settled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::bus::Bus;
use common::definitions::Definitions;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use proto_schemas::definition::{Ordering, Webhook, WebhookState};
use proto_schemas::id::{AttemptRef, EventKey, OrderKey, WebhookId};
use proto_schemas::ledger::{Fact, Outcome};
use proto_schemas::stream::DELIVERIES;
use retry_scheduler::ordered::{Frontier, Next, Orderer};
use store::log::State;
use store::pending_deliveries::{self, DeliveryKey};
use uuid::Uuid;

use crate::support::*;

/// Everything is before it.
fn end() -> EventKey {
    EventKey::from_uuid(Uuid::max())
}

fn order_key(number: u128) -> OrderKey {
    OrderKey::from_uuid(Uuid::from_u128(number))
}

fn orderer(ledger: &Ledger, bus: &Bus) -> Orderer {
    Orderer {
        releaser: Arc::new(ledger.releaser(bus, 20)),
    }
}

async fn duties(bus: &Bus) -> usize {
    bus.count(DELIVERIES, "deliveries.>").await.unwrap()
}

/// The delivery of an event in its first release.
fn released(number: u64, webhook: WebhookId) -> AttemptRef {
    AttemptRef {
        release: 1,
        ..first(number, webhook)
    }
}

#[tokio::test]
async fn the_next_of_a_key_goes_when_the_one_before_it_is_settled_and_other_keys_flow() {
    let (ledger, nats) = (Ledger::start().await, OwnNats::start().await);
    let bus = nats.bus().await;
    let orderer = orderer(&ledger, &bus);
    let webhook = webhook(1);
    // Later events are recorded first.
    for number in (1..=6).rev() {
        let by = order_key(u128::from(number % 2));
        ledger.record(&[accepted_ordered(key(number), webhook, by)]).await;
    }
    let go = async || {
        orderer.release_before(&[webhook], end()).await.unwrap();
        ledger
            .pending()
            .await
            .into_keys()
            .map(|delivery| delivery.event)
            .collect::<Vec<_>>()
    };
    assert_eq!(go().await, [key(1), key(2)]);
    assert_eq!(go().await, [key(1), key(2)], "nothing was settled");

    // A retry keeps its key waiting, and no other.
    ledger
        .record(&[failed(released(1, webhook)), delivered(released(2, webhook))])
        .await;
    assert_eq!(go().await, [key(1), key(4)]);
    let again = AttemptRef {
        attempt: 2,
        ..released(1, webhook)
    };
    ledger.clock.advance(Duration::from_secs(70));
    orderer.releaser.look().await.unwrap();
    let again = AttemptRef { release: 2, ..again };
    assert_eq!(ledger.pending().await[&DeliveryKey::from(&again)], ("released", 2, 2));
    assert_eq!(go().await, [key(1), key(4)]);

    // Dead is settled, and so is cancelled.
    let mut last = finished(again, Outcome::FailedForGood);
    last.ladder = vec![Duration::ZERO];
    ledger
        .record(&[Fact::AttemptFinished(last), cancelled(released(4, webhook))])
        .await;
    assert_eq!(go().await, [key(3), key(6)]);
    ledger.record(&[delivered(released(3, webhook))]).await;
    assert_eq!(go().await, [key(5), key(6)]);
}

#[tokio::test]
async fn nothing_is_released_before_everything_earlier_is_on_record() {
    let (ledger, nats) = (Ledger::start().await, OwnNats::start().await);
    let bus = nats.bus().await;
    let orderer = orderer(&ledger, &bus);
    let webhook = webhook(1);
    for number in [5, 6] {
        ledger
            .record(&[accepted_ordered(key(number), webhook, OrderKey::WHOLE)])
            .await;
    }
    orderer.release_before(&[webhook], key(4)).await.unwrap();
    assert_eq!(duties(&bus).await, 0);
    ledger
        .record(&[accepted_ordered(key(4), webhook, OrderKey::WHOLE)])
        .await;
    orderer.release_before(&[webhook], key(6)).await.unwrap();
    assert_eq!(
        ledger.pending().await[&DeliveryKey::from(&first(4, webhook))],
        ("released", 1, 1)
    );
    assert_eq!(duties(&bus).await, 1);
}

#[tokio::test]
async fn the_frontier_is_what_events_still_holds_and_what_is_not_on_record() {
    let (ledger, nats) = (Ledger::start().await, OwnNats::start().await);
    let bus = nats.bus().await;
    let orderer = orderer(&ledger, &bus);
    let webhook = webhook(1);
    ledger
        .record(&[accepted_ordered(key(1), webhook, OrderKey::WHOLE)])
        .await;
    // Not recorded, and nobody records it: what is in LEDGER may be of an earlier event.
    let entry = accepted(key(9), &[]).encode();
    let stored = bus
        .publish(proto_schemas::subject::LEDGER, Default::default(), entry)
        .await;
    stored.unwrap().stored().await.unwrap();
    let mut frontier = Frontier::default();
    assert_eq!(orderer.look(&mut frontier).await.unwrap(), Next::Soon);
    assert_eq!(duties(&bus).await, 0);

    let stop = tokio_util::sync::CancellationToken::new();
    let (recorder, end, from) = (Arc::clone(&ledger.recorder), stop.clone(), bus.clone());
    let recording = tokio::spawn(async move {
        let options = common::bus::Options {
            max_held: 10,
            drain: Duration::from_secs(5),
        };
        let record = |messages| recorder.record(messages);
        let stream = proto_schemas::stream::LEDGER;
        from.work_off_batches(stream, options, 10, Duration::ZERO, end, record)
            .await
    });
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while duties(&bus).await == 0 {
        assert!(tokio::time::Instant::now() < deadline, "it is released");
        orderer.look(&mut frontier).await.unwrap();
    }
    stop.cancel();
    recording.await.unwrap().unwrap();

    // An event in EVENTS that is older than what is on record keeps that back.
    let position = bus.position(proto_schemas::stream::EVENTS).await.unwrap();
    let later = EventKey::of_message(position.oldest_at + Duration::from_secs(3600), 1);
    ledger.record(&[accepted_ordered(later, webhook, order_key(7))]).await;
    let stored = bus.publish("events.acme.a", Default::default(), "1").await;
    stored.unwrap().stored().await.unwrap();
    for _ in 0..5 {
        orderer.look(&mut frontier).await.unwrap();
    }
    assert_eq!(duties(&bus).await, 1);
}

#[tokio::test]
async fn a_ledger_that_was_made_anew_holds_up_nothing() {
    let nats = OwnNats::start().await;
    let bus = nats.bus().await;
    for number in 0..5 {
        let entry = accepted(key(number), &[]).encode();
        let stored = bus
            .publish(proto_schemas::subject::LEDGER, Default::default(), entry)
            .await;
        stored.unwrap().stored().await.unwrap();
    }
    let mut frontier = Frontier::default();
    assert!(!frontier.advance(&bus).await.unwrap(), "nobody has recorded them");

    let client = async_nats::connect(nats.server.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    jetstream.delete_stream("LEDGER").await.unwrap();
    nats.bus().await;
    assert!(
        !frontier.advance(&bus).await.unwrap(),
        "what it was to reach is no more"
    );
    assert!(frontier.advance(&bus).await.unwrap());
}

#[tokio::test]
async fn what_a_paused_webhook_holds_in_order_keeps_its_order() {
    let (ledger, nats) = (Ledger::start().await, OwnNats::start().await);
    let bus = nats.bus().await;
    let defined = Defined::over(&bus).await;
    let orderer = Orderer {
        releaser: Arc::new(ledger.releaser_by(&bus, 20, Arc::clone(&defined.definitions))),
    };
    let by = |state| Webhook {
        state,
        hold_while_paused: true,
        ordering: Ordering::Webhook,
        ..definition(webhook(1))
    };
    defined.put(&by(WebhookState::Paused)).await;
    for number in 1..=3 {
        let Fact::EventAccepted(mut fact) = accepted_ordered(key(number), webhook(1), OrderKey::WHOLE) else {
            unreachable!()
        };
        fact.held = vec![webhook(1)];
        ledger.record(&[Fact::EventAccepted(fact)]).await;
    }
    let mut frontier = Frontier::default();
    orderer.releaser.look().await.unwrap();
    orderer.look(&mut frontier).await.unwrap();
    assert_eq!((duties(&bus).await, ledger.count("held").await), (0, 3));

    defined.put(&by(WebhookState::Active)).await;
    ledger
        .record(&[accepted_ordered(key(4), webhook(1), OrderKey::WHOLE)])
        .await;
    for number in 1..=4 {
        orderer.releaser.look().await.unwrap();
        orderer.look(&mut frontier).await.unwrap();
        let pending = ledger.pending().await;
        assert_eq!(
            pending.into_iter().collect::<Vec<_>>(),
            [(DeliveryKey::from(&first(number, webhook(1))), ("released", 1, 1))]
        );
        ledger.record(&[delivered(released(number, webhook(1)))]).await;
    }
    let states: BTreeSet<_> = ledger.deliveries().await.iter().map(|it| it.state.as_str()).collect();
    assert_eq!(states, BTreeSet::from([State::Delivered.as_str()]));
}

#[tokio::test]
async fn who_waits_behind_nobody_is_found() {
    let ledger = Ledger::start().await;
    let webhook = webhook(1);
    for number in 1..=2 {
        ledger
            .record(&[accepted_ordered(key(number), webhook, order_key(1))])
            .await;
    }
    // Somebody's hand: what was first is gone, and nobody was told.
    let mut connection = ledger.store.connection().await.unwrap();
    let day = store::partitions::day(key(1)).tomorrow().unwrap();
    store::retention::expire_deliveries(&mut connection, day, 1)
        .await
        .unwrap();
    assert_eq!(ledger.count("queued").await, 0);
    let found = pending_deliveries::promote_forgotten(&mut connection, None, 10)
        .await
        .unwrap();
    assert_eq!(found, (1, None));
    assert_eq!(ledger.count("queued").await, 1);
    let found = pending_deliveries::promote_forgotten(&mut connection, None, 1)
        .await
        .unwrap();
    assert!(matches!(found, (0, Some(_))), "there may be more after it");
}

/// What the receivers saw, and what has yet to happen.
struct Story {
    ledger: Ledger,
    bus: Bus,
    definitions: Arc<Definitions>,
    /// Each event's webhook and key.
    events: BTreeMap<EventKey, (WebhookId, OrderKey)>,
    recorded: BTreeSet<EventKey>,
    /// Facts on their way to the recorder.
    told: Vec<Fact>,
    /// Duties in the pipe.
    pipe: BTreeSet<(EventKey, u32, u32)>,
    /// Duties that were ever in it.
    published: BTreeSet<(EventKey, u32, u32)>,
    settled: BTreeSet<EventKey>,
}

impl Story {
    fn reference(&self, event: EventKey, attempt: u32, release: u32) -> AttemptRef {
        AttemptRef {
            event,
            attempt,
            release,
            ..first(0, self.events[&event].0)
        }
    }

    fn webhooks(&self) -> Vec<WebhookId> {
        let all: BTreeSet<_> = self.events.values().map(|(webhook, _)| *webhook).collect();
        all.into_iter().collect()
    }

    fn frontier(&self) -> EventKey {
        let missing = self.events.keys().find(|event| !self.recorded.contains(event));
        missing.copied().unwrap_or_else(end)
    }

    async fn record(&mut self, pick: usize, count: usize) {
        let mut batch = Vec::new();
        for _ in 0..count.min(self.told.len()) {
            let fact = self.told.swap_remove(pick % self.told.len());
            if let Fact::EventAccepted(fact) = &fact {
                self.recorded.insert(fact.event.key);
            }
            batch.push(fact);
        }
        self.ledger.record(&batch).await;
    }

    /// What is released goes into the pipe.
    async fn fill_pipe(&mut self) {
        let mut connection = self.ledger.store.connection().await.unwrap();
        let released = pending_deliveries::doubtful(&mut connection, jiff::Timestamp::MAX, 10_000)
            .await
            .unwrap();
        for attempt in released {
            self.publish((attempt.event, attempt.attempt, attempt.release));
        }
    }

    /// JetStream drops what it has had before.
    fn publish(&mut self, duty: (EventKey, u32, u32)) {
        if self.published.insert(duty) {
            self.pipe.insert(duty);
        }
    }

    async fn release(&mut self) {
        // Each time a process of its own.
        let definitions = Arc::clone(&self.definitions);
        let orderer = Orderer {
            releaser: Arc::new(self.ledger.releaser_by(&self.bus, 20, definitions)),
        };
        orderer.release_before(&self.webhooks(), self.frontier()).await.unwrap();
        orderer.releaser.look().await.unwrap();
        self.fill_pipe().await;
    }

    /// A process publishes its releases and dies before it commits.
    async fn die_releasing(&mut self) {
        let mut transaction = self.ledger.store.begin().await.unwrap();
        let (webhooks, frontier) = (self.webhooks(), self.frontier());
        let claimed = pending_deliveries::claim_ordered(&mut transaction, &webhooks, frontier, START, ROOM, 500).await;
        for attempt in claimed.unwrap().unwrap() {
            self.publish((attempt.event, attempt.attempt, attempt.release + 1));
        }
        transaction.rollback().await.unwrap();
    }

    /// A dispatcher takes a duty out of the pipe.
    fn work(&mut self, pick: usize, what: u8) {
        let Some(duty) = self.pipe.iter().nth(pick % self.pipe.len().max(1)).copied() else {
            return;
        };
        self.pipe.remove(&duty);
        let (event, attempt, release) = duty;
        let reference = self.reference(event, attempt, release);
        let of = self.events[&event];
        let before = self.events.range(..event).filter(|(_, it)| **it == of);
        for (earlier, _) in before {
            assert!(self.settled.contains(earlier), "{earlier} before {event}");
        }
        let fact = match what % 8 {
            0..=3 => delivered(reference),
            4 | 5 => failed(reference),
            6 => deferred(reference),
            _ => held(reference),
        };
        let ends = match &fact {
            Fact::AttemptFinished(fact) => fact.outcome == Outcome::Delivered || attempt >= 3,
            _ => false,
        };
        if ends {
            self.settled.insert(event);
        }
        if what.is_multiple_of(3) {
            self.told.push(fact.clone());
        }
        self.told.push(fact);
    }
}

#[tokio::test]
async fn whatever_happens_in_whatever_order_the_deliveries_of_a_key_go_out_one_after_the_other() {
    const CASES: u128 = 12;
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
    let steps = proptest::collection::vec((any::<u8>(), any::<usize>(), any::<u8>()), 120);
    let (ledger, nats) = (Ledger::start().await, OwnNats::start().await);
    let bus = nats.bus().await;
    let defined = Defined::over(&bus).await;
    let mut story = Story {
        ledger,
        bus,
        definitions: Arc::clone(&defined.definitions),
        events: BTreeMap::new(),
        recorded: BTreeSet::new(),
        told: Vec::new(),
        pipe: BTreeSet::new(),
        published: BTreeSet::new(),
        settled: BTreeSet::new(),
    };
    for case in 0..CASES {
        // One webhook by key, one as a whole.
        let begin = u64::try_from(case).unwrap() * 100;
        for number in [2 * case + 1, 2 * case + 2] {
            defined.put(&definition(webhook(number))).await;
        }
        for number in begin..begin + 20 {
            let (webhook, by) = match number % 2 {
                0 => (webhook(2 * case + 1), order_key(u128::from(number % 3))),
                _ => (webhook(2 * case + 2), OrderKey::WHOLE),
            };
            story.events.insert(key(number), (webhook, by));
            let fact = accepted_ordered(key(number), webhook, by);
            story.told.push(fact.clone());
            story.told.push(fact);
        }
        let steps = steps.new_tree(&mut runner).unwrap().current();
        for (what, pick, how) in steps {
            match what % 10 {
                0..=2 => story.record(pick, usize::from(how % 6)).await,
                3 | 4 => story.release().await,
                5 => story.die_releasing().await,
                6 => story.ledger.clock.advance(Duration::from_secs(how.into())),
                _ => story.work(pick, how),
            }
        }
        // Everything ends: nobody is forgotten.
        let mut rounds = 0;
        while story.settled.len() < story.events.len() || !story.told.is_empty() {
            rounds += 1;
            assert!(
                rounds < 200,
                "{} of {} settled",
                story.settled.len(),
                story.events.len()
            );
            story.record(0, usize::MAX).await;
            story.ledger.clock.advance(Duration::from_secs(70));
            story.release().await;
            while !story.pipe.is_empty() {
                story.work(0, 1);
            }
        }
        for state in ["queued", "behind", "held", "parked", "scheduled", "released"] {
            assert_eq!(story.ledger.count(state).await, 0, "{state}");
        }
    }
}
