//! What Posthaste tells of itself: over webhooks and by e-mail.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use posthaste::local::Folder;
use posthaste_tests::{Answer, Cluster, Producer, Received, Receiver, Role, Setup, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A receiver that answers as it is told at the moment.
async fn receiver(status: u16) -> (Arc<AtomicU16>, Receiver) {
    let status = Arc::new(AtomicU16::new(status));
    let told = Arc::clone(&status);
    let receiver = Receiver::scripted(move |_, _| Answer::status(told.load(Ordering::Relaxed))).await;
    (status, receiver)
}

/// What came of this type, once it has.
async fn told(receiver: &Receiver, event_type: &str) -> Value {
    eventually(event_type, || async {
        let of_type = |received: &Received| received.json()["type"] == event_type;
        receiver.received().iter().find(|it| of_type(it)).map(Received::json)
    })
    .await
}

fn count(receiver: &Receiver, event_type: &str) -> usize {
    let received = receiver.received();
    received.iter().filter(|it| it.json()["type"] == event_type).count()
}

async fn publish(producer: &Producer, id: &str) {
    let id = format!("acme:{id}");
    let headers = [("Nats-Msg-Id", id.as_str())];
    producer.publish("events.acme.order.paid", &headers, "1").await.unwrap();
}

#[tokio::test]
async fn what_goes_wrong_is_told_to_webhooks_that_ask_for_it_and_to_no_other() {
    let mut cluster = Cluster::start().await.unwrap();
    cluster.admin.create_project("acme").await.unwrap();
    let (all, ops) = (Receiver::start().await, Receiver::start().await);
    let (status, bad) = receiver(500).await;
    let only = |patterns: &[&str]| json!({ "events": patterns, "retry": false, "fail_after": 0 });
    cluster
        .create_webhook("acme", "all", &all.url, json!({}))
        .await
        .unwrap();
    cluster
        .create_webhook("acme", "ops", &ops.url, only(&["posthaste.*"]))
        .await
        .unwrap();
    let webhook = cluster
        .create_webhook("acme", "bad", &bad.url, only(&["order.*"]))
        .await
        .unwrap();
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();

    // The process that is to tell it dies as soon as it has the cause on record, or before.
    publish(&producer, "e1").await;
    eventually("the attempt", || async { (bad.count() > 0).then_some(()) }).await;
    cluster.kill(Role::RetryScheduler).unwrap();
    cluster.restart(Role::RetryScheduler).await.unwrap();
    let api = &cluster.admin;
    let dead = told(&ops, "posthaste.delivery.dead").await;
    assert_eq!(dead["data"]["webhook"], json!({ "id": webhook["id"], "name": "bad" }));
    assert_eq!(dead["data"]["event"], json!({ "id": "e1", "type": "order.paid" }));
    assert_eq!(
        (&dead["data"]["attempts"], &dead["data"]["status"]),
        (&json!(1), &json!(500))
    );
    assert!(
        dead["data"]["reason"]
            .as_str()
            .unwrap()
            .starts_with("gave up after 1 attempt")
    );

    status.store(410, Ordering::Relaxed);
    publish(&producer, "e2").await;
    let disabled = told(&ops, "posthaste.webhook.disabled").await;
    assert_eq!(disabled["data"]["reason"], "the receiver answered 410 Gone");

    status.store(200, Ordering::Relaxed);
    let path = "/v1/projects/acme/webhooks/bad:restart";
    api.ok(Method::POST, path, None).await.unwrap();
    cluster.active("acme", "bad").await.unwrap();
    publish(&producer, "e3").await;
    let recovered = told(&ops, "posthaste.webhook.recovered").await;
    assert_eq!(recovered["data"]["webhook"]["name"], "bad");

    producer.publish("events.acme.order.paid", &[], "{").await.unwrap();
    let rejected = told(&ops, "posthaste.event.rejected").await;
    assert_eq!(rejected["data"]["rejection"], "malformed_json");
    assert_eq!(rejected["data"]["webhook"], Value::Null);

    let rotation = json!({ "overlap": "10m" });
    let path = "/v1/projects/acme/webhooks/bad:rotate-secret";
    let rotated = api.ok(Method::POST, path, Some(&rotation)).await.unwrap();
    let expiring = told(&ops, "posthaste.secret.expiring").await;
    assert_eq!(expiring["data"]["secret"], rotated["secrets"][1]["id"]);

    // Nobody else publishes such types, and what tries is told of to nobody.
    let event = json!({ "type": "posthaste.delivery.dead", "data": {} });
    let (refused, problem) = api.intake("/v1/projects/acme/events", &event).await.unwrap();
    assert_eq!(
        (refused.as_u16(), &problem["errors"][0]["pointer"]),
        (422, &json!("#/type"))
    );
    producer
        .publish("events.acme.posthaste.delivery.dead", &[], "{}")
        .await
        .unwrap();
    eventually("the rejection", || async {
        let rejected = api.list("/v1/projects/acme/rejected-events").await.ok()?;
        rejected.iter().any(|it| it["reason"] == "event_type").then_some(())
    })
    .await;

    // What becomes of these events themselves is told to nobody, and each cause was told once.
    let (_, mute) = receiver(500).await;
    cluster
        .create_webhook("acme", "mute", &mute.url, only(&["posthaste.*"]))
        .await
        .unwrap();
    producer.publish("events.acme.order.paid", &[], "[").await.unwrap();
    told(&mute, "posthaste.event.rejected").await;
    eventually("the record of it", || async {
        let dead = api.list("/v1/projects/acme/deliveries?state=dead").await.ok()?;
        (dead.len() == 3).then_some(())
    })
    .await;
    publish(&producer, "e4").await;
    eventually("a later event", || async {
        all.received().iter().any(|it| it.event_id() == "e4").then_some(())
    })
    .await;
    for (event_type, expected) in [
        ("posthaste.delivery.dead", 2),
        ("posthaste.webhook.disabled", 1),
        ("posthaste.webhook.recovered", 1),
        ("posthaste.event.rejected", 2),
        ("posthaste.secret.expiring", 1),
    ] {
        assert_eq!(count(&ops, event_type), expected, "{event_type}");
    }
    let types: Vec<Value> = all.received().iter().map(|it| it.json()["type"].clone()).collect();
    assert!(
        types.iter().all(|it| it == "order.paid"),
        "`*` is what producers publish: {types:?}"
    );
}

/// The mail server of `mailbox.py`.
struct Mailbox {
    port: u16,
    refuse: PathBuf,
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Mailbox {
    async fn start(folder: &Folder) -> Self {
        let refuse = folder.path().join("refuse");
        let mut child = Command::new(root().join(".tools/venv/bin/python"))
            .arg(root().join("tests/clients/mailbox.py"))
            .arg(&refuse)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("mailbox.py: {error}; `make setup` installs what is missing"));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next_line().await.unwrap().unwrap().parse().unwrap();
        Self {
            port,
            refuse,
            lines,
            _child: child,
        }
    }

    async fn mail(&mut self) -> Value {
        // Within a minute: a mail that does not come fails the test.
        let next = tokio::time::timeout(std::time::Duration::from_secs(60), self.lines.next_line());
        serde_json::from_str(&next.await.unwrap().unwrap().unwrap()).unwrap()
    }
}

#[tokio::test]
async fn e_mails_say_how_many_deliveries_are_dead_and_are_not_as_many() {
    const EVENTS: usize = 500;
    let folder = Folder::temporary().unwrap();
    let mut mailbox = Mailbox::start(&folder).await;
    let password = folder.path().join("password");
    std::fs::write(&password, "sesame\n").unwrap();
    let setup = Setup {
        env: vec![
            ("POSTHASTE_SMTP_URL", format!("smtp://127.0.0.1:{}", mailbox.port)),
            ("POSTHASTE_SMTP_FROM", "Posthaste <posthaste@example.com>".to_owned()),
            ("POSTHASTE_SMTP_USERNAME", "posthaste".to_owned()),
            ("POSTHASTE_SMTP_PASSWORD_FILE", password.display().to_string()),
            ("POSTHASTE_ALERT_INTERVAL", "3s".to_owned()),
            // All of them die, one as fast as the other.
            ("POSTHASTE_BREAKER_FAILURES", "0".to_owned()),
        ],
        ..Setup::default()
    };
    let cluster = Cluster::start_with(setup).await.unwrap();
    let api = &cluster.admin;
    api.create_project("acme").await.unwrap();
    let emails = json!({ "alert_emails": ["ops@example.com", "boss@example.com"] });
    let project = api.ok(Method::PATCH, "/v1/projects/acme", Some(&emails)).await.unwrap();
    assert_eq!(project["alert_emails"], emails["alert_emails"]);
    let (_, bad) = receiver(500).await;
    let url = format!("{}?token=canary", bad.url);
    let more = json!({ "retry": false, "fail_after": 0, "headers": [{ "key": "authorization", "value": "canary" }] });
    let webhook = cluster.create_webhook("acme", "orders", &url, more).await.unwrap();
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    producer.publish_many("acme", "order.paid", EVENTS).await;

    let (mut deaths, mut mails) = (0, Vec::new());
    while deaths < EVENTS {
        let mail = mailbox.mail().await;
        let body = mail["body"].as_str().unwrap().to_owned();
        let line = body
            .lines()
            .find(|line| line.ends_with("(posthaste.delivery.dead)"))
            .unwrap()
            .to_owned();
        deaths += line.split(' ').next().unwrap().parse::<usize>().unwrap();
        mails.push(mail);
    }
    assert_eq!(deaths, EVENTS, "each is told of once");
    assert!(mails.len() <= EVENTS / 10, "{} mails", mails.len());
    let mail = &mails[0];
    assert_eq!(mail["from"], "posthaste@example.com");
    assert_eq!(mail["to"], emails["alert_emails"]);
    assert!(
        mail["subject"]
            .as_str()
            .unwrap()
            .starts_with("[Posthaste] acme, webhook orders: ")
    );
    let body = mail["body"].as_str().unwrap();
    for part in [
        "Project: acme",
        &format!("Webhook: orders ({})", webhook["id"].as_str().unwrap()),
        "(order.paid)",
        "500",
        "To do:",
        "When:",
    ] {
        assert!(body.contains(part), "{part}: {body}");
    }
    let all = json!(mails).to_string();
    assert!(
        !all.contains("canary") && !all.contains("whsec_"),
        "no secret, and no url, which may hold one"
    );

    // A mail server that is busy is asked again, and nothing is forgotten.
    std::fs::write(&mailbox.refuse, "").unwrap();
    producer.publish("events.acme.order.paid", &[], "{").await.unwrap();
    eventually("a mail that was put off", || async {
        cluster.log(Role::RetryScheduler).contains("trying again").then_some(())
    })
    .await;
    std::fs::remove_file(&mailbox.refuse).unwrap();
    let mail = mailbox.mail().await;
    assert_eq!(mail["subject"], "[Posthaste] acme: 1 event was rejected");

    for (emails, pointer) in [(json!(["ops"]), "#/alert_emails/0"), (json!(null), "#/alert_emails")] {
        let body = json!({ "alert_emails": emails });
        let (status, problem) = api.call(Method::PATCH, "/v1/projects/acme", Some(&body)).await.unwrap();
        assert_eq!(
            (status.as_u16(), &problem["errors"][0]["pointer"]),
            (422, &json!(pointer))
        );
    }
}
