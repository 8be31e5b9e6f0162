//! How much work a check is, known before it is begun.
//!
//! A schema's parts are asked once for each value they apply to, but a schema may refer to its parts any number of times,
//! and by way of references also to itself; then a small schema and a small event can keep a validator busy for ages, or
//! end its stack. So a schema that can never end is refused when it is compiled, and for one that could take long with a
//! large event, the steps are counted along that event before the validator sees it.

use std::collections::{HashMap, HashSet};
use std::ptr::from_ref;

use serde_json::{Map, Value};

use super::Fault;

/// Most steps of one check: some tens of milliseconds.
const STEPS_MAX: u64 = 500_000;

/// Up to here a check is so little work that every fault is looked for; above, only the first.
const MODERATE: u64 = 50_000;

/// How many parts of a schema may lie within one another, references followed.
const NESTED_MAX: usize = 128;

/// How many steps may lie within one another when an event is checked.
const STACKED_MAX: usize = 256;

/// What is known of a schema's effort.
#[derive(Debug)]
pub(super) struct Effort {
    /// Parts that may be asked about one value and all within it, references followed; `u64::MAX` where it refers to
    /// itself.
    weight: u64,
    /// JSON pointers of what `$ref` names by `$anchor`.
    anchors: HashMap<String, String>,
}

/// Where a part of a schema applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place<'a> {
    /// To the value itself.
    Here,
    /// To the member of that name.
    Member(&'a str),
    /// To any member.
    Members,
    /// To the item of that number.
    Item(usize),
    /// To any item.
    Items,
    /// To nothing, unless something refers to it.
    Nothing,
}

/// A part of a schema, and how often a validator may look at it: alternatives are tried, and looked at again for what to
/// say of them.
struct Part<'a> {
    place: Place<'a>,
    schema: &'a Value,
    times: u64,
}

impl Effort {
    /// Looks a schema over.
    pub(super) fn of(document: &Value) -> Result<Self, Fault> {
        let mut anchors = HashMap::new();
        collect(document, "", true, &mut anchors)?;
        let mut effort = Self { weight: 0, anchors };
        let mut survey = Survey {
            effort: &effort,
            document,
            seen: HashMap::new(),
            under_way: HashSet::new(),
        };
        let (weight, _) = survey.weigh(document, 0)?;
        survey.check_ends()?;
        effort.weight = weight;
        Ok(effort)
    }

    /// Whether checking the value is moderate work.
    ///
    /// # Errors
    /// Where it is too much.
    pub(super) fn is_worth(&self, document: &Value, value: &Value, size: usize) -> Result<bool, Fault> {
        // Every value but the last takes two bytes or more.
        let values = u64::try_from(size / 2 + 1).unwrap_or(u64::MAX);
        if self.weight.saturating_mul(values) <= MODERATE {
            return Ok(true);
        }
        let mut count = Count {
            effort: self,
            document,
            left: STEPS_MAX,
        };
        match count.visit(document, value, 0) {
            Some(()) => Ok(STEPS_MAX - count.left <= MODERATE),
            None => Err(Fault::new(
                "",
                "it is too large or too deep to be checked by this schema",
            )),
        }
    }

    /// What a `$ref` names.
    fn resolve<'a>(&self, document: &'a Value, reference: &str) -> Option<&'a Value> {
        let fragment = decoded(reference.strip_prefix('#')?)?;
        match fragment.is_empty() || fragment.starts_with('/') {
            true => document.pointer(&fragment),
            false => document.pointer(self.anchors.get(&fragment)?),
        }
    }

    fn parts<'a>(&self, document: &'a Value, schema: &'a Value) -> Vec<Part<'a>> {
        let Some(schema) = schema.as_object() else {
            return Vec::new();
        };
        let mut parts = own_parts(schema);
        if let Some(Value::String(reference)) = schema.get("$ref")
            && let Some(schema) = self.resolve(document, reference)
        {
            parts.push(Part {
                place: Place::Here,
                schema,
                times: 1,
            });
        }
        parts
    }
}

