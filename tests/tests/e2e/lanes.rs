//! A receiver that fails is left alone, one that asks for a pause gets it, and neither costs the others anything.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::Method;
use posthaste_tests::{Answer, Cluster, Producer, Receiver, Role, Setup, eventually, eventually_within};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::time::Instant;

/// A cluster whose breakers open, as they do in production and not in the other tests.
async fn cluster() -> Cluster {
    let env = vec![
        ("POSTHASTE_BREAKER_FAILURES", "5".to_owned()),
        ("POSTHASTE_BREAKER_WAIT_MAX", "4s".to_owned()),
    ];
    let cluster = Cluster::start_with(Setup {
        env,
        ..Setup::default()
    })
    .await
    .unwrap();
    cluster.admin.create_project("acme").await.unwrap();
    cluster
}

/// A receiver that answers 500 until it is told to work.
async fn ill() -> (Receiver, Arc<AtomicBool>) {
    let works = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&works);
    let receiver = Receiver::scripted(move |_, _| {
        Answer::status(match told.load(Ordering::SeqCst) {
            true => 200,
            false => 500,
        })
    })
    .await;
    (receiver, works)
}

async fn states(cluster: &Cluster) -> Value {
    let path = "/v1/projects/acme/reconciliation";
    let mut sums = cluster.admin.ok(Method::GET, path, None).await.unwrap();
    sums["states"].take()
}

