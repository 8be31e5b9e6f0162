//! The façades, by clients and documents of others: the published client `ubiops`, 1NCE's curl lines, the libraries
//! `standardwebhooks`, and the receivers that CloudThinker documents.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use posthaste_tests::{ADMIN_TOKEN, Answer, Api, Cluster, Received, Receiver, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::clients::{client, python, root, run};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

async fn create_project(api: &Api, name: &str, profile: &str) {
    let project = json!({ "name": name, "profile": profile });
    api.ok(Method::POST, "/v1/projects", Some(&project)).await.unwrap();
}

/// A token that is good for this project.
async fn token(api: &Api, project: &str) -> String {
    let path = format!("/v1/projects/{project}/tokens");
    let made = api.ok(Method::POST, &path, Some(&json!({ "name": "client" }))).await;
    made.unwrap()["token"].as_str().unwrap().to_owned()
}

async fn publish(cluster: &Cluster, project: &str, event: &Value) {
    let path = format!("/v1/projects/{project}/events");
    let (status, answer) = cluster.admin.intake(&path, event).await.unwrap();
    assert_eq!(status.as_u16(), 202, "{answer}");
}

async fn request_number(receiver: &Receiver, number: usize) -> Received {
    eventually(&format!("request {number}"), || async {
        receiver.received().get(number - 1).cloned()
    })
    .await
}

/// The address of a port that was free a moment ago.
async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}/hook", listener.local_addr().unwrap())
}

fn deployment_request(stage: &str, version: Option<&str>) -> Value {
    json!({
        "type": format!("deployment_request_{stage}"),
        "data": {
            "deployment_id": "4f6e0d3c-9a1b-4c55-8e0f-2b7d1a6c9e10",
            "deployment_name": "deployment-1",
            "deployment_version_id": "b1c2d3e4-5f60-4718-92a3-b4c5d6e7f809",
            "deployment_version_name": version,
            "request_id": "0a1b2c3d-4e5f-4607-8819-2a3b4c5d6e7f",
            "status": stage,
            "result": { "answer": 42 }
        }
    })
}

#[tokio::test]
async fn the_published_client_of_ubiops_works_unchanged() {
    let cluster = Cluster::start().await.unwrap();
    let receiver = Receiver::start().await;
    create_project(&cluster.admin, "acme", "ubiops").await;
    let token = token(&cluster.admin, "acme").await;
    let host = cluster.admin.api.clone();
    let nobody = nobody().await;
    let args = [&host, "acme", &token, &receiver.url, &nobody];
    let said = python("ubiops_client.py", &args, "").await;
    assert!(said.contains("under /v2 and under /v2.1"), "{said}");

    // What the client has made is in force: for its event, its object and its version, and with the header it protected.
    cluster.definitions_in_force().await.unwrap();
    let before = receiver.count();
    publish(&cluster, "acme", &deployment_request("failed", Some("v1"))).await;
    publish(&cluster, "acme", &deployment_request("completed", Some("v2"))).await;
    publish(&cluster, "acme", &deployment_request("completed", Some("v1"))).await;
    let received = request_number(&receiver, before + 1).await;
    assert_eq!(received.headers["authorization"], "Token 123");
    let body = received.json();
    assert_eq!(body["event"], "deployment_request_completed");
    assert_eq!(body["deployment_version_name"], "v1");
    assert_eq!(body.get("result"), None, "include_result is off");
    assert!(body["text"].as_str().is_some_and(|text| text.contains("deployment-1")));
    let log = eventually("all three on record", || async {
        let events = cluster.admin.list("/v1/projects/acme/events").await.unwrap();
        (events.len() == 3).then_some(events)
    });
    log.await;
    assert_eq!(receiver.count(), before + 1);
}

