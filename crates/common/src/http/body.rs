//! A request's whole body.

use std::time::Duration;

use axum::RequestExt as _;
use axum::body::{Bytes, HttpBody as _};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError};

use super::problem::{Code, Problem};

/// A body may take this long to arrive; who sends slower holds a connection and memory for nothing.
const PATIENCE: Duration = Duration::from_secs(15);

/// The bytes of a request as they came: identity-encoded, in time, and within the limit of
/// [`axum::extract::DefaultBodyLimit`] (2 MiB where a router sets no other).
#[derive(Debug, Clone)]
pub struct Body(pub Bytes);

impl<S: Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        refuse_encoded(request.headers())?;
        let announced = request.body().size_hint().lower();
        let body = request.into_limited_body();
        // Said in advance, it need not be sent.
        if body.size_hint().upper().is_some_and(|limit| announced > limit) {
            return Err(too_large());
        }
        match tokio::time::timeout(PATIENCE, body.collect()).await {
            Ok(Ok(body)) => Ok(Self(body.to_bytes())),
            Ok(Err(error)) if is_over_limit(&error) => Err(too_large()),
            Ok(Err(error)) => Err(Problem::new(Code::MalformedBody, "the body ended early").because(error)),
            Err(_) => Err(Problem::new(
                Code::BodyTimeout,
                format!("no whole body within {} s", PATIENCE.as_secs()),
            )),
        }
    }
}

/// A compressed body could be a thousand times what its limit allows.
fn refuse_encoded(headers: &HeaderMap) -> Result<(), Problem> {
    let encoded = |value: &axum::http::HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().any(encoded) {
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            "send the body without Content-Encoding",
        ));
    }
    Ok(())
}

fn is_over_limit(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut error = Some(error);
    while let Some(this) = error {
        if this.is::<LengthLimitError>() {
            return true;
        }
        error = this.source();
    }
    false
}

fn too_large() -> Problem {
    Problem::new(Code::BodyTooLarge, "the body is longer than what is taken here")
}
