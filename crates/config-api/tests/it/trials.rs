//! Tests and endpoint checks, as far as config-api goes: from the request to the duty in stream DELIVERIES.

use std::time::Duration;

use bytes::Bytes;
use proto_schemas::delivery::{DeliveryDue, TrialKind};
use proto_schemas::id::AttemptRef;
use proto_schemas::ledger::{AttemptFinished, ErrorClass, Outcome};
use proto_schemas::stream::DELIVERIES;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use store::attempts::{self, NewAttempt};
use store::webhook_health::{self, Stopped, StoppedState};
use store::{outbox, partitions};

use crate::support::*;

/// The next duties in stream DELIVERIES, in any order.
async fn duties(world: &World, count: usize) -> Vec<DeliveryDue> {
    let client = async_nats::connect(world.nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let mut duties = Vec::new();
    while duties.len() < count {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{} of {count} duties",
            duties.len()
        );
        let stream = jetstream.get_stream(DELIVERIES.name).await.unwrap();
        let state = stream.cached_info().state.clone();
        for sequence in state.first_sequence..=state.last_sequence {
            let Ok(message) = stream.get_raw_message(sequence).await else {
                continue;
            };
            stream.delete_message(sequence).await.unwrap();
            duties.push(DeliveryDue::decode(message.payload).unwrap());
        }
        tokio::task::yield_now().await;
    }
    duties
}

async fn act(client: &Client, webhook: &str, action: &str, body: Option<Value>) -> Value {
    let path = format!("/v1/projects/shop/webhooks/{webhook}:{action}");
    let (status, answer) = client.call(Method::POST, &path, body).await;
    assert!(status.is_success(), "{action}: {status} {answer}");
    answer
}

/// A service, a project with this profile, and a webhook.
async fn with_webhook(world: &World, webhook: Value) -> (Service, Value, Value) {
    let service = world.start().await;
    let project = service.client.post("/v1/projects", json!({ "name": "shop" })).await;
    let webhook = service.client.post("/v1/projects/shop/webhooks", webhook).await;
    (service, project, webhook)
}

fn finished(due: &DeliveryDue, outcome: Outcome) -> AttemptFinished {
    let failed = outcome != Outcome::Delivered;
    AttemptFinished {
        attempt: due.attempt_ref(),
        event_id: due.event.id.clone(),
        event_type: due.event.event_type.clone(),
        webhook_revision: 1,
        started_at: due.event.occurred_at,
        duration: Duration::from_millis(2),
        outcome,
        status: failed.then_some(404),
        error_class: failed.then_some(ErrorClass::Status),
        error: if failed {
            "the receiver answered 404 Not Found".into()
        } else {
            String::new()
        },
        response_headers: Vec::new(),
        response_body: Bytes::new(),
        response_truncated: false,
        retry_after: None,
        request_sha256: Bytes::new(),
        handed_out: 1,
        ladder: Vec::new(),
        fail_after: None,
        trial: due.trial.as_ref().map(|trial| trial.kind),
        exchange: proto_schemas::ledger::Exchange::default(),
    }
}

async fn record(world: &World, fact: &AttemptFinished) {
    let store = world.store().await;
    let mut connection = store.connection().await.unwrap();
    partitions::ensure(&mut connection, partitions::day(fact.attempt.event))
        .await
        .unwrap();
    let new = NewAttempt {
        fact,
        next_attempt_at: None,
    };
    attempts::insert(&mut connection, &[new]).await.unwrap();
}

