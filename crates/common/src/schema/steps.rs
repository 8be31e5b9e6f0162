//! How many steps a part of a schema takes by itself: texts by their length, and where they are matched by what their pattern
//! costs ([`patterns`](super::patterns)); comparisons by the bulk of what is compared; objects by what is looked up.

use serde_json::{Map, Value};

use super::effort::MODERATE;
use super::patterns::Patterns;

/// How much is compared, or gone through for its hash, in the time of one step, in bytes of [`bulk`].
const BULK_A_STEP: u64 = 512;

/// How many members are looked up in the time of one step.
const LOOKUPS_A_STEP: u64 = 16;

/// How often a schema looks at each of its parts: what is unevaluated is known by evaluating everything beside it once more.
pub(super) fn looks(schema: &Map<String, Value>) -> u64 {
    let again = schema.contains_key("unevaluatedProperties") || schema.contains_key("unevaluatedItems");
    if again { 2 } else { 1 }
}

/// The patterns of a schema, those of names among them, and where they stand in it.
pub(super) fn own_patterns(schema: &Map<String, Value>) -> impl Iterator<Item = (String, &str)> {
    let of_names = schema.get("patternProperties").and_then(Value::as_object);
    let of_names = of_names.into_iter().flat_map(Map::keys);
    let of_names = of_names.map(|pattern| {
        (
            format!("/patternProperties/{}", super::escaped(pattern)),
            pattern.as_str(),
        )
    });
    let of_text = schema.get("pattern").and_then(Value::as_str);
    of_text
        .into_iter()
        .map(|pattern| ("/pattern".to_owned(), pattern))
        .chain(of_names)
}

/// How many members of an object a schema may look up.
fn lookups(schema: &Map<String, Value>) -> u64 {
    let listed = |keyword| match schema.get(keyword) {
        Some(Value::Object(members)) => {
            members.len()
                + members
                    .values()
                    .filter_map(Value::as_array)
                    .map(Vec::len)
                    .sum::<usize>()
        }
        _ => 0,
    };
    let keywords = ["properties", "dependentRequired", "dependentSchemas", "dependencies"];
    keywords.map(listed).iter().sum::<usize>() as u64
}

fn listed(schema: &Map<String, Value>, keyword: &str) -> u64 {
    schema.get(keyword).and_then(Value::as_array).map_or(0, Vec::len) as u64
}

/// About how much a value is, in bytes.
pub(super) fn bulk(value: &Value) -> u64 {
    32 + match value {
        Value::String(text) => text.len() as u64,
        Value::Array(items) => items.iter().map(bulk).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| name.len() as u64 + bulk(member))
            .sum(),
        _ => 0,
    }
}

/// Most steps per value that a part may take by itself, where it applies to values none of which is within another.
pub(super) fn own_weight(patterns: &Patterns, schema: &Value) -> u64 {
    let Some(schema) = schema.as_object() else { return 1 };
    let matched = own_patterns(schema).map(|(_, pattern)| patterns.cost(pattern).weight());
    let matched = matched.fold(0, u64::saturating_add).saturating_mul(looks(schema));
    let format = match schema.get("format").and_then(Value::as_str) {
        None => 0,
        // It is not known without the text.
        Some("regex") => MODERATE,
        Some(_) => 1,
    };
    let looked_at = 3 + listed(schema, "enum") + listed(schema, "required") + lookups(schema) / LOOKUPS_A_STEP;
    looked_at.saturating_add(matched).saturating_add(format)
}

/// The steps that a part takes by itself with this value; nobody asks by how much they are above `most`.
pub(super) fn own_steps(patterns: &Patterns, schema: &Value, value: &Value, most: u64) -> u64 {
    let Some(schema) = schema.as_object() else { return 1 };
    let compares = schema.contains_key("enum")
        || schema.contains_key("const")
        || schema.get("uniqueItems") == Some(&Value::Bool(true));
    let compared = match compares {
        true => (1 + listed(schema, "enum")).saturating_mul(1 + bulk(value) / BULK_A_STEP),
        false => 0,
    };
    let looked_at = match value {
        Value::String(text) => text.len() as u64 / 64 + text_steps(patterns, schema, text),
        Value::Array(items) => items.len() as u64,
        Value::Object(members) => {
            let looked_up = listed(schema, "required") + lookups(schema) / LOOKUPS_A_STEP;
            members.len() as u64 + looked_up + names_steps(patterns, schema, members, most)
        }
        _ => 0,
    };
    1 + looked_at.saturating_add(compared)
}

fn text_steps(patterns: &Patterns, schema: &Map<String, Value>, text: &str) -> u64 {
    let length = text.len() as u64;
    let format = match schema.get("format").and_then(Value::as_str) {
        None => 0,
        // Each name of a group is compared with those before it.
        Some("regex") => length * length / 4096,
        Some(_) => length / 16,
    };
    let pattern = schema.get("pattern").and_then(Value::as_str);
    format + pattern.map_or(0, |pattern| patterns.cost(pattern).steps(text))
}

fn names_steps(patterns: &Patterns, schema: &Map<String, Value>, members: &Map<String, Value>, most: u64) -> u64 {
    let mut steps = 0_u64;
    let of_names = schema.get("patternProperties").and_then(Value::as_object);
    for cost in of_names
        .into_iter()
        .flat_map(Map::keys)
        .map(|pattern| patterns.cost(pattern))
    {
        for name in members.keys() {
            steps = steps.saturating_add(cost.steps(name));
            if steps > most {
                return steps;
            }
        }
    }
    steps * looks(schema)
}
