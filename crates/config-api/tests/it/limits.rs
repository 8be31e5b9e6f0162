//! What the API refuses: each field at its limit and over it, and what is no such thing at all.

use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::support::*;

const W: &str = "/v1/projects/shop/webhooks";

fn with(field: &str, value: Value) -> Value {
    let mut new = simple("w");
    new[field] = value;
    new
}

fn pairs(count: usize) -> Value {
    (0..count)
        .map(|n| (format!("k{n}"), json!("")))
        .collect::<Map<_, _>>()
        .into()
}

fn headers(count: usize) -> Value {
    (0..count)
        .map(|n| json!({ "key": format!("X-H-{n}"), "value": "v" }))
        .collect()
}

/// Field, value at its limit, value over it, the pointer of the refusal.
fn limits() -> Vec<(&'static str, Value, Value, &'static str)> {
    let text = |length: usize| json!("x".repeat(length));
    let url = |length: usize| json!(format!("https://192.5.6.30/{}", "x".repeat(length - 19)));
    let delays = |count: usize| json!({ "delays": vec!["1s"; count] });
    let label = |key: usize, value: usize| json!({ "k".repeat(key): "v".repeat(value) });
    let header = |length: usize| json!([{ "key": "X-A", "value": "v".repeat(length) }]);
    vec![
        ("name", text(64), text(65), "#/name"),
        ("name", json!("é".repeat(64)), json!("é".repeat(65)), "#/name"),
        ("name", text(1), text(0), "#/name"),
        ("url", url(2048), url(2049), "#/url"),
        ("events", json!(["*"]), json!([]), "#/events"),
        (
            "events",
            (0..100).map(|n| format!("a.{n}")).collect(),
            (0..101).map(|n| format!("a.{n}")).collect(),
            "#/events",
        ),
        ("description", text(400), text(401), "#/description"),
        ("labels", pairs(32), pairs(33), "#/labels"),
        ("attributes", pairs(32), pairs(33), "#/attributes"),
        ("headers", headers(32), headers(33), "#/headers"),
        ("headers", header(4096), header(4097), "#/headers/0/value"),
        ("retry", delays(50), delays(51), "#/retry/delays"),
        ("retry", delays(1), delays(0), "#/retry/delays"),
        ("timeout", json!("60s"), json!("60001ms"), "#/timeout"),
        ("timeout", json!("100ms"), json!("99ms"), "#/timeout"),
        ("max_in_flight", json!(100), json!(101), "#/max_in_flight"),
        ("max_in_flight", json!(1), json!(0), "#/max_in_flight"),
        ("fail_after", json!(0), json!(10_001), "#/fail_after"),
        (
            "rate_limit",
            json!({ "requests": 1, "per": "1h" }),
            json!({ "requests": 1, "per": "3601s" }),
            "#/rate_limit/per",
        ),
        (
            "rate_limit",
            json!({ "requests": 1, "per": "100ms" }),
            json!({ "requests": 0, "per": "100ms" }),
            "#/rate_limit/requests",
        ),
        ("labels", label(64, 256), label(1, 257), "#/labels/k"),
        ("secret", text(512), text(513), "#/secret"),
        ("secret", text(8), text(7), "#/secret"),
    ]
}

#[tokio::test]
async fn what_is_at_a_limit_is_taken_and_what_is_over_it_is_refused_in_its_place() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    for (field, at, over, pointer) in limits() {
        let (status, answer) = api.call(Method::POST, W, Some(with(field, at.clone()))).await;
        assert_eq!(status, StatusCode::CREATED, "{field}: {answer}");
        api.delete(&format!("{W}/{}", id(&answer))).await;
        let (status, answer) = api.call(Method::POST, W, Some(with(field, over))).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{field}: {answer}");
        assert_eq!(answer["errors"][0]["pointer"], pointer, "{answer}");
    }
    let named = |length: usize| json!({ "name": "p".repeat(length) });
    assert_eq!(api.call(Method::POST, "/v1/projects", Some(named(63))).await.0, 201);
    assert_eq!(api.call(Method::POST, "/v1/projects", Some(named(64))).await.0, 422);
    service.stop().await;
}

