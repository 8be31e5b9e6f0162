//! nats-server with the configuration that is shipped: everything works under it, and nothing else is allowed.

mod refusals;

use std::process::Stdio;
use std::time::Duration;

use clap::Parser as _;
use common::bus::{self, Bus};
use posthaste::local::{Folder, Nats, nats};
use posthaste_tests::{
    Answer, Cluster, Producer, Receiver, Role, Setup, eventually, eventually_within, nats_client, program,
};
use proto_schemas::stream::config_key::Key;
use proto_schemas::stream::{DELIVERIES, EVENTS, LEDGER};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::clients::{root, tool};

/// What is shipped.
const SHIPPED: &str = include_str!("../../../deploy/nats/posthaste.conf");

/// Who there is, and passwords that begin with a letter, as the file asks for.
const USERS: [(&str, &str, &str); 6] = [
    ("ingest", "p-ingest", "POSTHASTE_INGEST_PASSWORD"),
    ("dispatcher", "p-dispatcher", "POSTHASTE_DISPATCHER_PASSWORD"),
    ("retry-scheduler", "p-scheduler", "POSTHASTE_RETRY_SCHEDULER_PASSWORD"),
    ("config-api", "p-config", "POSTHASTE_CONFIG_API_PASSWORD"),
    ("operator", "p-operator", "POSTHASTE_OPERATOR_PASSWORD"),
    ("acme", "p-acme", "POSTHASTE_ACME_PASSWORD"),
];

fn password(user: &str) -> &'static str {
    USERS.iter().find(|(name, ..)| *name == user).unwrap().1
}

/// nats-server with this configuration; who asks for its address without saying for whom is the operator.
fn options(configuration: &str) -> nats::Options {
    nats::Options {
        more: configuration.to_owned(),
        env: USERS
            .map(|(_, password, variable)| (variable, password.to_owned()))
            .into(),
        login: Some(("operator", password("operator").to_owned())),
        ..nats::Options::default()
    }
}

fn user(role: Role) -> (&'static str, &'static str) {
    (role.name(), password(role.name()))
}

async fn cluster() -> Cluster {
    let setup = Setup {
        nats: options(SHIPPED),
        nats_users: Some(user),
        ..Setup::default()
    };
    Cluster::start_with(setup).await.unwrap()
}

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    nats: bus::Config,
}

/// The bus of a service, as it has it.
async fn bus(nats: &Nats, service: &str) -> Result<Bus, bus::Error> {
    let url = nats.url_of(service, password(service));
    let arguments = Arguments::parse_from(["test", "--nats-url", url.as_str()]);
    Bus::connect(&arguments.nats, service, Duration::from_secs(10)).await
}

/// Publishes with the Python client, as the example does.
async fn publish_with_python(url: &str, event_type: &str) -> String {
    let mut child = tokio::process::Command::new(tool("python"))
        .arg(root().join("docs/examples/publish.py"))
        .args(["acme", event_type])
        .env("NATS_URL", url)
        .kill_on_drop(true)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"{\"n\":1}").await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn came(receiver: &Receiver, event_type: &str, times: usize) {
    eventually(event_type, || async {
        let received = receiver.received();
        let count = received.iter().filter(|it| it.json()["type"] == event_type).count();
        (count >= times).then_some(())
    })
    .await;
}

