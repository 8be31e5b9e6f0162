//! Filters: which events of its types a webhook wants, in the field's common vocabulary.
//!
//! A filter is JSON that is held against `{ "id", "type", "timestamp", "data", "attributes" }`. It means what npm's
//! `simple-json-match` takes it to mean, loose equality and the ways of arrays included; `filter/oracle.json` holds that
//! library's answers. Where it contradicts its own manual, the manual is followed:
//! - `$not` and `$and` about a plain value are evaluated; the library never matches them;
//! - what stands beside `$or` or an operator within a field has to hold too; the library does not look at it;
//! - in the list of `$or` and `$and`, null and operators about objects are evaluated; the library never matches them.
//!
//! And integers are compared as such, where JavaScript would round them above 2⁵³. What the library does not know, or
//! could never match, is refused when a filter is compiled, with its place.

use std::cell::Cell;
use std::cmp::Ordering;

use serde_json::{Map, Value};

mod javascript;

use self::javascript::{loosely_equal, order, stringify};

/// Longest filter, in bytes of its JSON.
pub const FILTER_MAX: usize = 16 * 1024;
/// Deepest filter.
pub const DEPTH_MAX: usize = 32;
/// Most conditions in one filter: members, elements and values that something is compared with.
pub const CONDITIONS_MAX: usize = 512;
/// Most comparisons made for one event. Arrays multiply: each condition is held against each element.
const STEPS_MAX: u32 = 1_000_000;

/// Why JSON is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Error {
    /// Where: a JSON pointer (RFC 6901) into the filter; empty for the filter itself.
    pub pointer: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// A compiled filter.
#[derive(Debug, Clone)]
pub struct Filter(Condition);

#[derive(Debug, Clone)]
enum Condition {
    /// A plain value: equal, or contained in an array.
    Is(Value),
    /// Each is contained in an array.
    All(Vec<Condition>),
    Object(Object),
}

/// All of it has to hold.
#[derive(Debug, Clone, Default)]
struct Object {
    operators: Vec<Operator>,
    any: Vec<Vec<Condition>>,
    all: Vec<Vec<Condition>>,
    not: Option<Box<Condition>>,
    fields: Vec<(String, Condition)>,
}

#[derive(Debug, Clone)]
enum Operator {
    Equal(Value),
    NotEqual(Value),
    Order(Compare, Value),
    In(Value),
    NotIn(Value),
    Starts(Vec<String>),
    Ends(Vec<String>),
    Exist(bool),
}

#[derive(Debug, Clone, Copy)]
enum Compare {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// What a filter is held against: an event, taken apart once.
#[derive(Debug, Clone)]
pub struct Subject(Value);

impl Subject {
    /// An event. `data` is `None` where the payload is not JSON.
    #[must_use]
    pub fn new(event: &proto_schemas::event::Event, data: Option<Value>) -> Self {
        let mut members = Map::new();
        members.insert("id".to_owned(), event.id.as_str().into());
        members.insert("type".to_owned(), event.event_type.as_str().into());
        members.insert("timestamp".to_owned(), event.occurred_at.to_string().into());
        if let Some(data) = data {
            members.insert("data".to_owned(), data);
        }
        let attributes = event.attributes.iter().map(|(k, v)| (k.clone(), v.as_str().into()));
        members.insert("attributes".to_owned(), Value::Object(attributes.collect()));
        Self(Value::Object(members))
    }
}

impl Filter {
    /// Compiles a filter of JSON text.
    ///
    /// # Errors
    /// [`Error`], with the place.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let whole = |reason: String| Error {
            pointer: String::new(),
            reason,
        };
        if text.len() > FILTER_MAX {
            return Err(whole(format!(
                "the filter has {} bytes, {FILTER_MAX} are allowed",
                text.len()
            )));
        }
        let value: Value =
            serde_json::from_str(text).map_err(|error| whole(format!("the filter is not JSON: {error}")))?;
        Self::compile(&value)
    }

    /// Compiles a filter.
    ///
    /// # Errors
    /// [`Error`], with the place.
    pub fn compile(filter: &Value) -> Result<Self, Error> {
        if !filter.is_object() {
            return Err(Error {
                pointer: String::new(),
                reason: "a filter is an object, such as {\"data\": {\"severity\": \"high\"}}".to_owned(),
            });
        }
        let mut compiler = Compiler {
            pointer: String::new(),
            depth: 0,
            conditions: 0,
        };
        let condition = compiler.condition(filter)?;
        match filter.to_string().len() {
            0..=FILTER_MAX => Ok(Self(condition)),
            bytes => Err(compiler.wrong(format!("the filter has {bytes} bytes, {FILTER_MAX} are allowed"))),
        }
    }

    /// Whether an event is wanted. One that would take too long to judge is not.
    #[must_use]
    pub fn matches(&self, subject: &Subject) -> bool {
        self.accepts(&subject.0)
    }

    fn accepts(&self, value: &Value) -> bool {
        let steps = Steps(Cell::new(STEPS_MAX));
        let accepted = self.0.holds(Some(value), &steps);
        if steps.0.get() == 0 {
            tracing::warn!("a filter took more than {STEPS_MAX} comparisons for one event, which was not delivered");
            return false;
        }
        accepted
    }
}

