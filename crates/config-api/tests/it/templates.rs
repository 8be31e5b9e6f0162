//! Webhooks made from templates, and what is refused of filters and transforms when they are saved.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::*;

const W: &str = "/v1/projects/shop/webhooks";

#[tokio::test]
async fn a_webhook_is_made_from_a_template_and_its_blanks() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    let slack = api.send(Method::GET, "/v1/templates/slack", &[], None).await;
    assert_eq!(slack.body["blanks"][0]["name"], "path", "{}", slack.body);

    let make = |body: Value| api.send(Method::POST, W, &[], Some(body));
    let made = make(json!({ "name": "slack", "template": "slack", "blanks": { "path": "T0/B0/X" } })).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(made.body["url"], "https://hooks.slack.com/services/T0/B0/X");
    assert_eq!(
        made.body["events"],
        json!(["recommendation.created", "incident.created"])
    );
    assert_eq!(
        made.body["transform"],
        json!({ "text": "New {{type}}: {{data.title}}" })
    );
    let given = json!({ "name": "other", "template": "slack", "blanks": { "path": "T0/B0/X" }, "events": ["a.*"] });
    assert_eq!(
        make(given).await.body["events"],
        json!(["a.*"]),
        "what is given comes first"
    );

    for (body, pointer, says) in [
        (json!({ "template": "slick" }), "#/template", "slack"),
        (json!({ "template": "slack" }), "#/blanks", "`path`"),
        (
            json!({ "template": "slack", "blanks": { "pfad": "x" } }),
            "#/blanks",
            "`path`",
        ),
        (json!({ "blanks": {} }), "#/blanks", "`template`"),
        (json!({}), "#/url", "missing field `url`"),
    ] {
        let mut body = body;
        body["name"] = json!("refused");
        let refused = make(body).await;
        assert_eq!(refused.status, 422, "{}", refused.body);
        assert_eq!(refused.body["errors"][0]["pointer"], pointer, "{}", refused.body);
        assert!(
            refused.body["errors"][0]["detail"].as_str().unwrap().contains(says),
            "{}",
            refused.body
        );
    }
    service.stop().await;
}

#[tokio::test]
async fn filters_and_transforms_that_are_none_are_refused_where_they_are_wrong() {
    let world = World::new().await;
    let service = world.start().await;
    let api = &service.client;
    api.post("/v1/projects", json!({ "name": "shop" })).await;
    for (field, value, pointer) in [
        (
            "filter",
            json!({ "data": { "amount": { "$gr": 3 } } }),
            "#/filter/data/amount/$gr",
        ),
        (
            "transform",
            json!({ "text": ["fine", "{{ data.title "] }),
            "#/transform/text/1",
        ),
    ] {
        let mut body = simple("w");
        body[field] = value;
        let refused = api.send(Method::POST, W, &[], Some(body)).await;
        assert_eq!(refused.status, 422, "{}", refused.body);
        assert_eq!(refused.body["errors"][0]["pointer"], pointer, "{}", refused.body);
    }
    service.stop().await;
}
