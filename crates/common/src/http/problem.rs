//! Errors as our APIs give them: RFC 9457 problem details from one closed table.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// The media type of a problem (RFC 9457, section 6.1).
pub const CONTENT_TYPE: &str = "application/problem+json";

/// Every kind of failure there is. Clients may rely on the name in `type`; a name never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The body is not what its content type says.
    MalformedBody,
    /// The query string cannot be read, or holds something unknown.
    MalformedQuery,
    /// A header that this looks at cannot be read.
    MalformedHeader,
    /// No token, or not a valid one.
    Unauthenticated,
    /// A valid token that may not do this.
    MissingScope,
    /// A browser's request that another site's page may have made.
    CrossSite,
    /// Nothing there, as far as this token can see.
    NotFound,
    /// Something there, but not for this method.
    MethodNotAllowed,
    /// The body took too long to come.
    BodyTimeout,
    /// It contradicts what there is.
    Conflict,
    /// It is not, or no more, what the client takes it for.
    PreconditionFailed,
    /// The key of this request was another request's.
    IdempotencyKeyReused,
    /// The body is longer than what is taken.
    BodyTooLarge,
    /// A content type or content encoding that is not taken.
    UnsupportedMediaType,
    /// Well-formed, but some of its fields are not right; `errors` says which.
    Invalid,
    /// Too much at once.
    TooManyRequests,
    /// Our fault.
    Internal,
    /// The service has only just been started.
    Starting,
    /// Something this needs is not there at the moment.
    Unavailable,
    /// The queue takes nothing at the moment.
    QueueUnavailable,
}

/// What the table says of a code.
struct Entry {
    status: StatusCode,
    name: &'static str,
    title: &'static str,
}

impl Code {
    /// The table.
    const fn entry(self) -> Entry {
        let (status, name, title) = match self {
            Self::MalformedBody => (StatusCode::BAD_REQUEST, "malformed_body", "The body cannot be read"),
            Self::MalformedQuery => (StatusCode::BAD_REQUEST, "malformed_query", "The query cannot be read"),
            Self::MalformedHeader => (StatusCode::BAD_REQUEST, "malformed_header", "A header cannot be read"),
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated", "A valid token is needed"),
            Self::MissingScope => (StatusCode::FORBIDDEN, "missing_scope", "The token may not do this"),
            Self::CrossSite => (
                StatusCode::FORBIDDEN,
                "cross_site",
                "The request may come from another site",
            ),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "Not found"),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "The method is not allowed here",
            ),
            Self::BodyTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                "The body took too long to arrive",
            ),
            Self::Conflict => (StatusCode::CONFLICT, "conflict", "It conflicts with what is there"),
            Self::PreconditionFailed => (
                StatusCode::PRECONDITION_FAILED,
                "precondition_failed",
                "It has been changed meanwhile",
            ),
            Self::IdempotencyKeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "The idempotency key was used for another request",
            ),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large"),
            Self::UnsupportedMediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "The body's type is not supported",
            ),
            Self::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "Some fields are not valid"),
            Self::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Too many requests"),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "Something went wrong on our side",
            ),
            Self::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting", "The service is starting"),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "The service cannot do this at the moment",
            ),
            Self::QueueUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "queue_unavailable",
                "The queue takes nothing at the moment",
            ),
        };
        Entry { status, name, title }
    }

    /// The HTTP status it is answered with.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.entry().status
    }

    /// What it means, in a few words.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.entry().title
    }

    /// Its name, the last part of `type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.entry().name
    }

    /// Seconds after which trying again may help, unless the problem says better.
    const fn retry_after(self) -> Option<u64> {
        match self {
            Self::TooManyRequests | Self::Starting => Some(1),
            Self::Unavailable | Self::QueueUnavailable => Some(2),
            _ => None,
        }
    }
}

/// One field that is not right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where it is in the body: a JSON pointer in its URI form (RFC 6901, section 6).
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

impl FieldError {
    /// `path` is the JSON pointer, like `/headers/0/key`; empty for the whole body.
    pub fn new(path: &str, detail: impl Into<String>) -> Self {
        Self {
            pointer: format!("#{path}"),
            detail: detail.into(),
        }
    }