struct Compiler {
    pointer: String,
    depth: usize,
    conditions: usize,
}

impl Compiler {
    fn wrong(&self, reason: impl Into<String>) -> Error {
        Error {
            pointer: self.pointer.clone(),
            reason: reason.into(),
        }
    }

    /// Compiles what is below the current place.
    fn below<T>(&mut self, name: &str, f: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let end = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
        self.depth += 1;
        let made = f(self)?;
        self.depth -= 1;
        self.pointer.truncate(end);
        Ok(made)
    }

    fn condition(&mut self, value: &Value) -> Result<Condition, Error> {
        self.conditions += 1;
        if self.conditions > CONDITIONS_MAX {
            return Err(self.wrong(format!("a filter has at most {CONDITIONS_MAX} conditions")));
        }
        if self.depth > DEPTH_MAX {
            return Err(self.wrong(format!("a filter is nested at most {DEPTH_MAX} deep")));
        }
        match value {
            Value::Object(members) => self.object(members),
            Value::Array(elements) => Ok(Condition::All(self.list(elements)?)),
            plain => Ok(Condition::Is(plain.clone())),
        }
    }

    fn list(&mut self, elements: &[Value]) -> Result<Vec<Condition>, Error> {
        let mut conditions = Vec::with_capacity(elements.len());
        for (i, element) in elements.iter().enumerate() {
            conditions.push(self.below(&i.to_string(), |it| it.condition(element))?);
        }
        Ok(conditions)
    }

    fn object(&mut self, members: &Map<String, Value>) -> Result<Condition, Error> {
        let mut object = Object::default();
        for (name, value) in members {
            self.below(name, |it| it.member(&mut object, name, value))?;
        }
        if !object.operators.is_empty() && !object.fields.is_empty() {
            let (name, _) = &object.fields[0];
            return Err(self.wrong(format!(
                "operators and field names do not mix: `{name}` stands beside an operator on the same value"
            )));
        }
        Ok(Condition::Object(object))
    }

    fn member(&mut self, object: &mut Object, name: &str, value: &Value) -> Result<(), Error> {
        match name {
            "$or" | "$and" => {
                let conditions = match value.as_array().map(Vec::as_slice) {
                    None | Some([]) => return Err(self.wrong(format!("`{name}` takes an array of conditions"))),
                    Some(conditions) => self.list(conditions)?,
                };
                match name {
                    "$or" => object.any.push(conditions),
                    _ => object.all.push(conditions),
                }
            }
            "$not" => object.not = Some(Box::new(self.condition(value)?)),
            operator if operator.starts_with('$') => {
                self.conditions += value.as_array().map_or(1, Vec::len);
                if self.conditions > CONDITIONS_MAX {
                    return Err(self.wrong(format!("a filter has at most {CONDITIONS_MAX} conditions")));
                }
                object.operators.push(self.operator(operator, value)?);
            }
            field => {
                let condition = self.condition(value)?;
                object.fields.push((field.to_owned(), condition));
            }
        }
        Ok(())
    }

