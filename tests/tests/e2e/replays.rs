//! Deliveries made again: one, an event's, many; counted, watched, cancelled, and through crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use posthaste_tests::{Answer, Api, Cluster, Producer, Receiver, Role, eventually, eventually_within};
use reqwest::Method;
use serde_json::{Value, json};

struct World {
    cluster: Cluster,
    receiver: Receiver,
    producer: Producer,
    /// What the receiver answers.
    status: Arc<AtomicU16>,
    secret: String,
}

impl World {
    /// A webhook that is tried once, and never stopped by its failures.
    async fn start(status: u16) -> Self {
        let cluster = Cluster::start().await.unwrap();
        cluster.admin.create_project("acme").await.unwrap();
        let status = Arc::new(AtomicU16::new(status));
        let receiver = Receiver::scripted({
            let status = Arc::clone(&status);
            move |_, _| Answer::status(status.load(Ordering::Relaxed))
        })
        .await;
        let more = json!({ "fail_after": 0, "retry": false });
        let webhook = cluster
            .create_webhook("acme", "one", &receiver.url, more)
            .await
            .unwrap();
        let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
        Self {
            secret: webhook["secret"].as_str().unwrap().to_owned(),
            cluster,
            receiver,
            producer,
            status,
        }
    }

    fn api(&self) -> &Api {
        &self.cluster.admin
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let path = format!("/v1/projects/acme/{path}");
        self.api()
            .ok(Method::POST, &path, (!body.is_null()).then_some(&body))
            .await
            .unwrap()
    }

    /// Publishes `count` events and waits until as many deliveries are in `state`.
    async fn publish(&self, count: usize, state: &str) {
        self.producer.publish_many("acme", "order.paid", count).await;
        let path = format!("/v1/projects/acme/deliveries?state={state}");
        eventually("the deliveries on record", || async {
            (self.api().list(&path).await.ok()?.len() == count).then_some(())
        })
        .await;
    }

    /// Watches a replay until it is over: every progress told, the last one's name and data.
    async fn watch(&self, replay: &Value) -> (Vec<Value>, String, Value) {
        let path = format!("/v1/projects/acme/replays/{}/progress", replay["id"].as_str().unwrap());
        let mut events = self.api().events(&path).await.unwrap();
        let (name, last) = events.pop().unwrap();
        assert!(events.iter().all(|(name, _)| name == "progress"), "{events:?}");
        (events.into_iter().map(|(_, data)| data).collect(), name, last)
    }

    async fn replay(&self, replay: &Value) -> Value {
        let path = format!("/v1/projects/acme/replays/{}", replay["id"].as_str().unwrap());
        self.api().ok(Method::GET, &path, None).await.unwrap()
    }

    async fn list(&self, path: &str) -> Vec<Value> {
        self.api().list(&format!("/v1/projects/acme/{path}")).await.unwrap()
    }

    /// That nothing is missing, whatever was made again.
    async fn reconciles(&self, deliveries: u64) {
        let path = "/v1/projects/acme/reconciliation";
        let sums = self.api().ok(Method::GET, path, None).await.unwrap();
        assert_eq!(
            (&sums["deliveries"], &sums["difference"]),
            (&json!(deliveries), &json!(0)),
            "{sums}"
        );
    }
}

fn sum(progress: &Value) -> u64 {
    ["done", "failed", "withdrawn", "waiting"]
        .iter()
        .map(|part| progress[part].as_u64().unwrap())
        .sum()
}

