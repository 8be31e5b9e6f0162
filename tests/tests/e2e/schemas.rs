//! Events are checked by the schemas of their types.

use std::time::Duration;

use posthaste::local::Folder;
use posthaste_tests::{Api, Cluster, Producer, Receiver, Setup, eventually, eventually_within};
use reqwest::Method;
use serde_json::{Value, json};

/// What the API promises.
const SOON: Duration = Duration::from_secs(1);

fn documented(catalogue: &str, event_type: &str) -> &'static str {
    let catalogue = proto_schemas::catalogue::get(catalogue).unwrap();
    let found = catalogue.types.iter().find(|found| found.name == event_type);
    found.unwrap().example
}

async fn project(api: &Api, name: &str, profile: &str) {
    let body = json!({ "name": name, "profile": profile });
    api.ok(Method::POST, "/v1/projects", Some(&body)).await.unwrap();
}

fn pointers(answer: &Value) -> Vec<&str> {
    let errors = answer["errors"].as_array().into_iter().flatten();
    errors.map(|error| error["pointer"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_event_that_its_schema_refuses_is_refused_over_http_and_set_aside_on_nats() {
    let cluster = Cluster::start().await.unwrap();
    let (api, receiver) = (&cluster.admin, Receiver::start().await);
    project(api, "thinker", "cloudthinker").await;
    cluster
        .create_webhook("thinker", "all", &receiver.url, json!({}))
        .await
        .unwrap();
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    let event_type = "recommendation.created";
    let good = documented("cloudthinker", event_type).trim();
    let data: Value = serde_json::from_str(good).unwrap();
    let mut wrong = data.clone();
    wrong["potential_savings"] = json!("a lot");
    wrong.as_object_mut().unwrap().remove("title");

    let path = "/v1/projects/thinker/events";
    let posted = |data: &Value| json!({ "type": event_type, "data": data });
    let (status, answer) = api.intake(path, &posted(&wrong)).await.unwrap();
    assert_eq!(status.as_u16(), 422, "{answer}");
    let mut found = pointers(&answer);
    found.sort_unstable();
    assert_eq!(found, ["#/data/potential_savings", "#/data/title"]);

    let batch = json!({ "events": [posted(&data), posted(&wrong), { "type": "not.in.the.catalogue", "data": 1 }] });
    let (status, answer) = api.intake(&format!("{path}/batch"), &batch).await.unwrap();
    assert_eq!(status.as_u16(), 207, "{answer}");
    let items = answer["items"].as_array().unwrap();
    let statuses: Vec<_> = items.iter().map(|item| item["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [202, 422, 202]);
    assert_eq!(pointers(&items[1]).len(), 2, "{answer}");

    let subject = format!("events.thinker.{event_type}");
    let unknown = [("Posthaste-Attributes", r#"{"type_version":"9"}"#)];
    producer.publish(&subject, &[], &wrong.to_string()).await.unwrap();
    producer.publish(&subject, &unknown, good).await.unwrap();
    let raw = [("Content-Type", "application/octet-stream")];
    producer.publish(&subject, &raw, good).await.unwrap();
    let id = [
        ("Nats-Msg-Id", "good"),
        ("Posthaste-Attributes", r#"{"type_version":"1.0.0"}"#),
    ];
    producer.publish(&subject, &id, good).await.unwrap();

    let set_aside = eventually("three events set aside", || async {
        let found = api.list("/v1/projects/thinker/rejected-events").await.unwrap();
        (found.len() == 3).then_some(found)
    })
    .await;
    let details: Vec<&str> = set_aside.iter().map(|it| it["detail"].as_str().unwrap()).collect();
    for says in [
        "/data/title: it is missing",
        "/data/potential_savings: it is not of type \"number\"",
        "/attributes/type_version: `recommendation.created` has no such version; there are: 1.0.0",
        "/data: it is not JSON by its Content-Type",
    ] {
        assert!(
            details.iter().any(|detail| detail.contains(says)),
            "{says}: {details:?}"
        );
    }
    assert!(
        set_aside.iter().all(|rejected| rejected["reason"] == "schema"),
        "{set_aside:?}"
    );

    // As many as were accepted, over HTTP and on NATS, and with the bytes that were published.
    eventually("what was accepted", || async { (receiver.count() == 3).then_some(()) }).await;
    let arrived = receiver.received();
    let arrived = arrived.iter().find(|request| request.json()["id"] == "good").unwrap();
    assert!(String::from_utf8_lossy(&arrived.body).contains(good), "{arrived:?}");
}

#[tokio::test]
async fn every_documented_event_is_accepted_over_nats_and_over_http() {
    let cluster = Cluster::start().await.unwrap();
    let (api, receiver) = (&cluster.admin, Receiver::start().await);
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    let mut published = 0;
    for name in ["cloudthinker", "uniskai"] {
        project(api, name, name).await;
        cluster
            .create_webhook(name, "all", &receiver.url, json!({}))
            .await
            .unwrap();
        cluster.active(name, "all").await.unwrap();
        for event_type in proto_schemas::catalogue::get(name).unwrap().types {
            let subject = format!("events.{name}.{}", event_type.name);
            producer.publish(&subject, &[], event_type.example).await.unwrap();
            let data: Value = serde_json::from_str(event_type.example).unwrap();
            let event = json!({ "type": event_type.name, "data": data });
            let (status, answer) = api
                .intake(&format!("/v1/projects/{name}/events"), &event)
                .await
                .unwrap();
            assert_eq!(status.as_u16(), 202, "{answer}");
            published += 2;
        }
    }
    eventually("all of them", || async {
        // The check has no body.
        let received = receiver.received();
        let events = received.iter().filter(|request| !request.body.is_empty());
        (events.count() == published).then_some(())
    })
    .await;
    assert_eq!(api.list("/v1/rejected-events").await.unwrap(), Vec::<Value>::new());
}

/// The `standard` profile with its events checked.
fn checking(name: &str, check: &str) -> String {
    let standard = include_str!("../../../deploy/profiles/standard.toml");
    let standard = standard.replace("name = \"standard\"", &format!("name = \"{name}\""));
    format!("{standard}\n[events]\nschema_check = \"{check}\"\n")
}

#[tokio::test]
async fn a_projects_own_type_takes_effect_within_a_second_and_as_strictly_as_the_project_wants() {
    let folder = Folder::temporary().unwrap();
    for check in ["warn", "reject"] {
        let path = folder.path().join(format!("mine-{check}.toml"));
        std::fs::write(path, checking(&format!("mine-{check}"), check)).unwrap();
    }
    let setup = Setup {
        env: vec![("POSTHASTE_PROFILES_DIR", folder.path().display().to_string())],
        ..Setup::default()
    };
    let cluster = Cluster::start_with(setup).await.unwrap();
    let (api, receiver) = (&cluster.admin, Receiver::start().await);
    for (name, profile) in [("strict", "mine-reject"), ("mild", "mine-warn"), ("off", "standard")] {
        project(api, name, profile).await;
        cluster
            .create_webhook(name, "all", &receiver.url, json!({}))
            .await
            .unwrap();
    }
    let order = json!({ "name": "order.placed", "schema": { "type": "object", "required": ["id"] } });
    for name in ["strict", "mild", "off"] {
        let path = format!("/v1/projects/{name}/event-types");
        api.ok(Method::POST, &path, Some(&order)).await.unwrap();
    }
    let post = async |project: &str, data: Value| {
        let event = json!({ "type": "order.placed", "data": data });
        api.intake(&format!("/v1/projects/{project}/events"), &event)
            .await
            .unwrap()
    };
    let refused = eventually_within(SOON, "an event refused by the new type", || async {
        let (status, answer) = post("strict", json!({})).await;
        (status.as_u16() == 422).then_some(answer)
    })
    .await;
    assert_eq!(pointers(&refused), ["#/data/id"]);
    assert_eq!(post("strict", json!({ "id": 1 })).await.0.as_u16(), 202);

    // A version of its own, and the type gone again.
    let path = "/v1/projects/strict/event-types/order.placed";
    let second = json!({ "version": "2.0.0", "schema": { "required": ["number"] } });
    api.ok(Method::POST, &format!("{path}/versions"), Some(&second))
        .await
        .unwrap();
    eventually_within(SOON, "an event refused by the new version", || async {
        let (status, answer) = post("strict", json!({ "id": 1 })).await;
        (status.as_u16() == 422).then(|| assert_eq!(pointers(&answer), ["#/data/number"]))
    })
    .await;
    api.ok(Method::DELETE, path, None).await.unwrap();
    eventually_within(SOON, "anything accepted", || async {
        (post("strict", json!({})).await.0.as_u16() == 202).then_some(())
    })
    .await;

    // What is only warned of is accepted and delivered.
    cluster.definitions_in_force().await.unwrap();
    let before = receiver.count();
    for name in ["mild", "off"] {
        let (status, answer) = post(name, json!({})).await;
        assert_eq!(status.as_u16(), 202, "{name}: {answer}");
    }
    eventually("both delivered", || async {
        (receiver.count() >= before + 2).then_some(())
    })
    .await;
    for (name, warnings) in [("mild", json!(["/data/id: it is missing"])), ("off", json!([]))] {
        let path = format!("/v1/projects/{name}/events");
        let event = eventually("the event on record", || async {
            api.list(&path).await.unwrap().into_iter().next()
        })
        .await;
        let path = format!("{path}/{}", event["id"].as_str().unwrap());
        let shown = api.ok(Method::GET, &path, None).await.unwrap();
        assert_eq!(shown["warnings"], warnings, "{name}: {shown}");
    }
    for name in ["mild", "off"] {
        let path = format!("/v1/projects/{name}/rejected-events");
        assert_eq!(api.list(&path).await.unwrap(), Vec::<Value>::new());
    }
}
