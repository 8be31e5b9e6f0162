//! Requests repeated with an `Idempotency-Key`: what becomes of the key where an answer is not kept, or not at once. How
//! they are answered otherwise is in `manners`.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::*;

const W: &str = "/v1/projects/shop/webhooks";

#[tokio::test]
async fn what_is_done_is_answered_though_its_answer_cannot_be_kept_and_that_is_tried_again() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    world
        .sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON idempotency_keys FOR EACH ROW
             WHEN (new.sealed_answer IS NOT NULL) EXECUTE FUNCTION refuse()",
        )
        .await;
    let tokens = "/v1/projects/shop/tokens";
    let make = async || {
        let key = [("idempotency-key", "t")];
        api.send(Method::POST, tokens, &key, Some(json!({}))).await
    };
    let first = make().await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.body);
    assert!(first.body["token"].is_string());
    assert_eq!(
        make().await.status,
        StatusCode::CONFLICT,
        "it is not known yet what it was answered"
    );
    world.sql("DROP TRIGGER refuse ON idempotency_keys").await;
    until("the answer is kept", async || {
        let again = make().await;
        if again.status == StatusCode::CONFLICT {
            return false;
        }
        assert_eq!(
            (again.header("idempotent-replayed"), &again.body),
            (Some("true"), &first.body)
        );
        true
    })
    .await;
    assert_eq!(api.get(tokens).await["items"].as_array().map(Vec::len), Some(1));
    service.stop().await;
}

#[tokio::test]
async fn of_that_for_which_nothing_is_done_no_answer_is_kept() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    api.post(W, simple("w")).await;
    let login = json!({ "token": ADMIN });
    for (path, body, status) in [
        (format!("{W}/w:preview"), json!({}), 200),
        (format!("{W}:preview"), json!({ "webhook": simple("x") }), 200),
        ("/v1/projects/shop/replays".to_owned(), json!({ "dry_run": true }), 200),
        (
            "/v1/projects/shop/dead-letters:discard".to_owned(),
            json!({ "dry_run": true }),
            200,
        ),
        ("/v1/session".to_owned(), login, 201),
    ] {
        let key = [("idempotency-key", path.as_str())];
        for _ in 0..2 {
            let answer = api.send(Method::POST, &path, &key, Some(body.clone())).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.body);
            assert_eq!(answer.header("idempotent-replayed"), None, "{path}");
            // A login that was answered again would set no cookie.
            assert_eq!(answer.header("set-cookie").is_some(), status == 201, "{path}");
        }
        assert_eq!(world.number("SELECT count(*) FROM idempotency_keys").await, 0, "{path}");
    }
    let order = async || {
        let key = [("idempotency-key", "replay")];
        api.send(Method::POST, "/v1/projects/shop/replays", &key, Some(json!({})))
            .await
    };
    assert_eq!(order().await.status, 202);
    assert_eq!(order().await.header("idempotent-replayed"), Some("true"));
    service.stop().await;
}

#[tokio::test]
async fn a_repetition_over_another_version_of_http_is_one() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    let (key, body) = ([("idempotency-key", "k")], Some(json!({ "name": "shop" })));
    let first = api.send(Method::POST, "/v1/projects", &key, body.clone()).await;
    let again = api.over_http2().send(Method::POST, "/v1/projects", &key, body).await;
    assert_eq!(
        (again.status, again.header("idempotent-replayed")),
        (StatusCode::CREATED, Some("true")),
        "{}",
        again.body
    );
    assert_eq!(again.body, first.body);
    service.stop().await;
}

#[tokio::test]
async fn a_token_that_is_no_good_is_counted_once_with_a_key_as_without_one() {
    let world = World::new().await;
    let service = world.start_with(&["--refused-tokens-per-minute", "4"]).await;
    let guesser = service.client.with_token("ph_nobodys_token");
    let key = [("idempotency-key", "k")];
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let answer = guesser.send(Method::POST, "/v1/projects", &key, Some(json!({}))).await;
        statuses.push(answer.status.as_u16());
    }
    assert_eq!(statuses, [401, 401, 401, 401, 429]);
    service.stop().await;
}