#[tokio::test]
async fn everything_works_under_the_shipped_permissions() {
    let mut cluster = cluster().await;
    cluster.admin.create_project("acme").await.unwrap();
    let [all, ops] = [Receiver::start().await, Receiver::start().await];
    // Of each event the first attempt fails.
    let flaky = Receiver::scripted(|_, before| Answer::status(if before == 0 { 503 } else { 200 })).await;
    let dead = Receiver::scripted(|_, _| Answer::status(500)).await;
    for (name, url, more) in [
        ("all", &all.url, json!({})),
        ("ops", &ops.url, json!({ "events": ["posthaste.*"] })),
        (
            "flaky",
            &flaky.url,
            json!({ "events": ["nats.*"], "retry": { "delays": ["0s", "0s"] } }),
        ),
        (
            "dead",
            &dead.url,
            json!({ "events": ["http.*"], "retry": false, "fail_after": 0 }),
        ),
        (
            "ordered",
            &all.url,
            json!({ "events": ["ordered.*"], "ordering": { "by": "webhook" } }),
        ),
    ] {
        cluster.create_webhook("acme", name, url, more).await.unwrap();
    }
    let url = cluster.nats.url_of("acme", password("acme"));
    let producer = Producer::connect(&url).await.unwrap();
    let said = publish_with_python(&url, "nats.python").await;
    assert!(said.contains("events.acme.nats.python"), "{said}");
    let ack = producer
        .publish_acked("events.acme.nats.rust", &[("Nats-Msg-Id", "acme:r1")], "1")
        .await
        .unwrap();
    assert_eq!(ack.stream, "EVENTS");
    for id in ["h1", "h1"] {
        let event = json!({ "type": "http.one", "id": id, "data": 1 });
        let (status, answer) = cluster.admin.intake("/v1/projects/acme/events", &event).await.unwrap();
        assert_eq!(status.as_u16(), 202, "{answer}");
    }
    for event_type in ["nats.python", "nats.rust", "http.one"] {
        came(&all, event_type, 1).await;
    }
    eventually("the retry", || async { (flaky.count() >= 3).then_some(()) }).await;
    came(&ops, "posthaste.delivery.dead", 1).await;
    for _ in 0..2 {
        producer.publish("events.acme.ordered.one", &[], "1").await.unwrap();
    }
    came(&all, "ordered.one", 4).await;

    let post = async |path: &str, body: Value| {
        let path = format!("/v1/projects/acme/{path}");
        cluster.admin.ok(Method::POST, &path, Some(&body)).await.unwrap()
    };
    let sample = json!({ "type": "tried.out", "data": 1 });
    post("webhooks/all:test", sample).await;
    came(&all, "tried.out", 1).await;
    eventually("what can be replayed", || async {
        let path = "/v1/projects/acme/deliveries?state=delivered";
        (cluster.admin.list(path).await.ok()?.len() >= 7).then_some(())
    })
    .await;
    post("replays", json!({ "states": ["delivered"], "types": ["nats.rust"] })).await;
    came(&all, "nats.rust", 2).await;

    // No consumer gets this one.
    producer.publish("events.acme.*", &[], "1").await.unwrap();
    eventually("what is astray is taken out", || async {
        let path = "/v1/projects/acme/rejected-events";
        (cluster.admin.list(path).await.ok()?.len() == 1).then_some(())
    })
    .await;
    // A definition changes.
    let bucket = async_nats::jetstream::new(nats_client(&cluster.nats.url()).await.unwrap());
    let revision = bucket
        .get_stream("KV_CONFIG")
        .await
        .unwrap()
        .cached_info()
        .state
        .last_sequence;
    let path = "/v1/projects/acme/webhooks/all";
    let narrower = json!({ "events": ["nats.*", "after.*"] });
    cluster.admin.ok(Method::PATCH, path, Some(&narrower)).await.unwrap();
    eventually("the change is published", || async {
        let bucket = async_nats::jetstream::new(nats_client(&cluster.nats.url()).await.ok()?);
        let mut stream = bucket.get_stream("KV_CONFIG").await.ok()?;
        (stream.info().await.ok()?.state.last_sequence > revision).then_some(())
    })
    .await;
    cluster.definitions_in_force().await.unwrap();
    producer.publish("events.acme.unwanted", &[], "1").await.unwrap();
    for role in Role::ALL {
        cluster.terminate(role).await.unwrap();
        cluster.restart(role).await.unwrap();
        let event_type = format!("after.{}", role.name());
        producer
            .publish(&format!("events.acme.{event_type}"), &[], "1")
            .await
            .unwrap();
        came(&all, &event_type, 1).await;
    }
    // Consumers are lost with a server's disk; who works the stream off makes them again.
    let operator = async_nats::jetstream::new(nats_client(&cluster.nats.url()).await.unwrap());
    for stream in [EVENTS, DELIVERIES, LEDGER] {
        for consumer in stream.consumers() {
            operator
                .delete_consumer_from_stream(&consumer.name, stream.name)
                .await
                .unwrap();
        }
    }
    producer.publish("events.acme.after.loss", &[], "1").await.unwrap();
    came(&all, "after.loss", 1).await;
    cluster.nats.restart().await.unwrap();
    eventually("an ack of the server that is back", || async {
        producer.publish("events.acme.after.restart", &[], "1").await.ok()
    })
    .await;
    came(&all, "after.restart", 1).await;
    eventually("all on record, and nothing missing", || async {
        let path = "/v1/projects/acme/reconciliation";
        let sums = cluster.admin.ok(Method::GET, path, None).await.ok()?;
        (sums["difference"] == 0 && sums["states"]["queued"] == 0).then_some(())
    })
    .await;
    assert!(
        all.received().iter().all(|it| it.json()["type"] != "unwanted"),
        "the change took effect"
    );
    for role in Role::ALL {
        let log = cluster.log(role);
        assert!(!log.contains("does not let this service"), "{}: {log}", role.name());
        assert!(
            !log.to_lowercase().contains("permissions violation"),
            "{}: {log}",
            role.name()
        );
    }
}

