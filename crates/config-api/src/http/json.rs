//! How values that several resources share stand in JSON.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// A field that may be absent, null or a value: absent is `None`, null is `Some(None)`.
pub(super) fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A field that may be absent but not null.
pub(super) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A duration, written like `30s` or `1m 30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Span(pub(super) Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let duration = common::config::duration(&text)?;
        // What is finer than a millisecond could not be stored.
        Ok(Self(Duration::from_millis(
            u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        )))
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        humantime::format_duration(span.0).to_string()
    }
}

/// Bytes in an answer: as they are where they are JSON or text, in Base64 where they are not.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct Payload {
    /// The same bytes, where they are JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = serde_json::Value, required = false, nullable = false)]
    data: Option<Box<RawValue>>,
    /// Base64 of the bytes, where they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

impl Payload {
    /// `is_json`: whether the producer says so. What then is none is given in Base64 as well.
    pub(super) fn new(bytes: Vec<u8>, is_json: bool) -> Self {
        if is_json && let Ok(data) = serde_json::from_slice::<Box<RawValue>>(&bytes) {
            return Self {
                data: Some(data),
                data_base64: None,
            };
        }
        Self {
            data: None,
            data_base64: Some(STANDARD.encode(bytes)),
        }
    }
}

/// Text of a stranger's in an answer: as it is where it is UTF-8, in Base64 where it is not.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct Text {
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

impl Text {
    /// `truncated`: whether the end was cut off, perhaps within a character.
    pub(super) fn new(bytes: Vec<u8>, truncated: bool) -> Self {
        match String::from_utf8(bytes) {
            Ok(body) => Self {
                body: Some(body),
                body_base64: None,
            },
            Err(error) => {
                let (whole, cut_off) = (
                    error.utf8_error().valid_up_to(),
                    error.utf8_error().error_len().is_none(),
                );
                let bytes = error.into_bytes();
                match truncated && cut_off {
                    true => Self {
                        body: Some(String::from_utf8_lossy(&bytes[..whole]).into_owned()),
                        body_base64: None,
                    },
                    false => Self {
                        body: None,
                        body_base64: Some(STANDARD.encode(bytes)),
                    },
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn absent_null_and_a_value_are_three_things() {
        #[derive(Deserialize)]
        struct Body {
            #[serde(default, deserialize_with = "nullable")]
            timeout: Option<Option<Span>>,
        }
        let read = |text: &str| serde_json::from_str::<Body>(text).unwrap().timeout;
        assert_eq!(read("{}"), None);
        assert_eq!(read(r#"{"timeout":null}"#), Some(None));
        assert_eq!(read(r#"{"timeout":"30s"}"#), Some(Some(Span(Duration::from_secs(30)))));
    }

    #[test]
    fn a_duration_reads_as_it_was_written() {
        for text in ["0s", "30s", "1m", "1m 30s", "8h", "250ms"] {
            let span: Span = serde_json::from_str(&format!("\"{text}\"")).unwrap();
            assert_eq!(json(&span), format!("\"{text}\""));
        }
        assert!(
            serde_json::from_str::<Span>("\"soon\"")
                .unwrap_err()
                .to_string()
                .contains("write it like 30s")
        );
        assert!(serde_json::from_str::<Span>("30").is_err());
    }

    #[test]
    fn a_json_payload_is_given_as_the_same_bytes() {
        let bytes = br#"{"b": 1.0, "a": 12345678901234567890123, "b": 2}"#.to_vec();
        let expected = format!(r#"{{"data":{}}}"#, String::from_utf8(bytes.clone()).unwrap());
        assert_eq!(json(&Payload::new(bytes, true)), expected);
        assert_eq!(
            json(&Payload::new(b"not json".to_vec(), true)),
            r#"{"data_base64":"bm90IGpzb24="}"#
        );
        assert_eq!(json(&Payload::new(b"{}".to_vec(), false)), r#"{"data_base64":"e30="}"#);
        assert_eq!(json(&Payload::new(vec![0xff], true)), r#"{"data_base64":"/w=="}"#);
    }

    #[test]
    fn a_text_cut_off_within_a_character_is_still_text() {
        let text = "né".as_bytes().to_vec();
        assert_eq!(json(&Text::new(text.clone(), false)), r#"{"body":"né"}"#);
        assert_eq!(json(&Text::new(text[..2].to_vec(), true)), r#"{"body":"n"}"#);
        assert_eq!(
            json(&Text::new(text[..2].to_vec(), false)),
            r#"{"body":null,"body_base64":"bsM="}"#
        );
        assert_eq!(
            json(&Text::new(vec![0xff, 0xfe], true)),
            r#"{"body":null,"body_base64":"//4="}"#
        );
    }
}
