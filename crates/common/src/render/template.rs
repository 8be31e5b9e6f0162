//! Templates: any JSON value whose strings hold `{{type}}`, `{{data.title}}` or longer expressions and statements.
//!
//! Expressions are in strings and results become strings again, so nothing that an event holds can break out of the
//! JSON around it. A string that is exactly one `{{expression}}` becomes the expression's value, with its type; where
//! that is `omit`, the member or element that the string is goes too. Member names are taken as they are.

use minijinja::value::Value;
use serde_json::Value as Json;

use super::expression::{Engine, Expression, Failure, Fault, Run, Subject, Text, fault_at, is_omit};
use super::json::{self, Out};

/// Longest template, in bytes of its JSON.
pub const TEMPLATE_MAX: usize = 16 * 1024;
/// Deepest template.
pub const DEPTH_MAX: usize = 32;

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Over [`TEMPLATE_MAX`].
    #[error("the template has {0} bytes, {TEMPLATE_MAX} are allowed")]
    TooLong(usize),
    /// Over [`DEPTH_MAX`].
    #[error("the template is nested more than {DEPTH_MAX} deep")]
    TooDeep,
    /// Not JSON.
    #[error("the template is not JSON: {0}")]
    Json(String),
    /// A string in it cannot be compiled.
    #[error("{}: {fault}", at(pointer))]
    Leaf {
        /// Which string: a JSON pointer (RFC 6901) into the template; empty for the template itself.
        pointer: String,
        /// Where in the string, and what.
        fault: Fault,
    },
}

fn at(pointer: &str) -> &str {
    match pointer {
        "" => "the template",
        pointer => pointer,
    }
}

/// An expression that found nothing in an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which string of the template: a JSON pointer.
    pub pointer: String,
    /// The expression.
    pub expression: String,
}

/// A compiled template.
#[derive(Debug)]
pub struct Template {
    engine: Engine,
    root: Node,
}

#[derive(Debug)]
enum Node {
    /// JSON that is always the same.
    Same(Box<str>),
    /// Members: name as JSON with its colon, and value.
    Object(Vec<(Box<str>, Node)>),
    Array(Vec<Node>),
    /// A string that is one expression.
    Value(Box<str>, Expression),
    /// A string with expressions in it.
    Parts(Box<str>, Vec<Part>),
    /// A string with statements in it.
    Text(Box<str>, Text),
}

#[derive(Debug)]
enum Part {
    Same(Box<str>),
    Value(Expression),
}

impl Template {
    /// Compiles a template of JSON text.
    ///
    /// # Errors
    /// [`Error`], with the place.
    pub fn compile(text: &str) -> Result<Self, Error> {
        if text.len() > TEMPLATE_MAX {
            return Err(Error::TooLong(text.len()));
        }
        let json: Json = serde_json::from_str(text).map_err(|error| Error::Json(error.to_string()))?;
        let mut engine = Engine::new();
        let root = node(&mut engine, &json, &mut String::new(), 0)?;
        Ok(Self { engine, root })
    }

    /// The names it uses that neither event nor webhook ever has.
    #[must_use]
    pub fn unknown_names(&self) -> Vec<String> {
        self.engine.unknown_names()
    }

    /// The options it asks for by name.
    #[must_use]
    pub fn options(&self) -> Vec<&String> {
        self.engine.options().iter().collect()
    }

    /// The JSON for an event.
    ///
    /// # Errors
    /// [`Failure`] where a limit is reached.
    pub fn render(&self, subject: &Subject<'_>) -> Result<Vec<u8>, Failure> {
        self.run(&mut Run::new(&self.engine, subject))
    }

    /// The JSON for an event, and what was looked for and not found.
    ///
    /// # Errors
    /// [`Failure`] where a limit is reached.
    pub fn preview(&self, subject: &Subject<'_>) -> Result<(Vec<u8>, Vec<Missing>), Failure> {
        let mut run = Run::new(&self.engine, subject);
        run.missing = Some(Vec::new());
        let body = self.run(&mut run)?;
        let missing = run.missing.unwrap_or_default().into_iter();
        let missing = missing.map(|(pointer, expression)| Missing { pointer, expression });
        Ok((body, missing.collect()))
    }

