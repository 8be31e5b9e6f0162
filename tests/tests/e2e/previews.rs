//! A preview is what goes out.

use std::collections::BTreeMap;

use posthaste_tests::{Cluster, Producer, Receiver, eventually};
use proto_schemas::catalogue;
use reqwest::Method;
use serde_json::{Value, json};

/// Headers that are of the connection, or of the event and the moment.
const DIFFER: [&str; 5] = [
    "host",
    "content-length",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
];

#[tokio::test]
async fn a_preview_has_the_headers_and_the_body_that_the_event_then_goes_out_with() {
    let cluster = Cluster::start().await.unwrap();
    let producer = Producer::connect(&cluster.nats.url()).await.unwrap();
    let (api, receiver) = (&cluster.admin, Receiver::start().await);
    let project = json!({ "name": "acme", "profile": "cloudthinker" });
    api.ok(Method::POST, "/v1/projects", Some(&project)).await.unwrap();
    let example = catalogue::get("cloudthinker").unwrap().types;
    let example = example.iter().find(|it| it.name == "recommendation.created").unwrap();
    let data: Value = serde_json::from_str(example.example).unwrap();
    let plain = json!({ "headers": [{ "key": "X-Team", "value": "blue" }, { "key": "X-Key", "value": "k", "protected": true }] });
    let templated = json!({ "transform": { "text": "New {{type}}: {{data.title}}", "gone": "{{data.gone}}" } });
    for (number, (name, more)) in [("plain", plain), ("templated", templated)].into_iter().enumerate() {
        let url = format!("{}/{name}", receiver.url);
        cluster.create_webhook("acme", name, &url, more).await.unwrap();
        let path = format!("/v1/projects/acme/webhooks/{name}:preview");
        let shown = api
            .ok(Method::POST, &path, Some(&json!({ "type": example.name })))
            .await
            .unwrap();
        // The same event: its id and its time are in the body, and the body in the signature.
        let headers = [
            (
                "Nats-Msg-Id",
                format!("acme:{}", shown["event"]["id"].as_str().unwrap()),
            ),
            (
                "Posthaste-Time",
                shown["event"]["timestamp"].as_str().unwrap().to_owned(),
            ),
        ];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = serde_json::to_string(&data).unwrap();
        let body = if number == 0 { example.example.trim_end() } else { &body };
        producer
            .publish("events.acme.recommendation.created", &headers, body)
            .await
            .unwrap();
        let path = format!("/hook/{name}");
        let received = eventually(&format!("the event at {name}"), || async {
            receiver.received().into_iter().find(|request| request.path == path)
        })
        .await;

        assert_eq!(shown["request"]["url"], url);
        assert_eq!(shown["request"]["body"], std::str::from_utf8(&received.body).unwrap());
        let told: BTreeMap<&str, &Value> = shown["request"]["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|header| (header["key"].as_str().unwrap(), &header["value"]))
            .collect();
        for (name, value) in received
            .headers
            .iter()
            .filter(|(name, _)| !DIFFER.contains(&name.as_str()))
        {
            match told[name.as_str()] {
                Value::Null => assert_eq!(name, "x-key", "only what is protected is left out"),
                shown => assert_eq!(shown, value.to_str().unwrap(), "{name}"),
            }
        }
        let sent = received
            .headers
            .keys()
            .filter(|name| !DIFFER.contains(&name.as_str()))
            .count();
        let shown = told.keys().filter(|name| !DIFFER.contains(name)).count();
        assert_eq!(sent, shown, "{told:?}");
        api.ok(Method::DELETE, &format!("/v1/projects/acme/webhooks/{name}"), None)
            .await
            .unwrap();
    }
}
