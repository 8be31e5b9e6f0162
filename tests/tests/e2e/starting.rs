//! A service that cannot start says why, and what to do.

use std::process::Command;

use posthaste_tests::{Cluster, Role, program};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

fn refusal(arguments: &[&str], env: &[(&str, &str)]) -> String {
    let output = Command::new(program().unwrap())
        .args(arguments)
        .env_remove("DATABASE_URL")
        .env_remove("NATS_URL")
        .envs(env.iter().copied())
        .output()
        .unwrap();
    assert!(!output.status.success(), "{arguments:?} should have been refused");
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// Greets like a nats-server of this version, and answers pings; enough for a client to connect.
async fn greet_as_nats(version: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (read, mut write) = stream.into_split();
            let info = json!({ "server_id": "old", "version": version, "proto": 1, "max_payload": 1_048_576, "headers": true });
            if write.write_all(format!("INFO {info}\r\n").as_bytes()).await.is_err() {
                continue;
            }
            let mut lines = BufReader::new(read).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if line == "PING" && write.write_all(b"PONG\r\n").await.is_err() {
                    break;
                }
            }
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_that_is_too_old_is_refused_with_the_version_that_is_needed() {
    let url = greet_as_nats("2.9.10").await;
    let said = refusal(&["ingest", "--listen", "127.0.0.1:0"], &[("NATS_URL", &url)]);
    assert!(said.contains("2.9.10") && said.contains("2.12"), "{said}");
}

#[tokio::test]
async fn a_start_that_cannot_succeed_says_what_to_do() {
    let cluster = Cluster::start().await.unwrap();
    let nats = cluster.nats.url();
    let key = "k:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    let taken = cluster.url(Role::Ingest).unwrap();
    let taken = taken.strip_prefix("http://").unwrap();
    let port = taken.rsplit(':').next().unwrap();
    let said = refusal(&["ingest", "--listen", taken], &[("NATS_URL", &nats)]);
    assert!(
        said.contains("--listen") && said.contains(port),
        "a port in use: {said}"
    );

    let nowhere = ["--listen", "127.0.0.1:0", "--startup-timeout", "1s"];
    let said = refusal(
        &[&["ingest"], nowhere.as_slice()].concat(),
        &[("NATS_URL", "nats://127.0.0.1:1")],
    );
    assert!(
        said.contains("NATS_URL") && said.contains("127.0.0.1:1"),
        "no NATS: {said}"
    );

    let said = refusal(
        &["retry-scheduler", "--listen", "127.0.0.1:0", "--startup-timeout", "1s"],
        &[
            ("NATS_URL", &nats),
            ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"),
        ],
    );
    assert!(said.contains("DATABASE_URL"), "no Postgres: {said}");

    let said = refusal(&["dispatcher", "--listen", "127.0.0.1:0"], &[("NATS_URL", &nats)]);
    assert!(said.contains("POSTHASTE_ENCRYPTION_KEYS"), "no key: {said}");

    let said = refusal(
        &["config-api", "--listen", "127.0.0.1:0"],
        &[
            ("NATS_URL", &nats),
            ("DATABASE_URL", &cluster.postgres.url()),
            ("POSTHASTE_ENCRYPTION_KEYS", key),
        ],
    );
    assert!(said.contains("POSTHASTE_ADMIN_TOKEN"), "no admin token: {said}");

    let said = refusal(
        &["ingest", "--listen", "127.0.0.1:0", "--max-event-bytes", "2MiB"],
        &[("NATS_URL", &nats)],
    );
    assert!(said.contains("max_payload"), "an event larger than NATS takes: {said}");
}
