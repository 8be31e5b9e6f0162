//! Bad input gets a clear refusal that names the fix, and blocks nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use posthaste_tests::{Api, Cluster, Producer, Receiver, Setup, eventually};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

#[tokio::test]
async fn a_bad_event_on_nats_is_recorded_with_its_reason_and_blocks_nothing() {
    let cluster = Cluster::start().await.unwrap();
    let (api, receiver) = (&cluster.admin, Receiver::start().await);
    api.create_project("acme").await.unwrap();
    cluster
        .create_webhook("acme", "all", &receiver.url, json!({}))
        .await
        .unwrap();
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    let large = format!("\"{}\"", "x".repeat(300 * 1024));
    producer.publish("events.acme.bad", &[], "{\"a\":").await.unwrap();
    producer.publish("events.acme.bad", &[], &large).await.unwrap();
    producer
        .publish("events.acme.bad", &[("Nats-Msg-Id", "a.b c")], "1")
        .await
        .unwrap();
    producer
        .publish("events.acme.bad", &[("Posthaste-Time", "soon")], "1")
        .await
        .unwrap();
    producer.publish("events.nobody.bad", &[], "1").await.unwrap();
    producer.publish("events.acme", &[], "1").await.unwrap();
    producer
        .publish("events.acme.good", &[("Nats-Msg-Id", "good")], "1")
        .await
        .unwrap();

    eventually("the good event behind the bad ones", || async {
        receiver
            .received()
            .iter()
            .any(|request| request.event_id() == "good")
            .then_some(())
    })
    .await;
    let all = eventually("every rejection on record", || async {
        let all = api.list("/v1/rejected-events").await.unwrap();
        (all.len() >= 6).then_some(all)
    })
    .await;
    let mut reasons: Vec<&str> = all
        .iter()
        .map(|rejected| rejected["reason"].as_str().unwrap())
        .collect();
    reasons.sort_unstable();
    assert_eq!(
        reasons,
        [
            "event_id",
            "malformed_json",
            "subject",
            "time",
            "too_large",
            "unknown_project"
        ]
    );
    let own = api.list("/v1/projects/acme/rejected-events").await.unwrap();
    assert_eq!(own.len(), 4, "those of the project: {own:?}");
    let malformed = own
        .iter()
        .find(|rejected| rejected["reason"] == "malformed_json")
        .unwrap();
    assert!(malformed["detail"].as_str().unwrap().contains("line 1"), "{malformed}");
    assert_eq!(receiver.count(), 1);
}

/// Everything that is published while it listens, by subject.
async fn subjects(cluster: &Cluster) -> Arc<Mutex<BTreeSet<String>>> {
    let client = async_nats::connect(cluster.nats.url()).await.unwrap();
    let mut messages = client.subscribe(">").await.unwrap();
    client.flush().await.unwrap();
    let heard = Arc::new(Mutex::new(BTreeSet::new()));
    let hearing = Arc::clone(&heard);
    tokio::spawn(async move {
        // The client lives as long as its subscription is read.
        let _client = client;
        while let Some(message) = messages.next().await {
            hearing.lock().unwrap().insert(message.subject.to_string());
        }
    });
    heard
}

