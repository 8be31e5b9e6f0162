//! What handlers built of these parts answer, through axum's router.

use std::time::Duration;

use axum::Router;
use axum::body::Body as AxumBody;
use axum::extract::DefaultBodyLimit;
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::*;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Webhook {
    name: String,
}

fn app() -> Router {
    let webhooks = post(async |Json(webhook): Json<Webhook>| Json(webhook))
        .get(async |Query(query): Query<PageQuery>| Json(query.limit));
    let routes = Router::new()
        .route("/webhooks", webhooks)
        .route("/attempts/{number}", get(async |Path(number): Path<u32>| Json(number)))
        .layer(DefaultBodyLimit::max(64));
    complete(routes)
}

async fn send(request: Request<AxumBody>) -> (StatusCode, Response, Value) {
    let (parts, body) = app().oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let json = serde_json::from_slice(&bytes).unwrap();
    (parts.status, Response::from_parts(parts, AxumBody::empty()), json)
}

fn post_json(body: impl Into<AxumBody>) -> Request<AxumBody> {
    Request::post("/webhooks")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap()
}

fn get_from(path: &str) -> Request<AxumBody> {
    Request::get(path).body(AxumBody::empty()).unwrap()
}

#[tokio::test]
async fn json_goes_in_and_out() {
    let (status, response, json) = send(post_json(r#"{"name":"a"}"#)).await;
    assert_eq!(status, 200);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    assert_eq!(json, serde_json::json!({ "name": "a" }));
}

#[tokio::test]
async fn an_unknown_field_is_a_422_that_names_it() {
    let (status, response, json) = send(post_json(r#"{"name":"a","nmae":"b"}"#)).await;
    assert_eq!(status, 422);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(json["errors"][0]["pointer"], "#/nmae");
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413_announced_or_not() {
    let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(64));
    assert_eq!(send(post_json(long.clone())).await.0, 413);

    let chunks = long
        .into_bytes()
        .chunks(10)
        .map(|c| Ok::<_, std::io::Error>(c.to_vec()))
        .collect::<Vec<_>>();
    let (status, _, json) = send(post_json(AxumBody::from_stream(futures::stream::iter(chunks)))).await;
    assert_eq!(
        (status, &json["type"]),
        (
            StatusCode::PAYLOAD_TOO_LARGE,
            &"urn:posthaste:problem:body_too_large".into()
        )
    );

    let fits = format!(r#"{{"name":"{}"}}"#, "x".repeat(64 - 11));
    assert_eq!(fits.len(), 64);
    assert_eq!(send(post_json(fits)).await.0, 200);
}

#[tokio::test]
async fn a_body_of_another_kind_is_a_415() {
    let plain = Request::post("/webhooks")
        .header(header::CONTENT_TYPE, "text/plain")
        .body("{}".into())
        .unwrap();
    assert_eq!(send(plain).await.0, 415);
    let none = Request::post("/webhooks").body(r#"{"name":"a"}"#.into()).unwrap();
    assert_eq!(send(none).await.0, 415);

    let mut gzip = post_json(r#"{"name":"a"}"#);
    gzip.headers_mut()
        .insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
    let (status, _, json) = send(gzip).await;
    assert_eq!(status, 415);
    assert_eq!(json["detail"], "send the body without Content-Encoding");
    let mut identity = post_json(r#"{"name":"a"}"#);
    identity
        .headers_mut()
        .insert(header::CONTENT_ENCODING, "Identity".parse().unwrap());
    assert_eq!(send(identity).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_a_408() {
    let never = AxumBody::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let begun = Instant::now();
    let sent = tokio::time::timeout(Duration::from_secs(3600), send(post_json(never))).await;
    let (status, _, json) = sent.expect("an answer");
    assert_eq!(status, 408);
    assert_eq!(json["detail"], "no whole body within 15 s");
    assert_eq!(begun.elapsed().as_secs(), 15);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_400() {
    let broken = futures::stream::iter([Ok(b"{".to_vec()), Err(std::io::Error::other("gone"))]);
    let (status, _, json) = send(post_json(AxumBody::from_stream(broken))).await;
    assert_eq!(
        (status, json["detail"].as_str()),
        (StatusCode::BAD_REQUEST, Some("the body ended early"))
    );
}

#[tokio::test]
async fn what_no_route_takes_is_a_problem() {
    let (status, _, json) = send(get_from("/nothing/here")).await;
    assert_eq!(
        (status, &json["type"]),
        (StatusCode::NOT_FOUND, &"urn:posthaste:problem:not_found".into())
    );
    assert_eq!(json["detail"], "there is nothing at /nothing/here");

    let delete = Request::delete("/webhooks").body(AxumBody::empty()).unwrap();
    let (status, response, json) = send(delete).await;
    assert_eq!(status, 405);
    assert_eq!(json["type"], "urn:posthaste:problem:method_not_allowed");
    let allowed = response.headers()[header::ALLOW].to_str().unwrap();
    assert!(allowed.contains("POST") && allowed.contains("GET"), "{allowed}");
}

#[tokio::test]
async fn an_address_that_cannot_be_read_is_a_problem() {
    let (status, _, json) = send(get_from("/webhooks?limit=0")).await;
    assert_eq!(status, 400);
    assert!(
        json["detail"]
            .as_str()
            .unwrap()
            .contains("`limit` must be a number from 1 to 250"),
        "{json}"
    );
    assert_eq!(send(get_from("/webhooks?limit=5")).await.2, 5);
    assert_eq!(send(get_from("/attempts/x")).await.0, 404);
    assert_eq!(send(get_from("/attempts/7")).await.2, 7);
}
