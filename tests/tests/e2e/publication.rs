//! Definitions on their way from the API to where they apply: whatever dies or gets lost, they arrive.

use std::collections::BTreeSet;
use std::time::Duration;

use posthaste_tests::{Cluster, Producer, Receiver, Role, Setup, eventually, eventually_within};
use proto_schemas::stream::CONFIG_BUCKET;
use reqwest::{Method, StatusCode};
use serde_json::json;

/// In which a revoked token is good for nothing any more.
const REVOKED: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_revoked_token_stops_everywhere_within_five_seconds() {
    let cluster = Cluster::start().await.unwrap();
    let admin = &cluster.admin;
    admin.create_project("acme").await.unwrap();
    let scopes = json!({ "scopes": ["publish", "read"] });
    let path = "/v1/projects/acme/tokens";
    let made = admin.ok(Method::POST, path, Some(&scopes)).await.unwrap();
    let bearer = admin.with_token(made["token"].as_str().unwrap());
    let read = async || bearer.call(Method::GET, "/v1/projects/acme", None).await.unwrap().0;
    let event = json!({ "type": "a.b", "data": {} });
    let publish = async || bearer.intake("/v1/projects/acme/events", &event).await.unwrap().0;
    assert_eq!((read().await, publish().await), (StatusCode::OK, StatusCode::ACCEPTED));

    let path = format!("{path}/{}", made["id"].as_str().unwrap());
    admin.ok(Method::DELETE, &path, None).await.unwrap();
    assert_eq!(read().await, StatusCode::UNAUTHORIZED, "config-api looks each time");
    eventually_within(REVOKED, "ingest to refuse the token", || async {
        (publish().await == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
}

#[tokio::test]
async fn killing_config_api_at_any_moment_loses_no_definition() {
    const KILLS: usize = 8;
    let mut cluster = Cluster::start().await.unwrap();
    let receiver = Receiver::start().await;
    cluster.admin.create_project("acme").await.unwrap();
    let mut answered = BTreeSet::new();
    for kill in 0..KILLS {
        // Several at once, and the kill at another moment each time: after the first answer, after the second, and so on.
        let (admin, url) = (cluster.admin.clone(), receiver.url.clone());
        let (sender, mut made) = tokio::sync::mpsc::unbounded_channel();
        let creators: Vec<_> = (0..4)
            .map(|creator| {
                let (admin, url, sender) = (admin.clone(), url.clone(), sender.clone());
                tokio::spawn(async move {
                    for n in 0.. {
                        let name = format!("w{kill}-{creator}-{n}");
                        let url = format!("{url}/{name}");
                        match admin.create_webhook("acme", &name, &url, json!({})).await {
                            Ok(_) => drop(sender.send(name)),
                            Err(_) => return,
                        }
                    }
                })
            })
            .collect();
        for _ in 0..=kill {
            answered.insert(made.recv().await.unwrap());
        }
        cluster.kill(Role::ConfigApi).unwrap();
        drop(sender);
        futures::future::join_all(creators).await;
        while let Some(name) = made.recv().await {
            answered.insert(name);
        }
        cluster.restart(Role::ConfigApi).await.unwrap();
    }
    cluster.definitions_in_force().await.unwrap();
    let stored = cluster.admin.list("/v1/projects/acme/webhooks").await.unwrap();
    let stored: BTreeSet<String> = stored
        .iter()
        .map(|webhook| webhook["name"].as_str().unwrap().to_owned())
        .collect();
    assert!(stored.is_superset(&answered), "what was answered is stored");
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    producer.publish("events.acme.a", &[], "1").await.unwrap();
    eventually("the event at every webhook that is stored", || async {
        let reached: BTreeSet<String> = receiver
            .received()
            .iter()
            .map(|request| request.path.trim_start_matches("/hook/").to_owned())
            .collect();
        (reached == stored).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_bucket_that_was_emptied_is_filled_again_by_itself() {
    let setup = Setup {
        env: vec![("POSTHASTE_RESYNC_INTERVAL", "1s".to_owned())],
        ..Setup::default()
    };
    let mut cluster = Cluster::start_with(setup).await.unwrap();
    let receiver = Receiver::start().await;
    cluster.admin.create_project("acme").await.unwrap();
    cluster
        .create_webhook("acme", "one", &receiver.url, json!({}))
        .await
        .unwrap();
    let client = async_nats::connect(cluster.nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let stream = format!("KV_{CONFIG_BUCKET}");
    jetstream.get_stream(&stream).await.unwrap().purge().await.unwrap();
    // Who starts now knows what is in the bucket and nothing else.
    for role in [Role::Ingest, Role::Dispatcher] {
        cluster.kill(role).unwrap();
        cluster.restart(role).await.unwrap();
    }
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    eventually("an event, by definitions that were published again", || async {
        producer.publish("events.acme.a", &[], "1").await.unwrap();
        (receiver.count() > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_bucket_that_was_lost_is_there_again_when_config_api_has_started() {
    let mut cluster = Cluster::start().await.unwrap();
    let receiver = Receiver::start().await;
    cluster.admin.create_project("acme").await.unwrap();
    cluster
        .create_webhook("acme", "old", &receiver.url, json!({}))
        .await
        .unwrap();
    let client = async_nats::connect(cluster.nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    jetstream.delete_stream(format!("KV_{CONFIG_BUCKET}")).await.unwrap();
    cluster.terminate(Role::ConfigApi).await.unwrap();
    cluster.restart(Role::ConfigApi).await.unwrap();
    // Those that have been running since before see what changes from now on.
    let other = Receiver::start().await;
    cluster
        .admin
        .create_webhook("acme", "new", &other.url, json!({}))
        .await
        .unwrap();
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    eventually_within(Duration::from_secs(60), "an event at both webhooks", || async {
        producer.publish("events.acme.a", &[], "1").await.unwrap();
        (receiver.count() > 0 && other.count() > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_bucket_that_was_deleted_is_made_and_filled_again_and_watched_again_by_those_that_run() {
    let mut cluster = Cluster::start().await.unwrap();
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    cluster.admin.create_project("acme").await.unwrap();
    for name in ["stays", "moves"] {
        let url = format!("{}/{name}", receiver.url);
        cluster.create_webhook("acme", name, &url, json!({})).await.unwrap();
    }
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    let publish = async || producer.publish("events.acme.a", &[], "1").await.unwrap();
    publish().await;
    eventually("an event by the definitions as they were", || async {
        (receiver.count() == 2).then_some(())
    })
    .await;

    let client = async_nats::connect(cluster.nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    jetstream.delete_stream(format!("KV_{CONFIG_BUCKET}")).await.unwrap();
    // Nothing is started again, and what is changed while there is no bucket takes effect.
    let moved = json!({ "url": other.url });
    let path = "/v1/projects/acme/webhooks/moves";
    cluster.admin.ok(Method::PATCH, path, Some(&moved)).await.unwrap();
    let within = Duration::from_secs(60);
    eventually_within(within, "an event where the webhook has moved to", || async {
        publish().await;
        (other.count() > 0).then_some(())
    })
    .await;

    // Who starts now knows what is in the bucket and nothing else.
    for role in [Role::Ingest, Role::Dispatcher] {
        cluster.kill(role).unwrap();
        cluster.restart(role).await.unwrap();
    }
    let (before, at_stays) = (other.count(), || {
        let received = receiver.received();
        received
            .iter()
            .filter(|request| request.path.ends_with("/stays"))
            .count()
    });
    let stays_before = at_stays();
    eventually_within(within, "an event at both webhooks", || async {
        publish().await;
        (other.count() > before && at_stays() > stays_before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nobody_works_by_a_bucket_that_config_api_has_not_filled() {
    let mut cluster = Cluster::start().await.unwrap();
    let receiver = Receiver::start().await;
    cluster.admin.create_project("acme").await.unwrap();
    cluster
        .create_webhook("acme", "all", &receiver.url, json!({}))
        .await
        .unwrap();
    // NATS has lost what it had, and ingest is there before config-api is.
    for role in [Role::ConfigApi, Role::Ingest, Role::Dispatcher] {
        cluster.kill(role).unwrap();
    }
    let client = async_nats::connect(cluster.nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    jetstream.delete_stream(format!("KV_{CONFIG_BUCKET}")).await.unwrap();
    for role in [Role::Ingest, Role::Dispatcher] {
        cluster.begin(role).unwrap();
    }
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    producer.publish("events.acme.early", &[], "1").await.unwrap();
    eventually("ingest says what it waits for", || async {
        let (status, said) = cluster.text(Role::Ingest, "/readyz").await.ok()?;
        (status == 503 && said.contains("being read from NATS")).then_some(())
    })
    .await;
    // Half of it is there: a project, and nothing else.
    let bucket = jetstream.get_key_value(CONFIG_BUCKET).await.unwrap();
    bucket.put("project.none", "".into()).await.unwrap();
    eventually("ingest says whom it waits for", || async {
        let (status, said) = cluster.text(Role::Ingest, "/readyz").await.ok()?;
        (status == 503 && said.contains("config-api has not put all of them")).then_some(())
    })
    .await;
    cluster.begin(Role::ConfigApi).unwrap();
    for role in [Role::ConfigApi, Role::Ingest, Role::Dispatcher] {
        cluster.ready(role).await.unwrap();
    }
    eventually("the event that was published meanwhile", || async {
        (receiver.count() == 1).then_some(())
    })
    .await;
    let rejected = cluster.admin.list("/v1/rejected-events").await.unwrap();
    assert!(rejected.is_empty(), "{rejected:?}");
}

#[tokio::test]
async fn while_changes_are_not_heard_of_what_is_known_goes_on_and_that_is_said() {
    let mut cluster = Cluster::start().await.unwrap();
    let receiver = Receiver::start().await;
    cluster.admin.create_project("acme").await.unwrap();
    cluster
        .create_webhook("acme", "all", &receiver.url, json!({}))
        .await
        .unwrap();
    // Nobody is there to make the bucket anew.
    cluster.kill(Role::ConfigApi).unwrap();
    let client = async_nats::connect(cluster.nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    jetstream.delete_stream(format!("KV_{CONFIG_BUCKET}")).await.unwrap();
    for role in [Role::Ingest, Role::Dispatcher, Role::RetryScheduler] {
        eventually_within(Duration::from_secs(90), role.name(), || async {
            let (status, said) = cluster.text(role, "/readyz").await.ok()?;
            (status == 503 && said.contains("changes are not heard of")).then_some(())
        })
        .await;
        let (_, metrics) = cluster.text(role, "/metrics").await.unwrap();
        let mut lines = metrics
            .lines()
            .filter(|line| line.starts_with("posthaste_definitions_stale_seconds"));
        let seconds: f64 = lines.next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        assert!(seconds >= 30.0, "{}: {seconds}", role.name());
        assert!(
            cluster.log(role).contains("NO CHANGE OF DEFINITIONS IS HEARD OF"),
            "{}",
            role.name()
        );
    }
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    producer.publish("events.acme.meanwhile", &[], "1").await.unwrap();
    eventually("the event", || async { (receiver.count() == 1).then_some(()) }).await;

    cluster.restart(Role::ConfigApi).await.unwrap();
    for role in [Role::Ingest, Role::Dispatcher, Role::RetryScheduler] {
        eventually_within(Duration::from_secs(60), role.name(), || async {
            let (status, _) = cluster.text(role, "/readyz").await.ok()?;
            (status == 200).then_some(())
        })
        .await;
    }
}
