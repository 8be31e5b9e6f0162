//! From the API to the CONFIG bucket.

use common::token;
use futures::future::join_all;
use proto_schemas::definition::{Token, WebhookState};
use proto_schemas::stream::config_key::Key;
use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn an_answered_change_is_in_the_bucket() {
    let world = World::new().await;
    let (service, bucket) = (world.start().await, world.bucket().await);
    let api = &service.client;
    let project = api
        .post("/v1/projects", json!({ "name": "shop", "profile": "cloudthinker" }))
        .await;
    assert!(
        bucket
            .get(&Key::Project(id(&project).parse().unwrap()))
            .await
            .unwrap()
            .is_some()
    );

    let webhook = api.post("/v1/projects/shop/webhooks", simple("w")).await;
    let key = key(&project, &webhook);
    let definition = defined(&bucket, &key).await.unwrap();
    assert_eq!(
        (definition.revision, definition.state, definition.ladder.len()),
        (1, WebhookState::Active, 6)
    );
    assert!(definition.sealed_secret.is_some_and(|sealed| !sealed.contains("whsec")));

    api.patch(
        "/v1/projects/shop/webhooks/w",
        json!({ "active": false, "retry": false }),
    )
    .await;
    let definition = defined(&bucket, &key).await.unwrap();
    assert_eq!(
        (definition.revision, definition.state, definition.ladder.len()),
        (2, WebhookState::Paused, 1)
    );
    service.stop().await;
}

#[tokio::test]
async fn a_deleted_webhook_stays_a_definition_and_its_name_is_free() {
    let world = World::new().await;
    let (service, bucket) = (world.start().await, world.bucket().await);
    let api = &service.client;
    let project = api.post("/v1/projects", json!({ "name": "shop" })).await;
    let mut new = simple("w");
    new["headers"] = json!([{ "key": "X-Api-Key", "value": "hidden" }]);
    new["variables"] = json!([{ "key": "routing_key", "value": "hidden" }]);
    new["authentication"] = json!({ "type": "basic", "username": "me", "password": "hidden" });
    let first = api.post("/v1/projects/shop/webhooks", new).await;
    api.delete("/v1/projects/shop/webhooks/w").await;
    let definition = defined(&bucket, &key(&project, &first)).await.unwrap();
    assert!(definition.deleted);
    // Nor anything else that is large: every service has it in memory.
    assert_eq!((definition.url.as_str(), definition.events.len()), ("", 0));
    // Nothing secret of it is kept, here or in the row.
    assert_eq!(definition.clone().without_secrets(), definition);
    assert!(definition.headers.is_empty() && definition.variables.is_empty() && definition.authentication.is_none());
    let store = world.store().await;
    let mut connection = store.connection().await.unwrap();
    let row = store::webhooks::by_ids(&mut connection, &[definition.id]).await;
    let row = row.unwrap().remove(0);
    assert!(row.headers.is_empty() && row.variables.is_empty() && row.authentication.is_none() && row.tls.is_none());
    assert!(row.secrets.is_empty() && row.sealed_secret.is_none());
    drop(connection);

    let second = api.post("/v1/projects/shop/webhooks", simple("w")).await;
    assert_ne!(id(&first), id(&second));
    assert!(!defined(&bucket, &key(&project, &second)).await.unwrap().deleted);
    service.stop().await;
}

