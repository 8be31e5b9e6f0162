//! Secrets rotated, and requests verified by what others wrote.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use posthaste_tests::{Answer, Api, Cluster, Producer, Received, Receiver, eventually, eventually_within};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn client(name: &str) -> PathBuf {
    root().join("tests/clients").join(name)
}

/// Runs a program to its end; whether it succeeded, and what it has written.
async fn run(program: PathBuf, args: &[&str], input: &Value) -> (bool, String) {
    let mut child = Command::new(&program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{program:?}: {error}; `make setup` installs what is missing"));
    let input = input.to_string();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn requests(received: &[&Received]) -> Value {
    let request = |received: &&Received| {
        let headers: serde_json::Map<String, Value> = received
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
            .collect();
        json!({ "headers": headers, "body": String::from_utf8(received.body.to_vec()).unwrap() })
    };
    received.iter().map(request).collect()
}

/// Whether the published libraries, in both languages, verify the request with this secret.
async fn verifies(received: &Received, secret: &str) -> bool {
    let input = json!({ "secret": secret, "requests": requests(&[received]) });
    let script = client("verify.py");
    let python = root().join(".tools/venv/bin/python");
    let (python, said) = run(python, &[script.to_str().unwrap(), "standard"], &input).await;
    let (script, modules) = (client("verify.mjs"), root().join(".tools/node"));
    let args = [script.to_str().unwrap(), modules.to_str().unwrap()];
    let (node, _) = run("node".into(), &args, &input).await;
    assert_eq!(python, node, "they agree: {said}");
    python
}

/// The `kid`s that Node's crypto verifies the request with, of the key set at this address.
async fn verifying_keys(address: &str, received: &Received) -> Vec<String> {
    let script = client("verify_keys.mjs");
    let input = json!({ "keys": address, "requests": requests(&[received]) });
    let (verified, said) = run("node".into(), &[script.to_str().unwrap()], &input).await;
    assert!(verified, "{said}");
    said.trim().split(',').map(str::to_owned).collect()
}

fn signatures(received: &Received) -> Vec<String> {
    let value = received.headers["webhook-signature"].to_str().unwrap();
    value.split(' ').map(str::to_owned).collect()
}

async fn rotate(cluster: &Cluster, body: Value) -> Value {
    let path = "/v1/projects/acme/webhooks/one:rotate-secret";
    let rotated = cluster.admin.ok(Method::POST, path, Some(&body)).await.unwrap();
    cluster.definitions_in_force().await.unwrap();
    rotated
}

async fn publish(producer: &Producer, id: &str) {
    let id = format!("acme:{id}");
    producer
        .publish("events.acme.a", &[("Nats-Msg-Id", &id)], r#"{"a":1}"#)
        .await
        .unwrap();
}

/// The last request of this event, once there are `count`.
async fn request(receiver: &Receiver, id: &str, count: usize) -> Received {
    eventually("the request", || async {
        let of_event = receiver.received().into_iter().filter(|it| it.event_id() == id);
        of_event.collect::<Vec<_>>().into_iter().nth(count - 1)
    })
    .await
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_rotated_secret_signs_beside_the_new_one_until_its_overlap_is_over() {
    let cluster = Cluster::start().await.unwrap();
    cluster.admin.create_project("acme").await.unwrap();
    let status = Arc::new(AtomicU16::new(500));
    let receiver = Receiver::scripted({
        let status = Arc::clone(&status);
        move |_, _| Answer::status(status.load(Ordering::Relaxed))
    })
    .await;
    let more = json!({
        "retry": { "delays": ["0s", "1s", "1s", "1s", "1s", "1s"] },
        "signature": { "standard_webhooks": true, "body_hmac_header": "X-Signature" },
    });
    let webhook = cluster
        .create_webhook("acme", "one", &receiver.url, more)
        .await
        .unwrap();
    let first = text(&webhook["secret"]);
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();

    publish(&producer, "e1").await;
    let attempt = request(&receiver, "e1", 1).await;
    assert_eq!(signatures(&attempt).len(), 1);
    assert!(verifies(&attempt, &first).await);

    // A retry is scheduled while the secret is rotated: what is sent is signed by the secrets of then.
    let second = text(&rotate(&cluster, json!({})).await["secret"]);
    let made = receiver.count();
    let retry = eventually("a retry", || async { receiver.received().into_iter().nth(made) }).await;
    assert_eq!(retry.event_id(), "e1");
    assert_eq!(signatures(&retry).len(), 2);
    assert!(verifies(&retry, &first).await && verifies(&retry, &second).await);
    let github = |secret: &str, received: &Received| {
        let secret = common::sign::Secret::parse(secret).unwrap();
        received.headers["x-signature"] == common::sign::body_hmac(&received.body, &secret)
    };
    assert!(
        github(&second, &retry),
        "a header with room for one has the current one's"
    );
    status.store(200, Ordering::Relaxed);

    // It has leaked: nothing is signed with it from the answer on.
    let third = text(&rotate(&cluster, json!({ "overlap": "0s" })).await["secret"]);
    publish(&producer, "e2").await;
    let attempt = request(&receiver, "e2", 1).await;
    assert_eq!(signatures(&attempt).len(), 1);
    assert!(verifies(&attempt, &third).await && !verifies(&attempt, &second).await);

    // At most three, the newest first; tests are signed like all else.
    for _ in 0..4 {
        rotate(&cluster, json!({ "overlap": "1h" })).await;
    }
    let path = "/v1/projects/acme/webhooks/one";
    let shown = cluster.admin.ok(Method::GET, path, None).await.unwrap();
    assert_eq!(shown["secrets"].as_array().unwrap().len(), 3);
    assert_eq!(shown["secrets"][0]["expires_at"], Value::Null);
    let before = receiver.count();
    let path = format!("{path}:test");
    cluster.admin.ok(Method::POST, &path, None).await.unwrap();
    let test = eventually("the test", || async { receiver.received().into_iter().nth(before) }).await;
    assert_eq!(signatures(&test).len(), 3);

    // By the dispatcher's clock: nothing is published when the overlap ends.
    let last = text(&rotate(&cluster, json!({ "overlap": "1s" })).await["secret"]);
    let mut number = 0;
    let attempt = eventually_within(Duration::from_secs(20), "the end of the overlap", || {
        number += 1;
        let (producer, receiver, id) = (&producer, &receiver, format!("o{number}"));
        async move {
            publish(producer, &id).await;
            let attempt = request(receiver, &id, 1).await;
            (signatures(&attempt).len() == 1).then_some(attempt)
        }
    })
    .await;
    assert!(verifies(&attempt, &last).await);
}

#[tokio::test]
async fn public_keys_are_fetched_without_a_token_and_verify_what_comes() {
    let cluster = Cluster::start().await.unwrap();
    let api: &Api = &cluster.admin;
    api.create_project("acme").await.unwrap();
    api.create_project("other").await.unwrap();
    let receiver = Receiver::start().await;
    let more = json!({ "secret_kind": "v1a" });
    let webhook = cluster
        .create_webhook("acme", "one", &receiver.url, more)
        .await
        .unwrap();
    assert_eq!(webhook.get("secret"), None, "a private key is nobody's business");
    assert!(text(&webhook["public_keys"][0]).starts_with("whpk_"));
    let address =
        |project: &str, webhook: &str| format!("{}/v1/projects/{project}/webhooks/{webhook}/jwks.json", api.api);
    let id = text(&webhook["id"]);
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    publish(&producer, "e1").await;
    let first = request(&receiver, "e1", 1).await;
    let keys = verifying_keys(&address("acme", &id), &first).await;
    assert_eq!(keys, [text(&webhook["secrets"][0]["id"])]);

    // Each key that is published verifies, the newest first; a shared secret beside them is not published.
    let rotated = rotate(&cluster, json!({ "kind": "v1" })).await;
    let secret = text(&rotated["secret"]);
    let rotated = rotate(&cluster, json!({ "kind": "v1a" })).await;
    publish(&producer, "e2").await;
    let second = request(&receiver, "e2", 1).await;
    let kinds: Vec<String> = signatures(&second)
        .iter()
        .map(|one| one.split_once(',').unwrap().0.to_owned())
        .collect();
    assert_eq!(kinds, ["v1a", "v1", "v1a"]);
    let keys = verifying_keys(&address("acme", &id), &second).await;
    assert_eq!(
        keys,
        [text(&rotated["secrets"][0]["id"]), text(&rotated["secrets"][2]["id"])]
    );
    assert!(verifies(&second, &secret).await);

    let (status, set) = api.text(&address("acme", &id)).await.unwrap();
    assert_eq!(status, 200);
    let set: Value = serde_json::from_str(&set).unwrap();
    for key in set["keys"].as_array().unwrap() {
        let mut members: Vec<&str> = key.as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x"], "nothing private");
    }
    for (project, webhook) in [
        ("other", id.as_str()),
        ("acme", "one"),
        ("acme", "00000000-0000-0000-0000-000000000000"),
    ] {
        assert_eq!(
            api.text(&address(project, webhook)).await.unwrap().0,
            404,
            "{project} {webhook}"
        );
    }

    let (status, problem) = api
        .call(
            Method::PATCH,
            "/v1/projects/acme/webhooks/one",
            Some(&json!({ "signature": { "standard_webhooks": true, "body_hmac_header": "X-Signature" } })),
        )
        .await
        .unwrap();
    assert_eq!(
        (status.as_u16(), &problem["errors"][0]["pointer"]),
        (422, &json!("#/signature/body_hmac_header"))
    );
}
