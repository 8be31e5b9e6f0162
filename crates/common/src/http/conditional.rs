//! Entity tags and what clients make of them (RFC 9110, sections 8.8.3 and 13.1).
//!
//! A client that sends the tag of what it has read as `If-Match` changes only that; one that sends it as
//! `If-None-Match` gets it again only if it is another by now.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::json::Json;
use super::problem::{Code, Problem};

/// Between a revision and the hash of all the rest.
const SEPARATOR: char = '-';

/// The tag of a representation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(String);

impl ETag {
    /// The tag of what is written as this JSON.
    ///
    /// # Errors
    /// [`Code::Internal`] for what JSON cannot hold.
    pub fn of<T: Serialize>(representation: &T) -> Result<Self, Problem> {
        let json = serde_json::to_vec(representation).map_err(Problem::internal)?;
        Ok(Self(hex::encode(&Sha256::digest(json)[..16])))
    }

    /// The tag of something of which clients change only what `revision` counts. The rest of it may change at any
    /// moment, and a client that says `If-Match` does not mean that.
    ///
    /// # Errors
    /// [`Code::Internal`] for what JSON cannot hold.
    pub fn of_revision<T: Serialize>(revision: u64, representation: &T) -> Result<Self, Problem> {
        let Self(hash) = Self::of(representation)?;
        Ok(Self(format!("{revision}{SEPARATOR}{hash}")))
    }

    fn header(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("\"{}\"", self.0)).ok()
    }

    /// What has to be the same for a change.
    fn precondition(tag: &str) -> &str {
        tag.split(SEPARATOR).next().unwrap_or(tag)
    }
}

/// The request's `If-Match`, if it has one.
#[derive(Debug, Clone, Default)]
pub struct IfMatch(Option<Vec<String>>);

impl IfMatch {
    /// Refuses the request if it means another state of things than this.
    ///
    /// # Errors
    /// [`Code::PreconditionFailed`]
    pub fn check(&self, current: &ETag) -> Result<(), Problem> {
        let Some(wanted) = &self.0 else { return Ok(()) };
        let current = ETag::precondition(&current.0);
        match wanted
            .iter()
            .any(|tag| tag == "*" || ETag::precondition(tag) == current)
        {
            true => Ok(()),
            false => Err(Problem::new(
                Code::PreconditionFailed,
                "it has been changed since it was read; read it again",
            )),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // Weak tags are left out: they never match here (RFC 9110, section 13.1.1).
        let given = parts.headers.contains_key(header::IF_MATCH);
        Ok(Self(given.then(|| tags(&parts.headers, &header::IF_MATCH, false))))
    }
}

/// An answer with a tag.
#[derive(Debug)]
pub struct Tagged<T> {
    value: T,
    etag: ETag,
    location: Option<String>,
}

impl<T: Serialize> Tagged<T> {
    /// The answer's tag is made of itself.
    ///
    /// # Errors
    /// [`Code::Internal`] for what JSON cannot hold.
    pub fn of(value: T) -> Result<Self, Problem> {
        let etag = ETag::of(&value)?;
        Ok(Self::with(etag, value))
    }

    /// An answer with this tag.
    pub const fn with(etag: ETag, value: T) -> Self {
        Self {
            value,
            etag,
            location: None,
        }
    }

    /// It has just been made, and is found at this path from now on.
    #[must_use]
    pub fn created(mut self, path: String) -> Self {
        self.location = Some(path);
        self
    }
}

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.value).into_response();
        if let Some(etag) = self.etag.header() {
            response.headers_mut().insert(header::ETAG, etag);
        }
        if let Some(path) = self.location {
            *response.status_mut() = StatusCode::CREATED;
            if let Ok(path) = HeaderValue::try_from(path) {
                response.headers_mut().insert(header::LOCATION, path);
            }
        }
        response
    }
}

/// A layer: answers 304 where the client has what it asks for already.
pub async fn not_modified(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let known = match reads {
        true => tags(request.headers(), &header::IF_NONE_MATCH, true),
        false => Vec::new(),
    };
    let mut response = next.run(request).await;
    let current = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
    let Some(current) = current.map(|tag| tag.trim_matches('"')) else {
        return response;
    };
    if response.status() == StatusCode::OK && known.iter().any(|tag| tag == "*" || tag == current) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(header::CONTENT_TYPE);
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

/// The tags of a list of them, without their quotes.
fn tags(headers: &HeaderMap, name: &header::HeaderName, weak: bool) -> Vec<String> {
    let lists = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lists
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter_map(|tag| match tag.strip_prefix("W/") {
            Some(tag) if weak => Some(tag),
            Some(_) => None,
            None => Some(tag),
        })
        .map(|tag| tag.trim_matches('"').to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    async fn if_match(value: Option<&str>) -> IfMatch {
        let mut request = Request::builder().uri("/");
        if let Some(value) = value {
            request = request.header(header::IF_MATCH, value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        IfMatch::from_request_parts(&mut parts, &()).await.unwrap()
    }

    #[tokio::test]
    async fn a_change_is_refused_where_another_revision_was_meant() {
        let current = ETag::of_revision(7, &"as it stands").unwrap();
        let earlier = ETag::of_revision(7, &"as it stood").unwrap();
        for good in [None, Some("*"), Some("\"7-abc\""), Some("\"6-x\", \"7-y\"")] {
            assert!(if_match(good).await.check(&current).is_ok(), "{good:?}");
        }
        assert!(
            if_match(Some(&format!("\"{}\"", earlier.0)))
                .await
                .check(&current)
                .is_ok()
        );
        for bad in ["", "\"6-abc\"", "W/\"7-abc\"", "\"77-abc\""] {
            let problem = if_match(Some(bad)).await.check(&current).unwrap_err();
            assert_eq!(problem.code(), Code::PreconditionFailed, "{bad}");
        }
    }

    #[tokio::test]
    async fn what_a_client_has_already_is_not_sent_again() {
        let app = Router::new()
            .route("/", get(async || Tagged::of("thing")))
            .layer(axum::middleware::from_fn(not_modified));
        let answer = async |tag: Option<HeaderValue>| {
            let mut request = Request::builder().uri("/");
            if let Some(tag) = tag {
                request = request.header(header::IF_NONE_MATCH, tag);
            }
            app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
        };
        let first = answer(None).await;
        assert_eq!(first.status(), 200);
        let tag = first.headers()[header::ETAG].clone();
        let again = answer(Some(tag.clone())).await;
        assert_eq!(
            (again.status(), &again.headers()[header::ETAG]),
            (StatusCode::NOT_MODIFIED, &tag)
        );
        assert!(!again.headers().contains_key(header::CONTENT_TYPE));
        assert_eq!(answer(Some(HeaderValue::from_static("\"other\""))).await.status(), 200);
    }
}
