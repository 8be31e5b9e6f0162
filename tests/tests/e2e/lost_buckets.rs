//! A NATS that comes back with less than it had: its CONFIG is another one, or an older state of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use posthaste_tests::{Api, Cluster, Producer, Receiver, Role, eventually, eventually_within};
use proto_schemas::stream::CONFIG_BUCKET;
use reqwest::{Method, StatusCode};
use serde_json::json;

const DATA_PLANE: [Role; 3] = [Role::Ingest, Role::Dispatcher, Role::RetryScheduler];

/// Changes, so that a bucket that is made anew takes long to get where the one before was.
const CHANGES: usize = 300;

/// Where nats-server stores the bucket.
fn bucket_folder(below: &Path) -> PathBuf {
    let name = format!("KV_{CONFIG_BUCKET}");
    let mut folders = vec![below.to_owned()];
    while let Some(folder) = folders.pop() {
        if folder.ends_with(&name) {
            return folder;
        }
        let inner = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        folders.extend(inner.filter(|path| path.is_dir()));
    }
    panic!("no {name} below {}", below.display());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        match path.is_dir() {
            true => copy(&path, &to),
            false => drop(std::fs::copy(&path, &to).unwrap()),
        }
    }
}

async fn token(admin: &Api) -> (Api, String) {
    let path = "/v1/projects/acme/tokens";
    let made = admin
        .ok(Method::POST, path, Some(&json!({ "scopes": ["publish"] })))
        .await
        .unwrap();
    let path = format!("{path}/{}", made["id"].as_str().unwrap());
    (admin.with_token(made["token"].as_str().unwrap()), path)
}

async fn publish_with(bearer: &Api) -> StatusCode {
    let event = json!({ "type": "a.b", "data": {} });
    bearer.intake("/v1/projects/acme/events", &event).await.unwrap().0
}

async fn change_often(cluster: &Cluster) {
    for change in 0..CHANGES {
        let path = "/v1/projects/acme/webhooks/moves";
        let described = json!({ "description": change.to_string() });
        cluster.admin.ok(Method::PATCH, path, Some(&described)).await.unwrap();
    }
    cluster.definitions_in_force().await.unwrap();
}

/// Has every service work off something: one that is still about to look for its consumers ends where NATS goes away.
async fn at_work(cluster: &Cluster) {
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    producer.publish("events.acme.first", &[], "1").await.unwrap();
    eventually("the event's attempt on record", || async {
        let attempts = cluster.admin.list("/v1/projects/acme/attempts").await.ok()?;
        (attempts.len() == 1).then_some(())
    })
    .await;
}

