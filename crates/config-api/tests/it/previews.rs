//! Previews: the request of an example event, shown and not sent.

use common::sign;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::*;

const W: &str = "/v1/projects/shop/webhooks";
const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

async fn project(world: &World, profile: &str) -> Service {
    let service = world.start().await;
    let new = json!({ "name": "shop", "profile": profile });
    service.client.post("/v1/projects", new).await;
    service
}

async fn preview(client: &Client, path: &str, body: Value) -> Value {
    let (status, answer) = client.call(Method::POST, path, Some(body)).await;
    assert_eq!(status, StatusCode::OK, "{path}: {answer}");
    answer
}

fn header<'a>(preview: &'a Value, name: &str) -> Option<&'a Value> {
    let headers = preview["request"]["headers"].as_array().unwrap();
    headers
        .iter()
        .find(|header| header["key"] == name)
        .map(|header| &header["value"])
}

fn templated() -> Value {
    let mut new = simple("w");
    new["secret"] = json!(SECRET);
    new["headers"] = json!([
        { "key": "X-Team", "value": "blue" },
        { "key": "Authorization", "value": "Bearer hush" },
    ]);
    new["transform"] = json!({ "text": "New {{type}}: {{data.title}}{{data.end}}", "a/b": ["{{data.titel}}"] });
    new
}

