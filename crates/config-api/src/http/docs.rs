//! `/docs`: a page that shows the OpenAPI document and tries it out. Everything on it is part of the program.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use common::http::{Code, Problem, openapi};
use utoipa_swagger_ui::Config;

use crate::api::Api;

/// The page sets styles of its own; scripts come from files alone.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/docs", get(async || Redirect::permanent("/docs/")))
        .route("/docs/", get(async || file("index.html")))
        .route("/docs/{file}", get(async |Path(name): Path<String>| file(&name)))
}

fn file(name: &str) -> Response {
    // No third party is asked whether the document is valid.
    let config = Config::from(openapi::PATH).validator_url("none");
    match utoipa_swagger_ui::serve(name, Arc::new(config)) {
        Ok(Some(file)) => {
            let headers = [
                (header::CONTENT_TYPE, file.content_type.as_str()),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::REFERRER_POLICY, "no-referrer"),
            ];
            (StatusCode::OK, headers, file.bytes).into_response()
        }
        Ok(None) => Problem::from(Code::NotFound).into_response(),
        Err(error) => Problem::internal(std::io::Error::other(error.to_string())).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn text(response: Response) -> String {
        String::from_utf8_lossy(&response.into_body().collect().await.unwrap().to_bytes()).into_owned()
    }

    #[tokio::test]
    async fn the_page_needs_nobody_else_and_holds_no_script_within() {
        let page = text(file("index.html")).await;
        assert!(!page.contains("//") && !page.contains("<style"), "{page}");
        assert_eq!(
            page.matches("<script").count(),
            page.matches("<script src=\"./").count()
        );
        let start = text(file("swagger-initializer.js")).await;
        assert!(
            start.contains("\"/openapi.json\"") && !start.contains("validator.swagger.io"),
            "{start}"
        );
        let bundle = file("swagger-ui-bundle.js");
        assert_eq!(bundle.status(), 200);
        for (name, value) in [
            (
                "content-security-policy",
                "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                 connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            ),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
        ] {
            for answer in [&file("index.html"), &bundle] {
                let values: Vec<_> = answer.headers().get_all(name).iter().collect();
                assert_eq!(values, [value], "{name}");
            }
        }
        assert_eq!(file("swagger-ui.css").headers()[header::CONTENT_TYPE], "text/css");
        assert_eq!(file("nothing.js").status(), 404);
    }

    #[tokio::test]
    async fn all_who_are_answered_with_a_file_are_answered_with_the_same_bytes() {
        let bundle = async || {
            file("swagger-ui-bundle.js")
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
        };
        let (one, another) = (bundle().await, bundle().await);
        assert!(one.len() > 1_000_000);
        assert_eq!(one.as_ptr(), another.as_ptr(), "it was copied");
    }
}
