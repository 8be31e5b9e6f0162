//! Expressions over an event, as they stand in templates, placeholders and event attributes.
//!
//! They are minijinja's, and reach nothing but the event: no loader, no file, no include, no macro. Work and memory are
//! bounded by fuel. What an expression does not find is nothing, not an error: events differ, and a delivery must not
//! die of a field that one of them lacks.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Object, ObjectRepr, Value};
use minijinja::{Environment, ErrorKind, State, UndefinedBehavior};
use proto_schemas::event::Event;

use super::json;
use super::variables::Variables;

/// Fuel of all expressions of one rendering: an instruction costs one, and so do 64 bytes that are made or read.
pub const FUEL: u64 = 50_000;
/// How many expressions of one rendering may end in an error of their own (`"a" * "b"`) and count as nothing. Their fuel
/// is not known, so their number is what bounds them.
const FAILURES_MAX: usize = 16;
/// Most words and signs of one expression or statement. The engine takes a long one apart by recursion.
const WORDS_MAX: usize = 400;
/// How deep loops may recurse.
const RECURSION_MAX: usize = 40;

/// The names of what an event has.
pub const NAMES: [&str; 10] = [
    "id",
    "type",
    "timestamp",
    "timestamp_ms",
    "project",
    "data",
    "payload_base64",
    "payload_json",
    "attributes",
    "options",
];
/// The name of what a webhook's own variables are under.
pub const VARIABLES: &str = "variables";
/// What is there beside them.
const GLOBALS: [&str; 3] = [OMIT, "range", "dict"];
const OMIT: &str = "omit";
/// The variable that the value of an expression is caught in; reserved by its length more than by a rule.
const CAUGHT: &str = "posthaste_caught_value";

/// Where an expression or a text is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub reason: String,
}

/// Why a rendering came to no end. Nothing that a second attempt would change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Too much work.
    #[error("rendering took more than {FUEL} steps")]
    Fuel,
    /// Too much text.
    #[error("the rendered body is larger than {} KiB", json::OUTPUT_MAX / 1024)]
    Size,
    /// Too deep a value.
    #[error("a rendered value is nested more than {} deep", json::DEPTH_MAX)]
    Depth,
    /// Too many expressions that cannot be worked out.
    #[error("more than {FAILURES_MAX} expressions could not be worked out; the last said: {0}")]
    Failures(String),
    /// The same, where what the last one said may hold a protected variable's value.
    #[error("more than {FAILURES_MAX} expressions could not be worked out")]
    UntoldFailures,
    /// Ours.
    #[error("rendering ended in a fault of its own")]
    Fault,
}

/// The value of `omit`: what evaluates to it is left out.
#[derive(Debug)]
struct Omit;

impl Object for Omit {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Whether a value is `omit`.
pub(super) fn is_omit(value: &Value) -> bool {
    value.downcast_object_ref::<Omit>().is_some()
}

/// What every set of expressions begins as.
static BASE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut base = Environment::new();
    base.set_fuel(Some(FUEL));
    base.set_recursion_limit(RECURSION_MAX);
    base.set_undefined_behavior(UndefinedBehavior::Chainable);
    base.set_debug(false);
    // Text stays as it is written.
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        base.set_syntax(syntax);
    }
    base.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    base.set_formatter(|out, _, value| Ok(out.write_str(&in_text(value)?)?));
    // They make markup, which nothing here is; a template never sees the engine; and a namespace is the one thing a loop
    // can pile up a value in, ever deeper.
    for filter in ["safe", "escape", "e", "pprint"] {
        base.remove_filter(filter);
    }
    for global in ["debug", "namespace"] {
        base.remove_global(global);
    }
    base.add_global(OMIT, Value::from_object(Omit));
    // The engine takes a filter's arguments and result into account; walking a large value is counted here.
    base.add_filter("to_base64", |value: &Value| {
        in_text(value).map(|text| super::plain::base64(text.as_bytes()))
    });
    base.add_filter("from_base64", from_base64);
    base.add_filter("to_json", in_json);
    base.add_filter("from_json", |value: &Value| {
        value
            .as_str()
            .and_then(|text| parsed(text.as_bytes()))
            .unwrap_or_default()
    });
    base.add_filter("json_size", |state: &State, value: &Value| {
        let size = json_size(value);
        state
            .consume_fuel(size.min(json::OUTPUT_MAX) as u64 / 64)
            .map(|()| size)
    });
    base
});