#[tokio::test]
async fn services_may_look_at_what_they_look_at_rarely() {
    let folder = Folder::temporary().unwrap();
    let nats = Nats::start(folder.path(), &options(SHIPPED)).await.unwrap();
    let scheduler = bus(&nats, "retry-scheduler").await.unwrap();
    let stored = scheduler
        .publish("deliveries.1.a.b", async_nats::HeaderMap::new(), "x")
        .await;
    stored.unwrap().stored().await.unwrap();
    assert_eq!(scheduler.count(DELIVERIES, "deliveries.1.a.b").await.unwrap(), 1);
    assert_eq!(scheduler.oldest(DELIVERIES, "deliveries.1.a.b").await.unwrap(), Some(1));
    for stream in [EVENTS, DELIVERIES, LEDGER] {
        scheduler.position(stream).await.unwrap();
    }
    let config_api = bus(&nats, "config-api").await.unwrap();
    let bucket = config_api.config_bucket().await.unwrap();
    let key = Key::Token("a".to_owned());
    bucket.put(&key, b"1".to_vec()).await.unwrap();
    bucket.put(&key, b"2".to_vec()).await.unwrap();
    assert_eq!(bucket.get(&key).await.unwrap().as_deref(), Some(b"2".as_slice()));
    assert_eq!(bucket.keys().await.unwrap(), ["token.a"]);
}

/// Starts ingest with this password; what it has said when it has ended, which must be soon.
async fn refused(nats: &Nats, password: &str) -> String {
    let folder = Folder::temporary().unwrap();
    let log = folder.path().join("log");
    let out = std::fs::File::create(&log).unwrap();
    let mut service = tokio::process::Command::new(program().unwrap())
        .args(["ingest", "--listen", "127.0.0.1:0"])
        .env("NATS_URL", nats.url_of("ingest", password))
        .kill_on_drop(true)
        .stdout(out.try_clone().unwrap())
        .stderr(out)
        .spawn()
        .unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), service.wait()).await;
    let said = std::fs::read_to_string(log).unwrap();
    let ended = ended
        .unwrap_or_else(|_| panic!("a service that cannot work ends soon: {said}"))
        .unwrap();
    assert!(!ended.success(), "{said}");
    said
}

/// The shipped configuration without this permission, the first time that it is given.
fn without(permission: &str) -> String {
    assert!(SHIPPED.contains(permission), "{permission}");
    SHIPPED.replacen(permission, "\"nothing\"", 1)
}

#[tokio::test]
async fn a_permission_that_is_missing_at_the_start_is_named() {
    let folder = Folder::temporary().unwrap();
    let whole = Nats::start(folder.path(), &options(SHIPPED)).await.unwrap();
    // ingest goes by a bucket that has been filled.
    let bucket = bus(&whole, "config-api").await.unwrap().config_bucket().await.unwrap();
    bucket.put(&Key::Filled, b"1".to_vec()).await.unwrap();
    drop(whole);
    for (permission, named) in [
        (
            "\"$JS.API.STREAM.INFO.LEDGER\"",
            "publish to $JS.API.STREAM.INFO.LEDGER",
        ),
        ("\"_POSTHASTE.ingest.>\"", "subscribe to _POSTHASTE.ingest."),
        (
            "\"$JS.API.CONSUMER.CREATE.EVENTS.>\"",
            "publish to $JS.API.CONSUMER.CREATE.EVENTS.ingest-",
        ),
    ] {
        let nats = Nats::start(folder.path(), &options(&without(permission)))
            .await
            .unwrap();
        let said = refused(&nats, password("ingest")).await;
        assert!(
            said.contains("does not let this service") && said.contains(named),
            "{named}: {said}"
        );
    }
    let nats = Nats::start(folder.path(), &options(SHIPPED)).await.unwrap();
    let said = refused(&nats, "wrong").await;
    assert!(said.contains("check user and password"), "{said}");
    assert!(!said.contains("wrong"), "a password is not for the log: {said}");
}

#[tokio::test]
async fn a_permission_that_is_missing_later_is_named_in_the_readiness_and_the_log() {
    for (permission, named) in [
        (
            "\"events.*.>\", \"deliveries.>\", \"ledger.facts\"",
            "publish to ledger.facts",
        ),
        (
            "\"$JS.API.CONSUMER.MSG.NEXT.EVENTS.*\"",
            "publish to $JS.API.CONSUMER.MSG.NEXT.EVENTS.ingest-",
        ),
    ] {
        let setup = Setup {
            nats: options(&without(permission)),
            nats_users: Some(user),
            ..Setup::default()
        };
        let cluster = Cluster::start_with(setup).await.unwrap();
        let producer = Producer::connect(&cluster.nats.url_of("acme", password("acme")))
            .await
            .unwrap();
        producer.publish("events.acme.a", &[], "1").await.unwrap();
        let patience = Duration::from_secs(30);
        eventually_within(patience, named, || async {
            let (status, said) = cluster.text(Role::Ingest, "/readyz").await.ok()?;
            (status == 503 && said.contains(named)).then_some(())
        })
        .await;
        let log = cluster.log(Role::Ingest);
        assert!(
            log.contains(named) && log.contains("does not let this service"),
            "{log}"
        );
    }
}
