//! HTTP as our services serve it.
//!
//! [`server`] accepts and guards connections; the rest is what axum handlers take and give: [`Json`], [`Query`],
//! [`Path`] and [`Body`] refuse what is not right with a [`Problem`], [`auth`] finds the token, [`Page`] and [`cursor`]
//! cut lists; [`conditional`] gives answers their tags, [`openapi`] makes the documents, [`rate_limit`] keeps clients
//! from asking too much. Routes, states and layers are plain axum.

pub mod auth;
mod body;
pub mod conditional;
pub mod cursor;
mod json;
pub mod openapi;
pub mod page;
mod patience;
pub mod problem;
mod query;
pub mod rate_limit;
mod request_id;
pub mod server;

use axum::Router;
use axum::http::{Method, Uri};

pub use self::body::Body;
pub use self::conditional::{ETag, IfMatch, Tagged};
pub use self::json::{Json, parse};
pub use self::page::{Page, PageQuery};
pub use self::problem::{Code, FieldError, Problem};
pub use self::query::{Path, Query};
pub use self::request_id::RequestId;

/// Makes `router` answer with a problem where it has no route, or not for that method.
pub fn complete(router: Router) -> Router {
    router
        .fallback(async |uri: Uri| Problem::new(Code::NotFound, format!("there is nothing at {}", uri.path())))
        .method_not_allowed_fallback(async |method: Method| {
            Problem::new(
                Code::MethodNotAllowed,
                format!("{method} is not among what `Allow` lists"),
            )
        })
}

#[cfg(test)]
mod tests;
