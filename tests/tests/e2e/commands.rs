//! Every service as a command: its help, its health, its end.

use std::process::Command;

use posthaste_tests::{Cluster, Producer, Receiver, Role, eventually, program};
use reqwest::Method;
use serde_json::json;

/// What an environment has that is not for a screen.
const SECRETS: [(&str, &str); 5] = [
    ("NATS_URL", "nats://user:mysecret@nats:4222"),
    ("DATABASE_URL", "postgres://user:mysecret@postgres/posthaste"),
    ("POSTHASTE_ADMIN_TOKEN", "ph_mysecretmysecretmysecret"),
    (
        "POSTHASTE_ENCRYPTION_KEYS",
        "k:mysecretmysecretmysecretmysecretmysecretm0=",
    ),
    ("POSTHASTE_SMTP_PASSWORD", "mysecret"),
];

#[tokio::test]
async fn every_service_explains_itself() {
    for role in Role::ALL {
        let output = Command::new(program().unwrap())
            .args([role.name(), "--help"])
            .envs(SECRETS)
            .output()
            .unwrap();
        assert!(output.status.success());
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(!help.contains("mysecret"), "{}: {help}", role.name());
        for word in ["--listen", "NATS_URL", "POSTHASTE_LISTEN", "--ready-file"] {
            assert!(help.contains(word), "{}: {word} is not in\n{help}", role.name());
        }
    }
    // Each is a program of its own name, too.
    for role in Role::ALL {
        let own = program().unwrap().with_file_name(role.name());
        let output = Command::new(&own)
            .arg("--help")
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}", own.display()));
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && help.contains("--listen"), "{help}");
    }
    let output = Command::new(program().unwrap()).arg("--help").output().unwrap();
    let help = String::from_utf8_lossy(&output.stdout);
    assert!(
        ["dev", "ingest", "dispatcher", "retry-scheduler", "config-api"]
            .iter()
            .all(|word| help.contains(word)),
        "{help}"
    );
}

#[tokio::test]
async fn every_service_says_how_it_is_and_stops_when_asked() {
    let mut cluster = Cluster::start().await.unwrap();
    let receiver = Receiver::start().await;
    cluster.admin.create_project("acme").await.unwrap();
    cluster
        .create_webhook("acme", "all", &receiver.url, json!({}))
        .await
        .unwrap();
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    producer.publish_many("acme", "a", 10).await;
    eventually("the events", || async { (receiver.count() == 10).then_some(()) }).await;

    for role in Role::ALL {
        for path in ["/livez", "/readyz", "/metrics"] {
            let (status, text) = cluster.text(role, path).await.unwrap();
            assert_eq!(status, 200, "{} {path}: {text}", role.name());
            assert!(path != "/metrics" || text.contains("# TYPE"), "{}: {text}", role.name());
        }
    }
    let (_, metrics) = cluster.text(Role::Dispatcher, "/metrics").await.unwrap();
    assert!(
        metrics.contains("posthaste_attempts_total{") && metrics.contains("outcome=\"delivered\""),
        "{metrics}"
    );
    for role in Role::ALL {
        cluster.terminate(role).await.unwrap();
    }
    for role in Role::ALL {
        cluster.restart(role).await.unwrap();
    }
    producer.publish("events.acme.again", &[], "1").await.unwrap();
    eventually("an event after the restart", || async {
        (receiver.count() == 11).then_some(())
    })
    .await;
    let log = cluster
        .admin
        .call(Method::GET, "/v1/projects/acme/attempts", None)
        .await
        .unwrap();
    assert_eq!(log.0.as_u16(), 200);
}
