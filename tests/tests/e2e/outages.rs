//! A server goes away and comes back.

use std::time::{Duration, Instant};

use posthaste_tests::{Cluster, Producer, Receiver, Role, Setup, eventually, eventually_within};
use serde_json::json;

#[tokio::test]
async fn while_postgres_is_away_events_are_accepted_and_delivered_and_afterwards_all_are_in_the_log() {
    let mut cluster = Cluster::start().await.unwrap();
    let receiver = Receiver::start().await;
    cluster.admin.create_project("acme").await.unwrap();
    cluster
        .create_webhook("acme", "all", &receiver.url, json!({}))
        .await
        .unwrap();
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    producer.publish_many("acme", "before", 50).await;

    cluster.postgres.kill().unwrap();
    let away = Instant::now();
    let mut posted = 0;
    let mut slowest = Duration::ZERO;
    while away.elapsed() < Duration::from_secs(30) {
        let before = receiver.count();
        let (status, answer) = cluster
            .admin
            .intake("/v1/projects/acme/events", &json!({ "type": "during", "data": posted }))
            .await
            .unwrap();
        assert_eq!(status.as_u16(), 202, "{answer}");
        posted += 1;
        let begun = Instant::now();
        eventually_within(Duration::from_secs(5), "the delivery", || async {
            (receiver.count() > before).then_some(())
        })
        .await;
        slowest = slowest.max(begun.elapsed());
    }
    assert!(
        posted > 100,
        "under load: {posted} events, the slowest took {slowest:?}"
    );
    assert!(
        cluster.admin.list("/v1/projects/acme/attempts").await.is_err(),
        "the API says that it cannot read the log"
    );

    cluster.postgres.restart().await.unwrap();
    let log = eventually("every attempt in the log", || async {
        let log = cluster.admin.list("/v1/projects/acme/attempts").await.ok()?;
        (log.len() >= 50 + posted).then_some(log)
    })
    .await;
    assert_eq!((log.len(), receiver.count()), (50 + posted, 50 + posted), "each once");
}

