//! Receivers that answer without end, too slowly or not at all hold no slot past the deadline, and no memory.

use std::time::Duration;

use axum::http::Method;
use posthaste_tests::{Cluster, Producer, Role, eventually_within};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What a receiver says first, and then again and again, with so long in between; nothing to repeat: it is silent.
type Says = (&'static str, &'static str, Duration);

const AT_ONCE: Duration = Duration::ZERO;
const NOW_AND_THEN: Duration = Duration::from_millis(100);

/// The kinds, by the name of their webhook.
const KINDS: [(&str, Says); 5] = [
    ("silent", ("", "", AT_ONCE)),
    ("half-a-head", ("HTTP/1.1 200 OK\r\n", "", AT_ONCE)),
    (
        "dripping",
        ("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", "x", NOW_AND_THEN),
    ),
    ("endless-body", ("HTTP/1.1 200 OK\r\n\r\n", BLOCK, AT_ONCE)),
    (
        "endless-head",
        (
            "HTTP/1.1 200 OK\r\n",
            "x-more: and more of it and so on and on\r\n",
            AT_ONCE,
        ),
    ),
];
const BLOCK: &str = "a body that goes on for as long as anybody reads it, and is sixty-four\n";

/// Serves like this on a free port.
async fn serve((first, again, pause): Says) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let again = again.repeat(match pause.is_zero() {
        true => 200,
        false => 1,
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, first, again.clone(), pause));
        }
    });
    url
}

async fn answer(mut stream: TcpStream, first: &str, again: String, pause: Duration) {
    let mut request = [0; 16 * 1024];
    let _ = stream.read(&mut request).await;
    if stream.write_all(first.as_bytes()).await.is_err() {
        return;
    }
    if again.is_empty() {
        // Until the other end has had enough.
        while stream.read(&mut request).await.is_ok_and(|read| read > 0) {}
        return;
    }
    while stream.write_all(again.as_bytes()).await.is_ok() {
        tokio::time::sleep(pause).await;
    }
}

#[tokio::test]
async fn bad_receivers_hold_neither_a_slot_past_the_deadline_nor_memory() {
    const TIMEOUT: Duration = Duration::from_secs(1);
    const WAVE: usize = 40;
    let cluster = Cluster::start().await.unwrap();
    cluster.admin.create_project("acme").await.unwrap();
    for (name, says) in KINDS {
        let more = json!({ "retry": false, "timeout": "1s", "max_in_flight": 50 });
        cluster
            .create_webhook("acme", name, &serve(says).await, more)
            .await
            .unwrap();
    }
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    let mut published = 0;
    // As many as a lane takes: what is parked waits much longer for a receiver that never answers well.
    let mut wave = async |name: &str| {
        for n in 0..WAVE {
            let id = format!("{name}-{n}");
            producer
                .publish("events.acme.some", &[("Nats-Msg-Id", &id)], "{}")
                .await
                .unwrap();
        }
        published += WAVE * KINDS.len();
        eventually_within(Duration::from_secs(90), "every delivery settled", || async {
            let path = "/v1/projects/acme/reconciliation";
            let sums = cluster.admin.ok(Method::GET, path, None).await.ok()?;
            let settled = ["delivered", "dead"].map(|state| sums["states"][state].as_u64().unwrap_or(0));
            (settled.iter().sum::<u64>() as usize == published).then_some(())
        })
        .await;
        cluster.resident(Role::Dispatcher).unwrap()
    };
    // What is allocated once is allocated by then: every webhook has had as many requests at once as it may.
    let warm = wave("warm").await;
    let mut after = 0;
    for name in ["second", "third", "fourth", "fifth", "sixth"] {
        after = wave(name).await;
    }
    println!("dispatcher: {warm} MiB, then {after} MiB");
    // 1,000 answers of which more than their caps was kept, or whose connections were, would be much more.
    assert!(after <= warm + 16, "{warm} MiB, then {after} MiB");

    let attempts = cluster.admin.list("/v1/projects/acme/attempts").await.unwrap();
    assert_eq!(attempts.len(), published, "one attempt for each");
    for attempt in &attempts {
        let took = attempt["duration_ms"].as_f64().unwrap();
        assert!(
            took < (TIMEOUT + Duration::from_secs(1)).as_millis() as f64,
            "{attempt}"
        );
    }
}