/// How many breakers are open, as the metric says.
async fn open(cluster: &Cluster) -> Option<u64> {
    let (_, metrics) = cluster.text(Role::Dispatcher, "/metrics").await.ok()?;
    let line = metrics
        .lines()
        .find(|line| line.starts_with("posthaste_breaker_open{") && line.contains(r#"state="open""#))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn a_receiver_that_fails_is_only_probed_and_what_waits_for_it_uses_up_no_attempt() {
    const EVENTS: usize = 200;
    let cluster = cluster().await;
    let (receiver, works) = ill().await;
    // One attempt each, so whatever is asked of the ill receiver is dead.
    cluster
        .create_webhook("acme", "ill", &receiver.url, json!({ "retry": false }))
        .await
        .unwrap();
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    producer.publish_many("acme", "order.paid", EVENTS).await;
    eventually("nearly everything parked", || async {
        let states = states(&cluster).await;
        let sum: u64 = ["dead", "parked"]
            .iter()
            .filter_map(|state| states[state].as_u64())
            .sum();
        (sum as usize == EVENTS && open(&cluster).await == Some(1)).then_some(())
    })
    .await;
    let parked = cluster
        .admin
        .list("/v1/projects/acme/deliveries?state=parked")
        .await
        .unwrap();
    assert!(
        parked
            .iter()
            .all(|delivery| delivery["reason"] == "the webhook's breaker is open"),
        "{:?}",
        parked.first()
    );

    // Probes come one by one.
    let before = receiver.count();
    eventually("two probes", || async {
        (receiver.count() >= before + 2).then_some(())
    })
    .await;
    assert!(receiver.count() <= 10 + 8, "{} requests", receiver.count());

    works.store(true, Ordering::SeqCst);
    let states = eventually("the rest delivered", || async {
        let states = states(&cluster).await;
        (states["parked"] == 0 && states["queued"] == 0).then_some(states)
    })
    .await;
    assert!(states["dead"].as_u64().unwrap() <= 20, "{states}");
    let asked: BTreeSet<String> = receiver.received().iter().map(|request| request.event_id()).collect();
    assert_eq!(
        (asked.len(), receiver.count()),
        (EVENTS, EVENTS),
        "one request for each event"
    );
    eventually("a closed breaker", || async {
        (open(&cluster).await == Some(0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_429_makes_the_whole_lane_wait_for_its_retry_after() {
    const EVENTS: usize = 10;
    const WAIT: Duration = Duration::from_secs(3);
    let cluster = cluster().await;
    let receiver = Receiver::scripted(|_, before| match before {
        0 => Answer {
            headers: vec![("retry-after", WAIT.as_secs().to_string())],
            ..Answer::status(429)
        },
        _ => Answer::status(200),
    })
    .await;
    let more = json!({ "max_in_flight": 1, "retry": { "delays": ["0s", "1s"] } });
    cluster
        .create_webhook("acme", "busy", &receiver.url, more)
        .await
        .unwrap();
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    producer.publish_many("acme", "order.paid", EVENTS).await;
    eventually("everything delivered", || async {
        (receiver.count() > EVENTS).then_some(())
    })
    .await;
    let received = receiver.received();
    for later in &received[1..] {
        assert!(later.at - received[0].at >= WAIT, "{:?}", later.at - received[0].at);
    }
    let asked: BTreeSet<String> = received.iter().map(|request| request.event_id()).collect();
    assert_eq!((asked.len(), received.len()), (EVENTS, EVENTS + 1));
}

/// How long the events of the others take, from when each was to be published: the slowest in a hundred.
async fn p99(producer: &Producer, receiver: &Receiver, name: &str) -> Duration {
    const EVENTS: usize = 200;
    const STEP: Duration = Duration::from_millis(10);
    let (before, begin) = (receiver.count(), Instant::now());
    let due = |n: usize| begin + STEP * u32::try_from(n).unwrap();
    for n in 0..EVENTS {
        tokio::time::sleep_until(due(n)).await;
        let id = format!("acme:{name}-{n}");
        producer
            .publish("events.acme.quick", &[("Nats-Msg-Id", &id)], "1")
            .await
            .unwrap();
    }
    eventually("the others' events", || async {
        (receiver.count() >= before + EVENTS).then_some(())
    })
    .await;
    let mut took: Vec<Duration> = receiver.received()[before..]
        .iter()
        .map(|request| {
            let n = request.event_id().rsplit('-').next().unwrap().parse().unwrap();
            request.at.saturating_duration_since(due(n))
        })
        .collect();
    took.sort();
    took[EVENTS * 99 / 100]
}

/// The same with 100,000 is `make bench ARGS='--only backlog'`.
#[tokio::test]
async fn the_backlog_of_a_dead_receiver_costs_the_others_nothing() {
    const BACKLOG: usize = 3_000;
    let cluster = cluster().await;
    let (dead, works) = ill().await;
    let quick = Receiver::start().await;
    for (name, url, more) in [
        ("dead", &dead.url, json!({ "events": ["dead"], "retry": false })),
        ("quick", &quick.url, json!({ "events": ["quick"] })),
    ] {
        cluster.create_webhook("acme", name, url, more).await.unwrap();
    }
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    let (alone, memory) = (
        p99(&producer, &quick, "before").await,
        cluster.resident(Role::Dispatcher).unwrap(),
    );

    producer.publish_many("acme", "dead", BACKLOG).await;
    eventually_within(Duration::from_secs(120), "the backlog parked", || async {
        let states = states(&cluster).await;
        let sum: u64 = ["dead", "parked"]
            .iter()
            .filter_map(|state| states[state].as_u64())
            .sum();
        (sum as usize >= BACKLOG).then_some(())
    })
    .await;
    let (beside, grown) = (
        p99(&producer, &quick, "beside").await,
        cluster.resident(Role::Dispatcher).unwrap(),
    );
    println!("p99 {alone:?} alone, {beside:?} beside {BACKLOG} parked; dispatcher {memory} MiB, then {grown} MiB");
    assert!(dead.count() <= 40, "{} requests to a dead receiver", dead.count());
    // Generous: other tests share this machine.
    assert!(
        beside <= alone * 5 + Duration::from_millis(250),
        "{alone:?}, then {beside:?}"
    );
    assert!(grown <= memory + 40, "{memory} MiB, then {grown} MiB");

    works.store(true, Ordering::SeqCst);
    eventually_within(Duration::from_secs(120), "the backlog delivered", || async {
        let states = states(&cluster).await;
        (states["parked"] == 0 && states["queued"] == 0).then_some(())
    })
    .await;
    assert_eq!(dead.count(), BACKLOG, "one request for each event");
}

#[tokio::test]
async fn a_dispatcher_that_lacks_the_key_uses_up_no_attempts() {
    let mut cluster = Cluster::start().await.unwrap();
    let (api, receiver) = (cluster.admin.clone(), Receiver::start().await);
    api.create_project("acme").await.unwrap();
    cluster.kill(Role::Dispatcher).unwrap();
    let hook = json!({ "secret": "a secret of mine", "retry": false });
    api.create_webhook("acme", "signed", &receiver.url, hook).await.unwrap();
    let other = format!("other:{}", common::crypto::generate_key().expose_secret());
    cluster
        .restart_doomed(Role::Dispatcher, &[("POSTHASTE_ENCRYPTION_KEYS", &other)])
        .await
        .unwrap();
    cluster.definitions_in_force().await.unwrap();
    let event = json!({ "type": "a", "data": {} });
    let (status, said) = api.intake("/v1/projects/acme/events", &event).await.unwrap();
    assert_eq!(status.as_u16(), 202, "{said}");
    let reason = eventually("a parked delivery", || async {
        let deliveries = api.list("/v1/projects/acme/deliveries").await.unwrap();
        let parked = deliveries.into_iter().find(|it| it["state"] == "parked")?;
        parked["reason"].as_str().map(str::to_owned)
    })
    .await;
    assert!(reason.contains("cannot be used by this service"), "{reason}");
    assert!(cluster.log(Role::Dispatcher).contains("no request can be made"));
    assert_eq!(
        api.list("/v1/projects/acme/attempts").await.unwrap(),
        Vec::<Value>::new()
    );
    assert_eq!(receiver.count(), 0);
}
