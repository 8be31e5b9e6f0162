//! Asks an event's type what it has against the event. Pure, but for [`ask`], which does it where it holds nobody up.
//!
//! Pointers lead into the event as it is posted over HTTP: `/data/…`, `/attributes/type_version`. On NATS the body is the
//! data alone; the words are the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::definitions::EventType;
use common::schema::Fault;

use crate::aside;

/// The attribute by which an event names its type's version.
pub const TYPE_VERSION: &str = "type_version";

/// Longest text about an event's faults, in bytes; what says how many more there are comes on top.
const TEXT_MAX: usize = 4000;

/// [`faults`], found on a thread of its own where that takes its time: the events of others are not held up.
///
/// # Panics
/// Where finding them does.
pub async fn ask(
    event_type: &Arc<EventType>,
    attributes: &BTreeMap<String, String>,
    data: Option<&[u8]>,
) -> Vec<Fault> {
    if is_moderate(event_type, attributes, data) {
        return faults(event_type, attributes, data);
    }
    let (event_type, attributes, data) = (Arc::clone(event_type), attributes.clone(), data.map(<[u8]>::to_vec));
    aside::run(move || faults(&event_type, &attributes, data.as_deref())).await
}

/// Whether finding the faults is so little work that it may be done in between.
fn is_moderate(event_type: &EventType, attributes: &BTreeMap<String, String>, data: Option<&[u8]>) -> bool {
    let version = event_type.version(attributes.get(TYPE_VERSION).map(String::as_str));
    version.is_none_or(|version| version.is_moderate(event_type, data.unwrap_or_default()))
}

/// What the type has against an event; nothing if it is as it should be. `data` is `None` where it is not JSON.
#[must_use]
pub fn faults(event_type: &EventType, attributes: &BTreeMap<String, String>, data: Option<&[u8]>) -> Vec<Fault> {
    let named = attributes.get(TYPE_VERSION).map(String::as_str);
    let Some(version) = event_type.version(named) else {
        let known = event_type.version_names();
        let detail = format!("`{}` has no such version; there are: {known}", event_type.name());
        return vec![Fault::new(format!("/attributes/{TYPE_VERSION}"), detail)];
    };
    let Some(schema) = version.schema(event_type) else {
        return Vec::new();
    };
    match data {
        Some(data) => {
            let found = schema.check_text(data).into_iter();
            found.map(|fault| fault.under("/data")).collect()
        }
        None if schema.takes_bytes() => Vec::new(),
        None => vec![Fault::new(
            "/data",
            format!("it is not JSON by its Content-Type, and `{}` is", event_type.name()),
        )],
    }
}

/// The detail of a rejection.
#[must_use]
pub fn detail(event_type: &str, faults: &[Fault]) -> String {
    let mut text = format!("the schema of `{event_type}` refuses it: ");
    for (number, fault) in faults.iter().enumerate() {
        let fault = fault.to_string();
        if text.len() + fault.len() > TEXT_MAX {
            text.push_str(&format!("; and {} more", faults.len() - number));
            break;
        }
        if number > 0 {
            text.push_str("; ");
        }
        text.push_str(&fault);
    }
    text
}

