//! Placeholders: texts like `:iccid:` in a webhook's url and header values that stand for what an expression gives for
//! the event.
//!
//! In a url they may stand in the path and the query only, and what they give is percent-encoded there, so that no event
//! can lead a request to another host.

use proto_schemas::definition::Expression as Definition;

use super::expression::{Engine, Expression, Failure, Fault, Run, Subject};
use super::expressions::scalar;

/// What stands in for an expression that gives nothing.
const NONE: &str = "none";
/// Longest value, in bytes; the rest is no identifier.
pub const PLACEHOLDER_VALUE_MAX: usize = 512;

/// Why a placeholder cannot be where it is, or its value cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceholderError {
    /// In scheme, host, port or user.
    #[error(
        "`{0}` may stand in the path and the query of the url only, so that no event leads a request to another host"
    )]
    Place(String),
    /// Its value cannot be a header's.
    #[error("what `{0}` stands for holds characters that no header can carry")]
    Header(String),
    /// Its value is too long.
    #[error("what `{0}` stands for is longer than {PLACEHOLDER_VALUE_MAX} bytes")]
    Long(String),
    /// The event would move the path.
    #[error("with what its placeholders stand for, the url's path has a segment of dots, which leads to another path")]
    Dots,
    /// Evaluating it came to no end.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// A webhook's placeholders, compiled.
#[derive(Debug)]
pub struct Placeholders {
    engine: Engine,
    compiled: Vec<(String, Expression)>,
}

/// The values for one event.
#[derive(Debug)]
pub struct Values<'a>(Vec<(&'a str, String)>);

impl Placeholders {
    /// Whether any of the placeholders' texts is in `text`.
    #[must_use]
    pub fn occur(definitions: &[Definition], text: &str) -> bool {
        definitions.iter().any(|definition| text.contains(&definition.name))
    }

    /// Whether the placeholders in `url` stand where they may.
    ///
    /// # Errors
    /// [`PlaceholderError::Place`]
    pub fn check_url(definitions: &[Definition], url: &str) -> Result<(), PlaceholderError> {
        let start = authority_end(url);
        let found = |text: &str| {
            definitions
                .iter()
                .find(|definition| text.contains(&definition.name))
                .map(|definition| definition.name.clone())
        };
        // A placeholder that reaches over the border is within the whole and in neither part.
        let within = found(&url[..start]).or_else(|| {
            definitions
                .iter()
                .find(|definition| url.find(&definition.name).is_some_and(|at| at < start))
                .map(|definition| definition.name.clone())
        });
        match within {
            Some(name) => Err(PlaceholderError::Place(name)),
            None => Ok(()),
        }
    }

    /// Compiles them.
    ///
    /// # Errors
    /// The text of the one that is wrong, and where in its expression.
    pub fn compile(definitions: &[Definition]) -> Result<Self, (String, Fault)> {
        let mut engine = Engine::new();
        let mut compiled = Vec::with_capacity(definitions.len());
        for definition in definitions {
            let expression = engine
                .expression(&definition.expression)
                .map_err(|fault| (definition.name.clone(), fault))?;
            compiled.push((definition.name.clone(), expression));
        }
        // Of two of which one begins like the other, the longer is meant.
        compiled.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Ok(Self { engine, compiled })
    }

    /// The names they use that neither event nor webhook ever has.
    #[must_use]
    pub fn unknown_names(&self) -> Vec<String> {
        self.engine.unknown_names()
    }

