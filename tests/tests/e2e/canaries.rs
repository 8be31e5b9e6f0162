//! Secrets that are looked for in everything: what services write, tell and send while all is done that can be done with
//! them, at the most talkative.

use std::process::Command;

use posthaste_tests::{Answer, Authority, Canaries, Cluster, Producer, Receiver, Role, Setup, eventually};
use reqwest::Method;
use serde_json::{Value, json};

const GIVEN: &str = "whsec_q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEj/+8=";
const HEADER: &str = "Bearer canary-of-a-protected-header-0123456789";
const ACCESS_TOKEN: &str = "canary-of-an-access-token-0123456789";
const PASSWORD: &str = "canary-of-a-password-0123456789";
const CLIENT_SECRET: &str = "canary-of-a-clients-secret-0123456789";
const VARIABLE: &str = "canary-of-a-protected-variable-0123456789";
/// What was never taken, and so is not known to anybody.
const REFUSED: [&str; 4] = [
    "canary-of-a-password-in-an-url",
    "canary-of-a-header\r\nthat-has-two-lines",
    "whsec_canary-of-a-secret-that-is-none!",
    "canary-of-a-key-that-is-none",
];

#[tokio::test]
async fn no_secret_is_in_what_is_written_told_or_sent() {
    let collector = Receiver::start().await;
    let env = vec![
        ("POSTHASTE_LOG", "trace".to_owned()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.clone()),
    ];
    let mut cluster = Cluster::start_with(Setup {
        env,
        ..Setup::default()
    })
    .await
    .unwrap();
    // What is answered is kept then, secrets included.
    cluster.admin = cluster.admin.with_keys("canary-");
    let api = &cluster.admin;
    let canaries = &api.canaries;
    REFUSED
        .iter()
        .for_each(|refused| canaries.add("refused value", refused.trim_end_matches("\r\nthat-has-two-lines")));
    canaries.add("protected header", HEADER);
    canaries.add("access token", ACCESS_TOKEN);
    canaries.add("protected variable", VARIABLE);
    let hooks = "/v1/projects/acme/webhooks";
    api.create_project("acme").await.unwrap();
    let post = async |path: &str, body: Value| api.call(Method::POST, path, Some(&body)).await.unwrap();

    // Every way in that a secret has, and those it has not.
    let (steady, failing) = (
        Receiver::start().await,
        Receiver::scripted(|_, _| Answer::status(500)).await,
    );
    let tokens = Receiver::scripted(|_, _| Answer {
        body: json!({ "access_token": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 0 }).to_string(),
        ..Answer::status(200)
    })
    .await;
    let own = Authority::new().unwrap().certificate("posthaste.example").unwrap();
    let tls = json!({ "client_certificate": own.pem, "client_key": own.key });
    let basic = json!({ "type": "basic", "username": "me", "password": PASSWORD });
    let credentials = json!({
        "type": "oauth2_client_credentials",
        "token_url": tokens.url,
        "client_id": "me",
        "client_secret": CLIENT_SECRET,
    });
    let headers = json!([{ "key": "Authorization", "value": HEADER, "protected": true }]);
    let variables = json!([{ "key": "routing_key", "value": VARIABLE }]);
    let transform =
        json!({ "key": "{{ variables.routing_key }} {{ variables.routing_key|to_base64 }}", "of": "{{ data }}" });
    for (name, receiver, more) in [
        ("steady", &steady, json!({ "secret": GIVEN, "headers": headers })),
        (
            "failing",
            &failing,
            json!({ "retry": { "delays": ["0s", "1s"] }, "headers": headers, "events": ["order.*", "posthaste.*"],
                    "variables": variables, "transform": transform }),
        ),
        ("keys", &steady, json!({ "secret_kind": "v1a" })),
        ("basic", &steady, json!({ "authentication": basic, "tls": tls })),
        ("token", &steady, json!({ "authentication": credentials })),
    ] {
        cluster.create_webhook("acme", name, &receiver.url, more).await.unwrap();
    }
    for wrong in [
        json!({ "name": "w", "events": ["*"], "url": format!("https://user:{}@example.com/", REFUSED[0]) }),
        json!({ "name": "w", "events": ["*"], "url": steady.url,
                "headers": [{ "key": "x-secret", "value": REFUSED[1] }] }),
        json!({ "name": "w", "events": ["*"], "url": steady.url, "secret": REFUSED[2] }),
        json!({ "name": "w", "events": ["*"], "url": steady.url,
                "tls": { "client_certificate": own.pem, "client_key": REFUSED[3] } }),
    ] {
        let (status, answer) = post(hooks, wrong).await;
        assert!(status.is_client_error(), "{status} {answer}");
        assert_eq!(
            canaries.find(answer.to_string().as_bytes()),
            Vec::<String>::new(),
            "{answer}"
        );
    }

    // Everything that is done with them.
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    producer.publish_many("acme", "order.paid", 4).await;
    let event = json!({ "type": "order.paid", "data": 1 });
    let (status, answer) = api.intake("/v1/projects/acme/events", &event).await.unwrap();
    assert_eq!(status, 202, "{answer}");
    eventually("what is dead", || async {
        let dead = api.list("/v1/projects/acme/dead-letters").await.unwrap();
        (dead.len() == 5).then_some(())
    })
    .await;
    for path in [
        "steady:test",
        "failing:test",
        "steady:preview",
        "keys:preview",
        "token:test",
        "token:preview",
        "basic:preview",
        "failing:preview",
        "keys:rotate-secret",
        "failing:pause",
        "failing:resume",
    ] {
        let (status, answer) = post(&format!("{hooks}/{path}"), json!({})).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
        // The answer to a rotation is where the new secret is shown; no other has any.
        if !path.contains("rotate") {
            assert_eq!(
                canaries.find(answer.to_string().as_bytes()),
                Vec::<String>::new(),
                "{path}: {answer}"
            );
        }
    }
    let rotated = post(&format!("{hooks}/steady:rotate-secret"), json!({})).await.1;
    assert!(rotated["secret"].is_string(), "{rotated}");
    post("/v1/projects/acme/replays", json!({ "states": ["delivered", "dead"] })).await;
    api.ok(
        Method::PATCH,
        &format!("{hooks}/steady"),
        Some(&json!({ "description": "changed" })),
    )
    .await
    .unwrap();
    eventually("all is made again", || async {
        let replays = api.list("/v1/projects/acme/replays").await.unwrap();
        replays.iter().all(|replay| replay["state"] == "finished").then_some(())
    })
    .await;
    api.ok(Method::DELETE, &format!("{hooks}/keys"), None).await.unwrap();

    // Somebody who is logged in, and the console's page.
    let cookie = api.log_in().await.unwrap();
    let browser = api.anonymous();
    for path in ["/v1/projects", "/v1/projects/acme/webhooks", "/console/"] {
        let answer = browser
            .get(path, &[("cookie", &cookie)])
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        assert_eq!(canaries.find(&answer), Vec::<String>::new(), "{path}");
    }

    // What is told: `ok` and `list` look at each answer themselves.
    for path in [
        "",
        "/webhooks",
        "/webhooks/steady",
        "/webhooks/token",
        "/webhooks/basic/revisions",
        "/webhooks/steady/revisions",
        "/webhooks/steady/revisions/1/diff",
        "/events",
        "/attempts",
        "/deliveries",
        "/dead-letters",
        "/replays",
        "/rejected-events",
        "/tokens",
        "/tests",
        "/reconciliation",
    ] {
        api.ok(Method::GET, &format!("/v1/projects/acme{path}"), None)
            .await
            .unwrap();
    }
    for attempt in api.list("/v1/projects/acme/attempts").await.unwrap() {
        let path = format!("/v1/projects/acme/attempts/{}", attempt["id"].as_str().unwrap());
        let shown = api.ok(Method::GET, &path, None).await.unwrap();
        assert_eq!(
            canaries.find(shown.to_string().as_bytes()),
            Vec::<String>::new(),
            "{shown}"
        );
    }
    let export = api
        .get("/v1/projects/acme/attempts/export", &[])
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(export.lines().count() >= 10, "{export}");
    assert_eq!(canaries.find(export.as_bytes()), Vec::<String>::new());
    for role in Role::ALL {
        let (_, metrics) = cluster.text(role, "/metrics").await.unwrap();
        assert_eq!(canaries.find(metrics.as_bytes()), Vec::<String>::new(), "{metrics}");
    }

    assert!(tokens.count() > 0);

    // What is sent: a protected header goes to its receiver, and what signs goes nowhere.
    let signing = Canaries::default();
    signing.add("given secret", GIVEN);
    signing.add("rotated secret", rotated["secret"].as_str().unwrap());
    // What access tokens are had with goes where they are had.
    signing.add("client's secret", CLIENT_SECRET);
    for request in steady.received().iter().chain(&failing.received()) {
        let sent = format!(
            "{} {:?} {}",
            request.path,
            request.headers,
            String::from_utf8_lossy(&request.body)
        );
        assert_eq!(signing.find(sent.as_bytes()), Vec::<String>::new(), "{sent}");
    }
    let traced = eventually("traces of every service", || async {
        let traces = collector.received();
        let names = ["ingest", "config-api"].map(str::as_bytes);
        let has = |name: &[u8]| {
            traces
                .iter()
                .any(|trace| trace.body.windows(name.len()).any(|part| part == name))
        };
        names.into_iter().all(has).then_some(traces)
    })
    .await;
    for trace in traced {
        assert_eq!(canaries.find(&trace.body), Vec::<String>::new());
    }

    // What is kept. Postgres' files are looked through at the end, like all others, but what is long is compressed there.
    let dump = Command::new("pg_dump")
        .arg(cluster.postgres.superuser_url())
        .output()
        .unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    assert!(
        String::from_utf8_lossy(&dump.stdout).contains("v1|test|"),
        "nothing is sealed"
    );
    let dump = String::from_utf8_lossy(&dump.stdout);
    assert!(dump.contains("\tcanary-0\t"), "no answer is kept");
    assert_eq!(canaries.find(dump.as_bytes()), Vec::<String>::new());
    // Searches them, and the services' logs.
    drop(cluster);
}