/// What is kept with an event that is accepted all the same. It travels with the event, so no more than a rejection's
/// detail has.
#[must_use]
pub fn warnings(faults: &[Fault]) -> Vec<String> {
    let (mut warnings, mut bytes) = (Vec::with_capacity(faults.len()), 0);
    for (number, fault) in faults.iter().enumerate() {
        let fault = fault.to_string();
        bytes += fault.len();
        if bytes > TEXT_MAX {
            warnings.push(format!("and {} more", faults.len() - number));
            break;
        }
        warnings.push(fault);
    }
    warnings
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use proto_schemas::definition::{self, EventTypeVersion};

    use super::*;

    fn event_type() -> EventType {
        let version = |version: &str, schema: &str| EventTypeVersion {
            version: version.into(),
            schema: schema.into(),
            deprecated: false,
        };
        EventType::of(&definition::EventType {
            name: "order.placed".into(),
            versions: vec![
                version("1", r#"{"required":["a"]}"#),
                version("bytes", r#"{"contentEncoding":"base64"}"#),
                version("2", ""),
                version("3", r#"{"required":["b"]}"#),
            ],
            deleted: false,
        })
    }

    fn found(version: Option<&str>, data: Option<&str>) -> Vec<String> {
        let attributes = version.map(|version| (TYPE_VERSION.to_owned(), version.to_owned()));
        let found = faults(
            &event_type(),
            &attributes.into_iter().collect(),
            data.map(str::as_bytes),
        );
        found.iter().map(Fault::to_string).collect()
    }

    #[test]
    fn an_event_is_checked_by_the_version_it_names() {
        let none = Vec::<String>::new();
        assert_eq!(found(Some("1"), Some(r#"{"a":1}"#)), none);
        assert_eq!(found(Some("1"), Some("{}")), ["/data/a: it is missing"]);
        assert_eq!(found(Some("2"), Some("[]")), none);
        assert_eq!(found(None, Some("{}")), ["/data/b: it is missing"]);
        assert_eq!(
            found(Some("4"), Some("{}")),
            ["/attributes/type_version: `order.placed` has no such version; there are: 1, bytes, 2, 3"]
        );
    }

    #[tokio::test]
    async fn what_takes_its_time_is_done_on_another_thread() {
        let event_type = Arc::new(event_type());
        let (none, large) = (BTreeMap::new(), format!("[{}1]", "1,".repeat(100_000)));
        let ask = |data| ask(&event_type, &none, Some(data));
        assert!(
            ask(b"{}".as_slice()).now_or_never().is_none(),
            "the schema is still to be compiled"
        );
        assert_eq!(ask(b"{}").await.len(), 1);
        assert_eq!(ask(b"{}").now_or_never().map(|faults| faults.len()), Some(1));
        assert!(ask(large.as_bytes()).now_or_never().is_none(), "it is large");
        assert_eq!(ask(large.as_bytes()).await, []);
        assert!(ask(b"[").now_or_never().is_some(), "it is no JSON");
    }

    #[test]
    fn what_is_not_json_is_refused_by_a_schema_and_by_nothing_else() {
        assert_eq!(
            found(None, None),
            ["/data: it is not JSON by its Content-Type, and `order.placed` is"]
        );
        assert_eq!(found(Some("2"), None), Vec::<String>::new());
        assert_eq!(found(Some("bytes"), None), Vec::<String>::new());
        // JSON to a reader that skips over numbers, too large for one that does not.
        assert!(found(None, Some("1e999"))[0].starts_with("/data: it cannot be read: number out of range"));
    }

    #[test]
    fn a_rejections_detail_is_bounded() {
        let many: Vec<Fault> = (0..20)
            .map(|i| Fault::new(format!("/data/{i}"), "x".repeat(300)))
            .collect();
        let text = detail("a", &many);
        assert!(text.len() < 4100 && text.ends_with(" more"), "{text}");
        assert_eq!(
            detail("a", &many[..1]).len(),
            300 + "the schema of `a` refuses it: /data/0: ".len()
        );
    }

    #[test]
    fn warnings_are_as_short_as_a_detail() {
        let faults = |count: usize| -> Vec<Fault> {
            let fault = |i| Fault::new(format!("/data/{i}"), "x".repeat(300));
            (0..count).map(fault).collect()
        };
        assert_eq!(warnings(&[]), Vec::<String>::new());
        assert_eq!(warnings(&faults(2)).len(), 2);
        let many = warnings(&faults(20));
        assert_eq!(many.last().map(String::as_str), Some("and 8 more"), "{many:?}");
        assert!(many.iter().map(String::len).sum::<usize>() < 4100);
        let long = Fault::new(format!("/data/{}", "x".repeat(10_000)), "it is missing");
        assert_eq!(warnings(&[long]), ["and 1 more"]);
    }
}