#[tokio::test]
async fn no_text_of_a_user_makes_another_subject() {
    let cluster = Cluster::start().await.unwrap();
    let (api, receiver) = (&cluster.admin, Receiver::start().await);
    api.create_project("acme").await.unwrap();
    cluster
        .create_webhook("acme", "all", &receiver.url, json!({}))
        .await
        .unwrap();
    let heard = subjects(&cluster).await;

    let smuggled = "a\r\nPUB ledger.facts 1\r\n1\r\n";
    let no_types = [
        ".", "a.", ".a", "a..b", "*", "a.*", ">", "a.>", "a b", "a\tb", "a\0b", smuggled, "é", "",
    ];
    for event_type in no_types {
        let event = json!({ "type": event_type, "data": 1 });
        let (status, answer) = api.intake("/v1/projects/acme/events", &event).await.unwrap();
        assert_eq!(status.as_u16(), 422, "{event_type:?}: {answer}");
        let made = json!({ "name": event_type, "schema": {} });
        let path = "/v1/projects/acme/event-types";
        let (status, answer) = api.call(Method::POST, path, Some(&made)).await.unwrap();
        assert_eq!(status.as_u16(), 422, "{event_type:?}: {answer}");
    }
    let no_ids = ["a.b", "*", ">", "a b", "a\tb", "a\0b", smuggled, "é", ""];
    for id in no_ids {
        let event = json!({ "type": "a", "data": 1, "id": id });
        let (status, answer) = api.intake("/v1/projects/acme/events", &event).await.unwrap();
        assert_eq!(status.as_u16(), 422, "{id:?}: {answer}");
    }
    for project in [
        ".",
        "acme.other",
        "*",
        ">",
        "acme other",
        "acme\tother",
        smuggled,
        "_posthaste",
        "ACME",
    ] {
        let event = json!({ "type": "a", "data": 1 });
        let path = format!("/v1/projects/{}/events", encoded(project));
        let (status, answer) = api.intake(&path, &event).await.unwrap();
        assert!(status.is_client_error(), "{project:?}: {status} {answer}");
        let made = json!({ "name": project });
        let (status, answer) = api.call(Method::POST, "/v1/projects", Some(&made)).await.unwrap();
        assert_eq!(status.as_u16(), 422, "{project:?}: {answer}");
    }

    // Over NATS, where the server takes a subject with `*` or `>` for what it is.
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    let (mut published, mut expected) = (BTreeSet::new(), Vec::new());
    for (subject, reason) in [
        ("events.acme.*", "event_type"),
        ("events.acme.>", "event_type"),
        ("events.acme.a.*.b", "event_type"),
        ("events.acme.é", "event_type"),
        ("events.*.a", "unknown_project"),
        ("events.>.a", "unknown_project"),
    ] {
        producer.publish(subject, &[], "1").await.unwrap();
        published.insert(subject.to_owned());
        expected.push(reason);
    }
    for id in ["a.b", "*", ">", "a b", "a\tb", "é"] {
        let headers = [("Nats-Msg-Id", id), ("Content-Type", "application/json")];
        producer.publish("events.acme.a", &headers, "1").await.unwrap();
        let event = json!({ "specversion": "1.0", "type": smuggled, "source": ">", "id": id, "data": 1 });
        let headers = [("Content-Type", "application/cloudevents+json")];
        producer
            .publish("events.acme.a", &headers, &event.to_string())
            .await
            .unwrap();
        expected.extend(["event_id"; 2]);
    }
    published.insert("events.acme.a".to_owned());
    let headers = [("Nats-Msg-Id", "good")];
    producer.publish("events.acme.good", &headers, "1").await.unwrap();

    eventually("the good event", || async { (receiver.count() == 1).then_some(()) }).await;
    let rejected = eventually("every rejection on record", || async {
        let all = api.list("/v1/rejected-events").await.ok()?;
        (all.len() >= expected.len()).then_some(all)
    })
    .await;
    let mut reasons: Vec<_> = rejected.iter().map(|it| it["reason"].as_str().unwrap()).collect();
    reasons.sort_unstable();
    expected.sort_unstable();
    assert_eq!(reasons, expected);

    // Nothing of it stays in front of what is to be accounted for.
    let jetstream = async_nats::jetstream::new(async_nats::connect(cluster.nats.url()).await.unwrap());
    eventually("an empty stream", || async {
        let stream = jetstream.get_stream("EVENTS").await.ok()?;
        (stream.cached_info().state.messages == 0).then_some(())
    })
    .await;

    let heard = heard.lock().unwrap().clone();
    let of = |stream: &str| heard.iter().filter(|it| it.starts_with(stream)).collect::<Vec<_>>();
    let good = of("seen.").into_iter().filter(|it| it.ends_with(".good")).count();
    assert_eq!((good, of("deliveries.").len()), (1, 1), "{heard:?}");
    let is_plain =
        |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-$".contains(&b));
    // As the producer wrote them, or with the share of the stream in front.
    let is_the_producers = |subject: &str| {
        let written = proto_schemas::subject::published(proto_schemas::stream::EVENTS, subject);
        published.contains(subject) || published.contains(&*written)
    };
    for subject in heard.iter().filter(|subject| !is_the_producers(subject)) {
        // What JetStream is asked for names filters.
        let is_asked = subject.starts_with("$JS.API.");
        assert!(is_asked || subject.split('.').all(is_plain), "{subject}");
    }
}

