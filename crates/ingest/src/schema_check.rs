//! Asks an event's type what it has against the event. Pure.
//!
//! Pointers lead into the event as it is posted over HTTP: `/data/…`, `/attributes/type_version`. On NATS the body is the
//! data alone; the words are the same.

use std::collections::BTreeMap;

use common::definitions::EventType;
use common::schema::Fault;

/// The attribute by which an event names its type's version.
pub const TYPE_VERSION: &str = "type_version";

/// Longest detail of a rejection, in bytes.
const DETAIL_MAX: usize = 2000;

/// What the type has against an event; nothing if it is as it should be. `data` is `None` where it is not JSON.
#[must_use]
pub fn faults(event_type: &EventType, attributes: &BTreeMap<String, String>, data: Option<&[u8]>) -> Vec<Fault> {
    let named = attributes.get(TYPE_VERSION).map(String::as_str);
    let Some(version) = event_type.version(named) else {
        let known = event_type.version_names();
        let detail = format!("`{}` has no such version; there are: {known}", event_type.name());
        return vec![Fault::new(format!("/attributes/{TYPE_VERSION}"), detail)];
    };
    let Some(schema) = &version.schema else {
        return Vec::new();
    };
    match data {
        Some(data) => {
            let found = schema.check_text(data).into_iter();
            found.map(|fault| fault.under("/data")).collect()
        }
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
        if text.len() + fault.len() > DETAIL_MAX {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proto_schemas::definition::{self, EventTypeVersion};

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
            ["/attributes/type_version: `order.placed` has no such version; there are: 1, 2, 3"]
        );
    }

    #[test]
    fn what_is_not_json_is_refused_by_a_schema_and_by_nothing_else() {
        assert_eq!(
            found(None, None),
            ["/data: it is not JSON by its Content-Type, and `order.placed` is"]
        );
        assert_eq!(found(Some("2"), None), Vec::<String>::new());
        // JSON to a reader that skips over numbers, too large for one that does not.
        assert!(found(None, Some("1e999"))[0].starts_with("/data: it cannot be read: number out of range"));
    }

    #[test]
    fn a_rejections_detail_is_bounded() {
        let many: Vec<Fault> = (0..20)
            .map(|i| Fault::new(format!("/data/{i}"), "x".repeat(300)))
            .collect();
        let text = detail("a", &many);
        assert!(text.len() < 2100 && text.ends_with("; and 14 more"), "{text}");
        assert_eq!(
            detail("a", &many[..1]).len(),
            300 + "the schema of `a` refuses it: /data/0: ".len()
        );
    }
}
