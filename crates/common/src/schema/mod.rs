//! JSON Schemas of events: compiled once, asked for every event of their type. Pure.
//!
//! A schema is a stranger's, and so is the data, so both are held in bounds: nothing outside the document is ever looked
//! up, patterns know no backtracking and have a size together ([`patterns`]), and a check whose effort ([`effort`]) would be
//! out of proportion is not begun.

mod effort;
mod patterns;
mod steps;

use std::fmt;
use std::fmt::Write as _;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, Retrieve, Uri, ValidationError, Validator};
use serde_json::Value;

use self::effort::{Effort, Said};

/// Largest schema, in bytes of its text.
pub const SIZE_MAX: usize = 64 * 1024;

/// How deep a schema may be nested, in levels of JSON.
pub const DEPTH_MAX: usize = 32;

/// Most faults that are told of one value.
pub const FAULTS_MAX: usize = 20;

/// Longest pointer, and longest text about one fault, in characters: the names of members are a stranger's as well, and
/// faults travel in one message with their event.
const TEXT_MAX: usize = 300;

/// About what a compiled schema takes for each value of its document and each that this one is within, in bytes: the
/// validator keeps where each stands, and of some a copy.
const SIZE_OF_PART: usize = 320;

/// The drafts a schema may be written in; without a word it is the first.
const DRAFTS: [&str; 4] = [
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
    "http://json-schema.org/draft-06/schema",
];

/// A compiled schema.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    document: Value,
    effort: Effort,
    size: usize,
}

/// What is wrong, and where: with a schema, or with a value by its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer into what was checked (RFC 6901); empty for the whole.
    pub pointer: String,
    /// What is wrong there. Holds names and limits of the schema, and nothing of a value's text.
    pub detail: String,
}

impl Fault {
    /// A fault.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            detail: detail.into(),
        }
    }

    /// The same, where what was checked stands under `prefix`.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        self.pointer.insert_str(0, prefix);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pointer.as_str() {
            "" => f.write_str(&self.detail),
            pointer => write!(f, "{pointer}: {}", self.detail),
        }
    }
}

/// Looks nothing up.
struct Nowhere;

impl Retrieve for Nowhere {
    fn retrieve(&self, _: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err("a schema refers to nothing outside itself".into())
    }
}

impl Schema {
    /// Reads and compiles a schema.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn compile(text: &str) -> Result<Self, Fault> {
        if text.len() > SIZE_MAX {
            let size = text.len();
            return Err(Fault::new(
                "",
                format!("a schema has at most {SIZE_MAX} bytes; this one has {size}"),
            ));
        }
        let document: Value =
            serde_json::from_str(text).map_err(|error| Fault::new("", format!("it is not JSON: {error}")))?;
        if !matches!(document, Value::Object(_) | Value::Bool(_)) {
            return Err(Fault::new("", "a schema is an object, or true or false"));
        }
        if depth(&document) > DEPTH_MAX {
            return Err(Fault::new("", format!("it is nested deeper than {DEPTH_MAX} levels")));
        }
        if let Some(draft) = document.get("$schema") {
            let known = draft
                .as_str()
                .is_some_and(|uri| DRAFTS.contains(&uri.trim_end_matches('#')));
            if !known {
                return Err(Fault::new(
                    "/$schema",
                    format!("write it in one of: {}", DRAFTS.join(", ")),
                ));
            }
        }
        let effort = Effort::of(&document)?;
        let options = PatternOptions::regex()
            .size_limit(patterns::COMPILED_MAX)
            .dfa_size_limit(patterns::DFA_MAX);
        let validator = jsonschema::options()
            .with_retriever(Nowhere)
            .with_pattern_options(options)
            .should_validate_formats(true)
            .build(&document)
            .map_err(|error| fault(&error, "this"))?;
        let size = text.len() + SIZE_OF_PART * parts(&document, 1) + effort.patterns_size();
        Ok(Self {
            validator,
            document,
            effort,
            size,
        })
    }

    /// About what it takes in memory at most, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether checking this text is so little work that it may be done in between. Finding out is, too.
    #[must_use]
    pub fn is_moderate(&self, text: &[u8]) -> bool {
        self.effort.is_little(text.len())
            || serde_json::from_slice(text).map_or(true, |value| self.effort.is_moderate(&self.document, &value))
    }

    /// What the schema has against a value whose text has `size` bytes; nothing if it is as it should be. At most
    /// [`FAULTS_MAX`].
    #[must_use]
    pub fn check(&self, value: &Value, size: usize) -> Vec<Fault> {
        let said = match self.effort.said(&self.document, value, size) {
            Ok(said) => said,
            Err(fault) => return vec![fault],
        };
        if self.validator.is_valid(value) {
            return Vec::new();
        }
        match said {
            Said::Everything => self
                .validator
                .iter_errors(value)
                .take(FAULTS_MAX)
                .map(|error| fault(&error, "it"))
                .collect(),
            Said::First => self
                .validator
                .validate(value)
                .err()
                .map(|error| fault(&error, "it"))
                .into_iter()
                .collect(),
            Said::Nothing => vec![Fault::new(
                "",
                "it is not what the schema asks for; it is too large for more to be said where there are alternatives",
            )],
        }
    }

    /// Whether data that is no JSON is as it should be: the schema says `"contentEncoding": "base64"` of the whole, which
    /// is how a value in JSON would hold such data.
    #[must_use]
    pub fn takes_bytes(&self) -> bool {
        self.document
            .get("contentEncoding")
            .is_some_and(|encoding| encoding == "base64")
    }

    /// [`Schema::check`] of a value as text. What is no JSON is a fault as well.
    #[must_use]
    pub fn check_text(&self, text: &[u8]) -> Vec<Fault> {
        match serde_json::from_slice(text) {
            Ok(value) => self.check(&value, text.len()),
            Err(error) => vec![Fault::new("", format!("it cannot be read: {error}"))],
        }
    }
}

/// The values of a document, each counted once for itself and once for each that it is within.
fn parts(value: &Value, depth: usize) -> usize {
    depth
        + match value {
            Value::Array(items) => items.iter().map(|item| parts(item, depth + 1)).sum(),
            Value::Object(members) => members.values().map(|member| parts(member, depth + 1)).sum(),
            _ => 0,
        }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// In words of ours, with `it` for the value: what a producer sent is for nobody's log.
fn fault(error: &ValidationError<'_>, it: &str) -> Fault {
    let pointer = error.instance_path().as_str();
    match error.kind() {
        // Where it should stand, as for our own bodies.
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            let missing = format!("{pointer}/{}", escaped(name));
            Fault::new(shortened(missing), "it is missing")
        }
        kind => {
            let mut detail = error.masked_with(it).to_string();
            if let ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } = kind {
                detail.push_str(&alternatives(context, pointer));
            }
            Fault::new(shortened(pointer.to_owned()), shortened(detail))
        }
    }
}

/// What each of the alternatives has against the value, first things first.
fn alternatives(context: &[Vec<ValidationError<'static>>], within: &str) -> String {
    let mut text = String::new();
    for error in context.iter().filter_map(|errors| errors.first()).take(4) {
        let fault = fault(error, "it");
        let pointer = fault.pointer.strip_prefix(within).unwrap_or(&fault.pointer);
        let separator = if text.is_empty() { " (" } else { "; or " };
        // Writing into a String cannot fail.
        let _ = write!(text, "{separator}{}", Fault::new(pointer, fault.detail));
    }
    if !text.is_empty() {
        text.push(')');
    }
    text
}

/// A step of a JSON pointer (RFC 6901, section 3).
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
