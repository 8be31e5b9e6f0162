//! How much work a check is, known before it is begun.
//!
//! A schema's parts are asked once for each value they apply to, but a schema may refer to its parts any number of times,
//! and by way of references also to itself; then a small schema and a small event can keep a validator busy for ages, or
//! end its stack. So a schema that can never end is refused when it is compiled, and for one that could take long with a
//! large event, the steps are counted along that event before the validator sees it.
//!
//! A step is what takes some fifty nanoseconds; [`steps`](super::steps) says how many each part takes. What the validator
//! would copy to say what is wrong is counted as well, since that takes memory.

use std::collections::{HashMap, HashSet};
use std::ptr::from_ref;

use serde_json::{Map, Value};

use super::Fault;
use super::patterns::Patterns;
use super::steps::{bulk, looks, own_patterns, own_steps, own_weight};

/// Most steps of one check: some fifty milliseconds, and as much again to say what is wrong.
pub(super) const STEPS_MAX: u64 = 1_000_000;

/// Up to here a check is so little work that it is done in between, and every fault is looked for; above, only the first.
pub(super) const MODERATE: u64 = 50_000;

/// Most that is copied to say what is wrong, in bytes of a value's [`bulk`]; beyond, it is not said.
const COPIED_MAX: u64 = 8 * 1024 * 1024;

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
    patterns: Patterns,
}

/// How much may be said of what is wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// Every fault.
    Everything,
    /// The first fault.
    First,
    /// That there is one.
    Nothing,
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
    /// To any member's name.
    Names,
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
    /// Whether it is one of several that may apply, whose faults are all told, each with a copy of its value.
    is_alternative: bool,
}

impl Effort {
    /// Looks a schema over.
    pub(super) fn of(document: &Value) -> Result<Self, Fault> {
        let mut anchors = HashMap::new();
        collect(document, "", true, &mut anchors)?;
        let mut effort = Self {
            weight: 0,
            anchors,
            patterns: Patterns::default(),
        };
        let mut survey = Survey {
            effort: &effort,
            document,
            patterns: Patterns::default(),
            seen: HashMap::new(),
            under_way: HashSet::new(),
        };
        let (weight, _) = survey.weigh(document, 0)?;
        survey.check_ends()?;
        effort.patterns = survey.patterns;
        effort.weight = weight;
        Ok(effort)
    }

    /// What the patterns take at most, in bytes.
    pub(super) fn patterns_size(&self) -> usize {
        self.patterns.size()
    }

    /// Whether checking a value whose text has `size` bytes is moderate work, whatever the value is.
    pub(super) fn is_little(&self, size: usize) -> bool {
        // Every value but the last takes two bytes or more.
        let values = u64::try_from(size / 2 + 1).unwrap_or(u64::MAX);
        self.weight.saturating_mul(values) <= MODERATE
    }

    /// Whether checking the value is moderate work. Finding out is, too.
    pub(super) fn is_moderate(&self, document: &Value, value: &Value) -> bool {
        self.count(document, value, MODERATE).is_some()
    }

    /// How much may be said of what is wrong with a value whose text has `size` bytes.
    ///
    /// # Errors
    /// Where checking it is too much work.
    pub(super) fn said(&self, document: &Value, value: &Value, size: usize) -> Result<Said, Fault> {
        if self.is_little(size) {
            return Ok(Said::Everything);
        }
        match self.count(document, value, STEPS_MAX) {
            None => Err(Fault::new(
                "",
                "it is too large or too deep to be checked by this schema",
            )),
            Some((_, copied)) if copied > COPIED_MAX => Ok(Said::Nothing),
            Some((steps, _)) if steps > MODERATE => Ok(Said::First),
            Some(_) => Ok(Said::Everything),
        }
    }

    /// The steps of a check, and what is copied for what it finds; `None` where the steps are more than `most`.
    pub(super) fn count(&self, document: &Value, value: &Value, most: u64) -> Option<(u64, u64)> {
        let mut count = Count {
            effort: self,
            document,
            left: most,
            alternatives: 0,
            copied: 0,
        };
        count.visit(document, value, 0)?;
        Some((most - count.left, count.copied))
    }

    /// What a `$ref` names.
    fn resolve<'a>(&self, document: &'a Value, reference: &str) -> Option<&'a Value> {
        let fragment = decoded(reference.strip_prefix('#')?)?;
        match fragment.is_empty() || fragment.starts_with('/') {
            true => document.pointer(&fragment),
            false => document.pointer(self.anchors.get(&fragment)?),
        }
    }

    /// The parts of a schema; with a value, those that apply to it or to what is in it.
    fn parts<'a>(&self, document: &'a Value, schema: &'a Value, value: Option<&Value>) -> Vec<Part<'a>> {
        let Some(schema) = schema.as_object() else {
            return Vec::new();
        };
        let mut parts = own_parts(schema, value);
        if let Some(Value::String(reference)) = schema.get("$ref")
            && let Some(schema) = self.resolve(document, reference)
        {
            parts.push(Part {
                place: Place::Here,
                schema,
                times: 1,
                is_alternative: false,
            });
        }
        parts
    }
}

