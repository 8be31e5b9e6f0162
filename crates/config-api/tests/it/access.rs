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
async fn who_has_guessed_too_often_and_what_is_mistyped_is_not_looked_up() {
    let world = World::new().await;
    let service = world.start_with(&["--refused-tokens-per-minute", "3"]).await;
    let ask = async |token: &str| {
        let client = service.client.with_token(token);
        client.call(Method::GET, "/v1/projects", None).await.0.as_u16()
    };
    // Whoever is looked up now is told that it cannot be done.
    world.sql("ALTER TABLE tokens RENAME TO gone").await;
    assert_eq!(ask("nobodys-token-but-well-formed").await, 500);
    let mistyped = "ph_0123456789abcdefghijklmnopqrstuv_000000";
    let asked = [ask(mistyped).await, ask(mistyped).await, ask(mistyped).await];
    assert_eq!(asked, [401; 3]);
    assert_eq!(
        [ask(mistyped).await, ask("nobodys-token-but-well-formed").await],
        [429; 2]
    );
    world.sql("ALTER TABLE gone RENAME TO tokens").await;
    service.stop().await;
}

#[tokio::test]
async fn what_everybody_may_have_is_limited_by_address() {
    let world = World::new().await;
    let service = world.start_with(&["--public-keys-per-minute", "3"]).await;
    let api = &service.client;
    let anybody = api.without_token();
    let path = "/v1/projects/shop/webhooks/00000000-0000-7000-8000-000000000000/jwks.json";
    for _ in 0..3 {
        assert_eq!(anybody.call(Method::GET, path, None).await.0, StatusCode::NOT_FOUND);
    }
    let answer = anybody.send(Method::GET, path, &[], None).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.header("retry-after").is_some());
    let there = anybody.from([127, 0, 0, 2]);
    assert_eq!(there.call(Method::GET, path, None).await.0, StatusCode::NOT_FOUND);
    api.get("/v1/projects").await;
    service.stop().await;
}

#[tokio::test]
async fn all_tokens_of_a_project_may_ask_no_more_than_the_project() {
    let world = World::new().await;
    let limits = ["--project-rate-limit", "1", "--project-rate-limit-burst", "3"];
    let service = world.start_with(&limits).await;
    let admin = &service.client;
    let mut clients = Vec::new();
    for project in ["shop", "other"] {
        admin.post("/v1/projects", json!({ "name": project })).await;
    }
    for project in ["shop", "shop", "shop", "shop", "shop", "shop", "other"] {
        let token = admin.post(&format!("/v1/projects/{project}/tokens"), json!({})).await;
        clients.push((project, admin.with_token(token["token"].as_str().unwrap())));
    }
    let asked = clients.iter().map(async |(project, client)| {
        let path = format!("/v1/projects/{project}");
        client.call(Method::GET, &path, None).await.0.as_u16()
    });
    let statuses = futures::future::join_all(asked).await;
    let refused = statuses[..6].iter().filter(|status| **status == 429).count();
    assert!((1..=3).contains(&refused), "{statuses:?}");
    assert_eq!(statuses[6], 200);
    // The administrator's token is of no project.
    admin.get("/v1/projects/shop").await;
    service.stop().await;
}

