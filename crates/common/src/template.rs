//! Integration templates: what a webhook for Slack, Jira and others is made of, but for what its owner alone knows.
//!
//! A template is a TOML file in `deploy/templates`, part of the program. It has blanks, `<path>` say; filled in, it gives
//! a webhook's url, events, headers, variables and transform, which are then checked like any other webhook's.
//!
//! A transform is readable by whoever may read the webhook. What is secret goes into a protected header or variable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::render;

const SHIPPED: [(&str, &str); 6] = [
    ("discord.toml", include_str!("../../../deploy/templates/discord.toml")),
    ("generic.toml", include_str!("../../../deploy/templates/generic.toml")),
    ("jira.toml", include_str!("../../../deploy/templates/jira.toml")),
    (
        "pagerduty.toml",
        include_str!("../../../deploy/templates/pagerduty.toml"),
    ),
    ("slack.toml", include_str!("../../../deploy/templates/slack.toml")),
    ("teams.toml", include_str!("../../../deploy/templates/teams.toml")),
];

/// Every template there is.
#[derive(Debug, Clone)]
pub struct Templates(Vec<Template>);

/// A webhook with blanks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// What it is asked for by.
    pub name: String,
    /// For people, in a line.
    pub description: String,
    /// The webhook's url.
    pub url: String,
    /// Event types it is meant for; a suggestion.
    pub events: Vec<String>,
    /// The webhook's headers.
    #[serde(default)]
    pub headers: Vec<NamedValue>,
    /// The webhook's variables.
    #[serde(default)]
    pub variables: Vec<NamedValue>,
    /// The webhook's transform, as JSON text.
    pub transform: String,
    /// What its owner fills in.
    #[serde(default)]
    pub blanks: Vec<Blank>,
}

/// A header or a variable of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedValue {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Whether the value never comes back out.
    #[serde(default)]
    pub protected: bool,
}

/// Something to be filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blank {
    /// Its name; the template holds it as `<name>`.
    pub name: String,
    /// What to fill in, for people.
    pub description: String,
    /// What it might look like.
    pub example: String,
    /// Whether it has to be filled in. A header or a variable with an empty blank is left out.
    #[serde(default = "yes")]
    pub required: bool,
    /// What it is where it is not filled in.
    #[serde(default)]
    pub default: Option<String>,
    /// Whether it is to be typed and kept like a password.
    #[serde(default)]
    pub secret: bool,
    /// Whether it is a whole address and not a piece of one.
    #[serde(default)]
    pub whole: bool,
}

const fn yes() -> bool {
    true
}

/// A template filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// The webhook's url.
    pub url: String,
    /// Event types.
    pub events: Vec<String>,
    /// Headers.
    pub headers: Vec<NamedValue>,
    /// Variables.
    pub variables: Vec<NamedValue>,
    /// The transform.
    pub transform: Value,
}