/// The text that Base64 text stands for; nothing where it is none.
fn from_base64(value: &Value) -> Value {
    use base64::Engine as _;
    value
        .as_str()
        .and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .map(Value::from)
        .unwrap_or_default()
}

/// How many bytes a value has as JSON; more than a body may have where it is larger than that.
fn json_size(value: &Value) -> usize {
    let mut out = json::Out::default();
    match out.put_value(value) {
        Ok(()) => out.into_bytes().len(),
        Err(_) => usize::MAX,
    }
}

/// A value as compact JSON. The engine's own `tojson` is for markup: it has spaces, and escapes what markup minds.
fn in_json(value: &Value) -> Result<String, minijinja::Error> {
    let mut out = json::Out::default();
    out.put_value(value).map_err(limit)?;
    Ok(String::from_utf8_lossy(&out.into_bytes()).into_owned())
}

/// A value within a text, for the engine.
fn in_text(value: &Value) -> Result<String, minijinja::Error> {
    json::text(value).map_err(limit)
}

/// The one kind that is not taken for the template's own error.
fn limit(failure: Failure) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::OutOfFuel, failure.to_string())
}

/// Compiled expressions and texts, and the names they use.
#[derive(Debug)]
pub(super) struct Engine {
    environment: Environment<'static>,
    uses: BTreeSet<Cow<'static, str>>,
    options: BTreeSet<String>,
    count: usize,
}

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Expression {
    key: String,
    /// As it was written.
    pub(super) source: String,
}

/// A compiled text with statements in it.
#[derive(Debug)]
pub(super) struct Text {
    key: String,
    /// What it looks for, like `data.title`; what it names itself, in a loop say, left out.
    names: BTreeSet<String>,
    /// As it was written.
    pub(super) source: String,
}

impl Engine {
    pub(super) fn new() -> Self {
        Self {
            environment: BASE.clone(),
            uses: BTreeSet::new(),
            options: BTreeSet::new(),
            count: 0,
        }
    }

    /// Compiles an expression, without its braces.
    pub(super) fn expression(&mut self, source: &str) -> Result<Expression, Fault> {
        let source = source.trim();
        if source.is_empty() {
            return Err(Fault {
                line: 1,
                column: 1,
                reason: "an expression is missing between the braces".to_owned(),
            });
        }
        check_words(source, source)?;
        let compiled = BASE.compile_expression(source).map_err(|error| fault(source, &error))?;
        let names = compiled.undeclared_variables(true);
        let key = self.add(format!("{{%set {CAUGHT}=({source}\n)%}}"), source)?;
        self.use_names(names);
        self.use_words(source);
        Ok(Expression {
            key,
            source: source.to_owned(),
        })
    }

    /// Compiles a text with expressions and statements.
    pub(super) fn text(&mut self, source: &str) -> Result<Text, Fault> {
        for part in super::template::code(source) {
            check_words(part, source)?;
        }
        let key = self.add(source.to_owned(), source)?;
        let names = self
            .environment
            .get_template(&key)
            .map(|template| template.undeclared_variables(true))
            .map_err(|error| fault(source, &error))?;
        self.use_names(names.iter().cloned());
        super::template::code(source)
            .iter()
            .for_each(|part| self.use_words(part));
        Ok(Text {
            key,
            names: names.into_iter().collect(),
            source: source.to_owned(),
        })
    }

    fn add(&mut self, template: String, source: &str) -> Result<String, Fault> {
        let key = self.count.to_string();
        self.count += 1;
        self.environment
            .add_template_owned(key.clone(), template)
            .map_err(|error| fault(source, &error))?;
        Ok(key)
    }

