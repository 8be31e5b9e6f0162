//! How a webhook is delivered to, where it says so itself; stored as one JSON value.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a webhook says itself of how it is delivered to; `None`: as the profile says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// A filter on the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<serde_json::Value>,
    /// The body, as JSON whose strings are template expressions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transform: Option<serde_json::Value>,
    /// How the body is made, where there is no `transform`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<BodyKind>,
    /// How requests are signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignatureSettings>,
    /// Whether a 3xx answer counts as delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect_is_success: Option<bool>,
    /// How many requests may begin in a window of time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Requests under way at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// Whether deliveries are kept while it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_while_paused: Option<bool>,
    /// Failed attempts in a row after which it has failed; 0: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_after: Option<u32>,
    /// Which deliveries wait for which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordering: Option<Ordering>,
    /// How many held deliveries may be released in a window of time once it is active again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_rate: Option<RateLimit>,
    /// The profile's options, switched on or off.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, bool>,
}

/// How a body is made that needs nothing more said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyKind {
    /// The payload as it came.
    Raw,
    /// The payload, with `type` put in front where it is an object without one.
    Flat,
    /// The payload as Base64 text.
    Base64,
    /// A CloudEvents 1.0 document in JSON.
    CloudEvents,
}

/// How requests are signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureSettings {
    /// Standard Webhooks' headers.
    pub standard_webhooks: bool,
    /// A header with `sha256=` and the body's HMAC.
    pub body_hmac_header: Option<String>,
}

/// Which deliveries wait for which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "lowercase")]
pub enum Ordering {
    /// Each waits until the one before it is settled.
    Webhook,
    /// The same, among those for whose events an expression gives the same.
    Key {
        /// The expression.
        key: String,
    },
}

/// At most `requests` in each window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// How many, at least 1.
    pub requests: u32,
    /// In how many milliseconds, at least 1.
    pub window_ms: u32,
}