/// Text as one segment of a path.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn a_bad_request_is_refused_with_what_is_wrong_and_where() {
    let cluster = Cluster::start().await.unwrap();
    let api = &cluster.admin;
    api.create_project("acme").await.unwrap();
    let says = |answer: &Value, text: &str| {
        let said = answer.to_string();
        assert!(said.contains(text), "`{text}` is not in {said}");
    };

    let events = "/v1/projects/acme/events";
    for (body, status, text) in [
        (json!({ "data": 1 }), 422, "#/type"),
        (json!({ "type": "a b", "data": 1 }), 422, "joined by dots"),
        (json!({ "type": "a", "data": 1, "colour": 1 }), 422, "#/colour"),
        (json!({ "type": "a", "data": 1, "id": "a.b" }), 422, "#/id"),
        (json!({ "type": "a", "data": 1, "timestamp": "soon" }), 422, "RFC 3339"),
        (
            json!({ "type": "a", "data": "x".repeat(300 * 1024) }),
            413,
            "body_too_large",
        ),
    ] {
        let (found, answer) = api.intake(events, &body).await.unwrap();
        assert_eq!(found.as_u16(), status, "{answer}");
        says(&answer, text);
    }
    let (status, answer) = api
        .intake("/v1/projects/nobody/events", &json!({ "type": "a", "data": 1 }))
        .await
        .unwrap();
    assert_eq!(status.as_u16(), 404, "{answer}");

    let stranger = api.with_token("ph_nobodysnobodysnobodysnobodysnobodys_000000");
    for (status, answer) in [
        stranger
            .intake(events, &json!({ "type": "a", "data": 1 }))
            .await
            .unwrap(),
        stranger.call(Method::GET, "/v1/projects", None).await.unwrap(),
    ] {
        assert_eq!(status.as_u16(), 401, "{answer}");
    }

    let hooks = "/v1/projects/acme/webhooks";
    let good = json!({ "name": "n", "url": "https://example.com/", "events": ["*"] });
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    for (body, text) in [
        (with("events", json!(["a.*.b"])), "#/events/0"),
        (with("events", json!([])), "#/events"),
        (with("url", json!("ftp://example.com")), "#/url"),
        (with("url", json!("https://10.0.0.1/")), "#/url"),
        (with("name", json!("")), "#/name"),
        (
            with("headers", json!([{ "key": "host", "value": "x" }])),
            "#/headers/0/key",
        ),
        (
            with("headers", json!([{ "key": "x", "value": "a\nb" }])),
            "#/headers/0/value",
        ),
        (with("retry", json!({ "delays": ["soon"] })), "#/retry"),
        (with("colour", json!("red")), "#/colour"),
    ] {
        let (status, answer) = api.call(Method::POST, hooks, Some(&body)).await.unwrap();
        assert_eq!(status.as_u16(), 422, "{body}: {answer}");
        says(&answer, text);
    }
    api.ok(Method::POST, hooks, Some(&good)).await.unwrap();
    let (status, answer) = api.call(Method::POST, hooks, Some(&good)).await.unwrap();
    assert_eq!(status.as_u16(), 409, "{answer}");
    let (status, answer) = api
        .call(Method::POST, "/v1/projects", Some(&json!({ "name": "acme" })))
        .await
        .unwrap();
    assert_eq!(status.as_u16(), 409, "{answer}");
}