    fn run(&self, run: &mut Run<'_>) -> Result<Vec<u8>, Failure> {
        let mut out = Out::default();
        if !put(&mut out, &self.root, run, &mut |_| Ok(()))? {
            // The whole body left out.
            out.put(b"null")?;
        }
        Ok(out.into_bytes())
    }
}

/// Compiles one value; `pointer` is where it is.
fn node(engine: &mut Engine, json: &Json, pointer: &mut String, depth: usize) -> Result<Node, Error> {
    if depth > DEPTH_MAX {
        return Err(Error::TooDeep);
    }
    match json {
        Json::Object(members) => {
            let mut nodes = Vec::with_capacity(members.len());
            for (name, member) in members {
                let end = pointer.len();
                pointer.push('/');
                pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
                nodes.push((
                    format!("{}:", Json::from(name.as_str())).into(),
                    node(engine, member, pointer, depth + 1)?,
                ));
                pointer.truncate(end);
            }
            Ok(match nodes.iter().all(|(_, node)| matches!(node, Node::Same(_))) {
                true => Node::Same(json.to_string().into()),
                false => Node::Object(nodes),
            })
        }
        Json::Array(elements) => {
            let mut nodes = Vec::with_capacity(elements.len());
            for (i, element) in elements.iter().enumerate() {
                let end = pointer.len();
                pointer.push('/');
                pointer.push_str(&i.to_string());
                nodes.push(node(engine, element, pointer, depth + 1)?);
                pointer.truncate(end);
            }
            Ok(match nodes.iter().all(|node| matches!(node, Node::Same(_))) {
                true => Node::Same(json.to_string().into()),
                false => Node::Array(nodes),
            })
        }
        Json::String(text) => leaf(engine, text, pointer).map_err(|fault| Error::Leaf {
            pointer: pointer.clone(),
            fault,
        }),
        _ => Ok(Node::Same(json.to_string().into())),
    }
}

fn leaf(engine: &mut Engine, text: &str, pointer: &str) -> Result<Node, Fault> {
    let Some(parts) = split(text)? else {
        return Ok(Node::Text(pointer.into(), engine.text(text)?));
    };
    let mut compiled = Vec::with_capacity(parts.len());
    for part in parts {
        compiled.push(match part {
            Piece::Same(text) => Part::Same(text.into()),
            Piece::Code(code) => Part::Value(engine.expression(code).map_err(|fault| moved(text, code, fault))?),
        });
    }
    Ok(match compiled.as_slice() {
        [] | [Part::Same(_)] => Node::Same(Json::from(text).to_string().into()),
        [Part::Value(_)] => match compiled.pop() {
            Some(Part::Value(expression)) => Node::Value(pointer.into(), expression),
            _ => Node::Same("null".into()),
        },
        _ => Node::Parts(pointer.into(), compiled),
    })
}

/// A fault within `code`, seen from the text that it is part of.
fn moved(text: &str, code: &str, fault: Fault) -> Fault {
    let trimmed = code.trim_start();
    let lines: usize = trimmed.split_inclusive('\n').take(fault.line - 1).map(str::len).sum();
    let column: usize = trimmed[lines..]
        .chars()
        .take(fault.column - 1)
        .map(char::len_utf8)
        .sum();
    fault_at(text, offset(text, trimmed) + lines + column, fault.reason)
}