#[tokio::test]
async fn a_test_is_handed_out_as_a_marked_delivery_and_its_status_is_its_attempts() {
    let world = World::new().await;
    let (service, _, webhook) = with_webhook(&world, simple("one")).await;
    let client = &service.client;
    let sample = json!({ "type": "invoice.paid", "data": { "amount": 3.0 }, "attributes": { "region": "eu" } });
    let test = act(client, "one", "test", Some(sample)).await;
    assert_eq!((&test["status"], &test["kind"]), (&json!("pending"), &json!("test")));

    let due = duties(&world, 1).await.pop().unwrap();
    assert_eq!(due.webhook.to_string(), id(&webhook));
    assert_eq!(due.event.key.to_string(), id(&test));
    assert_eq!(due.event.id, test["event_id"]);
    assert_eq!(due.event.event_type, "invoice.paid");
    assert_eq!(due.event.payload, r#"{"amount":3.0}"#);
    assert_eq!(due.event.attributes["region"], "eu");
    let trial = due.trial.clone().unwrap();
    assert_eq!((trial.kind, trial.webhook), (TrialKind::Test, None));

    let path = format!("/v1/projects/shop/tests/{}", id(&test));
    assert_eq!(client.get(&path).await["status"], "pending");
    record(&world, &finished(&due, Outcome::Failed)).await;
    let test = client.get(&path).await;
    assert_eq!(test["status"], "failed");
    assert_eq!(test["error_class"], "status");
    assert_eq!(test["error_message"], "the receiver answered 404 Not Found");
    assert_eq!(test["attempt"]["trial"], "test");

    act(client, "one", "test", None).await;
    let due = duties(&world, 1).await.pop().unwrap();
    record(&world, &finished(&due, Outcome::Delivered)).await;
    let list = client.get("/v1/projects/shop/tests?webhook=one").await;
    let statuses: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|test| &test["status"])
        .collect();
    assert_eq!(statuses, ["completed", "failed"]);
    service.stop().await;
}

#[tokio::test]
async fn a_test_that_was_committed_and_not_handed_out_is_handed_out_at_the_next_start() {
    let world = World::new().await;
    let (service, _, _) = with_webhook(&world, simple("one")).await;
    let client = service.client.clone();
    act(&client, "one", "test", None).await;
    let due = duties(&world, 1).await.pop().unwrap();
    service.stop().await;

    // As if config-api had died between the commit and the publication, and again after it.
    let store = world.store().await;
    let again = [store::tests::outbox_key(due.event.key)];
    for _ in 0..2 {
        let mut connection = store.connection().await.unwrap();
        outbox::append(&mut connection, &again).await.unwrap();
    }
    let lost = DeliveryDue {
        event: proto_schemas::event::Event {
            key: proto_schemas::id::EventKey::of_message(due.event.accepted_at, 1),
            ..due.event.clone()
        },
        ..due.clone()
    };
    let row = store::tests::NewTest {
        id: lost.event.key,
        project: lost.event.project,
        kind: TrialKind::Test,
        webhook: Some(lost.webhook),
        target: lost.webhook,
        event_type: "a",
        due: &lost.encode(),
        holds_secrets: false,
        created_at: lost.event.accepted_at,
    };
    let mut connection = store.connection().await.unwrap();
    store::tests::insert(&mut connection, &row).await.unwrap();
    drop(connection);

    let service = world.start().await;
    let found: Vec<AttemptRef> = duties(&world, 1).await.iter().map(DeliveryDue::attempt_ref).collect();
    assert_eq!(
        found,
        [lost.attempt_ref()],
        "what was there before is dropped as a duplicate"
    );
    let mut connection = store.connection().await.unwrap();
    assert!(outbox::is_empty(&mut connection).await.unwrap());
    drop(connection);
    service.stop().await;
}