    /// `names` are like `data.title` where that is how they are used.
    fn use_names(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            let mut words = name.split('.');
            let first = words.next().unwrap_or_default();
            if first == "options" {
                self.options.extend(words.next().map(str::to_owned));
            }
            self.uses.insert(Cow::Owned(first.to_owned()));
        }
    }

    /// The engine does not look for names in what is sliced, `data.title[:9]`. Whatever may be one of ours counts as used:
    /// to make it in vain costs little, and to leave it out would change what goes out.
    fn use_words(&mut self, code: &str) {
        let words = super::template::words(code);
        for (i, word) in words.iter().enumerate() {
            if let Some(name) = NAMES.iter().chain([&VARIABLES]).find(|name| *name == word) {
                self.uses.insert(Cow::Borrowed(name));
            }
            if let ["options", ".", option, ..] = &words[i..] {
                self.options.insert((*option).to_owned());
            }
        }
    }

    /// The options that are asked for by name.
    pub(super) const fn options(&self) -> &BTreeSet<String> {
        &self.options
    }

    /// Whether a name is used.
    pub(super) fn uses(&self, name: &str) -> bool {
        self.uses.contains(name)
    }

    /// The names that neither event nor webhook ever has; what they stand for is always missing.
    pub(super) fn unknown_names(&self) -> Vec<String> {
        let known = |name: &str| NAMES.contains(&name) || GLOBALS.contains(&name) || name == VARIABLES;
        self.uses
            .iter()
            .filter(|name| !known(name))
            .map(ToString::to_string)
            .collect()
    }

    /// What expressions see of an event and its webhook; only what one of them asks for is made.
    pub(super) fn scope(&self, subject: &Subject<'_>) -> Value {
        let event = subject.event;
        self.uses
            .iter()
            .filter_map(|name| {
                let value = match name.as_ref() {
                    "id" => Value::from(event.id.as_str()),
                    "type" => Value::from(event.event_type.as_str()),
                    "timestamp" => Value::from(event.occurred_at.to_string()),
                    "timestamp_ms" => Value::from(event.occurred_at.as_millisecond()),
                    "project" => Value::from(subject.project),
                    "data" if event.is_json() => match subject.data {
                        Some(data) => data.clone(),
                        None => parsed(&event.payload)?,
                    },
                    "payload_json" => parsed(&event.payload)?,
                    "payload_base64" => Value::from(super::plain::base64(&event.payload)),
                    "attributes" => Value::from(event.attributes.clone()),
                    "options" => {
                        let on = subject.options.iter().map(|name| (name.clone(), true));
                        Value::from(on.collect::<BTreeMap<_, _>>())
                    }
                    VARIABLES => subject.variables?.value(),
                    _ => return None,
                };
                Some((name.clone(), value))
            })
            .collect::<BTreeMap<_, _>>()
            .into()
    }
}

fn parsed(payload: &[u8]) -> Option<Value> {
    serde_json::from_slice(payload).ok()
}

/// What an expression is about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The event.
    pub event: &'a Event,
    /// Its project's name.
    pub project: &'a str,
    /// The profile's options that are on for the webhook.
    pub options: &'a [String],
    /// The webhook's variables.
    pub(super) variables: Option<&'a Variables>,
    /// The event's payload, where it has been parsed already.
    pub(super) data: Option<&'a Value>,
}

impl<'a> Subject<'a> {
    /// An event for a webhook with these options.
    #[must_use]
    pub const fn new(event: &'a Event, project: &'a str, options: &'a [String]) -> Self {
        Self {
            event,
            project,
            options,
            variables: None,
            data: None,
        }
    }

    /// The same, for a webhook with these variables.
    #[must_use]
    pub const fn with(self, variables: &'a Variables) -> Self {
        Self {
            variables: Some(variables),
            ..self
        }
    }
}

/// One rendering: what it sees and what it has left.
pub(super) struct Run<'a> {
    engine: &'a Engine,
    scope: Value,
    fuel: u64,
    failures: usize,
    /// Whether the engine's own words may hold what is protected.
    has_secrets: bool,
    /// The sources of those that found nothing, if somebody wants to know.
    pub(super) missing: Option<Vec<(String, String)>>,
}

impl<'a> Run<'a> {
    pub(super) fn new(engine: &'a Engine, subject: &Subject<'_>) -> Self {
        Self {
            scope: engine.scope(subject),
            engine,
            fuel: FUEL,
            failures: 0,
            has_secrets: engine.uses(VARIABLES) && subject.variables.is_some_and(Variables::has_secrets),
            missing: None,
        }
    }

    /// The value of an expression; undefined where it finds nothing.
    pub(super) fn value(&mut self, expression: &Expression, place: &str) -> Result<Value, Failure> {
        let value = self.evaluate(&expression.key, |captured| {
            Ok(captured.state().lookup(CAUGHT).unwrap_or_default())
        })?;
        let value = value.unwrap_or_default();
        if value.is_undefined() {
            self.note(place, &expression.source);
        }
        Ok(value)
    }

