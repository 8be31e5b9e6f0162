//! Fields of a webhook that are more than a text or a number.

use std::fmt;
use std::time::Duration;

use proto_schemas::definition::SecretKind;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use store::webhooks::{BodyKind, Ordering, RateLimit, Retry, SignatureSettings};
use utoipa::ToSchema;
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};

use crate::http::json::Span;

/// What a secret signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = SecretKind)]
pub(in crate::http) enum SecretKindWord {
    /// HMAC-SHA256, of which both ends know the key.
    V1,
    /// Ed25519, of which receivers know the public key.
    V1a,
}

impl From<SecretKindWord> for SecretKind {
    fn from(word: SecretKindWord) -> Self {
        match word {
            SecretKindWord::V1 => Self::V1,
            SecretKindWord::V1a => Self::V1a,
        }
    }
}

/// How the body is made.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum BodyWord {
    /// The event's data as it came.
    Raw,
    /// The event's data, with `type` put in front where it is an object without one.
    Flat,
    /// The event's data as Base64 text.
    Base64,
    /// A CloudEvents 1.0 document in JSON.
    CloudEvents,
}

impl From<BodyWord> for BodyKind {
    fn from(word: BodyWord) -> Self {
        match word {
            BodyWord::Raw => Self::Raw,
            BodyWord::Flat => Self::Flat,
            BodyWord::Base64 => Self::Base64,
            BodyWord::CloudEvents => Self::CloudEvents,
        }
    }
}

impl From<BodyKind> for BodyWord {
    fn from(kind: BodyKind) -> Self {
        match kind {
            BodyKind::Raw => Self::Raw,
            BodyKind::Flat => Self::Flat,
            BodyKind::Base64 => Self::Base64,
            BodyKind::CloudEvents => Self::CloudEvents,
        }
    }
}

/// What becomes of what happens while a webhook is paused.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[schema(as = Pause)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum PauseWord {
    /// It is skipped, and the log says so.
    Drop,
    /// It is kept, and delivered, oldest first, once the webhook is resumed.
    Hold,
}

impl PauseWord {
    pub(in crate::http) const fn of(holds: bool) -> Self {
        match holds {
            true => Self::Hold,
            false => Self::Drop,
        }
    }

    pub(in crate::http) const fn holds(self) -> bool {
        matches!(self, Self::Hold)
    }
}

/// How requests are signed; both may be on.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct SignatureBody {
    /// The headers of Standard Webhooks: webhook-id, webhook-timestamp, webhook-signature.
    standard_webhooks: bool,
    /// A header that holds `sha256=` and the hexadecimal HMAC-SHA256 of the body.
    #[schema(example = "X-Signature")]
    body_hmac_header: Option<String>,
}

impl From<SignatureBody> for SignatureSettings {
    fn from(body: SignatureBody) -> Self {
        Self {
            standard_webhooks: body.standard_webhooks,
            body_hmac_header: body.body_hmac_header,
        }
    }
}

impl From<SignatureSettings> for SignatureBody {
    fn from(settings: SignatureSettings) -> Self {
        Self {
            standard_webhooks: settings.standard_webhooks,
            body_hmac_header: settings.body_hmac_header,
        }
    }
}

/// How many requests may begin in a window of time.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct RateLimitBody {
    /// How many.
    #[schema(minimum = 1, maximum = 100_000, example = 10)]
    requests: u32,
    /// In which time: 100ms to 1h.
    #[schema(value_type = String, example = "1s")]
    per: Span,
}

impl From<RateLimitBody> for RateLimit {
    fn from(body: RateLimitBody) -> Self {
        Self {
            requests: body.requests,
            window_ms: u32::try_from(body.per.0.as_millis()).unwrap_or(u32::MAX),
        }
    }
}

impl From<RateLimit> for RateLimitBody {
    fn from(limit: RateLimit) -> Self {
        Self {
            requests: limit.requests,
            per: Span(Duration::from_millis(limit.window_ms.into())),
        }
    }
}