async fn all_ready(cluster: &Cluster) {
    for role in DATA_PLANE {
        eventually_within(Duration::from_secs(60), role.name(), || async {
            let (status, _) = cluster.text(role, "/readyz").await.ok()?;
            (status == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_nats_that_comes_back_without_the_bucket_is_read_anew_by_those_that_run() {
    let mut cluster = Cluster::start().await.unwrap();
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    cluster.admin.create_project("acme").await.unwrap();
    cluster
        .create_webhook("acme", "moves", &receiver.url, json!({}))
        .await
        .unwrap();
    let (bearer, token) = token(&cluster.admin).await;
    at_work(&cluster).await;
    change_often(&cluster).await;
    assert_eq!(publish_with(&bearer).await, StatusCode::ACCEPTED);

    cluster.nats.stop().await.unwrap();
    std::fs::remove_dir_all(bucket_folder(&cluster.nats.store())).unwrap();
    cluster.nats.restart().await.unwrap();
    let moved = json!({ "url": other.url });
    let path = "/v1/projects/acme/webhooks/moves";
    cluster.admin.ok(Method::PATCH, path, Some(&moved)).await.unwrap();
    cluster.admin.ok(Method::DELETE, &token, None).await.unwrap();
    eventually_within(Duration::from_secs(30), "ingest to refuse the token", || async {
        (publish_with(&bearer).await == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    eventually_within(
        Duration::from_secs(30),
        "an event where the webhook has moved to",
        || async {
            producer.publish("events.acme.a", &[], "1").await.unwrap();
            (other.count() > 0).then_some(())
        },
    )
    .await;
    all_ready(&cluster).await;
}

#[tokio::test]
async fn a_nats_that_comes_back_without_the_bucket_is_missed_while_nobody_fills_another() {
    let mut cluster = Cluster::start().await.unwrap();
    let receiver = Receiver::start().await;
    cluster.admin.create_project("acme").await.unwrap();
    cluster
        .create_webhook("acme", "all", &receiver.url, json!({}))
        .await
        .unwrap();
    at_work(&cluster).await;
    cluster.kill(Role::ConfigApi).unwrap();
    cluster.nats.stop().await.unwrap();
    std::fs::remove_dir_all(bucket_folder(&cluster.nats.store())).unwrap();
    cluster.nats.restart().await.unwrap();
    for role in DATA_PLANE {
        eventually_within(Duration::from_secs(90), role.name(), || async {
            let (status, said) = cluster.text(role, "/readyz").await.ok()?;
            (status == 503 && said.contains("changes are not heard of")).then_some(())
        })
        .await;
        assert!(cluster.log(role).contains("NO CHANGE OF DEFINITIONS IS HEARD OF"));
    }
    cluster.restart(Role::ConfigApi).await.unwrap();
    all_ready(&cluster).await;
}

#[tokio::test]
async fn a_nats_that_comes_back_with_an_older_bucket_makes_no_revoked_token_good_again() {
    let mut cluster = Cluster::start().await.unwrap();
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    cluster.admin.create_project("acme").await.unwrap();
    cluster
        .create_webhook("acme", "moves", &receiver.url, json!({}))
        .await
        .unwrap();
    let (bearer, token) = token(&cluster.admin).await;
    at_work(&cluster).await;
    cluster.definitions_in_force().await.unwrap();
    cluster.nats.stop().await.unwrap();
    let folder = bucket_folder(&cluster.nats.store());
    let before = cluster.nats.store().join("../before");
    copy(&folder, &before);
    cluster.nats.restart().await.unwrap();
    all_ready(&cluster).await;

    cluster.admin.ok(Method::DELETE, &token, None).await.unwrap();
    let moved = json!({ "url": other.url });
    let path = "/v1/projects/acme/webhooks/moves";
    cluster.admin.ok(Method::PATCH, path, Some(&moved)).await.unwrap();
    cluster.definitions_in_force().await.unwrap();
    assert_eq!(publish_with(&bearer).await, StatusCode::UNAUTHORIZED);

    // Nobody is there who would know better.
    cluster.kill(Role::ConfigApi).unwrap();
    cluster.nats.stop().await.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    copy(&before, &folder);
    cluster.nats.restart().await.unwrap();
    for role in DATA_PLANE {
        eventually(role.name(), || async {
            cluster.log(role).contains("an older state of it").then_some(())
        })
        .await;
    }
    assert_eq!(publish_with(&bearer).await, StatusCode::UNAUTHORIZED);
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    producer.publish("events.acme.a", &[], "1").await.unwrap();
    eventually("an event where the webhook has moved to", || async {
        (other.count() > 0).then_some(())
    })
    .await;
    assert_eq!(receiver.count(), 1, "what came first");

    cluster.restart(Role::ConfigApi).await.unwrap();
    cluster.definitions_in_force().await.unwrap();
    all_ready(&cluster).await;
    assert_eq!(publish_with(&bearer).await, StatusCode::UNAUTHORIZED);
    let (bearer, _) = self::token(&cluster.admin).await;
    eventually("a new token", || async {
        (publish_with(&bearer).await == StatusCode::ACCEPTED).then_some(())
    })
    .await;
}