fn offset(text: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

/// Writes a node, unless it is left out; `before` writes what comes before one that is not.
fn put(
    out: &mut Out,
    node: &Node,
    run: &mut Run<'_>,
    before: &mut dyn FnMut(&mut Out) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    match node {
        Node::Same(json) => {
            before(out)?;
            out.put(json.as_bytes())?;
        }
        Node::Object(members) => {
            before(out)?;
            out.put(b"{")?;
            let mut first = true;
            for (name, member) in members {
                put(out, member, run, &mut |out| {
                    out.comma(&mut first)?;
                    out.put(name.as_bytes())
                })?;
            }
            out.put(b"}")?;
        }
        Node::Array(elements) => {
            before(out)?;
            out.put(b"[")?;
            let mut first = true;
            for element in elements {
                put(out, element, run, &mut |out| out.comma(&mut first))?;
            }
            out.put(b"]")?;
        }
        Node::Value(pointer, expression) => {
            let value = run.value(expression, pointer)?;
            if is_omit(&value) {
                return Ok(false);
            }
            before(out)?;
            out.put_value(&value)?;
        }
        Node::Parts(pointer, parts) => {
            let mut text = String::new();
            for part in parts {
                match part {
                    Part::Same(same) => text.push_str(same),
                    Part::Value(expression) => text.push_str(&value_text(run, expression, pointer)?),
                }
                if text.len() > json::OUTPUT_MAX {
                    return Err(Failure::Size);
                }
            }
            before(out)?;
            out.put_string(&text)?;
        }
        Node::Text(pointer, text) => {
            let text = run.text(text, pointer)?;
            before(out)?;
            out.put_string(&text)?;
        }
    }
    Ok(true)
}

fn value_text(run: &mut Run<'_>, expression: &Expression, place: &str) -> Result<String, Failure> {
    let value: Value = run.value(expression, place)?;
    json::text(&value)
}

/// A piece of a text: what stays, or the code of an expression without its braces.
pub(super) enum Piece<'a> {
    Same(&'a str),
    Code(&'a str),
}

/// Takes a text apart at its expressions. `None` where it has statements, comments or signs that trim the text around
/// them: then it is for the engine as a whole.
pub(super) fn split(text: &str) -> Result<Option<Vec<Piece<'_>>>, Fault> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(open) = opening(rest) {
        if !rest[open..].starts_with("{{") {
            return Ok(None);
        }
        let inner = &rest[open + 2..];
        let Some(close) = closing(inner, "}}") else {
            let reason = "`{{` is not closed by `}}`; to write it, write {{ \"{{\" }}";
            return Err(fault_at(text, offset(text, &rest[open..]), reason.to_owned()));
        };
        let code = &inner[..close];
        let trims = code.starts_with(['-', '+']) || code.ends_with(['-', '+']);
        let alone = open == 0 && rest.len() == text.len() && inner.len() == close + 2;
        if trims && !alone {
            return Ok(None);
        }
        if open > 0 {
            pieces.push(Piece::Same(&rest[..open]));
        }
        pieces.push(Piece::Code(match trims {
            true => code.trim_matches(['-', '+']),
            false => code,
        }));
        rest = &inner[close + 2..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Same(rest));
    }
    Ok(Some(pieces))
}

/// The code within a text, expressions and statements.
pub(super) fn code(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(open) = opening(rest) {
        let inner = &rest[open + 2..];
        let end = match &rest[open..open + 2] {
            "{{" => closing(inner, "}}"),
            "{%" => closing(inner, "%}"),
            _ => inner.find("#}"),
        };
        // What is not closed, the engine refuses.
        let Some(end) = end else { break };
        if !rest[open..].starts_with("{#") {
            found.push(&inner[..end]);
        }
        rest = &inner[end + 2..];
    }
    found
}

fn opening(text: &str) -> Option<usize> {
    text.match_indices('{')
        .map(|(at, _)| at)
        .find(|at| text[at + 1..].starts_with(['{', '%', '#']))
}

/// Where code ends: at the first `end` outside of strings and braces of its own.
fn closing(code: &str, end: &str) -> Option<usize> {
    let mut braces = 0_usize;
    let mut chars = code.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' | '\'' => {
                while let Some((_, inner)) = chars.next() {
                    match inner {
                        '\\' => drop(chars.next()),
                        inner if inner == c => break,
                        _ => {}
                    }
                }
            }
            _ if braces == 0 && code[at..].starts_with(end) => return Some(at),
            '{' => braces += 1,
            '}' => braces = braces.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// The words and signs of code; what stands in quotes is left out.
pub(super) fn words(code: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut words = Vec::new();
    let mut chars = code.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' | '\'' => {
                while let Some((_, inner)) = chars.next() {
                    match inner {
                        '\\' => drop(chars.next()),
                        inner if inner == c => break,
                        _ => {}
                    }
                }
                // In its place, so that what stands before and after are not neighbours.
                words.push(&code[at..at + 1]);
            }
            c if is_word(c) => {
                let mut end = at + c.len_utf8();
                while let Some((next, _)) = chars.next_if(|(_, c)| is_word(*c)) {
                    end = next + code[next..].chars().next().map_or(1, char::len_utf8);
                }
                words.push(&code[at..end]);
            }
            c if c.is_whitespace() => {}
            c => words.push(&code[at..at + c.len_utf8()]),
        }
    }
    words
}
