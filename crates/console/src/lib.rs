//! The console: a page that is a client of the REST API, and nothing else.
//!
//! Its sources are in `web`; `make console` makes them into a bundle, `dist`, which is part of the program. Without a
//! bundle the crate builds all the same, and says at `/console/` what is missing.
//!
//! Every path below `/console/` but the assets' is answered with the same page, which looks at the path itself. Assets
//! are named by what is in them, so whoever has one never asks again; the page is asked for each time.

use axum::Router;
use axum::extract::Path;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use rust_embed::RustEmbed;

/// Where the page is.
pub const PATH: &str = "/console/";

/// Scripts, styles and answers come from where the page does, and nothing stands in the page itself. Nobody may show it
/// within another.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
/// What a page may ask a browser for, and this one has no use for.
const PERMISSIONS: &str = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()";
const PAGE: &str = "index.html";
const MISSING: &str = "The console is not part of this program: it was built without its bundle.\n\
                       `make console` makes the bundle; build the program again afterwards.\n";

#[derive(RustEmbed)]
#[folder = "dist"]
#[allow_missing = true]
struct Bundle;

/// `/console`, the page and its assets.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/console", get(async || Redirect::permanent(PATH)))
        .route("/console/", get(async || page()))
        .route("/console/{*path}", get(async || page()))
        .route("/console/assets/{*name}", get(asset))
        .layer(map_response(guarded))
}

/// Whether there is a bundle in this program.
#[must_use]
pub fn is_there() -> bool {
    Bundle::get(PAGE).is_some()
}

fn page() -> Response {
    match Bundle::get(PAGE) {
        Some(file) => {
            let headers = [
                (header::CONTENT_TYPE, "text/html; charset=utf-8"),
                (header::CACHE_CONTROL, "no-store"),
            ];
            (headers, file.data).into_response()
        }
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::CACHE_CONTROL, "no-store")],
            MISSING,
        )
            .into_response(),
    }
}

async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some(file) = Bundle::get(&format!("assets/{name}")) else {
        return (
            StatusCode::NOT_FOUND,
            [(header::CACHE_CONTROL, "no-store")],
            "there is no such file\n",
        )
            .into_response();
    };
    let tag = format!("\"{}\"", hex::encode(&file.metadata.sha256_hash()[..16]));
    let is_known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let headers = [
        (header::CONTENT_TYPE, content_type(&name).to_owned()),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable".to_owned()),
        (header::ETAG, tag),
    ];
    match is_known {
        true => (StatusCode::NOT_MODIFIED, headers).into_response(),
        false => (headers, file.data).into_response(),
    }
}

/// Of what the bundle holds.
fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (header::HeaderName::from_static("permissions-policy"), PERMISSIONS),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests;