#[tokio::test]
async fn a_preview_is_the_signed_request_and_warns_of_what_the_event_does_not_have() {
    let world = World::new().await;
    let service = project(&world, "standard").await;
    let api = &service.client;
    api.post(W, templated()).await;
    let sample = json!({ "type": "invoice.paid", "data": { "title": "a \"b\"\n" } });
    let shown = preview(api, &format!("{W}/w:preview"), sample).await;

    let body = shown["request"]["body"].as_str().unwrap();
    // In the order that Postgres keeps members in.
    assert_eq!(body, r#"{"a/b":[null],"text":"New invoice.paid: a \"b\"\n"}"#);
    assert_eq!(
        shown["warnings"],
        json!([
            { "pointer": "#/transform/a~1b/0", "expression": "data.titel", "detail": "the event has nothing for `data.titel`" },
            { "pointer": "#/transform/text", "expression": "data.end", "detail": "the event has nothing for `data.end`" },
        ])
    );
    assert_eq!(shown["request"]["method"], "POST");
    assert_eq!(shown["request"]["url"], "https://192.5.6.30/hook");
    assert_eq!(header(&shown, "x-team"), Some(&json!("blue")));
    assert_eq!(header(&shown, "authorization"), Some(&Value::Null), "it is protected");
    assert_eq!(header(&shown, "content-type"), Some(&json!("application/json")));
    let id = shown["event"]["id"].as_str().unwrap();
    assert!(id.starts_with("test_"), "{id}");
    assert_eq!(header(&shown, "webhook-id"), Some(&json!(id)));
    let timestamp = header(&shown, "webhook-timestamp").unwrap().as_str().unwrap();
    let key = sign::Key::parse(SECRET).unwrap();
    let signature = sign::standard_webhooks(id, timestamp.parse().unwrap(), body.as_bytes(), [&key]);
    assert_eq!(header(&shown, "webhook-signature"), Some(&json!(signature)));

    // Nothing came of it.
    assert_eq!(api.get("/v1/projects/shop/tests").await["items"], json!([]));
    assert_eq!(api.get(&format!("{W}/w")).await["revision"], 1);
    service.stop().await;
}

#[tokio::test]
async fn a_preview_says_whether_the_webhook_wants_the_event_and_why_not() {
    let world = World::new().await;
    let service = project(&world, "ubiops").await;
    let api = &service.client;
    let mut new = simple("w");
    new["events"] = json!(["deployment_request_completed"]);
    new["attributes"] = json!({ "object_name": "one" });
    new["filter"] = json!({ "data": { "status": "completed" } });
    api.post(W, new).await;
    let path = format!("{W}/w:preview");
    let data = |name: &str, status: &str| json!({ "deployment_name": name, "status": status });
    for (sample, events, attributes, filter) in [
        (json!({ "data": data("one", "completed") }), true, true, true),
        (json!({ "data": data("two", "completed") }), true, false, true),
        (json!({ "data": data("one", "failed") }), true, true, false),
        (
            json!({ "type": "deployment_request_failed", "data": data("one", "completed") }),
            false,
            true,
            true,
        ),
        (
            json!({ "data": data("two", "completed"), "attributes": { "object_name": "one" } }),
            true,
            true,
            true,
        ),
    ] {
        let shown = preview(api, &path, sample.clone()).await;
        let matches = json!({ "events": events, "attributes": attributes, "filter": filter });
        assert_eq!(shown["matches"], matches, "{sample}");
        assert_eq!(shown["wanted"], json!(events && attributes && filter));
    }
    // Without a word, it is the catalogue's example of the first type that it names.
    let (status, shown) = api.call(Method::POST, &path, None).await;
    assert_eq!(
        (status, &shown["event"]["type"]),
        (StatusCode::OK, &json!("deployment_request_completed"))
    );
    let body: Value = serde_json::from_str(shown["request"]["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["event"], "deployment_request_completed");
    service.stop().await;
}

#[tokio::test]
async fn what_is_not_stored_yet_is_previewed_as_it_would_be() {
    let world = World::new().await;
    let service = project(&world, "cloudthinker").await;
    let api = &service.client;
    api.post(W, templated()).await;

    let changes =
        json!({ "changes": { "transform": { "t": "{{data.x}}" }, "url": "https://192.5.6.30/x" }, "data": { "x": 7 } });
    let shown = preview(api, &format!("{W}/w:preview"), changes).await;
    assert_eq!(shown["request"]["body"], r#"{"t":7}"#);
    assert_eq!(shown["request"]["url"], "https://192.5.6.30/x");
    assert_eq!(
        header(&shown, "authorization"),
        Some(&Value::Null),
        "the stored one is kept"
    );
    assert_eq!(api.get(&format!("{W}/w")).await["url"], "https://192.5.6.30/hook");

    let new = json!({ "webhook": simple("w"), "type": "recommendation.created" });
    let shown = preview(api, &format!("{W}:preview"), new).await;
    let body: Value = serde_json::from_str(shown["request"]["body"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&body["workspace_id"], &body["type"]),
        (&json!("shop"), &json!("recommendation.created"))
    );
    let signature = header(&shown, "x-cloudthinker-signature").unwrap().as_str().unwrap();
    assert!(signature.starts_with("sha256=") && signature.len() == 71, "{signature}");
    assert_eq!(api.get(W).await["items"].as_array().unwrap().len(), 1);
    let slack = json!({ "webhook": { "name": "s", "template": "slack", "blanks": { "path": "T0/B0/X" } } });
    let shown = preview(api, &format!("{W}:preview"), slack).await;
    assert!(
        shown["request"]["body"].as_str().unwrap().starts_with(r#"{"text":"#),
        "{shown}"
    );
    service.stop().await;
}

#[tokio::test]
async fn what_cannot_be_previewed_is_refused_in_its_place() {
    let world = World::new().await;
    let service = project(&world, "standard").await;
    let api = &service.client;
    api.post(W, simple("w")).await;
    let mut bad = simple("b");
    bad["url"] = json!("https://127.0.0.1/");
    bad["transform"] = json!({ "a": "{{ data.x | nope }}" });
    let too_much = json!({ "a": "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}" });
    for (path, body, pointers) in [
        (
            "/w:preview",
            json!({ "changes": { "name": "" } }),
            json!(["#/changes/name"]),
        ),
        (
            "/w:preview",
            json!({ "changes": { "colour": 1 } }),
            json!(["#/changes/colour"]),
        ),
        ("/w:preview", json!({ "changes": null }), json!(["#/changes"])),
        ("/w:preview", json!({ "type": "a b" }), json!(["#/type"])),
        (
            "/w:preview",
            json!({ "attributes": { "a": "x".repeat(4096) } }),
            json!(["#/attributes"]),
        ),
        (
            "/w:preview",
            json!({ "changes": { "transform": too_much } }),
            json!(["#/transform"]),
        ),
        (
            ":preview",
            json!({ "webhook": bad }),
            json!(["#/webhook/url", "#/webhook/transform/a"]),
        ),
        (
            ":preview",
            json!({ "webhook": { "name": "x" } }),
            json!(["#/webhook/url", "#/webhook/events"]),
        ),
        (":preview", json!({}), json!(["#/webhook"])),
    ] {
        let (status, problem) = api.call(Method::POST, &format!("{W}{path}"), Some(body.clone())).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {problem}");
        let errors = problem["errors"].as_array().unwrap();
        let found: Value = errors.iter().map(|error| error["pointer"].clone()).collect();
        assert_eq!(found, pointers, "{problem}");
    }
    let (status, _) = api.call(Method::POST, &format!("{W}/none:preview"), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let made = api
        .post("/v1/projects/shop/tokens", json!({ "scopes": ["read"] }))
        .await;
    let reader = api.with_token(made["token"].as_str().unwrap());
    for path in ["/w:preview", ":preview"] {
        let body = json!({ "webhook": simple("x") });
        let body = (path == ":preview").then_some(body);
        let (status, _) = reader.call(Method::POST, &format!("{W}{path}"), body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
    }
    service.stop().await;
}