/// The parts of a schema that stand in it. With a value, none is gone through that is for a member or item it does not have.
fn own_parts<'a>(schema: &'a Map<String, Value>, of: Option<&Value>) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let of_object = of.is_none_or(Value::is_object);
    let of_array = of.is_none_or(Value::is_array);
    let length = of.and_then(Value::as_array).map_or(usize::MAX, Vec::len);
    let factor = looks(schema);
    for (keyword, value) in schema {
        let is_alternative = matches!(keyword.as_str(), "anyOf" | "oneOf");
        let mut add = |place, schema, times| {
            parts.push(Part {
                place,
                schema,
                times,
                is_alternative,
            });
        };
        let members = || value.as_object().into_iter().flatten();
        let items = || value.as_array().into_iter().flatten();
        let each_item = || items().enumerate().take(length);
        match keyword.as_str() {
            "allOf" => items().for_each(|part| add(Place::Here, part, factor)),
            "anyOf" | "oneOf" => items().for_each(|part| add(Place::Here, part, 2 * factor)),
            "not" | "if" | "then" | "else" => add(Place::Here, value, factor),
            "dependentSchemas" => members().for_each(|(_, part)| add(Place::Here, part, factor)),
            "dependencies" => members()
                .filter(|(_, part)| !part.is_array())
                .for_each(|(_, part)| add(Place::Here, part, factor)),
            "properties" => match of {
                None => members().for_each(|(name, part)| add(Place::Member(name), part, 1)),
                Some(of) => {
                    let names = of.as_object().into_iter().flat_map(Map::keys);
                    names
                        .filter_map(|name| value.as_object()?.get_key_value(name))
                        .for_each(|(name, part)| add(Place::Member(name), part, 1));
                }
            },
            "patternProperties" if of_object => members().for_each(|(_, part)| add(Place::Members, part, 1)),
            "additionalProperties" | "unevaluatedProperties" if of_object => add(Place::Members, value, 1),
            "propertyNames" if of_object => add(Place::Names, value, 1),
            "prefixItems" if of_array => each_item().for_each(|(at, part)| add(Place::Item(at), part, 1)),
            "items" if of_array && value.is_array() => {
                each_item().for_each(|(at, part)| add(Place::Item(at), part, 1));
            }
            "items" | "additionalItems" | "contains" | "unevaluatedItems" if of_array => add(Place::Items, value, 1),
            "$defs" | "definitions" if of.is_none() => members().for_each(|(_, part)| add(Place::Nothing, part, 1)),
            _ => {}
        }
    }
    parts
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

/// Where a part stands in a document (RFC 6901).
fn pointer(document: &Value, part: &Value) -> Option<String> {
    if std::ptr::eq(document, part) {
        return Some(String::new());
    }
    let below = |step: String, value| pointer(value, part).map(|below| format!("/{step}{below}"));
    match document {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(at, item)| below(at.to_string(), item)),
        Value::Object(members) => members
            .iter()
            .find_map(|(name, member)| below(super::escaped(name), member)),
        _ => None,
    }
}

/// Looks at every part of a schema once.
struct Survey<'a> {
    effort: &'a Effort,
    document: &'a Value,
    patterns: Patterns,
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
        for (place, pattern) in schema.as_object().into_iter().flat_map(own_patterns) {
            self.patterns.add(pattern).map_err(|detail| {
                let pointer = pointer(self.document, schema).unwrap_or_default();
                Fault::new(super::shortened(pointer + &place), detail)
            })?;
        }
        let (mut weight, mut height) = (own_weight(&self.patterns, schema), 0);
        for part in self.effort.parts(self.document, schema, None) {
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
        for part in self.effort.parts(self.document, schema, None) {
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
    /// How many alternatives are around.
    alternatives: usize,
    copied: u64,
}

impl<'a> Count<'a> {
    /// `None` where it is too much.
    fn visit(&mut self, schema: &'a Value, value: &Value, depth: usize) -> Option<()> {
        if depth > STACKED_MAX {
            return None;
        }
        self.left = self
            .left
            .checked_sub(own_steps(&self.effort.patterns, schema, value, self.left))?;
        // Once it is too much, it is not worth going through more.
        if self.alternatives > 0 && self.copied <= COPIED_MAX {
            self.copied += bulk(value);
        }
        for part in self.effort.parts(self.document, schema, Some(value)) {
            let before = self.left;
            self.alternatives += usize::from(part.is_alternative);
            self.visit_part(&part, value, depth + 1)?;
            self.alternatives -= usize::from(part.is_alternative);
            let spent = before - self.left;
            self.left = self.left.checked_sub(spent.saturating_mul(part.times - 1))?;
        }
        Some(())
    }

    fn visit_part(&mut self, part: &Part<'a>, value: &Value, depth: usize) -> Option<()> {
        match (part.place, value) {
            (Place::Here, _) => self.visit(part.schema, value, depth)?,
            (Place::Member(name), Value::Object(members)) => {
                if let Some(member) = members.get(name) {
                    self.visit(part.schema, member, depth)?;
                }
            }
            (Place::Members, Value::Object(members)) => {
                for member in members.values() {
                    self.visit(part.schema, member, depth)?;
                }
            }
            (Place::Names, Value::Object(members)) => {
                for name in members.keys() {
                    self.visit(part.schema, &Value::String(name.clone()), depth)?;
                }
            }
            (Place::Item(at), Value::Array(items)) => {
                if let Some(item) = items.get(at) {
                    self.visit(part.schema, item, depth)?;
                }
            }
            (Place::Items, Value::Array(items)) => {
                for item in items {
                    self.visit(part.schema, item, depth)?;
                }
            }
            _ => {}
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