#[tokio::test]
async fn one_delivery_is_made_again_at_once_and_marked_in_request_and_log() {
    let world = World::start(200).await;
    world.publish(1, "delivered").await;
    let asked = std::time::Instant::now();
    let replay = world.post("deliveries/e0/one:replay", Value::Null).await;
    let second = eventually("the second request", || async {
        world.receiver.received().get(1).cloned()
    })
    .await;
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "at once: {:?}",
        asked.elapsed()
    );
    let first = world.receiver.received()[0].clone();
    assert_eq!(
        (first.event_id(), second.event_id()),
        ("e0".to_owned(), "e0".to_owned())
    );
    assert_eq!(first.body, second.body);
    assert!(!first.headers.contains_key("posthaste-replay"));
    assert_eq!(
        second.headers["posthaste-replay"].to_str().unwrap(),
        replay["number"].to_string()
    );
    let verifier = standardwebhooks::Webhook::new(&world.secret).unwrap();
    verifier.verify(&second.body, &second.headers).unwrap();

    let (_, name, last) = world.watch(&replay).await;
    assert_eq!(
        (name.as_str(), &last["state"], &last["done"], &last["left"]),
        ("done", &json!("finished"), &json!(1), &json!(0))
    );
    let attempts = world
        .list(&format!("attempts?replay={}", replay["id"].as_str().unwrap()))
        .await;
    assert_eq!(attempts.len(), 1);
    assert_eq!(
        (&attempts[0]["replay"], &attempts[0]["run"]),
        (&replay["id"], &replay["number"])
    );
    let original = &world.list("attempts?event_id=e0").await[1];
    assert_eq!((&original["replay"], &original["run"]), (&Value::Null, &json!(0)));
    let delivery = &world.list("deliveries?event_id=e0").await;
    assert_eq!(delivery.len(), 1, "one state for the event and the webhook");
    assert_eq!(
        (&delivery[0]["state"], &delivery[0]["run"]),
        (&json!("delivered"), &replay["number"])
    );
    world.reconciles(1).await;
}

#[tokio::test]
async fn an_event_is_delivered_again_to_all_webhooks_or_to_those_that_are_named() {
    let world = World::start(200).await;
    let other = Receiver::start().await;
    let never = Receiver::start().await;
    let cluster = &world.cluster;
    cluster
        .create_webhook("acme", "two", &other.url, json!({}))
        .await
        .unwrap();
    cluster
        .create_webhook("acme", "three", &never.url, json!({ "events": ["invoice.*"] }))
        .await
        .unwrap();
    world.producer.publish_many("acme", "order.paid", 1).await;
    eventually("both deliveries on record", || async {
        (world.list("deliveries?state=delivered").await.len() == 2).then_some(())
    })
    .await;
    let all = world.post("events/e0:replay", Value::Null).await;
    world.watch(&all).await;
    assert_eq!((world.receiver.count(), other.count(), never.count()), (2, 2, 0));
    // One that is not subscribed to it gets it if it is named.
    let named = world.post("events/e0:replay", json!({ "webhooks": ["three"] })).await;
    let (_, _, last) = world.watch(&named).await;
    assert_eq!(last["done"], 1);
    assert_eq!((world.receiver.count(), other.count(), never.count()), (2, 2, 1));
    let made = world.list(&format!("deliveries?replay={}", named["number"])).await;
    assert_eq!(
        (made.len(), &made[0]["webhook_name"], &made[0]["state"]),
        (1, &json!("three"), &json!("delivered"))
    );
}

#[tokio::test]
async fn dead_letters_are_counted_replayed_watched_and_gone() {
    const DEAD: usize = 120;
    let world = World::start(503).await;
    world.publish(DEAD, "dead").await;
    let groups = world.list("dead-letters?group_by=webhook,reason").await;
    assert_eq!(
        (groups.len(), &groups[0]["deliveries"], &groups[0]["webhook_name"]),
        (1, &json!(DEAD), &json!("one"))
    );

    let reason = groups[0]["reason"].clone();
    let chosen =
        json!({ "states": ["dead"], "webhooks": ["one"], "reasons": [reason], "types": ["order.*"], "rate": 30 });
    let mut dry = chosen.clone();
    dry["dry_run"] = json!(true);
    let counted = world.post("replays", dry).await;
    assert_eq!(
        (&counted["deliveries"], &counted["complete"]),
        (&json!(DEAD), &json!(true))
    );
    assert_eq!(world.receiver.count(), DEAD, "counting makes no request");

    world.status.store(200, Ordering::Relaxed);
    let begun = std::time::Instant::now();
    let replay = world.post("replays", chosen).await;
    let (told, name, last) = world.watch(&replay).await;
    assert_eq!(
        (name.as_str(), &last["done"], &last["total"], &last["left"]),
        ("done", &json!(DEAD), &json!(DEAD), &json!(0))
    );
    // Half a second's worth at once, the rest at its pace.
    assert!(begun.elapsed() > Duration::from_millis(3_000), "{:?}", begun.elapsed());
    assert!(
        told.iter()
            .chain([&last])
            .all(|progress| sum(progress) == progress["made"].as_u64().unwrap()),
        "{told:?}"
    );
    assert!(told.iter().any(|progress| progress["eta"].is_string()), "{told:?}");
    assert_eq!(world.list("dead-letters").await.len(), 0);
    assert_eq!(world.list("deliveries?state=delivered").await.len(), DEAD);
    world.reconciles(DEAD as u64).await;
}