    /// `pointer` is a JSON pointer that may hold any name, escaped as such and not yet for a URI.
    pub fn at(pointer: &str, detail: impl Into<String>) -> Self {
        let mut path = String::with_capacity(pointer.len());
        for byte in pointer.bytes() {
            match byte {
                b'/' => path.push('/'),
                byte => uri_byte(&mut path, byte),
            }
        }
        Self::new(&path, detail)
    }
}

/// A byte as a URI's fragment can hold it (RFC 3986, section 3.5).
pub(super) fn uri_byte(path: &mut String, byte: u8) {
    if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) {
        path.push(char::from(byte));
    } else {
        path.push_str(&format!("%{byte:02X}"));
    }
}

/// A failure on its way to a client.
///
/// A 5xx tells the client nothing but its kind and the request's id. What it was caused by is logged, once, by the
/// server that answers it.
#[derive(Debug, Clone)]
pub struct Problem(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    code: Code,
    detail: Option<Cow<'static, str>>,
    errors: Vec<FieldError>,
    retry_after: Option<u64>,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

// The order is the order in the answer.
/// An error, as RFC 9457 has it.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
#[derive(Debug)]
pub struct Written<'a> {
    /// What kind of failure it is. A name never changes its meaning.
    #[schema(example = "urn:posthaste:problem:invalid")]
    r#type: String,
    /// The kind in words.
    #[schema(value_type = String)]
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is said about this occurrence. A 5xx says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    detail: Option<&'a str>,
    /// Which request it was; finds the line in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    instance: Option<String>,
    /// The detail, or the title, for clients that look for a plain text under this name.
    #[schema(value_type = String)]
    error: &'a str,
    /// The fields that are not right.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Vec<FieldError>, required = false)]
    errors: &'a [FieldError],
}

impl Problem {
    /// A problem with a sentence about this occurrence.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let mut problem = Self::from(code);
        problem.0.detail = Some(detail.into());
        problem
    }

    /// One field is not right; `path` is its JSON pointer, like `/headers/0/key`.
    pub fn field(path: &str, detail: impl Into<String>) -> Self {
        Self::fields(vec![FieldError::new(path, detail)])
    }

    /// Several fields are not right.
    #[must_use]
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let text: Vec<String> = errors
            .iter()
            .map(|error| format!("{}: {}", error.pointer, error.detail))
            .collect();
        let mut problem = Self::new(Code::Invalid, text.join("; "));
        problem.0.errors = errors;
        problem
    }

    /// Something failed that the client has no part in.
    pub fn internal(cause: impl Error + Send + Sync + 'static) -> Self {
        Self::from(Code::Internal).because(cause)
    }

    /// Adds what caused it, for the log.
    #[must_use]
    pub fn because(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.0.cause = Some(Arc::new(cause));
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after = Some(seconds);
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// What is said about this occurrence, if anything.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// The fields that are not right.
    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        &self.0.errors
    }

    fn body(&self, request_id: Option<&str>) -> Body {
        let Entry { status, name, title } = self.0.code.entry();
        let ours = status.is_server_error();
        let detail = if ours { None } else { self.detail() };
        let written = Written {
            r#type: format!("urn:posthaste:problem:{name}"),
            title,
            status: status.as_u16(),
            detail,
            instance: request_id.map(|id| format!("urn:posthaste:request:{id}")),
            error: detail.unwrap_or(title),
            errors: if ours { &[] } else { &self.0.errors },
        };
        // Text and numbers alone: nothing here can fail to be JSON.
        Body::from(serde_json::to_vec(&written).unwrap_or_default())
    }

    fn log(&self, request_id: &str, method: &str, path: &str) {
        let cause = self
            .0
            .cause
            .as_deref()
            .map(chain)
            .or_else(|| self.detail().map(str::to_owned));
        match self.0.code {
            Code::Internal => tracing::error!(request_id, method, path, cause, "request failed"),
            // One line for each refused request would bury the one that says what is down.
            _ if self.0.cause.is_some() => tracing::debug!(request_id, method, path, cause, "request refused"),
            _ => {}
        }
    }
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Self(Box::new(Parts {
            code,
            detail: None,
            errors: Vec::new(),
            retry_after: None,
            cause: None,
        }))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(self.body(None));
        *response.status_mut() = self.0.code.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        if let Some(seconds) = self.0.retry_after.or(self.0.code.retry_after()) {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.0.code == Code::Unauthenticated {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"posthaste\""),
            );
        }
        // For `answered`, which knows what the handler did not.
        response.extensions_mut().insert(self);
        response
    }
}

