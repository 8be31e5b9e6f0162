//! Replays and dead letters over REST, with nobody who carries them out.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::record::recorded;
use crate::support::*;

const REPLAYS: &str = "/v1/projects/shop/replays";

async fn ask(client: &Client, path: &str, body: Value, wanted: StatusCode) -> Value {
    let (status, answer) = client.call(Method::POST, path, (!body.is_null()).then_some(body)).await;
    assert_eq!(status, wanted, "POST {path}: {answer}");
    answer
}

#[tokio::test]
async fn a_dry_run_counts_by_webhook_and_state_and_begins_nothing() {
    let world = World::new().await;
    let service = world.start().await;
    recorded(&world, &service).await;
    let api = &service.client;
    let count = async |body: Value| ask(api, REPLAYS, body, StatusCode::OK).await;

    let found = count(json!({ "dry_run": true })).await;
    assert_eq!((&found["deliveries"], &found["complete"]), (&json!(2), &json!(true)));
    let mut by: Vec<(&str, &str)> = found["by"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| (part["webhook_name"].as_str().unwrap(), part["state"].as_str().unwrap()))
        .collect();
    by.sort_unstable();
    assert_eq!(by, [("a", "dead"), ("c", "skipped")]);
    for (body, deliveries) in [
        (json!({ "states": ["dead"], "dry_run": true }), 1),
        (json!({ "states": ["delivered"], "dry_run": true }), 2),
        (
            json!({ "states": ["delivered"], "webhooks": ["b"], "dry_run": true }),
            0,
        ),
        (json!({ "events": ["evt_1"], "dry_run": true }), 1),
        (json!({ "types": ["o*"], "states": ["dead"], "dry_run": true }), -1),
        (json!({ "types": ["odd"], "states": ["dead"], "dry_run": true }), 1),
        (
            json!({ "types": ["even", "x.*"], "states": ["dead"], "dry_run": true }),
            0,
        ),
        (json!({ "reasons": ["gave up"], "dry_run": true }), 1),
        (json!({ "reasons": ["paused"], "dry_run": true }), 1),
        (json!({ "until": "2026-02-02T02:40:00Z", "dry_run": true }), 0),
        (json!({ "since": "2026-02-02T02:40:00Z", "dry_run": true }), 2),
    ] {
        match deliveries {
            -1 => drop(ask(api, REPLAYS, body, StatusCode::UNPROCESSABLE_ENTITY).await),
            deliveries => assert_eq!(count(body.clone()).await["deliveries"], deliveries, "{body}"),
        }
    }
    assert_eq!(api.get(REPLAYS).await["items"], json!([]));
    service.stop().await;
}