#[tokio::test]
async fn a_webhook_of_ubiops_is_one_of_v1_and_the_other_way_round() {
    let cluster = Cluster::start().await.unwrap();
    let api = &cluster.admin;
    create_project(api, "acme", "ubiops").await;
    let attributes = json!({ "object_type": "pipeline", "object_name": "p", "default_version": "true" });
    let hook = |name: &str, events: Value| json!({ "name": name, "url": "https://192.5.6.30/", "events": events, "attributes": attributes });
    for (name, events) in [
        ("one", json!(["pipeline_request_failed"])),
        ("two", json!(["pipeline_request_failed", "pipeline_request_completed"])),
    ] {
        api.ok(Method::POST, "/v1/projects/acme/webhooks", Some(&hook(name, events)))
            .await
            .unwrap();
    }
    let shown = api.ok(Method::GET, "/v2.1/projects/acme/webhooks", None).await.unwrap();
    let [one] = shown.as_array().unwrap().as_slice() else {
        panic!("{shown}")
    };
    assert_eq!(
        (
            &one["name"],
            &one["object_name"],
            &one["version"],
            &one["event"],
            &one["url"]
        ),
        (
            &json!("one"),
            &json!("p"),
            &Value::Null,
            &json!("pipeline_request_failed"),
            &json!("https://192.5.6.30")
        )
    );
    for method in [Method::GET, Method::DELETE] {
        let (status, problem) = api.call(method, "/v2/projects/acme/webhooks/two", None).await.unwrap();
        assert_eq!(status.as_u16(), 404, "{problem}");
        assert!(problem["error"].is_string(), "{problem}");
    }
    let changed = json!({ "timeout": 20, "labels": { "team": "blue" } });
    api.ok(Method::PATCH, "/v2/projects/acme/webhooks/one", Some(&changed))
        .await
        .unwrap();
    let one = api
        .ok(Method::GET, "/v1/projects/acme/webhooks/one", None)
        .await
        .unwrap();
    assert_eq!(
        (&one["timeout"], &one["labels"]["team"]),
        (&json!("20s"), &json!("blue"))
    );
    assert_eq!(one["attributes"], attributes, "{one}");
}

/// 1NCE's documented line, with our host, token and id in it; status and body of the answer.
async fn curl(cluster: &Cluster, line: &str, token: &str, id: &str) -> (u16, Value) {
    let documented = std::fs::read_to_string(client("once").join(format!("{line}.sh"))).unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut settings = String::from("silent\nshow-error\nwrite-out = \"\\n%{http_code}\"\n");
    // The documents leave the token out of most lines, as a thing that goes without saying.
    if !documented.contains("{token}") {
        settings += &format!("header = \"Authorization: Bearer {token}\"\n");
    }
    std::fs::write(home.path().join(".curlrc"), settings).unwrap();
    let ours = documented
        .replace("https://api.1nce.com", &cluster.admin.api)
        .replace("{token}", token)
        .replace("{integrationId}", id);
    assert_ne!(ours, documented);
    let ours = format!("CURL_HOME='{}'; export CURL_HOME\n{ours}", home.path().display());
    let said = run("sh", &["-c", &ours], "").await;
    let (body, status) = said.rsplit_once('\n').unwrap();
    let body = match body {
        "" => Value::Null,
        body => serde_json::from_str(body).unwrap_or_else(|_| panic!("{said}")),
    };
    (status.parse().unwrap(), body)
}

async fn integration(api: &Api, id: &str) -> Value {
    let list = api
        .ok(Method::GET, "/management-api/v1/integrate/clouds", None)
        .await
        .unwrap();
    let found = list["items"].as_array().unwrap().iter().find(|item| item["id"] == id);
    found.unwrap_or_else(|| panic!("{list}")).clone()
}

async fn integration_in_state(api: &Api, id: &str, state: &str) -> Value {
    eventually(state, || async {
        let found = integration(api, id).await;
        (found["state"] == state).then_some(found)
    })
    .await
}