    /// What they stand for in an event.
    ///
    /// # Errors
    /// [`PlaceholderError::Failure`], [`PlaceholderError::Long`]
    pub fn values(&self, subject: &Subject<'_>) -> Result<Values<'_>, PlaceholderError> {
        let mut run = Run::new(&self.engine, subject);
        let mut values = Vec::with_capacity(self.compiled.len());
        for (name, expression) in &self.compiled {
            let value = scalar(&run.value(expression, name)?).unwrap_or_else(|| NONE.to_owned());
            if value.len() > PLACEHOLDER_VALUE_MAX {
                return Err(PlaceholderError::Long(name.clone()));
            }
            values.push((name.as_str(), value));
        }
        Ok(Values(values))
    }
}

impl Values<'_> {
    /// The url for the event. Whoever gets it has it checked like any other.
    ///
    /// # Errors
    /// [`PlaceholderError`]
    pub fn url(&self, url: &str) -> Result<String, PlaceholderError> {
        let start = authority_end(url);
        let (fixed, rest) = url.split_at(start);
        let filled = self.fill(rest, |_, value| Ok(encode(value)))?;
        // What was saved has none: it was normalised. Percent-encoded dots are dots (WHATWG URL §4.4).
        let path = filled.split(['?', '#']).next().unwrap_or_default();
        let dots = |segment: &str| [".", ".."].contains(&segment.to_ascii_lowercase().replace("%2e", ".").as_str());
        match path.split('/').any(dots) {
            true => Err(PlaceholderError::Dots),
            false => Ok(format!("{fixed}{filled}")),
        }
    }

    /// A header's value for the event.
    ///
    /// # Errors
    /// [`PlaceholderError::Header`]
    pub fn header(&self, value: &str) -> Result<String, PlaceholderError> {
        self.fill(value, |name, value| {
            match value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)) {
                true => Ok(value.to_owned()),
                false => Err(PlaceholderError::Header(name.to_owned())),
            }
        })
    }

    /// Replaces each placeholder once; what a value holds is not looked at again.
    fn fill(
        &self,
        text: &str,
        value_for: impl Fn(&str, &str) -> Result<String, PlaceholderError>,
    ) -> Result<String, PlaceholderError> {
        let mut out = String::with_capacity(text.len() + 64);
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            match self.0.iter().find(|(name, _)| rest.starts_with(name)) {
                Some((name, value)) => {
                    out.push_str(&value_for(name, value)?);
                    rest = &rest[name.len()..];
                }
                None => {
                    out.push(next);
                    rest = &rest[next.len_utf8()..];
                }
            }
        }
        Ok(out)
    }
}

/// Where path and query begin.
fn authority_end(url: &str) -> usize {
    let start = url.find("://").map_or(0, |at| at + 3);
    url[start..]
        .find(['/', '?', '#', '\\'])
        .map_or(url.len(), |at| start + at)
}