#[tokio::test]
async fn what_was_skipped_while_a_webhook_was_paused_is_made_good() {
    const MISSED: usize = 30;
    let world = World::start(200).await;
    world.post("webhooks/one:pause", Value::Null).await;
    world.cluster.definitions_in_force().await.unwrap();
    world.publish(MISSED, "skipped").await;
    assert_eq!(world.receiver.count(), 0);
    world.post("webhooks/one:resume", Value::Null).await;
    world.cluster.definitions_in_force().await.unwrap();
    let replay = world
        .post("replays", json!({ "states": ["skipped"], "webhooks": ["one"] }))
        .await;
    let (_, _, last) = world.watch(&replay).await;
    assert_eq!((&last["done"], &last["failed"]), (&json!(MISSED), &json!(0)));
    let came: BTreeSet<String> = world
        .receiver
        .received()
        .iter()
        .map(|request| request.event_id())
        .collect();
    assert_eq!((came.len(), world.receiver.count()), (MISSED, MISSED));
    assert_eq!(world.list("deliveries?state=skipped").await.len(), 0);
    world.reconciles(MISSED as u64).await;
}

#[tokio::test]
async fn a_replay_cancelled_midway_stops_and_what_it_did_not_reach_is_as_it_was() {
    const DEAD: usize = 200;
    let world = World::start(503).await;
    world.publish(DEAD, "dead").await;
    world.status.store(200, Ordering::Relaxed);
    let replay = world.post("replays", json!({ "states": ["dead"], "rate": 20 })).await;
    eventually("some of them", || async {
        (world.receiver.count() >= DEAD + 30).then_some(())
    })
    .await;
    let path = format!("replays/{}:cancel", replay["id"].as_str().unwrap());
    world.post(&path, Value::Null).await;
    let (_, name, last) = world.watch(&replay).await;
    assert_eq!((name.as_str(), &last["state"]), ("done", &json!("cancelled")));
    assert_eq!(
        (sum(&last), &last["waiting"]),
        (last["made"].as_u64().unwrap(), &json!(0))
    );
    let done = last["done"].as_u64().unwrap() as usize;
    assert!((30..DEAD).contains(&done), "{last}");
    assert_eq!(world.list("dead-letters").await.len(), DEAD - done);
    assert_eq!(world.receiver.count(), DEAD + done);
    // Nothing comes any more, and there is nothing left to cancel.
    let later = world.replay(&replay).await;
    assert_eq!(later["progress"]["done"], last["done"]);
    world.reconciles(DEAD as u64).await;

    let all = world.post("replays", json!({ "states": ["dead"] })).await;
    let (_, _, last) = world.watch(&all).await;
    assert_eq!(last["done"], DEAD - done);
    let path = format!("/v1/projects/acme/replays/{}:cancel", all["id"].as_str().unwrap());
    let (status, _) = world.api().call(Method::POST, &path, None).await.unwrap();
    assert_eq!(status.as_u16(), 409);
}