/// Completes the answer of a request: a problem gets the request's id, and its cause is logged.
pub(super) fn answered(mut response: Response, request_id: &str, method: &str, path: &str) -> Response {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else {
        return response;
    };
    problem.log(request_id, method, path);
    response.headers_mut().remove(header::CONTENT_LENGTH);
    *response.body_mut() = problem.body(Some(request_id));
    response
}

/// An error and all its sources, in one line.
fn chain(error: &(dyn Error + Send + Sync)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn text(response: Response) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_problem_is_written_as_rfc_9457_has_it() {
        let problem = Problem::fields(vec![
            FieldError::new("/url", "must begin with https://"),
            FieldError::new("/headers/0/key", "is not a header name"),
        ]);
        let response = answered(problem.into_response(), "req_1", "POST", "/v1/projects/p/webhooks");
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(
            text(response).await,
            concat!(
                r#"{"type":"urn:posthaste:problem:invalid","title":"Some fields are not valid","status":422,"#,
                r##""detail":"#/url: must begin with https://; #/headers/0/key: is not a header name","##,
                r#""instance":"urn:posthaste:request:req_1","#,
                r##""error":"#/url: must begin with https://; #/headers/0/key: is not a header name","##,
                r##""errors":[{"pointer":"#/url","detail":"must begin with https://"},"##,
                r##"{"pointer":"#/headers/0/key","detail":"is not a header name"}]}"##,
            )
        );
    }

    #[test]
    fn a_name_in_a_pointer_may_be_anything() {
        let at = |pointer| FieldError::at(pointer, "").pointer;
        assert_eq!(at("/data/a~1b ~0%"), "#/data/a~1b%20~0%25");
        assert_eq!(at("/data/é"), "#/data/%C3%A9");
        assert_eq!(at(""), "#");
    }

    #[tokio::test]
    async fn a_5xx_tells_the_request_id_and_nothing_else() {
        let cause = std::io::Error::other("password=canary at 10.0.0.1");
        let mut problem = Problem::internal(cause);
        problem.0.detail = Some("canary".into());
        problem.0.errors = vec![FieldError::new("/canary", "canary")];
        let response = answered(problem.into_response(), "req_1", "GET", "/");
        assert_eq!(response.status(), 500);
        assert_eq!(
            text(response).await,
            concat!(
                r#"{"type":"urn:posthaste:problem:internal","title":"Something went wrong on our side","status":500,"#,
                r#""instance":"urn:posthaste:request:req_1","error":"Something went wrong on our side"}"#,
            )
        );
    }

    #[test]
    fn what_may_help_later_says_when() {
        let header = |problem: Problem| {
            let response = problem.into_response();
            response
                .headers()
                .get(header::RETRY_AFTER)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(header(Code::QueueUnavailable.into()).as_deref(), Some("2"));
        assert_eq!(
            header(Problem::from(Code::TooManyRequests).retry_after(30)).as_deref(),
            Some("30")
        );
        assert_eq!(header(Code::NotFound.into()), None);
    }

    #[test]
    fn a_401_says_how_to_authenticate() {
        let response = Problem::from(Code::Unauthenticated).into_response();
        assert_eq!(
            response.headers()[header::WWW_AUTHENTICATE],
            "Bearer realm=\"posthaste\""
        );
    }

    #[test]
    fn a_cause_is_told_with_all_its_sources() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read the list")]
        struct Outer(#[source] std::io::Error);
        assert_eq!(
            chain(&Outer(std::io::Error::other("no disk"))),
            "cannot read the list: no disk"
        );
    }
}