    fn operator(&self, name: &str, value: &Value) -> Result<Operator, Error> {
        let takes = |what: &str| self.wrong(format!("`{name}` takes {what}"));
        Ok(match name {
            "$eq" => Operator::Equal(value.clone()),
            "$neq" => Operator::NotEqual(value.clone()),
            "$gt" | "$gte" | "$lt" | "$lte" => {
                if !value.is_string() && !value.is_number() {
                    return Err(takes("a string or a number"));
                }
                let compare = match name {
                    "$gt" => Compare::Greater,
                    "$gte" => Compare::GreaterOrEqual,
                    "$lt" => Compare::Less,
                    _ => Compare::LessOrEqual,
                };
                Operator::Order(compare, value.clone())
            }
            "$in" | "$nin" => {
                let scalar = |value: &Value| value.is_string() || value.is_number();
                if !scalar(value) && !value.as_array().is_some_and(|it| it.iter().all(scalar)) {
                    return Err(takes("a string, a number, or an array of strings and numbers"));
                }
                match name {
                    "$in" => Operator::In(value.clone()),
                    _ => Operator::NotIn(value.clone()),
                }
            }
            "$startsWith" | "$endsWith" => {
                let texts: Option<Vec<String>> = match value {
                    Value::String(text) => Some(vec![text.clone()]),
                    Value::Array(texts) => texts.iter().map(|it| it.as_str().map(str::to_owned)).collect(),
                    _ => None,
                };
                let texts = texts.ok_or_else(|| takes("a string or an array of strings"))?;
                match name {
                    "$startsWith" => Operator::Starts(texts),
                    _ => Operator::Ends(texts),
                }
            }
            "$exist" => Operator::Exist(value.as_bool().ok_or_else(|| takes("true or false"))?),
            name => {
                return Err(self.wrong(format!(
                    "there is no operator `{name}`; there are $eq, $neq, $gt, $gte, $lt, $lte, $in, $nin, $startsWith, \
                     $endsWith, $exist, $or, $and and $not"
                )));
            }
        })
    }
}

/// What is left of [`STEPS_MAX`].
struct Steps(Cell<u32>);

impl Steps {
    /// Whether there is one more.
    fn take(&self) -> bool {
        self.0.set(self.0.get().saturating_sub(1));
        self.0.get() > 0
    }
}

impl Condition {
    /// Whether a value, or its absence, is as it should be.
    fn holds(&self, value: Option<&Value>, steps: &Steps) -> bool {
        if !steps.take() {
            return false;
        }
        match (self, value) {
            (Self::Is(_), Some(Value::Array(elements))) => contains(elements, self, steps),
            (Self::Is(plain), Some(value)) => is_plain(value) && loosely_equal(plain, value),
            (Self::Is(_), None) => false,
            (Self::All(conditions), Some(Value::Array(elements))) => {
                conditions.iter().all(|condition| contains(elements, condition, steps))
            }
            // A list of conditions is to the library an object whose fields are called 0, 1, …
            (Self::All(conditions), Some(Value::Object(members))) => conditions
                .iter()
                .enumerate()
                .all(|(i, condition)| field(members, &i.to_string(), condition, steps)),
            (Self::All(_), _) => false,
            (Self::Object(object), value) => object.holds(value, steps),
        }
    }

    /// Whether the absence of a field is as it should be: only `$exist: false` lets it pass.
    fn allows_absence(&self) -> bool {
        let Self::Object(object) = self else { return false };
        object
            .operators
            .iter()
            .any(|operator| matches!(operator, Operator::Exist(false)))
    }
}

