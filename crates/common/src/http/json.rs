//! JSON bodies, in and out.

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;
use serde_path_to_error::Segment;

use super::body::Body;
use super::problem::{Code, Problem, uri_byte};

/// A JSON body. As an argument it refuses what is not `T` with a [`Problem`] that names the field; request types have
/// `deny_unknown_fields`, so a misspelt field is named, too.
#[derive(Debug, Clone)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(
                Code::UnsupportedMediaType,
                "send JSON, with `Content-Type: application/json`",
            ));
        }
        let Body(bytes) = Body::from_request(request, state).await?;
        parse(&bytes).map(Self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => (
                [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))],
                body,
            )
                .into_response(),
            Err(error) => Problem::internal(error).into_response(),
        }
    }
}

/// `application/json`, or a type that is JSON by its suffix (RFC 6839).
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Reads a JSON text as `T`.
///
/// # Errors
/// [`Code::MalformedBody`] for what is not JSON, [`Code::Invalid`] with the field for what is not `T`.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(text).map_err(|error| match error.classify() {
        Category::Data => misfit::<T>(text, error),
        Category::Eof if text.is_empty() => Problem::new(Code::MalformedBody, "the body is empty; send JSON"),
        // Where one of some words is wanted and a number, say, stands there, serde_json calls that a mistake of syntax.
        Category::Syntax if error.to_string().starts_with(NO_VALUE) && is_json_text(text) => misfit::<T>(text, error),
        Category::Syntax | Category::Eof | Category::Io => Problem::new(Code::MalformedBody, error.to_string()),
    })
}

/// What serde_json says both where no JSON value begins and where it wanted one of some words.
const NO_VALUE: &str = "expected value";

fn is_json_text(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// Reads the text again, this time with an eye on where it is: what is right is not made slower by what is not.
fn misfit<T: DeserializeOwned>(text: &[u8], error: serde_json::Error) -> Problem {
    let mut again = serde_json::Deserializer::from_slice(text);
    let (path, error) = match serde_path_to_error::deserialize::<_, T>(&mut again) {
        Err(error) => (pointer(error.path()), error.into_inner()),
        // It cannot be right the second time; if it is, the place stays unknown.
        Ok(_) => (String::new(), error),
    };
    let position = format!(" at line {} column {}", error.line(), error.column());
    let detail = error.to_string();
    let detail = match detail.strip_suffix(&position).unwrap_or(&detail) {
        NO_VALUE => "expected a string",
        detail => detail,
    };

    let mut path = path;
    if let Some(field) = named(detail) {
        let token = token(field);
        if !path.ends_with(&token) {
            path.push_str(&token);
        }
    }
    Problem::field(&path, detail)
}

/// The field that serde's text is about but its path is not: that ends at the object around it.
fn named(detail: &str) -> Option<&str> {
    let rest = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|beginning| detail.strip_prefix(beginning))?;
    rest.split_once('`').map(|(field, _)| field)
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            // A variant that the path knows of is the key of an object in the text.
            Segment::Map { key } | Segment::Enum { variant: key } => token(key),
            Segment::Unknown => String::new(),
        })
        .collect()
}