#[tokio::test]
async fn when_a_token_was_last_used_is_known_to_the_minute() {
    let world = World::new().await;
    let service = world.start().await;
    let admin = &service.client;
    admin.post("/v1/projects", json!({ "name": "shop" })).await;
    let token = admin.post("/v1/projects/shop/tokens", json!({})).await;
    assert_eq!(token["last_used_at"], Value::Null);
    let path = format!("/v1/projects/shop/tokens/{}", id(&token));
    let client = admin.with_token(token["token"].as_str().unwrap());
    let before = common::clock::Clock::System.now();
    client.get("/v1/projects/shop").await;
    let last_used = async || {
        let text = admin.get(&path).await["last_used_at"].as_str().map(str::to_owned);
        text.map(|text| text.parse::<jiff::Timestamp>().unwrap())
    };
    until("it is marked as used", async || {
        last_used().await.is_some_and(|at| at >= before)
    })
    .await;

    // One that was used a moment ago is not marked again; one that was two minutes ago is.
    let marked = last_used().await;
    client.get("/v1/projects/shop").await;
    let other = admin.post("/v1/projects/shop/tokens", json!({})).await;
    admin
        .with_token(other["token"].as_str().unwrap())
        .get("/v1/projects/shop")
        .await;
    until("what was used after it is marked", async || {
        let path = format!("/v1/projects/shop/tokens/{}", id(&other));
        !admin.get(&path).await["last_used_at"].is_null()
    })
    .await;
    assert_eq!(last_used().await, marked);
    world
        .sql("UPDATE tokens SET last_used_at = now() - interval '2 minutes'")
        .await;
    client.get("/v1/projects/shop").await;
    until("it is marked again", async || last_used().await >= marked).await;
    service.stop().await;
}

#[tokio::test]
async fn what_cannot_be_noted_is_not_carried_out() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    api.post("/v1/projects/shop/webhooks", simple("w")).await;
    let webhook = "/v1/projects/shop/webhooks/w";
    let change = json!({ "description": "changed" });
    world.sql("REVOKE INSERT ON audit_entries FROM CURRENT_USER").await;
    for (method, path, body) in [
        (Method::PATCH, webhook, Some(change.clone())),
        (Method::DELETE, webhook, None),
        (Method::POST, "/v1/projects/shop/webhooks", Some(simple("another"))),
        (Method::POST, "/v1/projects/shop/tokens", Some(json!({}))),
        (Method::POST, "/v1/projects", Some(json!({ "name": "another" }))),
    ] {
        let (status, answer) = api.call(method.clone(), path, body).await;
        assert!(status.is_server_error(), "{method} {path}: {status} {answer}");
    }
    let webhooks = api.get("/v1/projects/shop/webhooks").await;
    assert_eq!(webhooks["items"].as_array().unwrap().len(), 1);
    assert_eq!(webhooks["items"][0]["description"], "");
    assert_eq!(api.get("/v1/projects/shop/tokens").await["items"], json!([]));
    assert_eq!(api.get("/v1/projects").await["items"].as_array().unwrap().len(), 1);
    world.sql("GRANT INSERT ON audit_entries TO CURRENT_USER").await;
    api.patch(webhook, change).await;
    service.stop().await;
}

#[tokio::test]
async fn a_secret_is_not_made_where_it_cannot_be_noted_that_it_is_shown() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    let webhook = "/v1/projects/shop/webhooks/w";
    api.post("/v1/projects/shop/webhooks", simple("w")).await;
    let before = api.get(webhook).await;
    world.sql("REVOKE UPDATE ON audit_entries FROM CURRENT_USER").await;
    let requests = [
        ("/v1/projects/shop/webhooks".to_owned(), simple("another")),
        ("/v1/projects/shop/tokens".to_owned(), json!({})),
        (format!("{webhook}:rotate-secret"), json!({ "overlap": "0s" })),
    ];
    for (path, body) in &requests {
        let (status, answer) = api.call(Method::POST, path, Some(body.clone())).await;
        assert!(status.is_server_error(), "{path}: {status} {answer}");
    }
    let webhooks = api.get("/v1/projects/shop/webhooks").await;
    assert_eq!(webhooks["items"].as_array().unwrap().len(), 1);
    assert_eq!(api.get("/v1/projects/shop/tokens").await["items"], json!([]));
    let now = api.get(webhook).await;
    assert_eq!(
        (&now["secrets"], &now["revision"]),
        (&before["secrets"], &before["revision"])
    );
    world.sql("GRANT UPDATE ON audit_entries TO CURRENT_USER").await;
    for (path, body) in &requests {
        let (status, answer) = api.call(Method::POST, path, Some(body.clone())).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
    }
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
