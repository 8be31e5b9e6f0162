//! What is known, by a watch that is begun again.

use std::sync::Arc;
use std::time::Duration;

use common::bus::ConfigBucket;
use common::definitions::{Definitions, Subscriber};
use common::health::Health;
use posthaste::local::{Folder, Nats};
use proto_schemas::definition::{Token, Webhook};
use proto_schemas::id::WebhookId;
use proto_schemas::stream::CONFIG_BUCKET;
use proto_schemas::stream::config_key::Key;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{PROJECT, own_nats};

struct World {
    bucket: ConfigBucket,
    definitions: Arc<Definitions>,
    jetstream: async_nats::jetstream::Context,
    nats: Nats,
    _folder: Folder,
}

fn webhook(number: u128, revision: u64) -> Webhook {
    Webhook {
        revision,
        ..Webhook::blank(WebhookId::from_uuid(Uuid::from_u128(number)), PROJECT)
    }
}

fn token() -> Token {
    Token {
        project: Some(PROJECT),
        scopes: Vec::new(),
        expires_at: None,
        revoked: false,
    }
}

impl World {
    async fn new() -> Self {
        let (folder, nats, bus) = own_nats().await;
        let bucket = bus.config_bucket().await.unwrap();
        for number in 1..=3 {
            put(&bucket, &webhook(number, 1)).await;
        }
        bucket.put(&Key::Token("a1".into()), token().encode()).await.unwrap();
        bucket.put(&Key::Filled, b"1".to_vec()).await.unwrap();
        let stop = CancellationToken::new();
        let definitions = Definitions::watch(&bus, &Health::new(), &stop).await.unwrap();
        Self {
            bucket,
            definitions,
            jetstream: async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap()),
            nats,
            _folder: folder,
        }
    }

    fn subscribers(&self) -> Arc<[Arc<Subscriber>]> {
        self.definitions.subscribers(PROJECT)
    }
}

async fn put(bucket: &ConfigBucket, webhook: &Webhook) {
    let key = Key::Webhook(PROJECT, webhook.id);
    until("NATS takes it", async || {
        bucket.put(&key, webhook.encode()).await.is_ok()
    })
    .await;
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .expect(what);
}

#[tokio::test]
async fn a_list_of_webhooks_shares_what_has_not_changed_with_the_one_before() {
    let mut world = World::new().await;
    let before = world.subscribers();
    assert_eq!(before.len(), 3);
    put(&world.bucket, &webhook(2, 2)).await;
    until("the change is in force", async || {
        world.subscribers()[1].webhook.revision == 2
    })
    .await;
    let after = world.subscribers();
    assert!(Arc::ptr_eq(&before[0], &after[0]) && Arc::ptr_eq(&before[2], &after[2]));

    // After a reconnect everything is read once more, and what is as it was is not made anew.
    world.nats.restart().await.unwrap();
    put(&world.bucket, &webhook(3, 2)).await;
    until("the change is in force", async || {
        world.subscribers()[2].webhook.revision == 2
    })
    .await;
    let again = world.subscribers();
    assert!(Arc::ptr_eq(&after[0], &again[0]) && Arc::ptr_eq(&after[1], &again[1]));
}

#[tokio::test]
async fn what_is_not_in_a_bucket_that_was_filled_anew_is_forgotten() {
    let world = World::new().await;
    assert!(world.definitions.token("a1").is_some());
    let stream = format!("KV_{CONFIG_BUCKET}");
    world.jetstream.delete_stream(&stream).await.unwrap();
    let before = world.bucket.made_at();
    until("another bucket", async || {
        world.bucket.restore().await.is_ok_and(|made| made != before)
    })
    .await;
    put(&world.bucket, &webhook(1, 2)).await;
    put(&world.bucket, &webhook(2, 1)).await;
    // Half of a bucket says nothing of what is not in it.
    assert_eq!(world.subscribers().len(), 3);
    world.bucket.put(&Key::Filled, b"1".to_vec()).await.unwrap();
    until("it is read", async || world.definitions.token("a1").is_none()).await;
    let subscribers = world.subscribers();
    let revisions: Vec<u64> = subscribers.iter().map(|it| it.webhook.revision).collect();
    assert_eq!(revisions, [2, 1]);
    assert!(world.definitions.webhook(webhook(3, 1).id).is_none());
}

#[tokio::test]
async fn what_leaves_the_bucket_is_forgotten_but_no_webhook_that_was_not_deleted() {
    let world = World::new().await;
    let deleted = Webhook {
        deleted: true,
        ..webhook(3, 2)
    };
    put(&world.bucket, &deleted).await;
    let known = |number: u128| world.definitions.webhook(webhook(number, 1).id);
    until("it is deleted", async || known(3).is_some_and(|known| known.deleted)).await;
    let keys = [1, 3].map(|number| Key::Webhook(PROJECT, webhook(number, 1).id));
    for key in keys.into_iter().chain([Key::Token("a1".into())]) {
        let held = world.bucket.held(&key).await.unwrap();
        world.bucket.remove(&key, &held).await.unwrap();
    }
    until("all of it is read", async || world.definitions.token("a1").is_none()).await;
    assert!(known(3).is_none());
    // That was somebody's hand.
    assert!(known(1).is_some());
    assert_eq!(world.subscribers().len(), 2);
}
