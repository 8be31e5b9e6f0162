//! Where two JSON values differ. Pure.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A place where two values differ.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Change {
    /// Where: a JSON pointer (RFC 6901).
    #[schema(example = "/retry/delays/1")]
    pub pointer: String,
    /// What was there; absent where there was nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value)]
    pub from: Option<Value>,
    /// What is there now; absent where there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value)]
    pub to: Option<Value>,
}

/// Every place where they differ, as deep down as can be said; in the order of the later one, what is gone last.
#[must_use]
pub fn changes(from: &Value, to: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(String::new(), Some(from), Some(to), &mut changes);
    changes
}

fn compare(pointer: String, from: Option<&Value>, to: Option<&Value>, changes: &mut Vec<Change>) {
    match (from, to) {
        (from, to) if from == to => {}
        (Some(Value::Object(from)), Some(Value::Object(to))) => members(&pointer, from, to, changes),
        (Some(Value::Array(from)), Some(Value::Array(to))) => {
            for index in 0..from.len().max(to.len()) {
                compare(format!("{pointer}/{index}"), from.get(index), to.get(index), changes);
            }
        }
        (from, to) => changes.push(Change {
            pointer,
            from: from.cloned(),
            to: to.cloned(),
        }),
    }
}

fn members(pointer: &str, from: &Map<String, Value>, to: &Map<String, Value>, changes: &mut Vec<Change>) {
    let path = |key: &str| format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
    for (key, value) in to {
        compare(path(key), from.get(key), Some(value), changes);
    }
    for (key, value) in from.iter().filter(|(key, _)| !to.contains_key(*key)) {
        compare(path(key), Some(value), None, changes);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_told_where_it_is_and_no_higher() {
        let from = json!({ "name": "a", "retry": { "delays": ["0s", "1m"] }, "labels": { "a/b": "1", "c": "2" } });
        let to =
            json!({ "name": "a", "retry": { "delays": ["0s", "2m", "5m"] }, "labels": { "a/b": "3" }, "new": null });
        let told = serde_json::to_value(changes(&from, &to)).unwrap();
        assert_eq!(
            told,
            json!([
                { "pointer": "/retry/delays/1", "from": "1m", "to": "2m" },
                { "pointer": "/retry/delays/2", "to": "5m" },
                { "pointer": "/labels/a~1b", "from": "1", "to": "3" },
                { "pointer": "/labels/c", "from": "2" },
                { "pointer": "/new", "to": null },
            ])
        );
        assert_eq!(changes(&to, &to), []);
        assert_eq!(changes(&json!(1), &json!({}))[0].pointer, "");
    }
}