/// A JSON pointer's step in its URI form: `~` and `/` escaped (RFC 6901, section 3), then what a URI's fragment cannot
/// hold (section 6).
fn token(key: &str) -> String {
    let mut token = String::from("/");
    for byte in key.replace('~', "~0").replace('/', "~1").bytes() {
        uri_byte(&mut token, byte);
    }
    token
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Webhook {
        name: String,
        #[serde(default)]
        headers: Vec<Header>,
        #[serde(default)]
        retry: Option<Retry>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Header {
        key: String,
        value: String,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Retry {
        Delays(Vec<u32>),
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case", deny_unknown_fields)]
    struct Pause {
        words: Vec<Word>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        Drop,
    }

    /// The pointer and the detail of the one field that is refused.
    fn refused(text: &str) -> (String, String) {
        let problem = parse::<Webhook>(text.as_bytes()).unwrap_err();
        assert_eq!(problem.code(), Code::Invalid, "{problem:?}");
        let [error] = problem.errors() else {
            panic!("{problem:?}")
        };
        (error.pointer.clone(), error.detail.clone())
    }

    fn says(pointer: &str, detail: &str) -> (String, String) {
        (pointer.to_owned(), detail.to_owned())
    }

    #[test]
    fn what_is_right_is_read() {
        let webhook: Webhook = parse(br#"{"name":"a","headers":[{"key":"k","value":"v"}]}"#).unwrap();
        assert_eq!(webhook.headers.len(), 1);
    }

    #[test]
    fn an_unknown_field_is_named_where_it_stands() {
        let expected = says(
            "#/colour",
            "unknown field `colour`, expected one of `name`, `headers`, `retry`",
        );
        assert_eq!(refused(r#"{"name":"a","colour":"red"}"#), expected);
        let expected = says("#/headers/1/valeu", "unknown field `valeu`, expected `key` or `value`");
        assert_eq!(
            refused(r#"{"name":"a","headers":[{"key":"k","value":"v"},{"key":"k","valeu":"v"}]}"#),
            expected
        );
        assert_eq!(refused(r#"{"name":"a","a/b ~":1}"#).0, "#/a~1b%20~0");
    }

    #[test]
    fn a_missing_or_repeated_field_is_named_where_it_should_stand() {
        assert_eq!(refused("{}"), says("#/name", "missing field `name`"));
        assert_eq!(
            refused(r#"{"name":"a","headers":[{"key":"k"}]}"#),
            says("#/headers/0/value", "missing field `value`")
        );
        assert_eq!(
            refused(r#"{"name":"a","name":"b"}"#),
            says("#/name", "duplicate field `name`")
        );
    }

    #[test]
    fn a_field_of_the_wrong_type_is_named() {
        assert_eq!(
            refused(r#"{"name":3}"#),
            says("#/name", "invalid type: integer `3`, expected a string")
        );
        let expected = says("#/retry/delays/1", "invalid type: string \"x\", expected u32");
        assert_eq!(refused(r#"{"name":"a","retry":{"delays":[1,"x"]}}"#), expected);
        assert_eq!(refused("[]").0, "#");
        assert_eq!(
            refused("7"),
            says("#", "invalid type: integer `7`, expected struct Webhook")
        );
    }

    #[test]
    fn what_is_no_word_where_one_is_wanted_is_named() {
        for wrong in ["true", "7", "null", "[]"] {
            let text = format!(r#"{{"words":["drop",{wrong}]}}"#);
            let problem = parse::<Pause>(text.as_bytes()).unwrap_err();
            let [error] = problem.errors() else {
                panic!("{problem:?}")
            };
            assert_eq!(
                (error.pointer.as_str(), error.detail.as_str()),
                ("#/words/1", "expected a string")
            );
        }
        assert_eq!(
            parse::<Pause>(b"{\"words\":[}").unwrap_err().code(),
            Code::MalformedBody
        );
    }

    #[test]
    fn what_is_not_json_says_where_it_ceases_to_be() {
        for text in ["", "{", "{\"name\":}", "{\"name\":\"a\"} x", "\u{feff}{}", "NaN"] {
            let problem = parse::<Webhook>(text.as_bytes()).unwrap_err();
            assert_eq!(problem.code(), Code::MalformedBody, "{text}");
            assert!(!problem.detail().unwrap_or_default().is_empty(), "{text}");
        }
        let problem = parse::<Webhook>(b"{\"name\":}").unwrap_err();
        assert_eq!(problem.detail(), Some("expected value at line 1 column 9"));
        let deep = "[".repeat(10_000);
        assert_eq!(
            parse::<serde_json::Value>(deep.as_bytes()).unwrap_err().code(),
            Code::MalformedBody
        );
    }

    #[test]
    fn json_is_known_by_its_content_type() {
        let is = |value: &'static str| {
            is_json(&HeaderMap::from_iter([(
                header::CONTENT_TYPE,
                HeaderValue::from_static(value),
            )]))
        };
        assert!(is("application/json"));
        assert!(is("Application/JSON; charset=utf-8"));
        assert!(is("application/cloudevents+json"));
        assert!(!is("text/plain"));
        assert!(!is("application/x-www-form-urlencoded"));
        assert!(!is_json(&HeaderMap::new()));
    }
}