#[tokio::test]
async fn what_is_long_gone_leaves_the_bucket_and_does_not_come_back() {
    let world = World::new().await;
    let (service, bucket) = (world.start().await, world.bucket().await);
    let api = &service.client;
    let project = api.post("/v1/projects", json!({ "name": "shop" })).await;
    let (mut webhooks, mut tokens) = (Vec::new(), Vec::new());
    for name in ["stays", "went", "long-gone"] {
        let webhook = api.post("/v1/projects/shop/webhooks", simple(name)).await;
        webhooks.push(key(&project, &webhook));
        let token = api.post("/v1/projects/shop/tokens", json!({ "name": name })).await;
        let hash = hex::encode(token::hash(token["token"].as_str().unwrap()));
        tokens.push((Key::Token(hash), id(&token).to_owned()));
    }
    let expires = json!({ "name": "expired", "expires_at": "2999-01-01T00:00:00Z" });
    let expired = api.post("/v1/projects/shop/tokens", expires).await;
    let expired = Key::Token(hex::encode(token::hash(expired["token"].as_str().unwrap())));
    for (name, (_, token)) in ["went", "long-gone"].into_iter().zip(&tokens[1..]) {
        api.delete(&format!("/v1/projects/shop/webhooks/{name}")).await;
        api.delete(&format!("/v1/projects/shop/tokens/{token}")).await;
    }
    let keys = || {
        webhooks
            .iter()
            .chain(tokens.iter().map(|(key, _)| key))
            .chain([&expired])
    };
    let there = async || {
        let mut there = Vec::new();
        for key in keys() {
            there.push(bucket.get(key).await.unwrap().is_some());
        }
        there
    };
    assert_eq!(there().await, [true; 7]);
    world
        .sql(
            "UPDATE webhooks SET deleted_at = now() - interval '30 days' WHERE name = 'went';
             UPDATE webhooks SET deleted_at = now() - interval '32 days' WHERE name = 'long-gone';
             UPDATE tokens SET revoked_at = now() - interval '23 hours' WHERE name = 'went';
             UPDATE tokens SET revoked_at = now() - interval '25 hours' WHERE name = 'long-gone';
             UPDATE tokens SET expires_at = now() - interval '25 hours' WHERE name = 'expired';",
        )
        .await;
    // Each compares everything when it starts.
    for _ in 0..2 {
        world.start().await.stop().await;
        assert_eq!(there().await, [true, true, false, true, true, false, false]);
    }
    // One that is good again after all is there again.
    let sql = format!(
        "UPDATE tokens SET expires_at = NULL WHERE name = 'expired'; INSERT INTO outbox (key) VALUES ('{}')",
        expired.to_text()
    );
    world.sql(&sql).await;
    until("it is published", async || {
        bucket.get(&expired).await.unwrap().is_some()
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn changes_made_while_nats_is_away_are_accepted_and_published_when_it_is_back() {
    let mut world = World::new().await;
    let (service, bucket) = (world.start().await, world.bucket().await);
    let api = service.client.clone();
    let project = api.post("/v1/projects", json!({ "name": "shop" })).await;
    world.nats.kill().unwrap();
    let webhook = api.post("/v1/projects/shop/webhooks", simple("w")).await;
    api.patch("/v1/projects/shop/webhooks/w", json!({ "active": false }))
        .await;
    world.nats.restart().await.unwrap();

    let key = key(&project, &webhook);
    until("the definition is published", async || {
        let found = bucket.get(&key).await.ok().flatten();
        found.is_some_and(|bytes| proto_schemas::definition::Webhook::decode(bytes).unwrap().revision == 2)
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn two_processes_never_leave_an_older_definition_behind() {
    let world = World::new().await;
    let (one, other, bucket) = (world.start().await, world.start().await, world.bucket().await);
    let project = one.client.post("/v1/projects", json!({ "name": "shop" })).await;
    let webhook = one.client.post("/v1/projects/shop/webhooks", simple("w")).await;
    let change = async |i: usize| {
        let client = [&one.client, &other.client][i % 2];
        client
            .patch(
                "/v1/projects/shop/webhooks/w",
                json!({ "events": [format!("type.n{i}")] }),
            )
            .await
    };
    let answers = join_all((0..40).map(change)).await;

    let last = answers.iter().max_by_key(|answer| answer["revision"].as_u64()).unwrap();
    let definition = defined(&bucket, &key(&project, &webhook)).await.unwrap();
    assert_eq!(definition.revision, 41);
    assert_eq!(json!(definition.events), last["events"]);
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn what_the_bucket_has_lost_or_never_had_is_there_after_a_start() {
    let world = World::new().await;
    let (service, bucket) = (world.start().await, world.bucket().await);
    let project = service.client.post("/v1/projects", json!({ "name": "shop" })).await;
    let webhook = service.client.post("/v1/projects/shop/webhooks", simple("w")).await;
    service.stop().await;

    let key = key(&project, &webhook);
    let mut wrong = defined(&bucket, &key).await.unwrap();
    wrong.url = "https://elsewhere.example/".to_owned();
    bucket.put(&key, wrong.encode()).await.unwrap();
    let service = world.start().await;
    assert_eq!(defined(&bucket, &key).await.unwrap().url, "https://192.5.6.30/hook");
    service.stop().await;
}

#[tokio::test]
async fn tokens_are_published_by_their_hash_and_revoked_everywhere() {
    let world = World::new().await;
    let (service, bucket) = (world.start().await, world.bucket().await);
    let api = &service.client;
    let project = api.post("/v1/projects", json!({ "name": "shop" })).await;
    let created = api
        .post("/v1/projects/shop/tokens", json!({ "scopes": ["publish"] }))
        .await;
    let hash = |text: &str| {
        let digits = token::hash(text).iter().map(|byte| format!("{byte:02x}")).collect();
        Key::Token(digits)
    };
    let key = hash(created["token"].as_str().unwrap());
    let token = Token::decode(bucket.get(&key).await.unwrap().unwrap()).unwrap();
    assert_eq!(token.project, Some(id(&project).parse().unwrap()));
    assert_eq!((token.scopes, token.revoked), (vec!["publish".to_owned()], false));

    api.delete(&format!("/v1/projects/shop/tokens/{}", id(&created))).await;
    assert!(Token::decode(bucket.get(&key).await.unwrap().unwrap()).unwrap().revoked);
    service.stop().await;

    let next = world.start_as("another-administrators-token").await;
    let before = Token::decode(bucket.get(&hash(ADMIN)).await.unwrap().unwrap()).unwrap();
    assert!(before.revoked, "the earlier administrator's token");
    next.stop().await;
}