#[tokio::test]
async fn killing_retry_scheduler_in_the_middle_of_a_replay_loses_nothing_and_repeats_nothing() {
    const EVENTS: usize = 600;
    let mut world = World::start(200).await;
    world.publish(EVENTS, "delivered").await;
    let replay = world
        .post("replays", json!({ "states": ["delivered"], "rate": 150 }))
        .await;
    for kill in 1..=3 {
        eventually_within(Duration::from_secs(60), "enough for the next kill", || async {
            (world.receiver.count() >= EVENTS + EVENTS * kill / 5).then_some(())
        })
        .await;
        world.cluster.kill(Role::RetryScheduler).unwrap();
        world.cluster.restart(Role::RetryScheduler).await.unwrap();
    }
    let (_, name, last) = world.watch(&replay).await;
    assert_eq!((name.as_str(), &last["state"]), ("done", &json!("finished")));
    assert_eq!(
        (&last["made"], &last["done"], &last["total"]),
        (&json!(EVENTS), &json!(EVENTS), &json!(EVENTS)),
        "{last}"
    );
    let mut came: BTreeMap<String, usize> = BTreeMap::new();
    for request in world.receiver.received() {
        *came.entry(request.event_id()).or_default() += 1;
    }
    assert_eq!(came.len(), EVENTS);
    assert!(
        came.values().all(|times| *times == 2),
        "once by itself, once by the replay"
    );
    let attempts = world.list(&format!("attempts?replay={}", replay["number"])).await;
    let events: BTreeSet<&str> = attempts
        .iter()
        .map(|attempt| attempt["event_id"].as_str().unwrap())
        .collect();
    assert_eq!((attempts.len(), events.len()), (EVENTS, EVENTS));
    world.reconciles(EVENTS as u64).await;
}

#[tokio::test]
async fn dead_letters_are_discarded_with_a_reason_that_says_by_whom() {
    const DEAD: usize = 40;
    let world = World::start(503).await;
    world.publish(DEAD, "dead").await;
    let token = world
        .post("tokens", json!({ "name": "janitor", "scopes": ["configure"] }))
        .await;
    let janitor = world.api().with_token(token["token"].as_str().unwrap());
    let path = "/v1/projects/acme/dead-letters:discard";
    let counted = janitor
        .ok(Method::POST, path, Some(&json!({ "dry_run": true })))
        .await
        .unwrap();
    assert_eq!(counted["deliveries"], DEAD);
    let order = janitor.ok(Method::POST, path, None).await.unwrap();
    let (_, name, last) = world.watch(&order).await;
    assert_eq!((name.as_str(), &last["done"]), ("done", &json!(DEAD)));
    assert_eq!(world.list("dead-letters").await.len(), 0);
    let cancelled = world.list("deliveries?state=cancelled").await;
    assert_eq!(cancelled.len(), DEAD);
    assert_eq!(cancelled[0]["reason"], "discarded by the token `janitor`");
    assert_eq!(world.receiver.count(), DEAD);
    world.reconciles(DEAD as u64).await;
}

#[tokio::test]
async fn a_replay_to_a_paused_webhook_waits_until_it_is_resumed() {
    let world = World::start(200).await;
    world.publish(3, "delivered").await;
    world.post("webhooks/one:pause", Value::Null).await;
    world.cluster.definitions_in_force().await.unwrap();
    let replay = world.post("replays", json!({ "states": ["delivered"] })).await;
    let path = format!("deliveries?replay={}", replay["number"]);
    eventually("deliveries that are kept for it", || async {
        let made = world.list(&path).await;
        let kept = made.iter().filter(|delivery| {
            let reason = delivery["reason"].as_str().unwrap_or_default();
            reason.contains("paused")
        });
        (kept.count() == 3).then_some(())
    })
    .await;
    let waiting = world.replay(&replay).await;
    assert_eq!(
        (&waiting["state"], &waiting["progress"]["done"]),
        (&json!("running"), &json!(0))
    );
    assert_eq!(world.receiver.count(), 3);
    world.post("webhooks/one:resume", Value::Null).await;
    let (_, name, last) = world.watch(&replay).await;
    assert_eq!((name.as_str(), &last["done"]), ("done", &json!(3)));
    assert_eq!(world.receiver.count(), 6);
    world.reconciles(3).await;
}
