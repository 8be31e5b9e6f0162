//! A webhook's variables: what is protected goes in and never comes out.

use common::sign;
use proto_schemas::definition::MaybeSealed;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::*;

const W: &str = "/v1/projects/shop/webhooks";
const HOOK: &str = "/v1/projects/shop/webhooks/pager";
const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
/// Nobody may see this, or what comes of it.
const CANARY: &str = "canary-in-the-coal-mine";
const IN_BASE64: &str = "Y2FuYXJ5LWluLXRoZS1jb2FsLW1pbmU";

fn pager() -> Value {
    let mut new = simple("pager");
    new["secret"] = json!(SECRET);
    new["variables"] = json!([{ "key": "team", "value": "blue" }, { "key": "routing_key", "value": CANARY }]);
    new["transform"] = json!({ "key": "{{ variables.routing_key }}", "team": "{{ variables.team }}" });
    new
}

#[tokio::test]
async fn a_protected_variable_is_in_no_answer() {
    let world = World::new().await;
    let service = world.start().await;
    let (api, bucket, store) = (&service.client, world.bucket().await, world.store().await);
    let project = api.post("/v1/projects", json!({ "name": "shop" })).await;
    let made = api.post(W, pager()).await;
    assert_eq!(
        made["variables"],
        json!([
            { "key": "team", "value": "blue", "protected": false },
            { "key": "routing_key", "value": null, "protected": true },
        ])
    );
    let keep =
        json!({ "variables": [{ "key": "routing_key" }, { "key": "team", "value": "red" }], "description": "x" });
    let kept = api.patch(HOOK, keep).await;
    let dispatched = defined(&bucket, &key(&project, &made)).await.unwrap();
    let sealed = dispatched.variables.iter().find(|it| it.name == "routing_key").unwrap();
    assert!(matches!(&sealed.value, MaybeSealed::Sealed(_)), "{sealed:?}");

    let preview = async |path: &str, body: Value| {
        let (status, answer) = api.call(Method::POST, path, Some(body)).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    };
    let turned = json!({ "transform": { "t": "{{ variables.routing_key|to_base64 }} {{ variables }}" } });
    let fresh = json!({ "webhook": pager(), "type": "a" });
    let mut answers = vec![
        made.clone(),
        kept,
        api.get(HOOK).await,
        api.get(W).await,
        api.get(&format!("{HOOK}/revisions")).await,
        api.get(&format!("{HOOK}/revisions/1")).await,
        api.get(&format!("{HOOK}/revisions/1/diff")).await,
        api.get(&format!("{HOOK}/revisions/2/diff")).await,
        preview(&format!("{HOOK}:preview"), json!({ "type": "a" })).await,
        preview(&format!("{HOOK}:preview"), json!({ "type": "a", "changes": turned })).await,
        preview(&format!("{W}:preview"), fresh).await,
    ];
    let test = api
        .call(Method::POST, &format!("{HOOK}:test"), Some(json!({ "type": "a" })))
        .await;
    assert!(test.0.is_success(), "{}", test.1);
    answers.push(api.get(&format!("/v1/projects/shop/tests/{}", id(&test.1))).await);
    let export = api.open("/v1/projects/shop/attempts/export", &[]).await;
    answers.push(json!(export.text().await.unwrap()));
    let rows = store::webhooks::by_ids(&mut store.connection().await.unwrap(), &[dispatched.id]).await;
    answers.push(json!(format!("{rows:?} {dispatched:?}")));
    for answer in &answers {
        let text = answer.to_string();
        assert!(!text.contains(CANARY) && !text.contains(IN_BASE64), "{text}");
    }
    let diff = &answers[7]["changes"];
    assert!(diff.to_string().contains("/variables/"), "a change can be seen: {diff}");
    service.stop().await;
}