#[tokio::test]
async fn a_replay_is_found_by_id_and_number_and_cancelled_and_only_in_its_project() {
    let world = World::new().await;
    let service = world.start().await;
    recorded(&world, &service).await;
    let api = &service.client;
    let headers = [("idempotency-key", "once")];
    let asked = json!({ "states": ["dead"], "webhooks": ["a"], "rate": 20 });
    let first = api.send(Method::POST, REPLAYS, &headers, Some(asked.clone())).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{}", first.body);
    let again = api.send(Method::POST, REPLAYS, &headers, Some(asked)).await;
    assert_eq!(again.body, first.body, "one replay, however often it is asked for");
    let replay = first.body.clone();
    assert_eq!(first.header("location").unwrap(), format!("{REPLAYS}/{}", id(&replay)));
    assert_eq!((&replay["state"], &replay["rate"]), (&json!("running"), &json!(20)));
    assert_eq!(replay["selection"]["states"], json!(["dead"]));
    assert!(
        replay["selection"]["until"].is_string(),
        "what happens from now on is no part of it"
    );
    assert_eq!(
        (&replay["progress"]["total"], &replay["progress"]["left"]),
        (&json!(1), &json!(1))
    );

    let by_number = api.get(&format!("{REPLAYS}/{}", replay["number"])).await;
    assert_eq!(by_number["id"], replay["id"]);
    assert_eq!(api.get(REPLAYS).await["items"].as_array().unwrap().len(), 1);
    assert_eq!(api.get(&format!("{REPLAYS}?kind=discard")).await["items"], json!([]));

    let path = format!("{REPLAYS}/{}", id(&replay));
    let (status, _) = api.call(Method::POST, &path, None).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    let cancelled = ask(api, &format!("{path}:cancel"), Value::Null, StatusCode::OK).await;
    assert_eq!(cancelled["state"], "cancelling");
    ask(api, &format!("{path}:cancel"), Value::Null, StatusCode::OK).await;

    api.post("/v1/projects", json!({ "name": "other" })).await;
    for path in [
        format!("/v1/projects/other/replays/{}", id(&replay)),
        format!("/v1/projects/other/replays/{}", replay["number"]),
        format!("/v1/projects/other/replays/{}/progress", id(&replay)),
        format!("/v1/projects/other/attempts?replay={}", id(&replay)),
        format!("/v1/projects/other/deliveries?replay={}", id(&replay)),
        "/v1/projects/shop/replays/99".to_owned(),
    ] {
        assert_eq!(
            api.call(Method::GET, &path, None).await.0,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    service.stop().await;
}

#[tokio::test]
async fn what_is_not_right_is_named_and_a_reader_replays_nothing() {
    let world = World::new().await;
    let service = world.start().await;
    let it = recorded(&world, &service).await;
    let api = &service.client;
    let refused = ask(
        api,
        REPLAYS,
        json!({ "webhooks": ["a", "x"], "events": ["evt_1", "evt_9"], "states": ["queued"], "rate": 0 }),
        StatusCode::UNPROCESSABLE_ENTITY,
    )
    .await;
    let pointers: Vec<&str> = refused["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    assert_eq!(pointers, ["#/states/0", "#/rate", "#/webhooks/1", "#/events/1"]);

    // An event or delivery that is not there, and a webhook of another project's.
    api.post("/v1/projects", json!({ "name": "other" })).await;
    let theirs = api.post("/v1/projects/other/webhooks", simple("theirs")).await;
    let theirs = id(&theirs);
    for path in [
        "/v1/projects/shop/events/evt_9:replay".to_owned(),
        "/v1/projects/other/events/evt_1:replay".to_owned(),
        "/v1/projects/shop/deliveries/evt_2/b:replay".to_owned(),
        "/v1/projects/shop/deliveries/evt_9/a:replay".to_owned(),
        format!("/v1/projects/shop/deliveries/evt_1/{theirs}:replay"),
        "/v1/projects/shop/deliveries/evt_1/a:resend".to_owned(),
    ] {
        assert_eq!(
            api.call(Method::POST, &path, None).await.0,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    let body = json!({ "webhooks": [theirs] });
    ask(
        api,
        "/v1/projects/shop/events/evt_1:replay",
        body,
        StatusCode::UNPROCESSABLE_ENTITY,
    )
    .await;
    // A webhook that was never to get it.
    let body = json!({ "webhooks": ["b"] });
    let replay = ask(api, "/v1/projects/shop/events/evt_2:replay", body, StatusCode::ACCEPTED).await;
    assert_eq!(replay["selection"]["events"], json!(["evt_2"]));
    assert_eq!(replay["selection"]["webhooks"], json!([it.webhooks[1].as_uuid()]));
    assert_eq!(replay["progress"]["total"], 1);
    // All that it was owed to or that were skipped, but the one that is yet to get it.
    let replay = ask(
        api,
        "/v1/projects/shop/events/evt_1:replay",
        Value::Null,
        StatusCode::ACCEPTED,
    )
    .await;
    assert_eq!(replay["progress"]["total"], 2);

    let token = api
        .post("/v1/projects/shop/tokens", json!({ "scopes": ["read"] }))
        .await;
    let reader = api.with_token(token["token"].as_str().unwrap());
    for path in [
        REPLAYS,
        "/v1/projects/shop/events/evt_1:replay",
        "/v1/projects/shop/deliveries/evt_1/a:replay",
        "/v1/projects/shop/dead-letters:discard",
    ] {
        let (status, _) = reader.call(Method::POST, path, Some(json!({}))).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
    }
    reader.get("/v1/projects/shop/dead-letters").await;
    service.stop().await;
}

#[tokio::test]
async fn dead_letters_are_listed_and_grouped() {
    let world = World::new().await;
    let service = world.start().await;
    let it = recorded(&world, &service).await;
    let api = &service.client;
    let letters = "/v1/projects/shop/dead-letters";
    let each = api.get(letters).await;
    assert_eq!(each["items"].as_array().unwrap().len(), 1);
    assert_eq!(each["items"][0]["event_id"], "evt_3");
    assert_eq!(api.get(&format!("{letters}?reason=other")).await["items"], json!([]));
    assert_eq!(api.get(&format!("{letters}?webhook=b")).await["items"], json!([]));

    let groups = api.get(&format!("{letters}?group_by=webhook,reason")).await;
    let group = &groups["items"][0];
    assert_eq!(
        (
            &group["webhook"],
            &group["webhook_name"],
            &group["reason"],
            &group["deliveries"]
        ),
        (
            &json!(it.webhooks[0].as_uuid()),
            &json!("a"),
            &json!("gave up"),
            &json!(1)
        )
    );
    let by_reason = api.get(&format!("{letters}?group_by=reason")).await;
    assert_eq!(
        (&by_reason["items"][0]["webhook"], &by_reason["items"][0]["deliveries"]),
        (&Value::Null, &json!(1))
    );
    let (status, _) = api.call(Method::GET, &format!("{letters}?group_by=type"), None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);

    let discard = format!("{letters}:discard");
    let counted = ask(
        api,
        &discard,
        json!({ "dry_run": true, "reasons": ["gave up"] }),
        StatusCode::OK,
    )
    .await;
    assert_eq!(counted["deliveries"], 1);
    let order = ask(api, &discard, json!({ "webhooks": ["a"] }), StatusCode::ACCEPTED).await;
    assert_eq!(order["kind"], "discard");
    service.stop().await;
}

#[tokio::test]
async fn who_watches_is_told_at_once_and_no_longer_than_its_token_is_good_and_the_service_runs() {
    let world = World::new().await;
    let service = world.start().await;
    recorded(&world, &service).await;
    let api = &service.client;
    let replay = ask(api, REPLAYS, json!({ "states": ["dead"] }), StatusCode::ACCEPTED).await;
    let progress = format!("{REPLAYS}/{}/progress", id(&replay));

    let token = api
        .post("/v1/projects/shop/tokens", json!({ "scopes": ["read"] }))
        .await;
    let reader = api.with_token(token["token"].as_str().unwrap());
    let mut watched = reader.open(&progress, &[]).await;
    let first = watched.chunk().await.unwrap().unwrap();
    let beginning = b"event: progress\ndata: {\"state\":\"running\"";
    assert!(first.starts_with(beginning), "{first:?}");
    api.delete(&format!("/v1/projects/shop/tokens/{}", id(&token))).await;
    let rest = tokio::time::timeout(Duration::from_secs(10), watched.chunk()).await;
    assert_eq!(rest.expect("it ends when the token is revoked").unwrap(), None);

    let mut watched = api.open(&progress, &[]).await;
    assert!(watched.chunk().await.unwrap().is_some());
    service.stop().await;
    let rest = tokio::time::timeout(Duration::from_secs(10), watched.chunk()).await;
    assert_eq!(rest.expect("it ends when the service does").unwrap(), None);
}

#[tokio::test]
async fn who_only_watches_does_not_use_the_token() {
    let world = World::new().await;
    let service = world.start().await;
    recorded(&world, &service).await;
    let api = &service.client;
    let replay = ask(api, REPLAYS, json!({ "states": ["dead"] }), StatusCode::ACCEPTED).await;
    let token = async || {
        let scopes = json!({ "scopes": ["read"] });
        api.post("/v1/projects/shop/tokens", scopes).await
    };
    let (watching, other) = (token().await, token().await);
    let client = api.with_token(watching["token"].as_str().unwrap());
    let mut watched = client.open(&format!("{REPLAYS}/{}/progress", id(&replay)), &[]).await;
    assert!(watched.chunk().await.unwrap().is_some());
    let used = async |token: &Value, since: &str| {
        let sql = format!(
            "SELECT count(*) FROM tokens WHERE id = '{}' AND last_used_at > now() - interval '{since}'",
            id(token)
        );
        world.number(&sql).await == 1
    };
    until("its one request is noted", async || used(&watching, "1 minute").await).await;
    world
        .sql("UPDATE tokens SET last_used_at = now() - interval '2 minutes'")
        .await;

    // It is looked at again each time that there is news; of two, one has begun after that.
    for made in [1, 2] {
        let sql = format!(
            "INSERT INTO replay_progress (replay_id, made, started_at, counted_at, next_look_at)
             VALUES ('{}', {made}, now(), now(), now())
             ON CONFLICT (replay_id) DO UPDATE SET made = excluded.made",
            id(&replay)
        );
        world.sql(&sql).await;
        let news = tokio::time::timeout(Duration::from_secs(10), watched.chunk()).await;
        assert!(news.expect("news").unwrap().is_some());
    }
    // What is used after it is noted with it, or after it.
    let client = api.with_token(other["token"].as_str().unwrap());
    client.get("/v1/projects/shop").await;
    until("a request is noted", async || used(&other, "1 minute").await).await;
    assert!(!used(&watching, "1 minute").await, "watching is noted as a use");
    service.stop().await;
}