    /// What a text comes to; empty where it cannot be worked out.
    pub(super) fn text(&mut self, text: &Text, place: &str) -> Result<String, Failure> {
        if self.missing.is_some() {
            for name in &text.names {
                if !self.finds(name) {
                    self.note(place, name);
                }
            }
        }
        let made = self.evaluate(&text.key, |captured| Ok(captured.into_output()))?;
        if made.is_none() {
            self.note(place, &text.source);
        }
        Ok(made.unwrap_or_default())
    }

    /// Whether there is something of a name like `data.title`.
    fn finds(&self, name: &str) -> bool {
        let mut words = name.split('.').peekable();
        let is_global = words.peek().is_some_and(|first| GLOBALS.contains(first));
        let found = words.try_fold(self.scope.clone(), |value, word| value.get_attr(word));
        is_global || found.is_ok_and(|value| !value.is_undefined())
    }

    fn note(&mut self, place: &str, source: &str) {
        if let Some(missing) = &mut self.missing {
            missing.push((place.to_owned(), source.to_owned()));
        }
    }

    /// `None` where the template ended in an error of its own.
    fn evaluate<T>(
        &mut self,
        key: &str,
        take: impl FnOnce(minijinja::Captured<'_>) -> Result<T, minijinja::Error>,
    ) -> Result<Option<T>, Failure> {
        let scope = self.scope.clone();
        let fuel = &mut self.fuel;
        // The engine is not ours, and a panic in it must not take the attempt with it.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let captured = self.engine.environment.get_template(key)?.render_captured(scope)?;
            let used = captured.state().fuel_levels().map_or(0, |(used, _)| used);
            *fuel = fuel.saturating_sub(used.max(1));
            take(captured)
        }))
        .map_err(|_| Failure::Fault)?;
        match outcome {
            _ if self.fuel == 0 => Err(Failure::Fuel),
            Ok(made) => Ok(Some(made)),
            Err(error) if is_fuel(&error) => Err(Failure::Fuel),
            Err(error) => {
                self.failures += 1;
                match (self.failures <= FAILURES_MAX, self.has_secrets) {
                    (true, _) => Ok(None),
                    (false, false) => Err(Failure::Failures(short(&error))),
                    (false, true) => Err(Failure::UntoldFailures),
                }
            }
        }
    }
}

/// Out of fuel may hide below: a filter says that its argument failed.
fn is_fuel(error: &minijinja::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if error
            .downcast_ref::<minijinja::Error>()
            .is_some_and(|error| error.kind() == ErrorKind::OutOfFuel)
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// The engine's word, without its name for the template.
fn short(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

/// Where in `source` an error of the engine is. The lines of a compiled expression are those of its source.
fn fault(source: &str, error: &minijinja::Error) -> Fault {
    match error.range() {
        Some(range) => fault_at(source, range.start, short(error)),
        None => Fault {
            line: error.line().unwrap_or(1),
            column: 1,
            reason: short(error),
        },
    }
}

/// A fault at a byte of `source`.
pub(super) fn fault_at(source: &str, offset: usize, reason: String) -> Fault {
    let before = source.get(..offset).unwrap_or(source);
    Fault {
        line: before.matches('\n').count() + 1,
        column: before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1,
        reason,
    }
}

/// Filters and tests are looked up when they are reached, which may be months later; so they are looked for here.
fn check_words(code: &str, source: &str) -> Result<(), Fault> {
    let at = |part: &str| part.as_ptr() as usize - source.as_ptr() as usize;
    let words = super::template::words(code);
    if words.len() > WORDS_MAX {
        let reason = format!("an expression has at most {WORDS_MAX} words and signs");
        return Err(fault_at(source, at(code), reason));
    }
    for (i, word) in words.iter().enumerate() {
        let before = |n: usize| i.checked_sub(n).and_then(|i| words.get(i)).copied().unwrap_or_default();
        if before(1) == "|" && !is_filter(word) {
            return Err(fault_at(source, at(word), format!("there is no filter `{word}`")));
        }
        let tests = before(1) == "is" || (before(1) == "not" && before(2) == "is");
        if tests && *word != "not" && is_word(word) && !is_test(word) {
            return Err(fault_at(source, at(word), format!("there is no test `{word}`")));
        }
    }
    Ok(())
}

fn is_word(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn is_filter(name: &str) -> bool {
    known("x is filter", name)
}

fn is_test(name: &str) -> bool {
    known("x is test", name)
}

fn known(question: &str, name: &str) -> bool {
    BASE.compile_expression(question)
        .and_then(|expression| expression.eval(minijinja::context! { x => name }))
        .is_ok_and(|answer| answer.is_true())
}