#[tokio::test]
async fn the_documented_curl_lines_of_1nce_work() {
    let cluster = Cluster::start().await.unwrap();
    create_project(&cluster.admin, "acme", "once").await;
    let token = token(&cluster.admin, "acme").await;

    let (status, made) = curl(&cluster, "create", &token, "").await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(
        (&made["name"], &made["type"]),
        (&json!("webhook-name-1"), &json!("WEBHOOK"))
    );
    assert_eq!(
        made["eventTypes"],
        json!([{ "type": "TELEMETRY_DATA", "version": "1.0.0" }])
    );
    assert!(!made.to_string().contains("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), "{made}");
    let id = made["id"].as_str().unwrap();

    let (status, problem) = curl(&cluster, "create", &token, "").await;
    assert_eq!(status, 409, "the same url again: {problem}");
    assert!(problem["error"].is_string());

    let (status, list) = curl(&cluster, "list", &token, "").await;
    assert_eq!(
        (status, &list["page"], &list["pageAmount"]),
        (200, &json!(1), &json!(1))
    );
    let [item] = list["items"].as_array().unwrap().as_slice() else {
        panic!("{list}")
    };
    for member in [
        "id",
        "name",
        "state",
        "type",
        "createdTime",
        "updatedTime",
        "eventTypes",
    ] {
        assert!(!item[member].is_null(), "{member}: {item}");
    }
    let time = item["createdTime"].as_str().unwrap();
    assert!(
        time.len() == "2022-11-22T12:16:30.814Z".len() && time.ends_with('Z'),
        "{time}"
    );
    assert_eq!(item.get("lastSuccessfulMessageDelivery"), None);

    let (status, edited) = curl(&cluster, "edit", &token, id).await;
    assert_eq!(status, 200, "{edited}");
    assert_eq!(
        edited["eventTypes"],
        json!([{ "type": "LIFECYCLE", "version": "1.0.0" }])
    );
    assert_eq!(edited["url"], "https://www.example.com/");
    assert_eq!((&edited["id"], &edited["name"]), (&made["id"], &made["name"]));

    // The key that the documents give is kept as a secret, whichever side it came from.
    let stored = cluster
        .admin
        .ok(Method::GET, &format!("/v1/projects/acme/webhooks/{id}"), None)
        .await
        .unwrap();
    assert_eq!(
        stored["headers"],
        json!([{ "key": "x-api-key", "value": null, "protected": true }])
    );

    // A token for every project names none; a wrong one is none.
    let (status, problem) = curl(&cluster, "list", ADMIN_TOKEN, "").await;
    assert_eq!(status, 403, "{problem}");
    assert!(problem["error"].as_str().unwrap().contains("/tokens"), "{problem}");
    assert_eq!(curl(&cluster, "edit", "ph_wrong", id).await.0, 401);
    let absent = "0190163d-8694-739b-aea5-966c26f8ad91";
    for line in ["edit", "test", "restart"] {
        assert_eq!(curl(&cluster, line, &token, absent).await.0, 404, "{line}");
    }
}

#[tokio::test]
async fn an_integration_fails_after_five_messages_and_is_restarted() {
    let cluster = Cluster::start().await.unwrap();
    create_project(&cluster.admin, "acme", "once").await;
    let token = token(&cluster.admin, "acme").await;
    let api = cluster.admin.with_token(&token);
    let answer = Arc::new(AtomicU16::new(500));
    let told = Arc::clone(&answer);
    let receiver = Receiver::scripted(move |_, _| Answer::status(told.load(Ordering::SeqCst))).await;
    let new = json!({ "name": "sensors", "url": receiver.url, "headers": { "x-device": ":iccid:" } });
    let made = api
        .ok(Method::POST, "/management-api/v1/integrate/clouds/webhooks", Some(&new))
        .await
        .unwrap();
    let id = made["id"].as_str().unwrap().to_owned();
    integration_in_state(&api, &id, "INTEGRATION_ACTIVE").await;
    cluster.definitions_in_force().await.unwrap();

    // A test never changes the state, however it ends.
    for number in 1..=6 {
        let (status, test) = curl(&cluster, "test", &token, &id).await;
        assert!((200..300).contains(&status), "{status} {test}");
        request_number(&receiver, number).await;
    }
    let tests = receiver.count();
    let example = proto_schemas::catalogue::get("once").unwrap().types[1].example;
    let example: Value = serde_json::from_str(example).unwrap();
    let event = json!({ "type": "TELEMETRY_DATA", "data": example });
    for number in 1..=5 {
        assert_eq!(integration(&api, &id).await["state"], "INTEGRATION_ACTIVE");
        publish(&cluster, "acme", &event).await;
        request_number(&receiver, tests + number).await;
    }
    let failed = integration_in_state(&api, &id, "INTEGRATION_FAILED").await;
    assert_eq!(failed.get("lastSuccessfulMessageDelivery"), None);

    answer.store(204, Ordering::SeqCst);
    let (status, restarted) = curl(&cluster, "restart", &token, &id).await;
    assert!((200..300).contains(&status), "{status} {restarted}");
    integration_in_state(&api, &id, "INTEGRATION_ACTIVE").await;
    cluster.definitions_in_force().await.unwrap();
    let before = receiver.count();
    publish(&cluster, "acme", &event).await;
    let received = request_number(&receiver, before + 1).await;
    assert_eq!(
        received.headers["x-device"],
        example["device"]["iccid"].as_str().unwrap()
    );
    let delivered = eventually("the time of the delivery", || async {
        let found = integration(&api, &id).await;
        found["lastSuccessfulMessageDelivery"].as_str().map(str::to_owned)
    });
    assert!(delivered.await.ends_with('Z'));
    assert_eq!(integration(&api, &id).await["state"], "INTEGRATION_ACTIVE");
}

/// Requests as `verify.py` and `verify.mjs` read them.
fn for_verification(requests: &[Received]) -> String {
    let requests: Vec<Value> = requests
        .iter()
        .map(|request| {
            let headers: serde_json::Map<String, Value> = request
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
                .collect();
            json!({ "headers": headers, "body": std::str::from_utf8(&request.body).unwrap() })
        })
        .collect();
    json!({ "secret": SECRET, "requests": requests }).to_string()
}

#[tokio::test]
async fn receivers_that_others_wrote_take_what_comes() {
    let cluster = Cluster::start().await.unwrap();
    let api = &cluster.admin;
    let (standard, cloudthinker, github) = (
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
    );
    create_project(api, "acme", "standard").await;
    create_project(api, "workspace", "cloudthinker").await;
    let secret = json!({ "secret": SECRET });
    api.create_webhook("acme", "standard", &standard.url, secret.clone())
        .await
        .unwrap();
    api.create_webhook("workspace", "lambda", &cloudthinker.url, secret)
        .await
        .unwrap();
    let dispatch = json!({
        "secret": SECRET,
        "transform": { "event_type": "recommendation-created", "client_payload": { "title": "{{data.title}}" } }
    });
    cluster
        .create_webhook("workspace", "github", &github.url, dispatch)
        .await
        .unwrap();

    let title = "Right-size \"EC2\" instance i-0abc123 \u{2192} \u{fc}";
    let example = proto_schemas::catalogue::get("cloudthinker").unwrap();
    let example = example
        .types
        .iter()
        .find(|it| it.name == "recommendation.created")
        .unwrap();
    let mut data: Value = serde_json::from_str(example.example).unwrap();
    data["title"] = json!(title);
    for project in ["acme", "workspace"] {
        publish(
            &cluster,
            project,
            &json!({ "type": "recommendation.created", "data": data }),
        )
        .await;
        publish(
            &cluster,
            project,
            &json!({ "type": "recommendation.created", "data": data, "id": "second" }),
        )
        .await;
    }
    for receiver in [&standard, &cloudthinker, &github] {
        request_number(receiver, 2).await;
    }

    let modules = root().join(".tools/node");
    let script = client("verify.mjs");
    let input = for_verification(&standard.received());
    let args = [script.to_str().unwrap(), modules.to_str().unwrap()];
    for said in [
        python("verify.py", &["standard"], &input).await,
        run("node", &args, &input).await,
    ] {
        assert_eq!(said.lines().count(), 2, "{said}");
        assert!(said.contains("second"), "{said}");
    }
    let input = for_verification(&cloudthinker.received());
    python("verify.py", &["cloudthinker"], &input).await;
    let said = python("verify.py", &["lambda"], &input).await;
    for line in said.lines() {
        assert_eq!(serde_json::from_str::<Value>(line).unwrap(), json!([data]));
    }
    let input = for_verification(&github.received());
    let said = python("verify.py", &["github"], &input).await;
    assert_eq!(
        said.lines().next(),
        Some(format!("New recommendation: {title}").as_str())
    );
    python("verify.py", &["cloudthinker"], &input).await;
}
