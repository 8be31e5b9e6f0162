use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::*;

async fn call(method: Method, path: &str, known: Option<&str>) -> (StatusCode, HeaderMap, String) {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(known) = known {
        request = request.header(header::IF_NONE_MATCH, known);
    }
    let app = routes::<()>();
    let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn every_answer_says_what_a_page_may_do() {
    for path in [
        "/console",
        "/console/",
        "/console/p/acme/webhooks",
        "/console/assets/none.js",
    ] {
        let (status, headers, _) = call(Method::GET, path, None).await;
        for (name, value) in [
            (
                "content-security-policy",
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                 font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
            ),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            (
                "permissions-policy",
                "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
            ),
        ] {
            let values: Vec<_> = headers.get_all(name).iter().collect();
            assert_eq!(values, [value], "{path}: {name}");
        }
        // A redirect or a refusal among them must not be kept either.
        assert_ne!(status, 500, "{path}");
    }
    let (status, headers, _) = call(Method::GET, "/console", None).await;
    assert_eq!(
        (status.as_u16(), headers[header::LOCATION].as_bytes()),
        (308, b"/console/".as_slice())
    );
    assert_eq!(call(Method::GET, "/console/assets/none.js", None).await.0, 404);
    assert_eq!(call(Method::POST, "/console/", None).await.0, 405);
}

#[tokio::test]
async fn there_is_one_page_whatever_its_path_or_a_word_on_how_to_make_it() {
    let (status, headers, page) = call(Method::GET, "/console/", None).await;
    assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    if !is_there() {
        assert_eq!(status, 503);
        assert!(page.contains("`make console`"), "{page}");
        return;
    }
    assert_eq!(status, 200);
    assert_eq!(call(Method::GET, "/console/p/acme/events/1", None).await.2, page);
    let (status, headers, body) = call(Method::HEAD, "/console/p", None).await;
    assert_eq!((status.as_u16(), body.as_str()), (200, ""));
    assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    // Nothing in the page itself that the policy would have to allow, and nobody else is asked for anything.
    assert!(
        !page.contains("//") && !page.contains("style=") && !page.contains("<style"),
        "{page}"
    );
    assert_eq!(
        page.matches("<script").count(),
        page.matches("<script type=\"module\" src=\"/console/assets/").count()
    );
}

#[tokio::test]
async fn an_asset_is_kept_for_good() {
    let names: Vec<String> = Bundle::iter()
        .filter(|name| name.starts_with("assets/"))
        .map(Into::into)
        .collect();
    assert_eq!(names.is_empty(), !is_there());
    for name in names {
        let path = format!("/console/{name}");
        let (status, headers, body) = call(Method::GET, &path, None).await;
        assert_eq!(status, 200, "{path}");
        assert!(
            !body.is_empty() && headers[header::CONTENT_TYPE] != "application/octet-stream",
            "{path}"
        );
        assert_eq!(headers[header::CACHE_CONTROL], "public, max-age=31536000, immutable");
        let tag = headers[header::ETAG].to_str().unwrap();
        let (status, _, body) = call(Method::GET, &path, Some(tag)).await;
        assert_eq!((status.as_u16(), body.as_str()), (304, ""));
    }
}