impl Object {
    fn holds(&self, value: Option<&Value>, steps: &Steps) -> bool {
        // Operators are about an array as a whole; everything else is about one of its elements.
        if let (Some(Value::Array(elements)), true) = (value, self.operators.is_empty()) {
            return elements
                .iter()
                .any(|element| steps.take() && self.holds(Some(element), steps));
        }
        let fields = match value {
            _ if self.fields.is_empty() => self.is_about_values() || matches!(value, Some(Value::Object(_))),
            Some(Value::Object(members)) => self
                .fields
                .iter()
                .all(|(name, condition)| field(members, name, condition, steps)),
            _ => false,
        };
        fields
            && self
                .operators
                .iter()
                .all(|operator| steps.take() && operator.holds(value))
            && self.all.iter().flatten().all(|condition| condition.holds(value, steps))
            && self
                .any
                .iter()
                .all(|any| any.iter().any(|condition| condition.holds(value, steps)))
            && !self.not.as_ref().is_some_and(|not| not.holds(value, steps))
    }

    /// Whether it can hold of anything but an object: `{}` holds of objects alone.
    fn is_about_values(&self) -> bool {
        !self.operators.is_empty() || !self.any.is_empty() || !self.all.is_empty() || self.not.is_some()
    }
}

fn contains(elements: &[Value], condition: &Condition, steps: &Steps) -> bool {
    elements.iter().any(|element| condition.holds(Some(element), steps))
}

fn field(members: &Map<String, Value>, name: &str, condition: &Condition, steps: &Steps) -> bool {
    match members.get(name) {
        None if !condition.allows_absence() => false,
        value => condition.holds(value, steps),
    }
}

impl Operator {
    fn holds(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Equal(wanted) => equal(value, wanted),
            Self::NotEqual(wanted) => !equal(value, wanted),
            Self::Order(compare, bound) => match value {
                Some(value @ (Value::String(_) | Value::Number(_))) => match (compare, order(value, bound)) {
                    (_, None) => false,
                    (Compare::Greater, Some(order)) => order == Ordering::Greater,
                    (Compare::GreaterOrEqual, Some(order)) => order != Ordering::Less,
                    (Compare::Less, Some(order)) => order == Ordering::Less,
                    (Compare::LessOrEqual, Some(order)) => order != Ordering::Greater,
                },
                _ => false,
            },
            Self::In(wanted) => is_in(value, wanted) == Some(true),
            Self::NotIn(wanted) => is_in(value, wanted) == Some(false),
            Self::Starts(texts) => text(value).is_some_and(|it| texts.iter().any(|text| it.starts_with(text))),
            Self::Ends(texts) => text(value).is_some_and(|it| texts.iter().any(|text| it.ends_with(text))),
            Self::Exist(exists) => value.is_some() == *exists,
        }
    }
}

fn text(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str)
}

fn is_plain(value: &Value) -> bool {
    !value.is_array() && !value.is_object()
}

/// `$eq`: objects and arrays are equal to what has the same JSON.
fn equal(value: Option<&Value>, wanted: &Value) -> bool {
    match (value, is_plain(wanted)) {
        (None, _) => wanted.is_null(),
        (Some(value), true) if is_plain(value) => loosely_equal(value, wanted),
        (Some(value), plain) => {
            let json = |value: &Value, plain: bool| match plain {
                true => value.clone(),
                false => Value::from(stringify(value)),
            };
            loosely_equal(&json(value, is_plain(value)), &json(wanted, plain))
        }
    }
}

/// `$in`: among the elements, or part of the text. `None` where the question makes no sense, so that neither it nor its
/// opposite holds.
fn is_in(value: Option<&Value>, wanted: &Value) -> Option<bool> {
    let value = value.filter(|value| is_plain(value))?;
    match wanted {
        Value::Array(elements) => Some(elements.iter().any(|element| javascript::same(element, value))),
        part => value.as_str().map(|text| text.contains(&javascript::to_text(part))),
    }
}

#[cfg(test)]
mod tests;