#[tokio::test]
async fn while_nats_is_away_intake_says_503_and_afterwards_everything_goes_on_by_itself() {
    let mut cluster = Cluster::start().await.unwrap();
    let receiver = Receiver::start().await;
    let api = cluster.admin.clone();
    api.create_project("acme").await.unwrap();
    cluster
        .create_webhook("acme", "all", &receiver.url, json!({}))
        .await
        .unwrap();
    let event = |id: &str| json!({ "type": "a", "data": 1, "id": id });
    api.intake("/v1/projects/acme/events", &event("before")).await.unwrap();

    cluster.nats.kill().unwrap();
    for _ in 0..10 {
        let begun = Instant::now();
        let (status, answer) = api.intake("/v1/projects/acme/events", &event("during")).await.unwrap();
        assert_eq!(status.as_u16(), 503, "nothing is accepted from memory: {answer}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!(answer["type"], "urn:posthaste:problem:queue_unavailable");
    }
    eventually("ingest is not ready", || async {
        let (status, reasons) = cluster.text(Role::Ingest, "/readyz").await.ok()?;
        (status == 503 && reasons.contains("no connection to NATS")).then_some(())
    })
    .await;
    // Configuration is Postgres' business and goes on.
    let later = Receiver::start().await;
    let hook = api
        .create_webhook("acme", "meanwhile", &later.url, json!({}))
        .await
        .unwrap();
    assert!(hook["id"].is_string());

    cluster.nats.restart().await.unwrap();
    // What was refused is the producer's to publish again, with the same id.
    for id in ["during", "after"] {
        eventually("intake accepts again", || async {
            let (status, _) = api.intake("/v1/projects/acme/events", &event(id)).await.ok()?;
            (status.as_u16() == 202).then_some(())
        })
        .await;
    }
    eventually("an event at the webhook made meanwhile", || async {
        api.intake("/v1/projects/acme/events", &json!({ "type": "a", "data": 1 }))
            .await
            .unwrap();
        (later.count() > 0).then_some(())
    })
    .await;
    for id in ["before", "during", "after"] {
        let log = eventually("the event on record", || async {
            let log = api
                .list(&format!("/v1/projects/acme/attempts?event_id={id}"))
                .await
                .unwrap();
            (!log.is_empty()).then_some(log)
        })
        .await;
        let arrived = receiver
            .received()
            .iter()
            .filter(|request| request.event_id() == id)
            .count();
        assert_eq!(arrived, 1, "{id} arrives once: {log:?}");
    }
}

#[tokio::test]
async fn what_comes_after_a_stream_was_made_anew_is_worked_on_though_its_sequences_come_again() {
    let cluster = Cluster::start().await.unwrap();
    let receiver = Receiver::start().await;
    let api = cluster.admin.clone();
    api.create_project("acme").await.unwrap();
    cluster
        .create_webhook("acme", "all", &receiver.url, json!({}))
        .await
        .unwrap();
    let publish = async |id: String| {
        let event = json!({ "type": "a", "data": 1, "id": id });
        eventually_within(Duration::from_secs(60), &id, || async {
            let (status, _) = api.intake("/v1/projects/acme/events", &event).await.ok()?;
            (status.as_u16() == 202).then_some(())
        })
        .await;
    };
    let arrives = async |id: String| {
        eventually_within(Duration::from_secs(60), &id, || async {
            let received = receiver.received();
            received.iter().any(|it| it.event_id() == id).then_some(())
        })
        .await;
    };
    for number in 0..5 {
        publish(format!("before-{number}")).await;
        arrives(format!("before-{number}")).await;
    }
    let client = async_nats::connect(cluster.nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    for stream in ["EVENTS", "DELIVERIES"] {
        jetstream.delete_stream(stream).await.unwrap();
    }
    for number in 0..5 {
        publish(format!("after-{number}")).await;
        arrives(format!("after-{number}")).await;
    }
}

#[tokio::test]
async fn at_its_storage_limit_a_stream_refuses_and_what_was_accepted_stays() {
    let setup = Setup {
        env: vec![("POSTHASTE_NATS_EVENTS_BYTES", "2MiB".to_owned())],
        ..Setup::default()
    };
    let mut cluster = Cluster::start_with(setup).await.unwrap();
    let receiver = Receiver::start().await;
    let api = cluster.admin.clone();
    api.create_project("acme").await.unwrap();
    cluster
        .create_webhook("acme", "all", &receiver.url, json!({}))
        .await
        .unwrap();
    // What is accepted cannot be worked off: there is no ledger, nor anybody who would make it.
    cluster.terminate(Role::RetryScheduler).await.unwrap();
    let client = async_nats::connect(cluster.nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    jetstream.delete_stream("LEDGER").await.unwrap();
    let data = "x".repeat(100 * 1024);
    let mut accepted = Vec::new();
    let refused = loop {
        let id = format!("e{}", accepted.len());
        let event = json!({ "type": "a", "data": data, "id": id });
        let (status, answer) = api.intake("/v1/projects/acme/events", &event).await.unwrap();
        match status.as_u16() {
            202 => accepted.push(id),
            _ => break (status.as_u16(), answer),
        }
        assert!(accepted.len() < 30, "more than there is room for");
    };
    assert_eq!(refused.0, 503, "{}", refused.1);
    assert_eq!(refused.1["type"], "urn:posthaste:problem:queue_unavailable");
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    let said = producer.publish("events.acme.a", &[], &format!("\"{data}\"")).await;
    assert!(said.is_err(), "a producer on NATS is told so, too");
    assert!(accepted.len() > 10, "{accepted:?}");
    let stream = jetstream.get_stream("EVENTS").await.unwrap();
    assert_eq!(
        stream.cached_info().state.messages,
        accepted.len() as u64,
        "nothing is dropped"
    );
    eventually_within(Duration::from_secs(30), "that it is full is said", || async {
        let (_, metrics) = cluster.text(Role::Ingest, "/metrics").await.ok()?;
        let used = metrics
            .lines()
            .find(|line| line.starts_with("posthaste_stream_used_ratio{") && line.contains("stream=\"EVENTS\""))?;
        let used: f64 = used.rsplit(' ').next()?.parse().ok()?;
        (used >= 0.95 && cluster.log(Role::Ingest).contains("EVENTS is 95 % full")).then_some(())
    })
    .await;

    // A service that starts makes the stream that is not there, and everything goes on.
    cluster.restart(Role::RetryScheduler).await.unwrap();
    for id in &accepted {
        eventually_within(Duration::from_secs(60), id, || async {
            let received = receiver.received();
            received.iter().any(|it| it.event_id() == id.as_str()).then_some(())
        })
        .await;
    }
}