#[tokio::test]
async fn a_project_has_so_many_tokens_that_are_good_for_something() {
    const TOKENS: &str = "/v1/projects/shop/tokens";
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    let first = api.post(TOKENS, json!({})).await;
    world
        .sql(
            "INSERT INTO tokens (id, project_id, name, hash, scopes, created_at, expires_at, revoked_at)
             SELECT gen_random_uuid(), project_id, n::text, sha256(n::text::bytea), scopes, created_at,
                    CASE WHEN n = 1001 THEN now() END, CASE WHEN n = 1000 THEN now() END
             FROM tokens, generate_series(2, 1001) AS n WHERE project_id IS NOT NULL",
        )
        .await;
    // 999 are good for something: of two more, one has been revoked, and the other has expired.
    api.post(TOKENS, json!({})).await;
    let (status, answer) = api.call(Method::POST, TOKENS, Some(json!({}))).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    assert_eq!(
        answer["detail"],
        "the project has 1000 tokens, and 1000 is the most; revoke one first"
    );
    api.delete(&format!("{TOKENS}/{}", id(&first))).await;
    api.post(TOKENS, json!({})).await;
    service.stop().await;
}

#[tokio::test]
async fn a_project_has_had_so_many_webhooks_within_a_day() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    api.post(W, simple("stays")).await;
    world
        .sql(
            "INSERT INTO webhooks (id, project_id, name, url, events, headers, active, revision, created_at, updated_at,
                                   deleted_at)
             SELECT gen_random_uuid(), project_id, n::text, url, events, headers, active, revision, created_at, updated_at,
                    now() - CASE WHEN n > 19998 THEN interval '25 hours' ELSE interval '23 hours' END
             FROM webhooks, generate_series(1, 20100) AS n",
        )
        .await;
    api.post(W, simple("last")).await;
    let (status, answer) = api.call(Method::POST, W, Some(simple("too-many"))).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    let detail = answer["detail"].as_str().unwrap();
    assert!(
        detail.contains("has deleted 19998 within a day, and 20000 is the most"),
        "{detail}"
    );
    world
        .sql("UPDATE webhooks SET deleted_at = now() - interval '25 hours' WHERE name = '7'")
        .await;
    api.post(W, simple("another")).await;
    service.stop().await;
}

#[tokio::test]
async fn what_is_no_webhook_is_refused_with_its_reason_and_nothing_is_kept() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    for (field, value, pointer) in [
        ("name", json!(7), "#/name"),
        ("name", json!(null), "#/name"),
        ("name", json!("a\u{0}b"), "#/name"),
        ("url", json!("http://192.5.6.30/"), "#/url"),
        ("url", json!("https://127.0.0.1/"), "#/url"),
        ("url", json!("https://user:pass@192.5.6.30/"), "#/url"),
        ("url", json!("no url"), "#/url"),
        ("events", json!(["a b"]), "#/events/0"),
        ("events", json!("*"), "#/events"),
        ("colour", json!("red"), "#/colour"),
        (
            "headers",
            json!([{ "key": "X-A", "value": "a\r\nX-B: c" }]),
            "#/headers/0/value",
        ),
        ("headers", json!([{ "key": "X-A\n", "value": "a" }]), "#/headers/0/key"),
        ("headers", json!([{ "key": "Host", "value": "a" }]), "#/headers/0/key"),
        ("headers", json!({ "X-A": "a" }), "#/headers"),
        ("labels", json!({ "a\u{0}": "b" }), "#/labels/a%00"),
        ("labels", json!({ "a": "b\n" }), "#/labels/a"),
        ("labels", json!({ "a": 1 }), "#/labels/a"),
        ("description", json!("\u{1b}[2J"), "#/description"),
        ("active", json!("yes"), "#/active"),
        ("retry", json!(true), "#/retry"),
        ("timeout", json!(10), "#/timeout"),
        ("success", json!(["3xx"]), "#/success"),
        (
            "signature",
            json!({ "standard_webhooks": true, "body_hmac_header": "Host" }),
            "#/signature/body_hmac_header",
        ),
        ("options", json!({ "include_result": true }), "#/options/include_result"),
        ("body", json!("xml"), "#/body"),
        ("pause", json!("keep"), "#/pause"),
        ("pause", json!(true), "#/pause"),
        ("transform", json!("text"), "#/transform"),
        ("transform", json!({ "a": "\u{0}" }), "#/transform"),
        (
            "transform",
            json!({ "a": ["", "{{ data.title | shout }}"] }),
            "#/transform/a/1",
        ),
        (
            "filter",
            json!({ "data": { "cost": { "$above": 1 } } }),
            "#/filter/data/cost/$above",
        ),
        ("attributes", json!({ "a": "b\u{7f}" }), "#/attributes/a"),
        ("attributes", json!({ "a\n": "b" }), "#/attributes/a%0A"),
        ("labels", json!({ "a:b": "c" }), "#/labels/a:b"),
    ] {
        let (status, answer) = api.call(Method::POST, W, Some(with(field, value))).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{field}: {answer}");
        assert_eq!(answer["errors"][0]["pointer"], pointer, "{field}: {answer}");
    }
    assert_eq!(api.get(W).await["items"], json!([]));
    let wrong = with("transform", json!({ "a": "{{ type }}\n{{ data.title | shout }}" }));
    let (_, answer) = api.call(Method::POST, W, Some(wrong)).await;
    let detail = answer["errors"][0]["detail"].as_str().unwrap();
    assert!(
        detail.contains("line 2, column 17") && detail.contains("`shout`"),
        "{detail}"
    );

    api.post(W, simple("taken")).await;
    api.post(W, simple("other")).await;
    let renamed = Some(json!({ "name": "taken" }));
    let (status, answer) = api.call(Method::PATCH, &format!("{W}/other"), renamed).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    let (status, answer) = api.call(Method::POST, W, Some(simple("taken"))).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("`taken`"), "{answer}");
    for (path, status) in [("/v1/projects/a%00b", 404), ("/v1/projects/shop/webhooks/%00", 404)] {
        assert_eq!(api.call(Method::GET, path, None).await.0.as_u16(), status, "{path}");
    }
    service.stop().await;
}

