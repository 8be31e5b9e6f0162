//! What names, headers and patterns may be. Pure; every refusal says what would be right.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use common::definitions;
use common::model::{Filter, Pattern, limits};
use common::profile::Profile;
use common::render::{Error as TemplateError, Template};
use http::{HeaderName, HeaderValue};
use proto_schemas::id::is_project_name;
use serde_json::Value;
use uuid::Uuid;

/// Longest name of a webhook or token, in characters.
pub const NAME_MAX: usize = 64;

/// Most addresses that a project has e-mails sent to.
pub const EMAILS_MAX: usize = 10;

/// Longest address, in bytes (RFC 5321 §4.5.3.1.3, less the angle brackets).
pub const EMAIL_MAX: usize = 254;

/// Most event type patterns of one webhook.
pub const PATTERNS_MAX: usize = 100;

/// Most headers of one webhook's own, and most variables.
pub const HEADERS_MAX: usize = 32;

/// Longest value of a header or a variable, in bytes.
pub const HEADER_VALUE_MAX: usize = 4 * 1024;

/// Most that a webhook's headers may come to, in bytes of names and values: receivers refuse larger heads. The same holds
/// for its variables.
pub const HEADERS_BYTES_MAX: usize = 16 * 1024;

/// Longest name of a variable, in bytes.
pub const VARIABLE_NAME_MAX: usize = 64;

/// Longest description, in characters.
pub const DESCRIPTION_MAX: usize = 400;

/// Most labels, or attributes, of one webhook.
pub const PAIRS_MAX: usize = 32;

/// Longest key of a label or attribute, in characters.
pub const KEY_MAX: usize = 64;

/// Longest value of a label or attribute, in characters.
pub const VALUE_MAX: usize = 256;

/// Largest filter, and largest transform, in bytes of JSON.
pub const JSON_BYTES_MAX: usize = 16 * 1024;

/// How deep a filter or a transform may be nested.
pub const JSON_DEPTH_MAX: usize = 32;

/// Requests that may begin in a window of a rate limit.
pub const RATE_REQUESTS: RangeInclusive<u32> = 1..=100_000;

/// The window of a rate limit, in milliseconds. In a shorter one a timer is late by too much.
pub const RATE_WINDOW_MS: RangeInclusive<u32> = 100..=3_600_000;

/// Requests to one webhook that may be under way at once.
pub const IN_FLIGHT: RangeInclusive<u32> = 1..=100;

/// Most failed attempts in a row that may be waited for.
pub const FAIL_AFTER_MAX: u32 = 10_000;

/// Longest text in PEM, in bytes: room for three or four certificates. All of a webhook's definition has to fit a message.
pub const PEM_MAX: usize = 16 * 1024;

/// Longest name of a user or client, in bytes.
pub const CREDENTIAL_NAME_MAX: usize = 256;

/// Longest password or client's secret, in bytes: with the name and encoded, it fits into one header.
pub const CREDENTIAL_MAX: usize = 1024;

/// Headers that are the connection's, the signature's or our own.
const RESERVED: [&str; 17] = [
    "host",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "date",
    "via",
    "forwarded",
    "traceparent",
    "tracestate",
    "x-real-ip",
    "http2-settings",
];

/// Beginnings of headers that are the connection's, the signature's or our own.
const RESERVED_PREFIXES: [&str; 6] = [
    "proxy-",
    "x-forwarded-",
    "sec-",
    "webhook-",
    "posthaste-",
    "x-posthaste-",
];

/// Words in the name of a header whose value is meant for nobody else's eyes.
const TELLING: [&str; 4] = ["token", "secret", "key", "password"];

/// A project's name: it becomes part of subjects and paths.
///
/// # Errors
/// What a name may be.
pub fn project_name(name: &str) -> Result<(), String> {
    match is_project_name(name) {
        true => Ok(()),
        false => Err(
            "a project's name is 1 to 63 of a-z, 0-9 and -, starts and ends with a letter or digit, and is \
                      not a UUID"
                .to_owned(),
        ),
    }
}

