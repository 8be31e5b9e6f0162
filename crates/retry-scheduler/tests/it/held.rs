//! What becomes of deliveries whose webhook gets nothing just now, or is gone.

use std::sync::Arc;
use std::time::Duration;

use common::bus::Bus;
use common::clock::Clock;
use proto_schemas::definition::{RateLimit, Webhook, WebhookState};
use proto_schemas::id::AttemptRef;
use proto_schemas::stream::DELIVERIES;
use retry_scheduler::cancel::Canceller;
use retry_scheduler::metrics::Metrics;
use retry_scheduler::release::Releaser;
use store::log::State;
use store::pending_deliveries::DeliveryKey;

use crate::support::*;

struct World {
    ledger: Ledger,
    bus: Bus,
    defined: Defined,
    _nats: OwnNats,
}

impl World {
    async fn start() -> Self {
        let (ledger, nats) = (Ledger::start().await, OwnNats::start().await);
        let bus = nats.bus().await;
        let defined = Defined::over(&bus).await;
        Self {
            ledger,
            bus,
            defined,
            _nats: nats,
        }
    }

    fn releaser(&self, per_webhook: u32) -> Releaser {
        let definitions = Arc::clone(&self.defined.definitions);
        self.ledger.releaser_by(&self.bus, per_webhook, definitions)
    }

    fn canceller(&self) -> Canceller {
        Canceller {
            store: self.ledger.store.clone(),
            definitions: Arc::clone(&self.defined.definitions),
            clock: Clock::from(self.ledger.clock.clone()),
            wake: self.ledger.wake.clone(),
            patience: self.ledger.patience.clone(),
            metrics: Metrics::default(),
        }
    }

    /// The webhook's definition from now on.
    async fn is(&self, state: WebhookState) {
        self.put(state, |_| {}).await;
    }

    async fn put(&self, state: WebhookState, change: impl FnOnce(&mut Webhook)) {
        let mut webhook = Webhook {
            state,
            hold_while_paused: true,
            ..definition(webhook(1))
        };
        change(&mut webhook);
        self.defined.put(&webhook).await;
    }

    async fn duties(&self) -> usize {
        self.bus.count(DELIVERIES, "deliveries.>").await.unwrap()
    }

    /// The state and reason of an event's delivery, as the API tells them.
    async fn told(&self, number: u64) -> (State, String) {
        let deliveries = self.ledger.deliveries().await;
        let delivery = deliveries.into_iter().find(|delivery| delivery.event == key(number));
        let delivery = delivery.unwrap();
        (delivery.state, delivery.reason.unwrap_or_default())
    }
}

#[tokio::test]
async fn what_is_held_while_a_webhook_is_paused_goes_out_in_order_of_age_once_it_is_active() {
    let world = World::start().await;
    world.is(WebhookState::Paused).await;
    let releaser = world.releaser(3);
    for number in (0..5).rev() {
        world.ledger.record(&[accepted_held(key(number), webhook(1))]).await;
    }
    releaser.look().await.unwrap();
    assert_eq!(world.duties().await, 0);
    assert_eq!(world.told(4).await, (State::Held, "the webhook is paused".into()));

    world.is(WebhookState::Active).await;
    releaser.look().await.unwrap();
    assert_eq!(world.duties().await, 3, "no more than its lane takes");
    for number in 0..5 {
        let state = if number < 3 { "released" } else { "held" };
        let pending = world.ledger.pending().await;
        assert_eq!(
            pending[&DeliveryKey::from(&first(number, webhook(1)))].0,
            state,
            "event {number}"
        );
    }
    // One that is recorded only now, although it is from before, goes as well.
    world
        .ledger
        .record(&[
            accepted_held(key(9), webhook(1)),
            delivered(AttemptRef {
                release: 1,
                ..first(0, webhook(1))
            }),
            delivered(AttemptRef {
                release: 1,
                ..first(1, webhook(1))
            }),
            delivered(AttemptRef {
                release: 1,
                ..first(2, webhook(1))
            }),
        ])
        .await;
    releaser.look().await.unwrap();
    assert_eq!(world.ledger.count("held").await, 0);
    assert_eq!(world.ledger.count("released").await, 3);
}

#[tokio::test]
async fn an_event_told_again_brings_back_no_delivery() {
    let world = World::start().await;
    world.is(WebhookState::Active).await;
    let releaser = world.releaser(3);
    let fact = accepted_held(key(1), webhook(1));
    world.ledger.record(&[fact.clone(), fact.clone()]).await;
    releaser.look().await.unwrap();
    let release = AttemptRef {
        release: 1,
        ..first(1, webhook(1))
    };
    world.ledger.record(&[delivered(release), fact.clone()]).await;
    world.ledger.record(&[fact]).await;
    assert_eq!(world.ledger.pending().await.len(), 0);
    assert_eq!(world.told(1).await.0, State::Delivered);
}

