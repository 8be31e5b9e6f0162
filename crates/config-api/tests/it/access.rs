//! Who sees what.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::*;

const EVERYTHING_OF_A_PROJECT: [(&str, &str); 17] = [
    ("GET", ""),
    ("GET", "/tokens"),
    ("POST", "/tokens"),
    ("GET", "/webhooks"),
    ("POST", "/webhooks"),
    ("GET", "/webhooks/{webhook}"),
    ("PATCH", "/webhooks/{webhook}"),
    ("DELETE", "/webhooks/{webhook}"),
    ("PATCH", ""),
    ("GET", "/webhooks/{webhook}/revisions"),
    ("GET", "/webhooks/{webhook}/revisions/1"),
    ("GET", "/webhooks/{webhook}/revisions/1/diff"),
    ("GET", "/events"),
    ("GET", "/events/evt_1"),
    ("GET", "/attempts"),
    ("GET", "/deliveries"),
    ("GET", "/rejected-events"),
];

#[tokio::test]
async fn a_project_of_anothers_is_as_if_it_were_not_there() {
    let world = World::new().await;
    let service = world.start().await;
    let admin = &service.client;
    let mine = admin.post("/v1/projects", json!({ "name": "mine" })).await;
    admin.post("/v1/projects", json!({ "name": "other" })).await;
    let webhook = admin.post("/v1/projects/mine/webhooks", simple("w")).await;
    let all = json!({ "scopes": ["admin", "configure", "publish", "read"] });
    let token = admin.post("/v1/projects/other/tokens", all).await;
    let other = admin.with_token(token["token"].as_str().unwrap());

    for (method, rest) in EVERYTHING_OF_A_PROJECT {
        let method: Method = method.parse().unwrap();
        let rest = rest.replace("{webhook}", &id(&webhook));
        let body = matches!(method, Method::POST | Method::PATCH).then(|| json!({}));
        let told = async |project: &str| {
            let (status, mut body) = other
                .call(method.clone(), &format!("/v1/projects/{project}{rest}"), body.clone())
                .await;
            // The request's own id is all that may differ.
            body["instance"] = Value::Null;
            (status, body)
        };
        let absent = told("no-such-project").await;
        assert_eq!(absent.0, StatusCode::NOT_FOUND, "{method} {rest}");
        assert_eq!(told("mine").await, absent, "{method} {rest}");
        assert_eq!(told(&id(&mine)).await, absent, "{method} {rest}");
    }
    // Through one's own project, neither.
    let (status, _) = other
        .call(
            Method::GET,
            &format!("/v1/projects/other/webhooks/{}", id(&webhook)),
            None,
        )
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(other.get("/v1/projects").await["items"].as_array().unwrap().len(), 1);
    service.stop().await;
}

#[tokio::test]
async fn a_scope_that_is_missing_is_named() {
    let world = World::new().await;
    let service = world.start().await;
    let admin = &service.client;
    admin.post("/v1/projects", json!({ "name": "shop" })).await;
    for (scopes, method, path, missing) in [
        (["read"], Method::POST, "/v1/projects/shop/webhooks", "configure"),
        (["publish"], Method::GET, "/v1/projects/shop/events", "read"),
        (["configure"], Method::POST, "/v1/projects/shop/tokens", "admin"),
        (["configure"], Method::POST, "/v1/projects", "admin"),
        (["admin"], Method::POST, "/v1/projects", "admin"),
        (["admin"], Method::GET, "/v1/rejected-events", "admin"),
    ] {
        let token = admin
            .post("/v1/projects/shop/tokens", json!({ "scopes": scopes }))
            .await;
        let client = admin.with_token(token["token"].as_str().unwrap());
        let (status, problem) = client.call(method, path, Some(json!({}))).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("`{missing}`")), "{path}: {detail}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_revoked_expired_or_unknown_token_is_refused_at_once() {
    let world = World::new().await;
    let service = world.start().await;
    let admin = &service.client;
    admin.post("/v1/projects", json!({ "name": "shop" })).await;
    let revoked = admin.post("/v1/projects/shop/tokens", json!({})).await;
    let client = admin.with_token(revoked["token"].as_str().unwrap());
    client.get("/v1/projects/shop").await;
    admin
        .delete(&format!("/v1/projects/shop/tokens/{}", id(&revoked)))
        .await;
    assert_eq!(
        client.call(Method::GET, "/v1/projects/shop", None).await.0,
        StatusCode::UNAUTHORIZED
    );

    let soon = jiff::Timestamp::from_second(common::clock::Clock::System.now().as_second() + 2).unwrap();
    let expiring = admin
        .post("/v1/projects/shop/tokens", json!({ "expires_at": soon }))
        .await;
    let client = admin.with_token(expiring["token"].as_str().unwrap());
    until("the token has expired", async || {
        client.call(Method::GET, "/v1/projects/shop", None).await.0 == StatusCode::UNAUTHORIZED
    })
    .await;
    let stranger = admin.with_token("ph_nobodys");
    assert_eq!(
        stranger.call(Method::GET, "/v1/projects/shop", None).await.0,
        StatusCode::UNAUTHORIZED
    );
    service.stop().await;
}

#[tokio::test]
async fn secrets_never_come_back() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    let mut webhook = simple("w");
    webhook["secret"] = json!("canary-of-the-secret");
    webhook["headers"] = json!([{ "key": "Authorization", "value": "canary-of-the-header" }]);
    let mut answers = vec![api.post("/v1/projects/shop/webhooks", webhook).await];
    answers.push(api.get("/v1/projects/shop/webhooks/w").await);
    answers.push(api.get("/v1/projects/shop/webhooks").await);
    answers.push(
        api.patch("/v1/projects/shop/webhooks/w", json!({ "active": false }))
            .await,
    );
    for answer in &answers {
        let text = answer.to_string();
        assert!(
            !text.contains("canary") && !text.contains("sealed") && !text.contains("v1|"),
            "{text}"
        );
    }
    assert_eq!(
        answers[1]["headers"][0],
        json!({ "key": "Authorization", "value": null, "protected": true })
    );
    service.stop().await;
}