/// Longer than a refusal takes, and shorter than a body may.
const AT_ONCE: Duration = Duration::from_secs(7);

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_comes_and_alone() {
    let cluster = Cluster::start().await.unwrap();
    let api = &cluster.admin;
    api.create_project("acme").await.unwrap();
    let (events, batch) = ("/v1/projects/acme/events", "/v1/projects/acme/events/batch");
    cluster.definitions_in_force().await.unwrap();

    // One byte more than may be; it need not even be sent.
    for (url, longest) in [
        (format!("{}/v1/projects/acme/webhooks", api.api), 256 * 1024),
        (format!("{}{events}", api.ingest), (256 + 16) * 1024),
        (format!("{}{batch}", api.ingest), 8 * 1024 * 1024),
    ] {
        let answer = api.announce(Method::POST, &url, longest + 1, AT_ONCE).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{url}: {answer}");
        let chunks = (0..longest / 65_536 + 1).map(|_| Ok::<_, std::io::Error>(vec![b' '; 65_536]));
        let unannounced = reqwest::Body::wrap_stream(futures::stream::iter(chunks));
        let status = api
            .say(Method::POST, &url, "application/json", unannounced)
            .await
            .unwrap();
        assert_eq!(status, 413, "{url}");
        let full = vec![b' '; usize::try_from(longest).unwrap()];
        let status = api.say(Method::POST, &url, "application/json", full).await.unwrap();
        assert_eq!(status, 400, "{url}: no JSON, but not too long");
    }

    // Of a batch, what is too large alone.
    let event = |bytes: usize| json!({ "type": "a", "data": "x".repeat(bytes - 2) });
    let body = json!({ "events": [event(256 * 1024), event(256 * 1024 + 1)] });
    let (status, answer) = api.intake(batch, &body).await.unwrap();
    let statuses: Vec<_> = answer["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["status"])
        .collect();
    assert_eq!(
        (status.as_u16(), statuses),
        (207, vec![&json!(202), &json!(413)]),
        "{answer}"
    );
    for (count, expected) in [(500, 202), (501, 422), (0, 422)] {
        let body = json!({ "events": vec![event(3); count] });
        let (status, answer) = api.intake(batch, &body).await.unwrap();
        assert_eq!(status.as_u16(), expected, "{count} events: {answer}");
    }
}

#[tokio::test]
async fn who_asks_too_much_of_intake_is_told_when_to_come_again_and_others_are_not() {
    let env = [
        ("POSTHASTE_INGEST_RATE_LIMIT", "1"),
        ("POSTHASTE_INGEST_RATE_LIMIT_BURST", "3"),
        ("POSTHASTE_REFUSED_TOKENS_PER_MINUTE", "2"),
        // Requests of this test say themselves where they come from.
        ("POSTHASTE_TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let cluster = Cluster::start_with(Setup {
        env: env.map(|(name, value)| (name, value.to_owned())).to_vec(),
        ..Setup::default()
    })
    .await
    .unwrap();
    let api = &cluster.admin;
    api.create_project("acme").await.unwrap();
    let path = "/v1/projects/acme/tokens";
    let publisher = async || {
        let scopes = json!({ "scopes": ["publish"] });
        let made = api.ok(Method::POST, path, Some(&scopes)).await.unwrap();
        api.with_token(made["token"].as_str().unwrap())
    };
    let (publisher, neighbour) = (publisher().await, publisher().await);
    cluster.definitions_in_force().await.unwrap();
    let url = format!("{}/v1/projects/acme/events", api.ingest);
    let event = json!({ "type": "a", "data": 1 });
    let post = async |client: &Api, from: &str| client.post(&url, &[("x-forwarded-for", from)], &event).await.unwrap();

    for _ in 0..3 {
        assert_eq!(post(&publisher, "192.0.2.1").await.status(), 202);
    }
    let refused = eventually("too many requests", || async {
        let answer = post(&publisher, "192.0.2.1").await;
        (answer.status() == 429).then_some(answer)
    })
    .await;
    assert!(refused.headers().contains_key("retry-after"));
    let left = |name: &str| refused.headers()[name].to_str().unwrap();
    assert_eq!((left("ratelimit-limit"), left("ratelimit-remaining")), ("3", "0"));
    assert_eq!(post(api, "192.0.2.1").await.status(), 202, "another token");

    // Who guesses is known by the address that the proxy has added, whatever is written in front of it.
    let nobodys = api.with_token("ph_nobodysnobodysnobodysnobodysno_000000");
    for (client, from, expected) in [
        (&nobodys, "198.51.100.1", 401),
        (&nobodys, "10.1.1.1, 198.51.100.1", 401),
        (&nobodys, "10.1.1.2, 198.51.100.1", 429),
        (&nobodys, "198.51.100.2", 401),
        // What somebody may have invented waits, though it is right.
        (api, "198.51.100.1", 429),
    ] {
        assert_eq!(post(client, from).await.status(), expected, "{from}");
    }
    // What is random has tries of its own, which a neighbour may use up whose token was revoked. Nobody has guessed what is
    // random and right: it does not wait, though it was never seen from there.
    let revoked = common::token::generate();
    let revoked = api.with_token(revoked.expose_secret());
    eventually("no tries are left", || async {
        (post(&revoked, "198.51.100.1").await.status() == 429).then_some(())
    })
    .await;
    assert_eq!(post(&neighbour, "198.51.100.1").await.status(), 202);
    assert_eq!(
        post(api, "198.51.100.3").await.status(),
        202,
        "a good token from elsewhere"
    );
}

#[tokio::test]
async fn a_token_is_good_for_its_own_project_and_scopes_only() {
    let cluster = Cluster::start().await.unwrap();
    let api = &cluster.admin;
    api.create_project("acme").await.unwrap();
    api.create_project("other").await.unwrap();
    let body = json!({ "name": "publisher", "scopes": ["publish"] });
    let made = api
        .ok(Method::POST, "/v1/projects/acme/tokens", Some(&body))
        .await
        .unwrap();
    let publisher = api.with_token(made["token"].as_str().unwrap());
    let event = json!({ "type": "a", "data": 1 });
    eventually("the new token is known to ingest", || async {
        (publisher
            .intake("/v1/projects/acme/events", &event)
            .await
            .unwrap()
            .0
            .as_u16()
            == 202)
            .then_some(())
    })
    .await;
    assert_eq!(
        publisher
            .intake("/v1/projects/other/events", &event)
            .await
            .unwrap()
            .0
            .as_u16(),
        404
    );
    assert_eq!(
        publisher
            .call(Method::GET, "/v1/projects/acme/webhooks", None)
            .await
            .unwrap()
            .0
            .as_u16(),
        403
    );
    assert_eq!(
        publisher
            .call(Method::GET, "/v1/projects/other/webhooks", None)
            .await
            .unwrap()
            .0
            .as_u16(),
        404
    );

    let id = made["id"].as_str().unwrap();
    api.ok(Method::DELETE, &format!("/v1/projects/acme/tokens/{id}"), None)
        .await
        .unwrap();
    eventually("the revoked token is refused", || async {
        (publisher
            .intake("/v1/projects/acme/events", &event)
            .await
            .unwrap()
            .0
            .as_u16()
            == 401)
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_duty_that_nobody_can_read_is_set_aside_and_blocks_nothing() {
    let cluster = Cluster::start().await.unwrap();
    let receiver = Receiver::start().await;
    cluster.admin.create_project("acme").await.unwrap();
    cluster
        .create_webhook("acme", "all", &receiver.url, json!({}))
        .await
        .unwrap();
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    for garbage in ["", "garbage", "\u{8}\u{7f}"] {
        for share in 0..proto_schemas::stream::SHARES {
            let subject = format!("deliveries.{share}.a.b");
            producer.publish(&subject, &[], garbage).await.unwrap();
        }
    }
    producer.publish("events.acme.good", &[], "1").await.unwrap();
    eventually("the event behind them", || async {
        (receiver.count() == 1).then_some(())
    })
    .await;
    let jetstream = async_nats::jetstream::new(async_nats::connect(cluster.nats.url()).await.unwrap());
    eventually("an empty stream", || async {
        let stream = jetstream.get_stream("DELIVERIES").await.ok()?;
        (stream.cached_info().state.messages == 0).then_some(())
    })
    .await;
    eventually("each of them on record", || async {
        let rejected = cluster.admin.list("/v1/rejected-events").await.ok()?;
        let poison = rejected.iter().filter(|it| it["reason"] == "poison").count();
        (poison == 3 * usize::from(proto_schemas::stream::SHARES)).then_some(())
    })
    .await;
}