#[tokio::test]
async fn another_projects_ids_are_as_if_they_were_nobodys() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "mine" })).await;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    let (webhook, token) = (
        api.post("/v1/projects/mine/webhooks", simple("w")).await,
        api.post("/v1/projects/mine/tokens", json!({})).await,
    );
    let (_, test) = api.call(Method::POST, "/v1/projects/mine/webhooks/w:test", None).await;
    let nobodys = "00000000-0000-7000-8000-000000000000".to_owned();
    for (method, path, id) in [
        (Method::GET, "webhooks/{}", id(&webhook)),
        (Method::PATCH, "webhooks/{}", id(&webhook)),
        (Method::DELETE, "webhooks/{}", id(&webhook)),
        (Method::GET, "webhooks/{}/revisions", id(&webhook)),
        (Method::GET, "webhooks/{}/revisions/1", id(&webhook)),
        (Method::POST, "webhooks/{}:test", id(&webhook)),
        (Method::POST, "webhooks/{}:preview", id(&webhook)),
        (Method::POST, "webhooks/{}:pause", id(&webhook)),
        (Method::POST, "webhooks/{}:restart", id(&webhook)),
        (Method::GET, "tests/{}", id(&test)),
        (Method::GET, "tokens/{}", id(&token)),
        (Method::DELETE, "tokens/{}", id(&token)),
    ] {
        let told = async |id: &str| {
            let path = format!("/v1/projects/shop/{}", path.replace("{}", id));
            let body = (method == Method::PATCH).then(|| json!({}));
            let (status, mut answer) = api.call(method.clone(), &path, body).await;
            answer["instance"] = Value::Null;
            (status, answer)
        };
        let nobodys = told(&nobodys).await;
        assert_eq!(nobodys.0, StatusCode::NOT_FOUND, "{method} {path}");
        assert_eq!(told(&id).await, nobodys, "{method} {path}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_statement_takes_a_few_seconds_at_most_whoever_asks_it() {
    let world = World::new().await;
    let store = world.store().await;
    let mut connection = store.connection().await.unwrap();
    let begun = std::time::Instant::now();
    let asking = sqlx::raw_sql("SELECT pg_sleep(60)").execute(&mut *connection);
    let said = asking.await.unwrap_err().to_string();
    assert!(said.contains("statement timeout"), "{said}");
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}
