//! CloudEvents 1.0 over NATS: structured mode (the body is the whole event as JSON) and binary mode (`ce-` headers beside
//! the data), as in the specification's NATS protocol binding. The subject says project and type; the event's own
//! `type` stays readable as the attribute `type`, like its other context attributes.

use std::collections::BTreeMap;

use bytes::Bytes;
use common::bus::Message;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::accept::{Parts, Reason, Rejection};

/// Whether a content type announces structured mode.
pub(crate) fn is_structured(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/cloudevents+json")
}

/// Whether a message is in binary mode: it has `ce-specversion`.
pub(crate) fn is_binary(message: &Message) -> bool {
    crate::accept::header_of(message, "ce-specversion").is_some()
}

#[derive(Deserialize)]
struct Structured<'a> {
    specversion: String,
    id: String,
    time: Option<String>,
    datacontenttype: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
}

/// Reads an event in structured mode.
pub(crate) fn structured(body: &Bytes) -> Result<Parts, Rejection> {
    let wrong = |what: String| Rejection::new(Reason::MalformedCloudEvent, format!("not a CloudEvent in JSON: {what}"));
    let event: Structured<'_> = serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
    if event.specversion != "1.0" {
        return Err(wrong(format!("specversion is `{}`, must be `1.0`", event.specversion)));
    }
    let context: BTreeMap<String, &RawValue> =
        serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
    let content_type = event.datacontenttype.unwrap_or_default();
    let payload = match (event.data, event.data_base64) {
        (Some(_), Some(_)) => return Err(wrong("it has both `data` and `data_base64`".to_owned())),
        (Some(data), None) => match proto_schemas::event::is_json(&content_type) {
            true => body.slice_ref(data.get().as_bytes()),
            // Data of another type is carried as a JSON string, and meant as the text within.
            false => serde_json::from_str::<String>(data.get())
                .map_err(|_| {
                    wrong(format!(
                        "`data` of type {content_type} must be a string; or use `data_base64`"
                    ))
                })?
                .into(),
        },
        (None, Some(base64)) => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD
                .decode(base64)
                .map_err(|error| wrong(format!("`data_base64`: {error}")))?
                .into()
        }
        (None, None) => Bytes::from_static(b"null"),
    };
    Ok(Parts {
        id: Some(event.id),
        time: event.time,
        attributes: context
            .into_iter()
            .filter(|(name, _)| !NOT_ATTRIBUTES.contains(&name.as_str()))
            .map(|(name, value)| {
                let text = serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned());
                (name, text)
            })
            .collect(),
        content_type,
        payload,
    })
}

/// Reads an event in binary mode.
pub(crate) fn binary(message: &Message, content_type: &str) -> Parts {
    let mut parts = Parts {
        content_type: content_type.to_owned(),
        payload: message.payload.clone(),
        ..Parts::default()
    };
    for (name, values) in message.headers.iter().flat_map(|headers| headers.iter()) {
        let name = name.to_string().to_ascii_lowercase();
        let (Some(name), Some(value)) = (name.strip_prefix("ce-"), values.first()) else {
            continue;
        };
        match name {
            "id" => parts.id = Some(value.to_string()),
            "time" => parts.time = Some(value.to_string()),
            name if NOT_ATTRIBUTES.contains(&name) => {}
            name => drop(parts.attributes.insert(name.to_owned(), value.to_string())),
        }
    }
    parts
}

/// Context attributes that have a place of their own.
const NOT_ATTRIBUTES: [&str; 6] = ["specversion", "id", "time", "datacontenttype", "data", "data_base64"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structured_data_keeps_its_bytes() {
        let body = Bytes::from_static(
            br#"{"specversion":"1.0","id":"A-1","source":"/shop","type":"com.shop.paid","time":"2024-01-15T10:30:00Z","data":{ "b": 1.0, "a": 2 }}"#,
        );
        let parts = structured(&body).unwrap();
        assert_eq!(parts.payload.as_ref(), br#"{ "b": 1.0, "a": 2 }"#);
        assert_eq!(parts.id.as_deref(), Some("A-1"));
        assert_eq!(parts.attributes["source"], "/shop");
        assert_eq!(parts.attributes["type"], "com.shop.paid");
        assert_eq!(parts.attributes.len(), 2);
    }

    #[test]
    fn base64_data_is_bytes() {
        let body = Bytes::from_static(
            br#"{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"image/png","data_base64":"AQI="}"#,
        );
        assert_eq!(structured(&body).unwrap().payload.as_ref(), [1, 2]);
    }

    #[test]
    fn what_is_no_cloudevent_is_refused_with_the_reason() {
        for (body, says) in [
            (r#"{"id":"1"}"#, "specversion"),
            (r#"{"specversion":"0.3","id":"1"}"#, "must be `1.0`"),
            (r#"{"specversion":"1.0","id":"1","data":1,"data_base64":""}"#, "both"),
            (r#"{"specversion":"1.0","id":"1","data_base64":"*"}"#, "data_base64"),
            ("[]", "not a CloudEvent"),
        ] {
            let rejection = structured(&Bytes::copy_from_slice(body.as_bytes())).unwrap_err();
            assert!(rejection.detail.contains(says), "{body}: {}", rejection.detail);
        }
    }
}