/// Which deliveries wait for which.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(tag = "by", rename_all = "lowercase", deny_unknown_fields)]
pub(in crate::http) enum OrderingBody {
    /// Each waits until the one before it is settled: delivered, dead or cancelled.
    Webhook,
    /// The same, among those for whose events the expression gives the same.
    Key {
        /// An expression over the event.
        #[schema(max_length = 256, example = "data.customer_id")]
        key: String,
    },
}

impl From<OrderingBody> for Ordering {
    fn from(body: OrderingBody) -> Self {
        match body {
            OrderingBody::Webhook => Self::Webhook,
            OrderingBody::Key { key } => Self::Key { key },
        }
    }
}

impl From<Ordering> for OrderingBody {
    fn from(ordering: Ordering) -> Self {
        match ordering {
            Ordering::Webhook => Self::Webhook,
            Ordering::Key { key } => Self::Key { key },
        }
    }
}

/// A class of answers.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub(in crate::http) enum AnswerClass {
    /// Successes.
    #[serde(rename = "2xx")]
    Successes,
    /// Redirects, which are never followed.
    #[serde(rename = "3xx")]
    Redirects,
}

/// Which answers count as delivered: `["2xx"]` or `["2xx", "3xx"]`.
#[derive(Deserialize, Serialize)]
#[serde(try_from = "Vec<AnswerClass>", into = "Vec<AnswerClass>")]
#[derive(Clone, Copy)]
pub(in crate::http) struct Success {
    pub(in crate::http) redirects: bool,
}

impl TryFrom<Vec<AnswerClass>> for Success {
    type Error = &'static str;

    fn try_from(classes: Vec<AnswerClass>) -> Result<Self, &'static str> {
        match classes.as_slice() {
            [AnswerClass::Successes] => Ok(Self { redirects: false }),
            [AnswerClass::Successes, AnswerClass::Redirects] | [AnswerClass::Redirects, AnswerClass::Successes] => {
                Ok(Self { redirects: true })
            }
            _ => Err("give [\"2xx\"] or [\"2xx\", \"3xx\"]"),
        }
    }
}

impl From<Success> for Vec<AnswerClass> {
    fn from(success: Success) -> Self {
        match success.redirects {
            true => vec![AnswerClass::Successes, AnswerClass::Redirects],
            false => vec![AnswerClass::Successes],
        }
    }
}

/// `false`, or `{"delays": ["0s", "1m"]}`.
pub(in crate::http) struct RetryBody(pub(in crate::http) Retry);

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Delays {
    delays: Vec<Span>,
}

impl<'de> Deserialize<'de> for RetryBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = RetryBody;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("false, null, or {\"delays\": [\"0s\", \"1m\"]}")
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<RetryBody, E> {
                match value {
                    false => Ok(RetryBody(Retry::Never)),
                    true => Err(E::custom(
                        "`true` says not when; leave it out for the profile's delays, or give `delays`",
                    )),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RetryBody, A::Error> {
                let delays = Delays::deserialize(MapAccessDeserializer::new(map))?.delays;
                Ok(RetryBody(Retry::Delays(
                    delays.into_iter().map(|span| span.0).collect(),
                )))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl Serialize for RetryBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Retry::Never => serializer.serialize_bool(false),
            Retry::Delays(delays) => Delays {
                delays: delays.iter().copied().map(Span).collect(),
            }
            .serialize(serializer),
        }
    }
}

impl utoipa::PartialSchema for RetryBody {
    fn schema() -> RefOr<Schema> {
        let delay = ObjectBuilder::new().schema_type(Type::String).examples(["30s"]);
        let delays = ArrayBuilder::new().items(delay).min_items(Some(1)).max_items(Some(50));
        let given = ObjectBuilder::new()
            .description(Some("The delay before each attempt, the first one's included."))
            .property("delays", delays)
            .required("delays")
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .examples([serde_json::json!({ "delays": ["0s", "1m", "5m"] })]);
        let never = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::Boolean))
            .enum_values(Some([false]))
            .description(Some("A single attempt."));
        OneOfBuilder::new().item(given).item(never).into()
    }
}

impl ToSchema for RetryBody {
    fn name() -> std::borrow::Cow<'static, str> {
        "Retry".into()
    }
}