/// A webhook's or token's name. A path may hold it in place of the id, so it must not be one.
///
/// # Errors
/// What a name may be.
pub fn name(name: &str) -> Result<(), String> {
    let length = name.chars().count();
    if !(1..=NAME_MAX).contains(&length) {
        return Err(format!(
            "a name is 1 to {NAME_MAX} characters long; this one has {length}"
        ));
    }
    if name.chars().any(char::is_control) {
        return Err("a name holds no control characters".to_owned());
    }
    if name.trim() != name {
        return Err("a name does not begin or end with a space".to_owned());
    }
    if name == "." || name == ".." {
        return Err("a name stands in paths, where `.` and `..` mean something else".to_owned());
    }
    match Uuid::parse_str(name) {
        Ok(_) => Err("a name must not look like an id (UUID)".to_owned()),
        Err(_) => Ok(()),
    }
}

/// A webhook's description: text of some lines.
///
/// # Errors
/// What is wrong.
pub fn description(text: &str) -> Result<(), String> {
    let length = text.chars().count();
    if length > DESCRIPTION_MAX {
        return Err(format!(
            "a description is at most {DESCRIPTION_MAX} characters long; this one has {length}"
        ));
    }
    match text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        true => Err("a description holds no control characters but tabs and ends of lines".to_owned()),
        false => Ok(()),
    }
}

/// A webhook's labels. A wrong one's key comes with the reason.
///
/// # Errors
/// What is wrong.
pub fn labels(labels: &BTreeMap<String, String>) -> Result<(), (Option<String>, String)> {
    pairs(labels)?;
    match labels.keys().find(|key| key.contains([':', ','])) {
        // Lists are filtered by `key:value,key:value`.
        Some(key) => Err((Some(key.clone()), "a label's key holds no `:` and no `,`".to_owned())),
        None => Ok(()),
    }
}

/// What a webhook wants an event's attributes to be. A wrong one's key comes with the reason.
///
/// # Errors
/// What is wrong.
pub fn attributes(attributes: &BTreeMap<String, String>) -> Result<(), (Option<String>, String)> {
    pairs(attributes)
}

fn pairs(pairs: &BTreeMap<String, String>) -> Result<(), (Option<String>, String)> {
    if pairs.len() > PAIRS_MAX {
        return Err((None, format!("at most {PAIRS_MAX}; these are {}", pairs.len())));
    }
    for (key, value) in pairs {
        let refused = |reason: String| Err((Some(key.clone()), reason));
        if !(1..=KEY_MAX).contains(&key.chars().count()) {
            return refused(format!("a key is 1 to {KEY_MAX} characters long"));
        }
        if value.chars().count() > VALUE_MAX {
            return refused(format!("a value is at most {VALUE_MAX} characters long"));
        }
        if key.chars().chain(value.chars()).any(char::is_control) {
            return refused("neither key nor value holds control characters".to_owned());
        }
    }
    Ok(())
}

/// A webhook's filter.
///
/// # Errors
/// Where in it, as a JSON pointer, and what is wrong.
pub fn filter(filter: &Value) -> Result<(), (String, String)> {
    if !filter.is_object() {
        return Err((String::new(), "a filter is an object".to_owned()));
    }
    json(filter).map_err(|reason| (String::new(), reason))?;
    match Filter::compile(filter) {
        Ok(_) => Ok(()),
        Err(error) => Err((error.pointer, error.reason)),
    }
}

/// A webhook's transform.
///
/// # Errors
/// Where in it, as a JSON pointer, and what is wrong.
pub fn transform(transform: &Value) -> Result<(), (String, String)> {
    if !transform.is_object() && !transform.is_array() {
        let reason = "a transform is an object or an array whose strings hold expressions";
        return Err((String::new(), reason.to_owned()));
    }
    json(transform).map_err(|reason| (String::new(), reason))?;
    match Template::compile(&transform.to_string()) {
        Ok(_) => Ok(()),
        Err(TemplateError::Leaf { pointer, fault }) => Err((pointer, fault.to_string())),
        Err(error) => Err((String::new(), error.to_string())),
    }
}

/// Longest expression that deliveries are kept in order by, in bytes.
const ORDER_KEY_MAX: usize = 256;

/// Checks an expression that deliveries are to be kept in order by.
///
/// # Errors
/// What is wrong.
pub fn order_key(expression: &str) -> Result<(), String> {
    if expression.trim().is_empty() || expression.len() > ORDER_KEY_MAX {
        return Err(format!(
            "it is an expression of 1 to {ORDER_KEY_MAX} bytes, such as `data.customer_id`"
        ));
    }
    if expression.contains('\0') {
        return Err("it holds U+0000".to_owned());
    }
    definitions::check_key(expression)
}