/// Why a template cannot be read or filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A file is no template.
    #[error("{file}: {reason}")]
    Invalid {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A blank has to be filled in.
    #[error("`{0}` has to be filled in: {1}")]
    Missing(String, String),
    /// There is no such blank.
    #[error("there is no `{name}` to fill in; there is {known}")]
    Unknown {
        /// What was given.
        name: String,
        /// What could be.
        known: String,
    },
    /// What was filled in does not fit.
    #[error("`{0}` {1}")]
    Unfit(String, &'static str),
}

impl Templates {
    /// The shipped templates.
    ///
    /// # Errors
    /// [`Error::Invalid`]
    pub fn load() -> Result<Self, Error> {
        SHIPPED
            .iter()
            .map(|(file, text)| parse(file, text))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The template of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Template> {
        self.0.iter().find(|template| template.name == name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Template> {
        self.0.iter()
    }
}

fn parse(file: &str, text: &str) -> Result<Template, Error> {
    let invalid = |reason: String| Error::Invalid {
        file: file.to_owned(),
        reason,
    };
    let template: Template = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
    if Some(template.name.as_str()) != file.strip_suffix(".toml") {
        return Err(invalid(format!("name: `{}` is not the file's name", template.name)));
    }
    let compiled =
        render::Template::compile(&template.transform).map_err(|error| invalid(format!("transform: {error}")))?;
    if let [name, ..] = compiled.unknown_names().as_slice() {
        return Err(invalid(format!("transform: there is no `{name}`")));
    }
    let everything = [template.url.as_str(), template.transform.as_str()]
        .into_iter()
        .chain(template.values().map(|value| value.value.as_str()))
        .collect::<Vec<_>>()
        .join("\n");
    for blank in &template.blanks {
        if !everything.contains(&blank.mark()) {
            return Err(invalid(format!("blanks: nothing asks for `{}`", blank.name)));
        }
    }
    for blank in template.blanks.iter().filter(|blank| blank.secret) {
        let reason = "is secret: let a protected one of `[[variables]]` hold it";
        if template.transform.contains(&blank.mark()) {
            return Err(invalid(format!(
                "transform: it is readable, and `{}` {reason}",
                blank.name
            )));
        }
        let told = template
            .values()
            .find(|it| !it.protected && it.value.contains(&blank.mark()));
        if let Some(told) = told {
            return Err(invalid(format!(
                "{}: it is readable, and `{}` is secret",
                told.key, blank.name
            )));
        }
    }
    // An unfilled mark would go out as it stands.
    let examples = template
        .blanks
        .iter()
        .map(|blank| (blank.name.clone(), blank.example.clone()));
    template
        .apply(&examples.collect())
        .map_err(|error| invalid(error.to_string()))?;
    Ok(template)
}

impl Blank {
    fn mark(&self) -> String {
        format!("<{}>", self.name)
    }
}

impl Template {
    /// Fills the blanks in.
    ///
    /// # Errors
    /// [`Error`], naming the blank.
    pub fn apply(&self, given: &BTreeMap<String, String>) -> Result<Applied, Error> {
        if let Some(name) = given
            .keys()
            .find(|name| !self.blanks.iter().any(|blank| blank.name == **name))
        {
            let known: Vec<_> = self.blanks.iter().map(|blank| format!("`{}`", blank.name)).collect();
            return Err(Error::Unknown {
                name: name.clone(),
                known: known.join(", "),
            });
        }
        let mut filled = Vec::with_capacity(self.blanks.len());
        let mut empty = Vec::new();
        for blank in &self.blanks {
            let value = given.get(&blank.name).map(|it| it.trim()).filter(|it| !it.is_empty());
            match value.or(blank.default.as_deref()) {
                Some(value) => filled.push((blank, value)),
                None if blank.required => {
                    return Err(Error::Missing(blank.name.clone(), blank.description.clone()));
                }
                None => empty.push(blank.mark()),
            }
        }
        Ok(Applied {
            url: self.url(&filled)?,
            events: self.events.clone(),
            headers: filled_in(&self.headers, &filled, &empty, in_header)?,
            variables: filled_in(&self.variables, &filled, &empty, |_, _| Ok(()))?,
            transform: self.transform(&filled)?,
        })
    }

    fn values(&self) -> impl Iterator<Item = &NamedValue> {
        self.headers.iter().chain(&self.variables)
    }

    fn url(&self, filled: &[(&Blank, &str)]) -> Result<String, Error> {
        let host = self
            .url
            .split_once("://")
            .map(|(_, rest)| rest.split('/').next().unwrap_or_default());
        fill(&self.url, filled, |blank, value| match blank.whole {
            true => Ok(()),
            false if host.is_some_and(|host| host.contains(&blank.mark())) => in_host(value),
            false => in_path(value),
        })
    }

    fn transform(&self, filled: &[(&Blank, &str)]) -> Result<Value, Error> {
        let mut transform: Value = serde_json::from_str(&self.transform).map_err(|error| Error::Invalid {
            file: self.name.clone(),
            reason: error.to_string(),
        })?;
        fill_strings(&mut transform, filled)?;
        Ok(transform)
    }
}

/// Headers or variables, without those that hold the mark of an `empty` blank.
fn filled_in(
    values: &[NamedValue],
    filled: &[(&Blank, &str)],
    empty: &[String],
    fits: impl Fn(&Blank, &str) -> Result<(), &'static str>,
) -> Result<Vec<NamedValue>, Error> {
    let wanted = |value: &&NamedValue| !empty.iter().any(|mark| value.value.contains(mark));
    let filled = |value: &NamedValue| {
        Ok(NamedValue {
            value: fill(&value.value, filled, &fits)?,
            ..value.clone()
        })
    };
    values.iter().filter(wanted).map(filled).collect()
}

fn fill_strings(value: &mut Value, filled: &[(&Blank, &str)]) -> Result<(), Error> {
    match value {
        Value::String(text) => *text = fill(text, filled, in_transform)?,
        Value::Array(elements) => {
            for element in elements {
                fill_strings(element, filled)?;
            }
        }
        Value::Object(members) => {
            for (_, member) in members {
                fill_strings(member, filled)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Fills a text in, once from left to right: what was filled in is not looked at again.
fn fill(
    text: &str,
    filled: &[(&Blank, &str)],
    fits: impl Fn(&Blank, &str) -> Result<(), &'static str>,
) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match filled.iter().find(|(blank, _)| rest.starts_with(&blank.mark())) {
            Some((blank, value)) => {
                fits(blank, value).map_err(|reason| Error::Unfit(blank.name.clone(), reason))?;
                out.push_str(value);
                rest = &rest[blank.mark().len()..];
            }
            None => {
                out.push('<');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn in_host(value: &str) -> Result<(), &'static str> {
    match value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        true => Ok(()),
        false => Err("is a name of letters, digits and hyphens, and no more of the address than that"),
    }
}

fn in_path(value: &str) -> Result<(), &'static str> {
    let plain = value
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"/-._~=".contains(&b));
    match plain && !value.split('/').any(|segment| ["", ".", ".."].contains(&segment)) {
        true => Ok(()),
        false => Err("is a piece of a path, without what stands before and after it in the address"),
    }
}

fn in_header(_: &Blank, value: &str) -> Result<(), &'static str> {
    match http::HeaderValue::from_str(value) {
        Ok(_) => Ok(()),
        Err(_) => Err("holds characters that no header can carry"),
    }
}

fn in_transform(_: &Blank, value: &str) -> Result<(), &'static str> {
    match ["{{", "{%", "{#"].iter().any(|open| value.contains(open)) {
        true => Err("holds `{{`, `{%` or `{#`, which begin expressions"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
