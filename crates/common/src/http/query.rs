//! What stands in a request's address.

use axum::extract::{FromRequestParts, Path as AxumPath, Query as AxumQuery};
use axum::http::Uri;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::{Code, Problem};

/// The query string as `T`; give `T` `deny_unknown_fields`, and a misspelt name is refused.
#[derive(Debug, Clone)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        read(&parts.uri).map(Self)
    }
}

/// The variables of a route. What cannot be read as `T` names nothing there is.
#[derive(Debug, Clone)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        // Nothing has a name with U+0000 in it, and Postgres cannot even be asked.
        if parts.uri.path().contains("%00") {
            return Err(Code::NotFound.into());
        }
        match AxumPath::from_request_parts(parts, state).await {
            Ok(AxumPath(path)) => Ok(Self(path)),
            Err(rejection) if rejection.status().is_client_error() => Err(Code::NotFound.into()),
            Err(rejection) => Err(Problem::internal(rejection)),
        }
    }
}

pub(super) fn read<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    if uri.query().is_some_and(|query| query.contains("%00")) {
        return Err(Problem::new(Code::MalformedQuery, "a text holds the character U+0000"));
    }
    AxumQuery::try_from_uri(uri)
        .map(|AxumQuery(query)| query)
        .map_err(|rejection| {
            let text = rejection.body_text();
            let detail = text
                .strip_prefix("Failed to deserialize query string: ")
                .unwrap_or(&text);
            Problem::new(Code::MalformedQuery, detail.to_owned())
        })
}