#[tokio::test]
async fn a_preview_masks_variables_and_nothing_in_it_tells_of_them() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    api.post(W, pager()).await;
    let changes = json!({ "transform": { "key": "{{ variables.routing_key }}", "no": "{{ variables.nobody }}" } });
    let body = json!({ "type": "a", "changes": changes });
    let (_, shown) = api.call(Method::POST, &format!("{HOOK}:preview"), Some(body)).await;
    let masked = shown["request"]["body"].as_str().unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(masked).unwrap(),
        json!({ "key": "***", "no": null })
    );
    assert_eq!(
        shown["warnings"],
        json!([{ "pointer": "#/transform/no", "expression": "variables.nobody",
            "detail": "neither the event nor the webhook has anything for `variables.nobody`" }])
    );
    let header = |shown: &Value, name: &str| {
        let headers = shown["request"]["headers"].as_array().unwrap();
        headers.iter().find(|header| header["key"] == name).unwrap().clone()
    };
    let hidden = json!({ "key": "webhook-signature", "value": null });
    assert_eq!(header(&shown, "webhook-signature"), hidden);

    // Signed by a secret of one's own choice, a signature would tell what stands there, a letter at a time; and so would
    // a template that fails for one letter and not for another.
    let letter = CANARY.chars().next().unwrap();
    for transform in [
        json!({ "a": "{{ variables.routing_key[0] }}" }),
        json!({ "a": format!("{{% if variables.routing_key[0] == '{letter}' %}}{{% for n in range(9000) %}}{{% for m in range(9000) %}}x{{% endfor %}}{{% endfor %}}{{% endif %}}") }),
        json!({ "a": format!("{{% if variables.routing_key[0] == '{letter}' %}}right{{% endif %}}") }),
    ] {
        let body = json!({ "type": "a", "changes": { "secret": "a secret of my own", "transform": transform } });
        let (status, shown) = api.call(Method::POST, &format!("{HOOK}:preview"), Some(body)).await;
        assert_eq!(status, StatusCode::OK, "{shown}");
        assert_eq!(header(&shown, "webhook-signature"), hidden);
        assert!(!shown["request"]["body"].to_string().contains("right"), "{shown}");
    }

    // Where nothing is protected, it is the signature of what would be sent.
    let body = json!({ "type": "a", "changes": { "variables": [] } });
    let (_, shown) = api.call(Method::POST, &format!("{HOOK}:preview"), Some(body)).await;
    let text = |name: &str| header(&shown, name)["value"].as_str().unwrap().to_owned();
    let (id, timestamp) = (text("webhook-id"), text("webhook-timestamp").parse().unwrap());
    let key = sign::Key::parse(SECRET).unwrap();
    let sent = shown["request"]["body"].as_str().unwrap();
    let expected = sign::standard_webhooks(&id, timestamp, sent.as_bytes(), [&key]);
    assert_eq!(text("webhook-signature"), expected);
    service.stop().await;
}

#[tokio::test]
async fn a_template_puts_its_secret_into_a_protected_variable() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    let new = json!({ "name": "pager", "template": "pagerduty", "blanks": { "routing_key": CANARY } });
    let made = api.post(W, new).await;
    let variable = json!([{ "key": "routing_key", "value": null, "protected": true }]);
    assert_eq!(made["variables"], variable);
    assert_eq!(made["transform"]["routing_key"], "{{ variables.routing_key }}");
    assert!(!made.to_string().contains(CANARY), "{made}");
    let template = api.get("/v1/templates/pagerduty").await;
    let variable = json!([{ "key": "routing_key", "value": "<routing_key>", "protected": true }]);
    assert_eq!(template["variables"], variable);
    service.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_variables_is_said_where_it_is() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    api.post(W, pager()).await;
    for (variables, pointer) in [
        (json!([{ "key": "a-b", "value": "1" }]), "#/variables/0/key"),
        (
            json!([{ "key": "a", "value": "1" }, { "key": "a", "value": "2" }]),
            "#/variables/1/key",
        ),
        (json!([{ "key": "nobody" }]), "#/variables/0/value"),
        // A variable's name is a name within an expression: another case is another one.
        (json!([{ "key": "Routing_Key" }]), "#/variables/0/value"),
        (
            json!([{ "key": "routing_key", "protected": false }]),
            "#/variables/0/value",
        ),
        (json!([{ "key": "a", "valeu": "1" }]), "#/variables/0/valeu"),
        (json!(null), "#/variables"),
    ] {
        let body = json!({ "variables": variables });
        let (status, problem) = api.call(Method::PATCH, HOOK, Some(body.clone())).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {problem}");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
    service.stop().await;
}
