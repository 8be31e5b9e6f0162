//! The log shows what was sent and what came of it; attempts are followed as they are made.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use posthaste_tests::{Answer, Api, Cluster, Receiver, eventually};
use reqwest::Method;
use serde_json::{Value, json};

/// Nobody may see this.
const CANARY: &str = "Bearer canary-in-the-coal-mine";

async fn attempts(api: &Api, filter: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} attempts in the log"), || async {
        let found = api.list(&format!("/v1/projects/acme/attempts?{filter}")).await.unwrap();
        (found.len() >= count).then_some(found)
    })
    .await
}

async fn show(api: &Api, attempt: &Value) -> Value {
    let path = format!("/v1/projects/acme/attempts/{}", attempt["id"].as_str().unwrap());
    api.ok(Method::GET, &path, None).await.unwrap()
}

#[tokio::test]
async fn the_log_shows_requests_as_they_were_sent_and_no_secret_even_after_the_webhook_has_changed() {
    let cluster = Cluster::start().await.unwrap();
    let api = &cluster.admin;
    let receiver = Receiver::scripted(|_, before| Answer {
        headers: vec![("x-turn", before.to_string())],
        ..Answer::status(if before == 0 { 503 } else { 200 })
    })
    .await;
    api.create_project("acme").await.unwrap();
    let more = json!({
        "headers": [{ "key": "X-Team", "value": "blue" }, { "key": "Authorization", "value": CANARY }],
        "signature": { "standard_webhooks": true, "body_hmac_header": "X-Signature" },
        "transform": { "text": "{{data.title}} of {{type}}", "id": "{{id}}" },
        "retry": { "delays": ["0s", "0s"] },
    });
    let hook = cluster
        .create_webhook("acme", "books", &receiver.url, more)
        .await
        .unwrap();
    let secret = hook["secret"].as_str().unwrap();
    let event = json!({ "type": "book.read", "data": { "title": "\"Größe\"" }, "id": "b1" });
    api.intake("/v1/projects/acme/events", &event).await.unwrap();
    let log = attempts(api, "event_id=b1", 2).await;

    for changed in [false, true] {
        if changed {
            let other = json!({ "url": "http://127.0.0.1:4999/", "headers": [], "transform": null, "body": "raw" });
            api.ok(Method::PATCH, "/v1/projects/acme/webhooks/books", Some(&other))
                .await
                .unwrap();
        }
        for (attempt, (received, status)) in log.iter().rev().zip(receiver.received().iter().zip([503, 200])) {
            let shown = show(api, attempt).await;
            let request = &shown["request"];
            assert_eq!(
                (&request["reproduced"], &request["reason"]),
                (&json!(true), &Value::Null),
                "{shown}"
            );
            assert_eq!(
                (&request["method"], &request["url"]),
                (&json!("POST"), &json!(receiver.url))
            );
            assert_eq!(request["body"], std::str::from_utf8(&received.body).unwrap());
            let mut told = BTreeSet::new();
            for line in request["headers"].as_array().unwrap() {
                let key = line["key"].as_str().unwrap();
                told.insert(key.to_owned());
                match line["value"].as_str() {
                    Some(value) => assert_eq!(received.headers[key], value, "{key}"),
                    None => assert!(line["protected"] == true && received.headers.contains_key(key), "{key}"),
                }
            }
            let of_the_connection = ["host", "content-length"];
            let sent: BTreeSet<String> = received
                .headers
                .keys()
                .map(ToString::to_string)
                .filter(|key| !of_the_connection.contains(&key.as_str()))
                .collect();
            assert_eq!(told, sent);
            assert_eq!(
                shown["response"]["headers"][0],
                json!({ "key": "x-turn", "value": if status == 200 { "1" } else { "0" } })
            );
            let text = shown.to_string();
            for hidden in [CANARY, secret, received.headers["webhook-signature"].to_str().unwrap()] {
                assert!(!text.contains(hidden), "{text}");
            }
            let timings = &shown["timings"];
            assert!(
                timings["dns_ms"].is_null() && timings["first_byte_ms"].is_number(),
                "{shown}"
            );
            assert_eq!(
                timings["connect_ms"].is_number(),
                status == 503,
                "kept for the second: {shown}"
            );
            assert_eq!(timings["total_ms"], shown["duration_ms"]);
            assert!(receiver.url.contains(shown["peer"].as_str().unwrap()), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_protected_variable_is_in_the_request_and_masked_in_all_that_is_told_of_it() {
    const KEY: &str = "0123456789abcdeffedcba9876543210";
    let cluster = Cluster::start().await.unwrap();
    // As debugging pages do, it sends back what it got.
    let receiver = Receiver::scripted(|request, _| Answer {
        body: String::from_utf8_lossy(&request.body).into_owned(),
        ..Answer::status(200)
    })
    .await;
    let api = &cluster.admin;
    // All that is answered, written and kept is searched for it.
    api.canaries.add("routing key", KEY);
    api.create_project("acme").await.unwrap();
    let template = json!({ "template": "pagerduty", "blanks": { "routing_key": KEY } });
    cluster
        .create_webhook("acme", "pager", &receiver.url, template)
        .await
        .unwrap();
    let hook = "/v1/projects/acme/webhooks/pager";
    let data = json!({ "incident_id": "i1", "title": "Down", "severity": "high" });
    let event = json!({ "type": "incident.created", "data": data, "id": "i1" });
    api.intake("/v1/projects/acme/events", &event).await.unwrap();
    let log = attempts(api, "event_id=i1", 1).await;
    let received = receiver.received().remove(0);
    let body = std::str::from_utf8(&received.body).unwrap();
    let got: Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (&got["routing_key"], &got["dedup_key"]),
        (&json!(KEY), &json!("i1")),
        "{got}"
    );

    let mut told = Vec::new();
    for changed in [false, true] {
        if changed {
            let other = json!({ "transform": null, "body": "raw", "variables": [{ "key": "routing_key" }] });
            told.push(api.ok(Method::PATCH, hook, Some(&other)).await.unwrap());
        }
        let shown = show(api, &log[0]).await;
        let request = &shown["request"];
        assert_eq!(
            (&request["reproduced"], &request["reason"]),
            (&json!(true), &Value::Null),
            "{shown}"
        );
        assert_eq!(request["body"], body.replace(KEY, "***"));
        assert_eq!(request["body_sha256"], Value::Null, "a guess could be checked by it");
        assert_eq!(shown["response"]["body"], body.replace(KEY, "***"));
        told.push(shown);
    }
    // With another value, nobody can tell any more what was sent, and what is told is no other value.
    let other = json!({ "variables": [{ "key": "routing_key", "value": KEY.replace('0', "1") }] });
    told.push(api.ok(Method::PATCH, hook, Some(&other)).await.unwrap());
    let shown = show(api, &log[0]).await;
    assert_eq!(shown["request"]["reproduced"], false, "{shown}");
    let reason = shown["request"]["reason"].as_str().unwrap();
    assert!(reason.contains("a protected variable has changed"), "{reason}");
    told.push(shown);

    let back = json!({ "transform": { "k": "{{ variables.routing_key }}" }, "body": null,
        "variables": [{ "key": "routing_key", "value": KEY }] });
    told.push(api.ok(Method::PATCH, hook, Some(&back)).await.unwrap());
    cluster.definitions_in_force().await.unwrap();
    let test = json!({ "type": "a" });
    let test = api
        .ok(Method::POST, &format!("{hook}:test"), Some(&test))
        .await
        .unwrap();
    let path = format!("/v1/projects/acme/tests/{}", test["id"].as_str().unwrap());
    let tested = eventually("the test's request", || async {
        let test = api.ok(Method::GET, &path, None).await.unwrap();
        (!test["request"].is_null()).then_some(test)
    })
    .await;
    assert_eq!(tested["request"]["body"], r#"{"k":"***"}"#);
    assert_eq!(receiver.received().last().unwrap().body, format!(r#"{{"k":"{KEY}"}}"#));
    told.push(tested);
    let preview = json!({ "type": "incident.created" });
    told.push(
        api.ok(Method::POST, &format!("{hook}:preview"), Some(&preview))
            .await
            .unwrap(),
    );
    for path in [
        hook,
        "/v1/projects/acme/webhooks",
        "/v1/projects/acme/webhooks/pager/revisions",
        "/v1/projects/acme/webhooks/pager/revisions/1/diff",
        "/v1/projects/acme/webhooks/pager/revisions/4/diff",
        "/v1/projects/acme/deliveries",
        "/v1/projects/acme/events",
        "/v1/projects/acme/attempts/export?responses=true",
    ] {
        let answer = api.get(path, &[]).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        told.push(json!(answer.text().await.unwrap()));
    }
    for answer in told {
        let text = answer.to_string();
        assert!(!text.contains(KEY), "{text}");
    }
}

#[tokio::test]
async fn what_goes_wrong_is_named_found_and_exported() {
    let cluster = Cluster::start().await.unwrap();
    let api = &cluster.admin;
    let receiver = Receiver::scripted(|_, _| Answer::status(404)).await;
    api.create_project("acme").await.unwrap();
    let once = json!({ "retry": false });
    let nowhere = Receiver::start().await.url.clone();
    for (name, url) in [
        ("missing", receiver.url.clone()),
        ("plain", receiver.url.replace("http://", "https://")),
        ("nowhere", nowhere),
    ] {
        api.create_webhook("acme", name, &url, once.clone()).await.unwrap();
    }
    cluster.definitions_in_force().await.unwrap();
    for id in ["order-1", "order-2", "invoice-1"] {
        let event = json!({ "type": id.split('-').next().unwrap(), "data": 1, "id": id });
        api.intake("/v1/projects/acme/events", &event).await.unwrap();
    }
    attempts(api, "state=dead", 9).await;
    for (filter, count) in [
        ("error_class=tls", 3),
        ("error_class=connect&webhook=nowhere", 3),
        ("status=4xx", 3),
        ("search=order", 6),
        ("search=order&error_class=status", 2),
        ("type=invoice", 3),
        ("state=delivered", 0),
    ] {
        let found = api.list(&format!("/v1/projects/acme/attempts?{filter}")).await.unwrap();
        assert_eq!(found.len(), count, "{filter}: {found:?}");
    }
    let tls = attempts(api, "error_class=tls", 3).await;
    assert_eq!(tls[0]["tls_fault"], "not_tls", "{}", tls[0]);
    assert!(tls[0]["timings"]["connect_ms"].is_number() && tls[0]["timings"]["tls_ms"].is_number());
    let refused = attempts(api, "error_class=connect", 3).await;
    assert!(refused[0]["peer"].is_null() && refused[0]["timings"]["first_byte_ms"].is_null());

    let export = api
        .get("/v1/projects/acme/attempts/export?type=order", &[])
        .await
        .unwrap();
    let lines: Vec<Value> = export
        .text()
        .await
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 6);
}

#[tokio::test]
async fn an_attempt_is_in_the_live_tail_within_about_a_second() {
    let cluster = Cluster::start().await.unwrap();
    let (api, receiver) = (&cluster.admin, Receiver::start().await);
    api.create_project("acme").await.unwrap();
    cluster
        .create_webhook("acme", "all", &receiver.url, json!({}))
        .await
        .unwrap();
    let mut stream = api.get("/v1/projects/acme/attempts/stream", &[]).await.unwrap();
    let mut read = String::new();
    for n in 0..3 {
        let event = json!({ "type": "a", "data": n, "id": format!("e{n}") });
        api.intake("/v1/projects/acme/events", &event).await.unwrap();
        eventually("the delivery", || async { (receiver.count() > n).then_some(()) }).await;
        let delivered = Instant::now();
        while !read.contains(&format!(r#""event_id":"e{n}""#)) {
            let chunk = tokio::time::timeout(Duration::from_secs(10), stream.chunk())
                .await
                .unwrap();
            read += std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap();
        }
        // About a second on an idle machine; this one may be busy.
        assert!(
            delivered.elapsed() < Duration::from_secs(3),
            "{:?}",
            delivered.elapsed()
        );
    }
}
