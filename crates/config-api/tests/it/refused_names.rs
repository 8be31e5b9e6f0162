//! Names that lead to where no webhook may go are refused when they are saved, wherever a url is given.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{World, simple};

/// A name whose shape is allowed, and which the hosts file leads to an address that is not.
const ALLOWED: [&str; 2] = ["--egress-allow-hosts", "localhost"];
const INSIDE: &str = "https://localhost/hook";

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_wherever_a_url_is_saved() {
    let world = World::new().await;
    let service = world.start_with(&ALLOWED).await;
    let client = &service.client;
    client.post("/v1/projects", json!({ "name": "shop" })).await;
    let webhook = client.post("/v1/projects/shop/webhooks", simple("slack")).await;
    let ubiops = json!({ "name": "ml", "profile": "ubiops" });
    client.post("/v1/projects", ubiops).await;

    let mut wanted = simple("inside");
    wanted["url"] = json!(INSIDE);
    let tokens_from = |url: &str| {
        json!({
            "type": "oauth2_client_credentials",
            "token_url": url,
            "client_id": "me",
            "client_secret": "hidden",
        })
    };
    let mut authenticated = simple("authenticated");
    authenticated["authentication"] = tokens_from(INSIDE);
    let hook = "/v1/projects/shop/webhooks/slack";
    let mut taken = Vec::new();
    for (method, path, body, pointer) in [
        (Method::POST, "/v1/projects/shop/webhooks", wanted, "#/url"),
        (
            Method::POST,
            "/v1/projects/shop/webhooks",
            authenticated,
            "#/authentication/token_url",
        ),
        (Method::PATCH, hook, json!({ "url": INSIDE }), "#/url"),
        (
            Method::PATCH,
            hook,
            json!({ "authentication": tokens_from(INSIDE) }),
            "#/authentication/token_url",
        ),
    ] {
        let (status, problem) = client.call(method.clone(), path, Some(body.clone())).await;
        let error = &problem["errors"][0];
        let told = (status, error["pointer"].as_str(), error["detail"].as_str());
        let refused = (
            StatusCode::UNPROCESSABLE_ENTITY,
            Some(pointer),
            Some("target address not allowed"),
        );
        if told != refused {
            taken.push(format!("{method} {body}: {status} {problem}"));
        }
    }
    // UbiOps' own API has tests of webhooks that are not saved.
    let test = |url: &str| {
        json!({
            "url": url,
            "object_type": "deployment",
            "object_name": "deployment-1",
            "event": "deployment_request_completed",
        })
    };
    let path = "/v2.1/projects/ml/webhooks-tests";
    let (status, problem) = client.call(Method::POST, path, Some(test(INSIDE))).await;
    if !(status.is_client_error() && problem.to_string().contains("target address not allowed")) {
        taken.push(format!("a test of UbiOps: {status} {problem}"));
    }
    assert_eq!(taken, Vec::<String>::new());
    let unchanged = client.get(hook).await;
    assert_eq!(unchanged["revision"], webhook["revision"]);
    // One that leads outside, or nowhere yet, is saved: it is the name that was refused, and not what else was said.
    let elsewhere = json!({ "url": "https://nowhere.invalid/hook" });
    let (status, answer) = client.call(Method::PATCH, hook, Some(elsewhere)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let (status, answer): (StatusCode, Value) = client
        .call(Method::POST, path, Some(test("https://nowhere.invalid/")))
        .await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    service.stop().await;
}