/// The parts of a schema that stand in it.
fn own_parts(schema: &Map<String, Value>) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    // What is unevaluated is known by evaluating everything beside it once more.
    let again = schema.contains_key("unevaluatedProperties") || schema.contains_key("unevaluatedItems");
    let factor = if again { 2 } else { 1 };
    for (keyword, value) in schema {
        let mut add = |place, schema, times| parts.push(Part { place, schema, times });
        let members = || value.as_object().into_iter().flatten();
        let items = || value.as_array().into_iter().flatten();
        match keyword.as_str() {
            "allOf" => items().for_each(|part| add(Place::Here, part, factor)),
            "anyOf" | "oneOf" => items().for_each(|part| add(Place::Here, part, 2 * factor)),
            "not" | "if" | "then" | "else" => add(Place::Here, value, factor),
            "dependentSchemas" => members().for_each(|(_, part)| add(Place::Here, part, factor)),
            "dependencies" => members()
                .filter(|(_, part)| !part.is_array())
                .for_each(|(_, part)| add(Place::Here, part, factor)),
            "properties" => members().for_each(|(name, part)| add(Place::Member(name), part, 1)),
            "patternProperties" => members().for_each(|(_, part)| add(Place::Members, part, 1)),
            "additionalProperties" | "unevaluatedProperties" | "propertyNames" => add(Place::Members, value, 1),
            "prefixItems" => items().enumerate().for_each(|(at, part)| add(Place::Item(at), part, 1)),
            "items" if value.is_array() => items().enumerate().for_each(|(at, part)| add(Place::Item(at), part, 1)),
            "items" | "additionalItems" | "contains" | "unevaluatedItems" => add(Place::Items, value, 1),
            "$defs" | "definitions" => members().for_each(|(_, part)| add(Place::Nothing, part, 1)),
            _ => {}
        }
    }
    parts
}

/// What a part is by itself: the values it compares with.
fn own_weight(schema: &Value) -> u64 {
    let listed = |keyword| schema.get(keyword).and_then(Value::as_array).map_or(0, Vec::len);
    1 + (listed("enum") + listed("required")) as u64
}