/// All but the unreserved characters of RFC 3986 §2.3.
fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte => {
                out.push('%');
                for digit in [byte >> 4, byte & 15] {
                    out.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use proto_schemas::event::Event;
    use proto_schemas::id::{EventKey, ProjectId};
    use serde_json::json;

    use super::*;

    fn definitions() -> Vec<Definition> {
        [
            (":iccid:", "data.device.iccid"),
            (":ip:", "data.device.ip"),
            (":i:", "'short'"),
        ]
        .map(|(name, expression)| Definition {
            name: name.to_owned(),
            expression: expression.to_owned(),
        })
        .into()
    }

    fn event(iccid: &str) -> Event {
        let at = jiff::Timestamp::UNIX_EPOCH;
        Event {
            key: EventKey::of_message(at, 7),
            id: "e".into(),
            project: ProjectId::from_uuid(uuid::Uuid::nil()),
            event_type: "TELEMETRY_DATA".into(),
            occurred_at: at,
            accepted_at: at,
            attributes: std::collections::BTreeMap::new(),
            content_type: String::new(),
            payload: Bytes::from(json!({"device": {"iccid": iccid}}).to_string()),
            traceparent: String::new(),
        }
    }

    fn url(iccid: &str, url: &str) -> Result<String, PlaceholderError> {
        let placeholders = Placeholders::compile(&definitions()).unwrap();
        placeholders.values(&Subject::new(&event(iccid), "p", &[]))?.url(url)
    }

    fn header(iccid: &str, value: &str) -> Result<String, PlaceholderError> {
        let placeholders = Placeholders::compile(&definitions()).unwrap();
        placeholders
            .values(&Subject::new(&event(iccid), "p", &[]))?
            .header(value)
    }

    #[test]
    fn path_query_and_headers_are_filled_and_none_stands_for_nothing() {
        assert_eq!(
            url("8988", "https://a.example/d/:iccid:/x?ip=:ip:&i=:iccid::i:").unwrap(),
            "https://a.example/d/8988/x?ip=none&i=8988short"
        );
        assert_eq!(
            header("8988", "device :iccid: at :ip:, :iccid").unwrap(),
            "device 8988 at none, :iccid"
        );
        assert!(Placeholders::occur(&definitions(), "https://a.example/:iccid:"));
        assert!(!Placeholders::occur(&definitions(), "https://a.example/iccid"));
    }

    #[test]
    fn what_a_value_holds_is_encoded_in_a_url_and_not_filled_again() {
        assert_eq!(
            url("a/../b?c#d&e=f :ip: é", "https://a.example/:iccid:").unwrap(),
            "https://a.example/a%2F..%2Fb%3Fc%23d%26e%3Df%20%3Aip%3A%20%C3%A9"
        );
        assert_eq!(header(":ip:", ":iccid:").unwrap(), ":ip:");
    }

    #[test]
    fn dots_do_not_lead_to_another_path() {
        for (iccid, path) in [
            ("..", ":iccid:/x"),
            (".", "a/:iccid:"),
            (".", ".:iccid:"),
            ("e.", "%2:iccid:"),
        ] {
            assert_eq!(
                url(iccid, &format!("https://a.example/{path}")),
                Err(PlaceholderError::Dots),
                "{path}"
            );
        }
        assert_eq!(
            url("..", "https://a.example/a?x=:iccid:").unwrap(),
            "https://a.example/a?x=.."
        );
    }

    #[test]
    fn a_header_with_what_none_can_carry_is_refused() {
        for bad in ["a\r\nX-Evil: 1", "a\u{0}", "é", "a\u{7f}"] {
            assert_eq!(
                header(bad, "x :iccid:"),
                Err(PlaceholderError::Header(":iccid:".to_owned()))
            );
        }
        let long = "x".repeat(PLACEHOLDER_VALUE_MAX + 1);
        assert_eq!(header(&long, "x"), Err(PlaceholderError::Long(":iccid:".to_owned())));
    }

    #[test]
    fn a_placeholder_in_scheme_host_or_port_is_refused() {
        for bad in [
            "https://:iccid:/x",
            "https://:ip:.example.com/",
            "https://a.example:iccid:/",
            "https://a.example:ip:",
            ":ip:://a.example/",
            "https://user:ip:@a.example/",
        ] {
            let error = Placeholders::check_url(&definitions(), bad).unwrap_err();
            assert!(error.to_string().contains("path and the query"), "{bad}: {error}");
        }
        for good in [
            "https://a.example/:iccid:",
            "https://a.example?x=:ip:",
            "https://a.example/",
            "x",
        ] {
            Placeholders::check_url(&definitions(), good).unwrap();
        }
    }

    proptest! {
        #[test]
        fn no_value_changes_scheme_host_port_or_the_number_of_segments(
            iccid in "(\\PC|[./:@#?\\\\%\\r\\n]){0,40}",
            template in "[a-z/.%2?=&-]{0,6}",
        ) {
            let before = url::Url::parse(&format!("https://a.example:8443/{template}:iccid:/end")).unwrap();
            if let Ok(filled) = url(&iccid, before.as_str()) {
                let after = url::Url::parse(&filled).unwrap();
                prop_assert_eq!(after.origin(), before.origin());
                prop_assert_eq!(after.username(), "");
                prop_assert_eq!(after.fragment(), None);
                prop_assert_eq!(after.path().split('/').count(), before.path().split('/').count());
                prop_assert_eq!(after.query().is_some(), before.query().is_some());
            }
        }
    }
}