#[tokio::test]
async fn what_a_check_has_brought_along_is_kept_without_its_secrets() {
    let world = World::new().await;
    let mut new = simple("one");
    new["secret"] = json!("a secret of mine");
    new["headers"] = json!([{ "key": "X-Api-Key", "value": "hidden" }, { "key": "X-Team", "value": "blue" }]);
    new["variables"] = json!([{ "key": "routing_key", "value": "hidden" }]);
    new["authentication"] = json!({ "type": "basic", "username": "me", "password": "hidden" });
    let (service, _, _) = with_webhook(&world, new).await;
    act(&service.client, "one", "check", None).await;
    let handed_out = duties(&world, 1).await.pop().unwrap();
    let sealed = handed_out.trial.clone().unwrap().webhook.unwrap();
    assert_ne!(sealed.clone().without_secrets(), *sealed, "dispatcher has them");

    let store = world.store().await;
    until("the row without them", async || {
        let mut connection = store.connection().await.unwrap();
        let rows = store::tests::duties(&mut connection, &[handed_out.event.key]).await;
        let kept = DeliveryDue::decode(rows.unwrap().remove(0).1.into()).unwrap();
        let definition = kept.trial.unwrap().webhook.unwrap();
        assert_eq!(
            (definition.url.as_str(), definition.headers.len()),
            (sealed.url.as_str(), 2)
        );
        *definition == sealed.clone().without_secrets()
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn a_stopped_webhook_says_why_and_a_restart_makes_it_active() {
    let world = World::new().await;
    let (service, project, webhook) = with_webhook(&world, simple("one")).await;
    let client = &service.client;
    let bucket = world.bucket().await;
    let key = key(&project, &webhook);

    let store = world.store().await;
    let mut transaction = store.begin().await.unwrap();
    let locked = webhook_health::lock(&mut transaction, &[id(&webhook).parse().unwrap()]).await;
    let mut locked = locked.unwrap().pop().unwrap();
    locked.health.stopped = Some(Stopped {
        state: StoppedState::Failed,
        reason: "5 failed attempts in a row; the last: the receiver answered 503".into(),
        at: webhook["created_at"].as_str().unwrap().parse().unwrap(),
    });
    webhook_health::write(&mut transaction, &[(locked.webhook, locked.health)])
        .await
        .unwrap();
    outbox::append(&mut transaction, &[key.to_text()]).await.unwrap();
    transaction.commit().await.unwrap();

    // Nobody tells this process of it; it looks by itself.
    until("the state is published", async || {
        defined(&bucket, &key).await.unwrap().state.as_str() == "failed"
    })
    .await;
    let path = "/v1/projects/shop/webhooks/one";
    let shown = client.get(path).await;
    assert_eq!(shown["state"], "failed");
    assert_eq!(
        shown["state_reason"],
        "5 failed attempts in a row; the last: the receiver answered 503"
    );
    assert_eq!(shown["state_since"], webhook["created_at"]);
    let failed = client.get("/v1/projects/shop/webhooks?state=failed").await;
    assert_eq!(failed["items"].as_array().unwrap().len(), 1);

    let restarted = act(client, "one", "restart", None).await;
    assert_eq!(
        (&restarted["state"], &restarted["revision"]),
        (&json!("active"), &json!(2))
    );
    assert_eq!(restarted["state_reason"], Value::Null);
    assert_eq!(defined(&bucket, &key).await.unwrap().state.as_str(), "active");
    service.stop().await;
}

#[tokio::test]
async fn pause_and_resume_are_revisions() {
    let world = World::new().await;
    let (service, _, _) = with_webhook(&world, simple("one")).await;
    let paused = act(&service.client, "one", "pause", None).await;
    assert_eq!((&paused["state"], &paused["revision"]), (&json!("paused"), &json!(2)));
    let again = act(&service.client, "one", "pause", None).await;
    assert_eq!(again["revision"], 2, "it is paused already");
    let resumed = act(&service.client, "one", "resume", None).await;
    assert_eq!((&resumed["state"], &resumed["revision"]), (&json!("active"), &json!(3)));
    service.stop().await;
}

#[tokio::test]
async fn what_becomes_of_events_while_paused_is_the_webhooks_word_or_its_profiles() {
    let world = World::new().await;
    let (service, project, webhook) = with_webhook(&world, simple("one")).await;
    let (bucket, key) = (world.bucket().await, key(&project, &webhook));
    let (api, path) = (&service.client, "/v1/projects/shop/webhooks/one");
    assert_eq!(api.get("/v1/profiles/standard").await["pause"], "drop");
    assert_eq!(api.get(path).await["pause"], Value::Null);
    for (word, hold) in [(json!("hold"), true), (json!("drop"), false), (json!(null), false)] {
        assert_eq!(api.patch(path, json!({ "pause": word })).await["pause"], word);
        assert_eq!(defined(&bucket, &key).await.unwrap().hold_while_paused, hold, "{word}");
    }
    let diff = api.get(&format!("{path}/revisions/3/diff")).await;
    assert_eq!(
        diff["changes"],
        json!([{ "pointer": "/pause", "from": "hold", "to": "drop" }])
    );
    let mut new = simple("two");
    new["pause"] = json!("hold");
    assert_eq!(api.post("/v1/projects/shop/webhooks", new).await["pause"], "hold");
    service.stop().await;
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_what_can() {
    let world = World::new().await;
    let (service, _, _) = with_webhook(&world, simple("one")).await;
    let client = &service.client;
    for (path, status) in [
        ("webhooks/one", StatusCode::METHOD_NOT_ALLOWED),
        ("webhooks/one:explode", StatusCode::NOT_FOUND),
        ("webhooks/none:test", StatusCode::NOT_FOUND),
        ("webhooks/none:restart", StatusCode::NOT_FOUND),
        ("webhooks/none:check", StatusCode::NOT_FOUND),
    ] {
        let path = format!("/v1/projects/shop/{path}");
        let (found, problem) = client.call(Method::POST, &path, None).await;
        assert_eq!(found, status, "{path}: {problem}");
    }
    let wrong = json!({ "type": "not a type" });
    let (status, _) = client
        .call(Method::POST, "/v1/projects/shop/webhooks/one:test", Some(wrong))
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, _) = client
        .call(
            Method::GET,
            "/v1/projects/shop/tests/0190b2c8-0000-7000-8000-000000000000",
            None,
        )
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    service.stop().await;
}

#[tokio::test]
async fn a_project_begins_only_so_many_tests_a_minute() {
    let world = World::new().await;
    let (service, _, _) = with_webhook(&world, simple("one")).await;
    let path = "/v1/projects/shop/webhooks/one:test";
    // At once, too.
    let asked = (0..70).map(|_| service.client.call(Method::POST, path, None));
    let answers = futures::future::join_all(asked).await;
    let count = |wanted: StatusCode| answers.iter().filter(|(status, _)| *status == wanted).count();
    assert_eq!(
        (count(StatusCode::ACCEPTED), count(StatusCode::TOO_MANY_REQUESTS)),
        (60, 10)
    );
    service.stop().await;
}

/// Sixty tests of every project, begun a moment ago.
const SIXTY: &str = "
    INSERT INTO tests (id, project_id, kind, target, event_type, due, created_at)
        SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3)
                || '8' || substr(md5(n::text), 4, 15))::uuid, id, 'test', id, 't', '', now()
        FROM projects, generate_series(1, 60) n";

#[tokio::test]
async fn whatever_begins_a_check_begins_no_more_than_there_may_be() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    let project = json!({ "name": "shop", "profile": "uniskai" });
    api.post("/v1/projects", project).await;
    let webhooks = "/v1/projects/shop/webhooks";
    let made = api.post(webhooks, simple("one")).await;
    assert_eq!(made["state"], "pending");
    let one = format!("{webhooks}/one");
    let new_url = json!({ "url": "https://192.5.6.30/another" });
    let requests = [
        (Method::POST, webhooks.to_owned(), Some(simple("two"))),
        (Method::PATCH, one.clone(), Some(new_url)),
        (Method::POST, format!("{one}:restart"), None),
        (Method::POST, format!("{one}:check"), None),
    ];
    world.sql(SIXTY).await;
    for (method, path, body) in &requests {
        let (status, answer) = api.call(method.clone(), path, body.clone()).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{method} {path}: {answer}");
    }
    assert_eq!(api.get(webhooks).await["items"].as_array().unwrap().len(), 1);
    let now = api.get(&one).await;
    assert_eq!((&now["url"], &now["revision"]), (&made["url"], &made["revision"]));
    // What needs no check is done.
    api.patch(&one, json!({ "description": "changed" })).await;

    world.sql("DELETE FROM tests WHERE kind = 'test'").await;
    for (method, path, body) in &requests {
        let (status, answer) = api.call(method.clone(), path, body.clone()).await;
        assert!(status.is_success(), "{method} {path}: {status} {answer}");
    }
    service.stop().await;
}