/// Finds anchors, and what a schema must not have.
fn collect(schema: &Value, at: &str, root: bool, anchors: &mut HashMap<String, String>) -> Result<(), Fault> {
    let fault = |keyword: &str, detail: &str| Err(Fault::new(format!("{at}/{keyword}"), detail));
    match schema {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, &format!("{at}/{index}"), false, anchors)?;
            }
        }
        Value::Object(members) => {
            for (name, value) in members {
                match (name.as_str(), value) {
                    // Values, not schemas.
                    ("const" | "enum" | "default" | "examples" | "example", _) => continue,
                    ("$ref", Value::String(reference)) if !reference.starts_with('#') => {
                        return fault(
                            name,
                            "it has to begin with #: a schema refers to nothing outside itself",
                        );
                    }
                    ("$dynamicRef" | "$recursiveRef", Value::String(_)) => {
                        return fault(name, "it is not supported; use $ref");
                    }
                    ("$id", Value::String(_)) if !root => {
                        return fault(name, "only the whole schema may have an $id, none of its parts");
                    }
                    ("$anchor" | "$dynamicAnchor", Value::String(anchor)) => {
                        anchors.insert(anchor.clone(), at.to_owned());
                    }
                    _ => {}
                }
                collect(value, &format!("{at}/{}", super::escaped(name)), false, anchors)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Looks at every part of a schema once.
struct Survey<'a> {
    effort: &'a Effort,
    document: &'a Value,
    /// Weight and height of the parts that are done.
    seen: HashMap<*const Value, (&'a Value, u64, usize)>,
    under_way: HashSet<*const Value>,
}

impl<'a> Survey<'a> {
    fn weigh(&mut self, schema: &'a Value, depth: usize) -> Result<(u64, usize), Fault> {
        let too_deep = || {
            Fault::new(
                "",
                format!("more than {NESTED_MAX} of its parts lie within one another"),
            )
        };
        if let Some((_, weight, height)) = self.seen.get(&from_ref(schema)) {
            return Ok((*weight, *height));
        }
        if depth > NESTED_MAX {
            return Err(too_deep());
        }
        if !self.under_way.insert(from_ref(schema)) {
            return Ok((u64::MAX, 0));
        }
        if let Some(Value::String(reference)) = schema.get("$ref")
            && self.effort.resolve(self.document, reference).is_none()
        {
            return Err(Fault::new(
                "",
                format!("there is nothing at `{reference}`, which a $ref names"),
            ));
        }
        let (mut weight, mut height) = (own_weight(schema), 0);
        for part in self.effort.parts(self.document, schema) {
            let (within, high) = self.weigh(part.schema, depth + 1)?;
            if part.place != Place::Nothing {
                weight = weight.saturating_add(within.saturating_mul(part.times));
            }
            height = height.max(high + 1);
        }
        if height > NESTED_MAX {
            return Err(too_deep());
        }
        self.under_way.remove(&from_ref(schema));
        self.seen.insert(from_ref(schema), (schema, weight, height));
        Ok((weight, height))
    }

    /// Refuses a schema that asks itself about the same value again.
    fn check_ends(&self) -> Result<(), Fault> {
        let mut done = HashSet::new();
        for (schema, ..) in self.seen.values() {
            self.check_end(schema, &mut done, &mut HashSet::new())?;
        }
        Ok(())
    }

    fn check_end(
        &self,
        schema: &'a Value,
        done: &mut HashSet<*const Value>,
        above: &mut HashSet<*const Value>,
    ) -> Result<(), Fault> {
        if done.contains(&from_ref(schema)) {
            return Ok(());
        }
        if !above.insert(from_ref(schema)) || above.len() > NESTED_MAX {
            return Err(Fault::new(
                "",
                "a $ref leads back to where it stands, and the check would never end",
            ));
        }
        for part in self.effort.parts(self.document, schema) {
            if part.place == Place::Here {
                self.check_end(part.schema, done, above)?;
            }
        }
        above.remove(&from_ref(schema));
        done.insert(from_ref(schema));
        Ok(())
    }
}

/// Counts steps along a value.
struct Count<'a> {
    effort: &'a Effort,
    document: &'a Value,
    left: u64,
}

impl<'a> Count<'a> {
    /// `None` where it is too much.
    fn visit(&mut self, schema: &'a Value, value: &'a Value, depth: usize) -> Option<()> {
        if depth > STACKED_MAX {
            return None;
        }
        let size = match value {
            Value::String(text) => text.len() / 64,
            Value::Array(items) => items.len(),
            Value::Object(members) => members.len(),
            _ => 0,
        };
        self.left = self.left.checked_sub(own_weight(schema) + size as u64)?;
        for part in self.effort.parts(self.document, schema) {
            let before = self.left;
            match (part.place, value) {
                (Place::Here, _) => self.visit(part.schema, value, depth + 1)?,
                (Place::Member(name), Value::Object(members)) => {
                    if let Some(member) = members.get(name) {
                        self.visit(part.schema, member, depth + 1)?;
                    }
                }
                (Place::Members, Value::Object(members)) => {
                    for member in members.values() {
                        self.visit(part.schema, member, depth + 1)?;
                    }
                }
                (Place::Item(at), Value::Array(items)) => {
                    if let Some(item) = items.get(at) {
                        self.visit(part.schema, item, depth + 1)?;
                    }
                }
                (Place::Items, Value::Array(items)) => {
                    for item in items {
                        self.visit(part.schema, item, depth + 1)?;
                    }
                }
                _ => {}
            }
            let spent = before - self.left;
            self.left = self.left.checked_sub(spent.saturating_mul(part.times - 1))?;
        }
        Some(())
    }
}

/// A URI's fragment as it is meant (RFC 3986, section 2.1).
fn decoded(fragment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        bytes.push(match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                hex::decode([*high, *low]).ok()?[0]
            }
            (b'%', _) => return None,
            _ => *first,
        });
    }
    String::from_utf8(bytes).ok()
}
