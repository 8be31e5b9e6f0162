//! What goes out is, byte for byte, what the platforms document: each event type of each catalogue under its profile,
//! compared with `tests/golden/<case>/<event type>.http`.
//!
//! In the files stands what may differ from run to run as `{{host}}`, `{{version}}`, `{{timestamp}}` and `{{signature}}`;
//! the last one is checked here, with the received timestamp. Everything else is to the byte, the body's signature
//! included: secret, event id and the event's time are always the same.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use posthaste_tests::{Cluster, Producer, Received, Receiver, eventually};
use proto_schemas::catalogue;
use reqwest::Method;
use serde_json::{Value, json};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const HAPPENED: &str = "2024-01-15T10:30:00Z";

/// A profile, the catalogue whose examples are published to it, and what its webhook says besides.
struct Case {
    name: &'static str,
    profile: &'static str,
    catalogue: &'static str,
    webhook: Value,
}

fn cases() -> Vec<Case> {
    let case = |name, profile, catalogue, webhook| Case {
        name,
        profile,
        catalogue,
        webhook,
    };
    vec![
        case("standard", "standard", "cloudthinker", json!({ "secret": SECRET })),
        case(
            "cloudthinker",
            "cloudthinker",
            "cloudthinker",
            json!({ "secret": SECRET }),
        ),
        case("uniskai", "uniskai", "uniskai", json!({ "secret": SECRET })),
        case("ubiops", "ubiops", "ubiops", json!({})),
        case(
            "ubiops-with-result",
            "ubiops",
            "ubiops",
            json!({ "options": { "include_result": true } }),
        ),
        case("once", "once", "once", json!({})),
        case(
            "once-json",
            "once",
            "once",
            json!({ "options": { "json_payload": true } }),
        ),
    ]
}

fn event_id(event_type: &str) -> String {
    format!("evt_{}", event_type.replace(['.', '-'], "_"))
}

/// The request as text, what differs from run to run put aside.
fn as_text(received: &Received) -> String {
    let mut lines: Vec<String> = received
        .headers
        .iter()
        .map(|(name, value)| {
            let value = match name.as_str() {
                "host" => "{{host}}",
                "webhook-timestamp" => "{{timestamp}}",
                "webhook-signature" => "{{signature}}",
                _ => value.to_str().unwrap(),
            };
            let value = value.replace(
                concat!("Posthaste/", env!("CARGO_PKG_VERSION")),
                "Posthaste/{{version}}",
            );
            format!("{name}: {value}")
        })
        .collect();
    lines.sort();
    let mut text = format!("POST {} HTTP/1.1\n", received.path);
    for line in lines {
        writeln!(text, "{line}").unwrap();
    }
    text.push('\n');
    text.push_str(std::str::from_utf8(&received.body).unwrap());
    text
}

/// Standard Webhooks' signature, where there is one, made anew by the published library.
fn check_signature(received: &Received, id: &str) {
    let Some(signature) = received.headers.get("webhook-signature") else {
        return;
    };
    assert_eq!(received.headers["webhook-id"], id);
    let timestamp = received.headers["webhook-timestamp"].to_str().unwrap().parse().unwrap();
    let library = standardwebhooks::Webhook::new(SECRET).unwrap();
    assert_eq!(signature, &library.sign(id, timestamp, &received.body).unwrap());
}

fn golden(case: &Case, event_type: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(case.name);
    folder.join(format!("{event_type}.http"))
}

/// Why the request is not what it should be. What came is kept beside the other output of the tests.
fn difference(case: &Case, event_type: &str, came: &str) -> Option<String> {
    let path = golden(case, event_type);
    let expected = fs::read_to_string(&path);
    if expected.as_ref().is_ok_and(|expected| expected == came) {
        return None;
    }
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("golden").join(case.name);
    let kept = kept.join(format!("{event_type}.http"));
    fs::create_dir_all(kept.parent().unwrap()).unwrap();
    fs::write(&kept, came).unwrap();
    let what = match expected {
        Ok(_) => "is not what came",
        Err(_) => "is missing",
    };
    Some(format!(
        "{} {what}; if this is as the platform documents it: cp {} {}\n{came}",
        path.display(),
        kept.display(),
        path.display()
    ))
}

#[tokio::test]
async fn every_event_type_goes_out_as_its_platform_documents_it() {
    let cluster = Cluster::start().await.unwrap();
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    let cases = cases();
    let mut receivers = Vec::new();
    for case in &cases {
        let project = json!({ "name": case.name, "profile": case.profile });
        cluster
            .admin
            .ok(Method::POST, "/v1/projects", Some(&project))
            .await
            .unwrap();
        let receiver = Receiver::start().await;
        let webhook = case.webhook.clone();
        let created = cluster.admin.create_webhook(case.name, "all", &receiver.url, webhook);
        created.await.unwrap();
        cluster.active(case.name, "all").await.unwrap();
        receivers.push(receiver);
    }
    let runs = cases
        .iter()
        .zip(&receivers)
        .map(|(case, receiver)| differences(case, receiver, &producer));
    let wrong = futures::future::join_all(runs).await.concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    for case in &cases {
        let rejected = format!("/v1/projects/{}/rejected-events", case.name);
        assert_eq!(cluster.admin.list(&rejected).await.unwrap(), Vec::<Value>::new());
    }
}

/// Publishes each event type's example once the one before has arrived: not every platform says in a request which
/// event it is about.
async fn differences(case: &Case, receiver: &Receiver, producer: &Producer) -> Vec<String> {
    let mut wrong = Vec::new();
    // What came before was to check the endpoint.
    let checks = receiver.count();
    for (number, event_type) in catalogue::get(case.catalogue).unwrap().types.iter().enumerate() {
        let id = event_id(event_type.name);
        producer
            .publish(
                &format!("events.{}.{}", case.name, event_type.name),
                &[
                    ("Nats-Msg-Id", &format!("{}:{id}", case.name)),
                    ("Posthaste-Time", HAPPENED),
                ],
                event_type.example.trim_end(),
            )
            .await
            .unwrap();
        let what = format!("{} of {}", event_type.name, case.name);
        let received = eventually(&what, || async { receiver.received().get(checks + number).cloned() }).await;
        check_signature(&received, &id);
        wrong.extend(difference(case, event_type.name, &as_text(&received)));
    }
    wrong
}
