//! Deliveries in order, over two processes of each service that take part, some of which are killed, to a receiver that
//! fails.

use std::collections::BTreeMap;
use std::time::Duration;

use posthaste_tests::{Answer, Cluster, Producer, Receiver, Role, eventually_within};
use serde_json::json;

const EVENTS: usize = 240;
const KEYS: usize = 8;
/// Every so manieth request fails.
const FAILS: usize = 7;

/// The number of each request's event, in the order they came, by key; and what they were answered.
fn by_key(receiver: &Receiver) -> BTreeMap<String, Vec<(usize, bool)>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (number, request) in receiver.received().iter().enumerate() {
        let body = request.json();
        let key = body["key"].as_str().unwrap().to_owned();
        let event = usize::try_from(body["n"].as_u64().unwrap()).unwrap();
        found.entry(key).or_default().push((event, number % FAILS != 0));
    }
    found
}

#[tokio::test]
async fn each_keys_events_arrive_in_order_whatever_is_killed_and_fails() {
    let mut cluster = Cluster::start().await.unwrap();
    let receiver = Receiver::scripted(|_, number| Answer {
        after: Duration::from_millis(5),
        ..Answer::status(if number % FAILS == 0 { 503 } else { 200 })
    })
    .await;
    cluster.admin.create_project("acme").await.unwrap();
    let ladder: Vec<&str> = std::iter::once("0s").chain(std::iter::repeat_n("100ms", 9)).collect();
    let more = json!({
        "ordering": { "by": "key", "key": "data.key" },
        "retry": { "delays": ladder },
        "body": "raw",
        "fail_after": 0,
    });
    cluster
        .create_webhook("acme", "all", &receiver.url, more)
        .await
        .unwrap();
    let dispatcher = cluster.start_another(Role::Dispatcher).await.unwrap();
    cluster.start_another(Role::Ingest).await.unwrap();
    let scheduler = cluster.start_another(Role::RetryScheduler).await.unwrap();

    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    let publishing = tokio::spawn(async move {
        for n in 0..EVENTS {
            let body = json!({ "key": format!("k{}", n % KEYS), "n": n }).to_string();
            let id = format!("acme:e{n}");
            eventually_within(Duration::from_secs(60), "an ack of JetStream", || async {
                producer
                    .publish("events.acme.order.paid", &[("Nats-Msg-Id", &id)], &body)
                    .await
                    .ok()
            })
            .await;
        }
    });
    let arrived = async |count: usize| {
        eventually_within(Duration::from_secs(120), "enough for the next kill", || async {
            (receiver.count() >= count).then_some(())
        })
        .await;
    };
    arrived(EVENTS / 5).await;
    cluster.kill(Role::Dispatcher).unwrap();
    cluster.restart(Role::Dispatcher).await.unwrap();
    arrived(2 * EVENTS / 5).await;
    cluster.kill(Role::RetryScheduler).unwrap();
    cluster.restart(Role::RetryScheduler).await.unwrap();
    arrived(3 * EVENTS / 5).await;
    cluster.kill(Role::Ingest).unwrap();
    cluster.kill_another(dispatcher).unwrap();
    cluster.kill_another(scheduler).unwrap();
    cluster.restart(Role::Ingest).await.unwrap();
    publishing.await.unwrap();

    let all = eventually_within(Duration::from_secs(120), "every event delivered", || async {
        let found = by_key(&receiver);
        let delivered = |requests: &Vec<(usize, bool)>| {
            let mut numbers: Vec<usize> = requests.iter().filter(|(_, ok)| *ok).map(|(event, _)| *event).collect();
            numbers.sort_unstable();
            numbers.dedup();
            numbers.len()
        };
        (found.values().map(delivered).sum::<usize>() == EVENTS).then_some(found)
    })
    .await;
    assert_eq!(all.len(), KEYS);
    for (key, requests) in all {
        for pair in requests.windows(2) {
            let ((before, ok), (after, _)) = (pair[0], pair[1]);
            assert!(before <= after, "{key}: {after} after {before} of {requests:?}");
            assert!(
                before == after || ok,
                "{key}: {after} before {before} was delivered, of {requests:?}"
            );
        }
    }
    eventually_within(Duration::from_secs(60), "all of it on record", || async {
        let path = "/v1/projects/acme/reconciliation";
        let sums = cluster.admin.ok(reqwest::Method::GET, path, None).await.ok()?;
        (sums["states"]["delivered"] == EVENTS && sums["difference"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_event_of_a_webhook_in_order_takes_tens_of_milliseconds_and_a_failing_key_delays_no_other() {
    let cluster = Cluster::start().await.unwrap();
    let receiver = Receiver::scripted(|request, _| {
        Answer::status(match request.json()["key"].as_str() {
            Some("bad") => 500,
            _ => 200,
        })
    })
    .await;
    cluster.admin.create_project("acme").await.unwrap();
    let more = json!({
        "ordering": { "by": "key", "key": "data.key" },
        "retry": { "delays": ["0s", "1h"] },
        "body": "raw",
        "fail_after": 0,
    });
    cluster
        .create_webhook("acme", "all", &receiver.url, more)
        .await
        .unwrap();
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    let publish = async |key: &str| {
        let body = json!({ "key": key }).to_string();
        producer.publish("events.acme.a", &[], &body).await.unwrap();
    };
    for _ in 0..3 {
        publish("bad").await;
    }
    for _ in 0..50 {
        publish("good").await;
    }
    let begun = std::time::Instant::now();
    eventually_within(Duration::from_secs(60), "the good ones", || async {
        (receiver.count() == 51).then_some(())
    })
    .await;
    // On a machine that does nothing else it takes 30 to 40 ms each; this only tells it from a sweep once a second.
    let each = begun.elapsed() / 50;
    assert!(each < Duration::from_millis(500), "{each:?} for each");
    let waiting = cluster
        .admin
        .list("/v1/projects/acme/deliveries?state=queued")
        .await
        .unwrap();
    assert_eq!(waiting.len(), 2, "{waiting:?}");
    for delivery in waiting {
        assert_eq!(delivery["reason"], "waits until the one before it is settled");
    }
    println!("{each:?} for each of 50 deliveries in order");
}
