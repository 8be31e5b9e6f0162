//! The examples under `docs/examples` do what they say: what the publishers publish, the receivers verify.

use std::path::PathBuf;
use std::process::Stdio;

use posthaste_tests::{Cluster, eventually};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::clients::{root, tool};

fn example(name: &str) -> PathBuf {
    root().join("docs/examples").join(name)
}

/// A command in the environment that `make setup` makes.
fn command(program: &str, name: &str) -> Command {
    let mut command = match program {
        "python" => Command::new(tool("python")),
        program => Command::new(program),
    };
    command
        .arg(example(name))
        .kill_on_drop(true)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

struct ExampleReceiver {
    url: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

impl ExampleReceiver {
    async fn start(program: &str, name: &str) -> Self {
        let mut child = command(program, name)
            .args(["--listen", "127.0.0.1:0", "--exit-after", "2"])
            .env("WEBHOOK_SECRET", SECRET)
            .spawn()
            .unwrap_or_else(|error| panic!("{program} {name}: {error}; `make setup` installs what is missing"));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap().unwrap_or_default();
        let url = first.split_whitespace().find(|word| word.starts_with("http://"));
        let url = url
            .unwrap_or_else(|| panic!("{name} does not say where it listens: {first}"))
            .to_owned();
        Self { url, child, lines }
    }

    /// Waits for its end: it has had its two events, and refused neither.
    async fn finish(mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            said.push(line);
        }
        let status = self.child.wait().await.unwrap();
        assert!(status.success(), "{status}: {said:?}");
        said
    }
}

async fn publish(mut command: Command, body: &str) -> String {
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(body.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn what_the_example_publishers_publish_the_example_receivers_verify() {
    let cluster = Cluster::start().await.unwrap();
    let api = &cluster.admin;
    let receivers = [
        ("acme", ExampleReceiver::start("python", "receiver_standard.py").await),
        ("acme", ExampleReceiver::start("node", "receiver.mjs").await),
        (
            "workspace",
            ExampleReceiver::start("python", "receiver_cloudthinker.py").await,
        ),
    ];
    for (project, profile) in [("acme", "standard"), ("workspace", "cloudthinker")] {
        let body = json!({ "name": project, "profile": profile });
        api.ok(reqwest::Method::POST, "/v1/projects", Some(&body))
            .await
            .unwrap();
    }
    for (number, (project, receiver)) in receivers.iter().enumerate() {
        let secret = json!({ "secret": SECRET });
        cluster
            .create_webhook(project, &format!("example-{number}"), &receiver.url, secret)
            .await
            .unwrap();
    }

    for project in ["acme", "workspace"] {
        let mut python = command("python", "publish.py");
        python
            .args([project, "invoice.paid"])
            .env("NATS_URL", cluster.nats.url());
        let said = publish(python, r#"{"amount": 12}"#).await;
        assert!(said.contains(&format!("events.{project}.invoice.paid")), "{said}");
        let mut curl = command("sh", "publish.sh");
        curl.args(["--id", "order-7", project, "order.placed"])
            .env("POSTHASTE_TOKEN", posthaste_tests::ADMIN_TOKEN)
            .env("POSTHASTE_INGEST", &api.ingest);
        let said = publish(curl, r#"{"amount": 13}"#).await;
        assert!(said.starts_with("202") && said.contains("order-7"), "{said}");
    }

    for (_, receiver) in receivers {
        let said = receiver.finish().await.join("\n");
        assert!(said.contains("invoice.paid") && said.contains("order.placed"), "{said}");
    }
    for (project, count) in [("acme", 4), ("workspace", 2)] {
        eventually("all on record", || async {
            let log = api
                .list(&format!("/v1/projects/{project}/attempts?status=delivered"))
                .await
                .unwrap();
            (log.len() == count).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn every_example_explains_itself() {
    for (program, name) in [
        ("python", "publish.py"),
        ("sh", "publish.sh"),
        ("python", "receiver_standard.py"),
        ("python", "receiver_cloudthinker.py"),
        ("node", "receiver.mjs"),
    ] {
        let output = command(program, name).arg("--help").output().await.unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("usage"),
            "{name}: {output:?}"
        );
    }
}