fn json(value: &Value) -> Result<(), String> {
    let size = value.to_string().len();
    if size > JSON_BYTES_MAX {
        return Err(format!("it is at most {JSON_BYTES_MAX} bytes of JSON; this is {size}"));
    }
    bounded(value, JSON_DEPTH_MAX)
}

/// Refuses what is too deep, and U+0000, which Postgres cannot hold.
fn bounded(value: &Value, depth: usize) -> Result<(), String> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(format!("it is nested deeper than {JSON_DEPTH_MAX}"));
    };
    let text = |text: &str| match text.contains('\0') {
        true => Err("a string holds the character U+0000".to_owned()),
        false => Ok(()),
    };
    match value {
        Value::String(string) => text(string),
        Value::Array(items) => items.iter().try_for_each(|item| bounded(item, depth)),
        Value::Object(members) => members.iter().try_for_each(|(key, value)| {
            text(key)?;
            bounded(value, depth)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// A webhook's timeout.
///
/// # Errors
/// What it may be.
pub fn timeout(timeout: Duration, profile: &Profile) -> Result<(), String> {
    limits::check_timeout(timeout)?;
    match timeout <= profile.timeout_max {
        true => Ok(()),
        false => Err(format!(
            "with the profile `{}` a timeout is at most {}",
            profile.name,
            humantime::format_duration(profile.timeout_max)
        )),
    }
}

/// A webhook's event type patterns. The first wrong one's place comes with the reason.
///
/// # Errors
/// What is wrong.
pub fn patterns(patterns: &[String]) -> Result<(), (Option<usize>, String)> {
    if patterns.is_empty() {
        return Err((None, "name at least one event type, or `*` for all".to_owned()));
    }
    if patterns.len() > PATTERNS_MAX {
        return Err((
            None,
            format!("at most {PATTERNS_MAX} patterns; `prefix.*` stands for many types"),
        ));
    }
    for (index, pattern) in patterns.iter().enumerate() {
        Pattern::parse(pattern).map_err(|error| (Some(index), error.to_string()))?;
        if patterns[..index].contains(pattern) {
            return Err((Some(index), format!("`{pattern}` is there twice")));
        }
    }
    Ok(())
}

/// A header's name; `signature_header` is the one the project's profile signs with.
///
/// # Errors
/// What is wrong.
pub fn header_name(name: &str, signature_header: Option<&str>) -> Result<(), String> {
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err("not the name of a header: use letters, digits and -".to_owned());
    }
    let name = name.to_ascii_lowercase();
    let reserved = RESERVED.contains(&name.as_str())
        || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || signature_header.is_some_and(|signature| signature.eq_ignore_ascii_case(&name));
    match reserved {
        true => Err(format!(
            "`{name}` cannot be set: it belongs to the connection, the signature or Posthaste itself"
        )),
        false => Ok(()),
    }
}

/// The name of a header that a signature stands in.
///
/// # Errors
/// What is wrong.
pub fn signature_header(name: &str) -> Result<(), String> {
    header_name(name, None)?;
    let made = ["accept", "authorization", "content-type", "cookie", "user-agent"];
    match made.iter().any(|other| other.eq_ignore_ascii_case(name)) {
        true => Err(format!(
            "`{name}` has a meaning of its own; take one such as X-Signature"
        )),
        false => Ok(()),
    }
}

/// A header's value.
///
/// # Errors
/// What is wrong; nothing of the value is in it.
pub fn header_value(value: &str) -> Result<(), String> {
    if value.len() > HEADER_VALUE_MAX {
        return Err(format!("a header's value is at most {HEADER_VALUE_MAX} bytes long"));
    }
    if HeaderValue::from_str(value).is_err() || !value.is_ascii() {
        return Err("a header's value is visible ASCII on one line".to_owned());
    }
    match value.trim() == value {
        true => Ok(()),
        false => Err("a header's value does not begin or end with a space".to_owned()),
    }
}

/// Certificates or a key in PEM; what is in them is looked at elsewhere.
///
/// # Errors
/// What is wrong.
pub fn pem(text: &str) -> Result<(), String> {
    if text.len() > PEM_MAX {
        return Err(format!("at most {PEM_MAX} bytes"));
    }
    match text.contains('\0') {
        true => Err("it holds U+0000".to_owned()),
        false => Ok(()),
    }
}

/// A variable's name: expressions hold it as `variables.name`.
///
/// # Errors
/// What a name may be.
pub fn variable_name(name: &str) -> Result<(), String> {
    let is_word = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let begins_well = !name.starts_with(|c: char| c.is_ascii_digit());
    match is_word && begins_well && (1..=VARIABLE_NAME_MAX).contains(&name.len()) {
        true => Ok(()),
        false => Err(format!(
            "a variable's name is 1 to {VARIABLE_NAME_MAX} letters, digits and _, and does not begin with a digit"
        )),
    }
}

/// A variable's value.
///
/// # Errors
/// What is wrong; nothing of the value is in it.
pub fn variable_value(value: &str) -> Result<(), String> {
    if value.len() > HEADER_VALUE_MAX {
        return Err(format!("a variable's value is at most {HEADER_VALUE_MAX} bytes long"));
    }
    match value.contains('\0') {
        true => Err("a variable's value does not hold the character U+0000".to_owned()),
        false => Ok(()),
    }
}

/// A user's name (RFC 7617 §2).
///
/// # Errors
/// What it may be.
pub fn username(name: &str) -> Result<(), String> {
    match (1..=CREDENTIAL_NAME_MAX).contains(&name.len()) && !name.contains(':') && !name.chars().any(char::is_control)
    {
        true => Ok(()),
        false => Err(format!(
            "a user's name is 1 to {CREDENTIAL_NAME_MAX} bytes long, without a colon and control characters"
        )),
    }
}

/// A client's id (RFC 6749 §A.1).
///
/// # Errors
/// What it may be.
pub fn client_id(id: &str) -> Result<(), String> {
    let is_visible = id.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    match (1..=CREDENTIAL_NAME_MAX).contains(&id.len()) && is_visible {
        true => Ok(()),
        false => Err(format!(
            "a client's id is 1 to {CREDENTIAL_NAME_MAX} characters of printable ASCII"
        )),
    }
}

/// A password or a client's secret.
///
/// # Errors
/// What it may be; nothing of it is in it.
pub fn credential(secret: &str) -> Result<(), String> {
    match secret.len() <= CREDENTIAL_MAX && !secret.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(format!(
            "it is at most {CREDENTIAL_MAX} bytes long, without control characters"
        )),
    }
}

/// What an access token is to be good for (RFC 6749 §3.3).
///
/// # Errors
/// What it may be.
pub fn scope(scope: &str) -> Result<(), String> {
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    match scope.len() <= CREDENTIAL_MAX && scope.split(' ').all(is_word) {
        true => Ok(()),
        false => Err("words of printable ASCII without quotes and backslashes, with one space between them".to_owned()),
    }
}

/// Whether a header or a variable is protected unless its owner says otherwise.
#[must_use]
pub fn is_protected_by_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    matches!(name.as_str(), "authorization" | "cookie") || TELLING.iter().any(|word| name.contains(word))
}

/// Whether these can be addresses that e-mails are sent to.
///
/// # Errors
/// Which is wrong, where it is one of them, and why.
pub fn emails(emails: &[String]) -> Result<(), (Option<usize>, String)> {
    if emails.len() > EMAILS_MAX {
        return Err((None, format!("at most {EMAILS_MAX} addresses")));
    }
    match emails.iter().position(|email| !is_email(email)) {
        Some(index) => Err((Some(index), "it is no e-mail address, like ops@example.com".to_owned())),
        None => Ok(()),
    }
}

/// A local part without quotes (RFC 5321 §4.1.2, Dot-string) and a domain name of two labels or more.
fn is_email(text: &str) -> bool {
    let atom = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&b))
    };
    let label = |word: &str| {
        (1..=63).contains(&word.len())
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !word.starts_with('-')
            && !word.ends_with('-')
    };
    text.len() <= EMAIL_MAX
        && text.rsplit_once('@').is_some_and(|(local, domain)| {
            local.len() <= 64 && local.split('.').all(atom) && domain.contains('.') && domain.split('.').all(label)
        })
}

#[cfg(test)]
mod tests;