#[tokio::test]
async fn what_becomes_due_meanwhile_is_held_and_what_was_deferred_to_be_held_goes_on_where_it_was() {
    let world = World::start().await;
    let releaser = world.releaser(20);
    let (parks, fails, holds) = (first(1, webhook(1)), first(2, webhook(1)), first(3, webhook(1)));
    for attempt in [parks, fails, holds] {
        world.ledger.record(&[accepted(attempt.event, &[webhook(1)])]).await;
    }
    world
        .ledger
        .record(&[deferred(parks), failed(fails), held(holds)])
        .await;
    world.is(WebhookState::Failed).await;
    world.ledger.clock.advance(Duration::from_secs(70));
    releaser.look().await.unwrap();
    assert_eq!(world.duties().await, 0, "no round by dispatcher is needed");
    for number in [1, 2] {
        assert_eq!(world.told(number).await, (State::Held, "the webhook has failed".into()));
    }
    assert_eq!(world.told(3).await.0, State::Held);

    world.is(WebhookState::Active).await;
    releaser.look().await.unwrap();
    let pending = world.ledger.pending().await;
    assert_eq!(pending[&DeliveryKey::from(&parks)], ("released", 1, 1));
    assert_eq!(
        pending[&DeliveryKey::from(&fails)],
        ("released", 2, 1),
        "its attempts are not used up"
    );
    assert_eq!(pending[&DeliveryKey::from(&holds)], ("released", 1, 1));
}

#[tokio::test]
async fn a_drain_is_no_faster_than_it_may_be_and_another_process_goes_on_at_its_pace() {
    let world = World::start().await;
    let rate = RateLimit {
        requests: 50,
        window: Duration::from_secs(1),
    };
    for number in 0..100 {
        world.ledger.record(&[accepted_held(key(number), webhook(1))]).await;
    }
    world.put(WebhookState::Active, |it| it.drain_rate = Some(rate)).await;
    for step in 0..50_u64 {
        // A process of its own each time: nothing is remembered but what is on record.
        let looked = world.releaser(1000).look().await.unwrap();
        assert_eq!(world.duties().await as u64, step + 1, "one in 20 ms");
        assert!(looked.drains_at.is_some());
        world.ledger.clock.advance(Duration::from_millis(20));
    }
    world.put(WebhookState::Active, |it| it.drain_rate = None).await;
    world.releaser(1000).look().await.unwrap();
    assert_eq!(world.duties().await, 100);
}

#[tokio::test]
async fn everything_that_waits_for_a_deleted_webhook_is_cancelled_with_the_reason() {
    let world = World::start().await;
    let attempt = |number| first(number, webhook(1));
    for number in 1..=4 {
        world.ledger.record(&[accepted(key(number), &[webhook(1)])]).await;
    }
    world
        .ledger
        .record(&[deferred(attempt(1)), failed(attempt(2)), held(attempt(3))])
        .await;
    world.put(WebhookState::Active, |it| it.deleted = true).await;
    assert_eq!(world.canceller().look().await.unwrap(), 3);
    for number in 1..=3 {
        let told = world.told(number).await;
        assert_eq!(told, (State::Cancelled, "the webhook was deleted".into()));
    }
    // Told by dispatcher: no attempt was made, so none is on record.
    world.ledger.record(&[cancelled(attempt(4))]).await;
    assert_eq!(world.told(4).await.0, State::Cancelled);
    assert!(world.ledger.made(attempt(4)).await.is_none());
    // What is recorded late ends as well, at the latest when it is due.
    world
        .ledger
        .record(&[accepted(key(5), &[webhook(1)]), failed(attempt(5))])
        .await;
    world.ledger.clock.advance(Duration::from_secs(70));
    world.releaser(20).look().await.unwrap();
    assert_eq!(world.told(5).await.0, State::Cancelled);
    assert_eq!(world.duties().await, 0);
}

#[tokio::test]
async fn what_waits_for_a_webhook_deleted_so_long_ago_that_it_is_no_definition_any_more_is_cancelled_too() {
    let world = World::start().await;
    let (here, gone) = (webhook(1), webhook(2));
    world.ledger.create_webhook(gone).await;
    world
        .ledger
        .record(&[accepted(key(1), &[gone]), accepted(key(2), &[here])])
        .await;
    // Dispatcher does not know either of them, and leaves them to the record.
    world
        .ledger
        .record(&[deferred(first(1, gone)), deferred(first(2, here))])
        .await;
    assert_eq!(
        world.canceller().look().await.unwrap(),
        0,
        "their definitions may yet come"
    );
    let mut connection = world.ledger.store.connection().await.unwrap();
    let mut row = store::webhooks::by_ids(&mut connection, &[gone])
        .await
        .unwrap()
        .remove(0);
    row.deleted_at = Some(START);
    store::webhooks::update(&mut connection, &row).await.unwrap();
    drop(connection);
    assert_eq!(world.canceller().look().await.unwrap(), 1);
    assert_eq!(
        world.told(1).await,
        (State::Cancelled, "the webhook was deleted".into())
    );
    assert_eq!(world.told(2).await.0, State::Parked);
}

#[tokio::test]
async fn a_cancelled_delivery_that_the_receiver_has_after_all_is_delivered() {
    let world = World::start().await;
    let attempt = first(1, webhook(1));
    let made = delivered(AttemptRef { release: 1, ..attempt });
    for facts in [[cancelled(attempt), made.clone()], [made.clone(), cancelled(attempt)]] {
        world.ledger.record(&[accepted(key(1), &[webhook(1)])]).await;
        for fact in facts {
            world.ledger.record(&[fact]).await;
        }
        assert_eq!(world.told(1).await.0, State::Delivered);
    }
}
