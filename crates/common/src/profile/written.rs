//! A profile as it is written, and what is checked when it is read.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use proto_schemas::definition::{Body, EnvelopeSource, Expression, SchemaCheck, Signature};
use serde::Deserialize;

use super::{Error, Profile, Switch};
use crate::model::limits;
use crate::render::{Expressions, NAMES, Placeholders, Template, VARIABLES};

/// A profile as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    description: String,
    body: WrittenBody,
    signature: WrittenSignature,
    retry: WrittenRetry,
    request: WrittenRequest,
    #[serde(default)]
    events: WrittenEvents,
    #[serde(default)]
    webhooks: WrittenWebhooks,
    #[serde(default)]
    options: BTreeMap<String, WrittenSwitch>,
    #[serde(default)]
    placeholders: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenEvents {
    catalogue: Option<String>,
    schema_check: Option<WrittenCheck>,
    attributes: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WrittenCheck {
    Off,
    Warn,
    Reject,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenWebhooks {
    pause: WrittenPause,
    fail_after: Option<u32>,
    endpoint_check: bool,
    unique_url: bool,
    protected_values_follow_url: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WrittenPause {
    #[default]
    Drop,
    Hold,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSwitch {
    description: String,
    default: bool,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum WrittenBody {
    Envelope {
        members: Vec<Member>,
    },
    Flat {},
    Raw {},
    Base64 {},
    Cloudevents {},
    /// JSON text whose strings are template expressions.
    Template {
        template: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    name: String,
    from: Source,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Source {
    EventId,
    EventType,
    Timestamp,
    ProjectName,
    Data,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSignature {
    standard_webhooks: bool,
    body_hmac_header: Option<String>,
    #[serde(default = "yes")]
    generate_secret: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRetry {
    delays: Vec<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRequest {
    timeout: Span,
    timeout_max: Option<Span>,
    success: Vec<Answers>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
enum Answers {
    #[serde(rename = "2xx")]
    Successes,
    #[serde(rename = "3xx")]
    Redirects,
}

/// A duration, written like `5m`.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Span(Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        crate::config::duration(&text)
            .map(Self)
            .map_err(|reason| format!("`{text}`: {reason}"))
    }
}

/// Reads a profile; `file` is for messages, and its stem has to be the profile's name.
pub(super) fn parse(file: &Path, text: &str) -> Result<Profile, Error> {
    let invalid = |place: String, reason: String| Error::Invalid {
        file: file.display().to_string(),
        place,
        reason,
    };
    let written: Written = toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        invalid(
            line.map(|line| format!(", line {line}")).unwrap_or_default(),
            error.message().to_owned(),
        )
    })?;
    let stem = file
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default()
        .to_owned();
    written.check(&stem).map_err(|(setting, reason)| {
        let line = text.lines().position(|line| is_setting(line, &setting));
        let place = line.map(|line| format!(", line {}", line + 1)).unwrap_or_default();
        invalid(place, format!("{setting}: {reason}"))
    })
}

/// Whether a line of the file is where a setting is given.
fn is_setting(line: &str, setting: &str) -> bool {
    let line = line.trim_start();
    let line = line.strip_prefix('"').unwrap_or(line);
    line.strip_prefix(setting)
        .is_some_and(|rest| rest.trim_start_matches('"').trim_start().starts_with(['=', '.']))
}

/// A setting, and what is wrong with it.
type Wrong = (String, String);

fn wrong(setting: &str, reason: impl Into<String>) -> Wrong {
    (setting.to_owned(), reason.into())
}

impl Written {
    /// The rules that the form alone does not hold; what is wrong is named by its setting.
    fn check(self, stem: &str) -> Result<Profile, Wrong> {
        if self.name != stem {
            return Err(wrong(
                "name",
                format!("`{}` is not the file's name without .toml, `{stem}`", self.name),
            ));
        }
        if !proto_schemas::id::is_project_name(&self.name) {
            return Err(wrong("name", "a profile's name is 1 to 63 of a-z, 0-9 and -"));
        }
        let ladder: Vec<Duration> = self.retry.delays.iter().map(|span| span.0).collect();
        limits::check_ladder(&ladder).map_err(|(_, reason)| wrong("delays", reason))?;
        limits::check_timeout(self.request.timeout.0).map_err(|reason| wrong("timeout", reason))?;
        let timeout_max = self.request.timeout_max.map_or(*limits::TIMEOUT.end(), |span| span.0);
        limits::check_timeout(timeout_max).map_err(|reason| wrong("timeout_max", reason))?;
        if timeout_max < self.request.timeout.0 {
            return Err(wrong("timeout_max", "it is less than `timeout`"));
        }
        if !self.request.success.contains(&Answers::Successes) {
            return Err(wrong("success", "it has to contain \"2xx\""));
        }
        let body = match self.body {
            WrittenBody::Flat {} => Body::Flat,
            WrittenBody::Raw {} => Body::Raw,
            WrittenBody::Base64 {} => Body::Base64,
            WrittenBody::Cloudevents {} => Body::CloudEvents,
            WrittenBody::Template { template } => {
                check_template(&template, &self.options).map_err(|it| wrong("template", it))?;
                Body::Template(template)
            }
            WrittenBody::Envelope { members } => Body::Envelope(envelope(members).map_err(|it| wrong("members", it))?),
        };
        if let Some(name) = &self.signature.body_hmac_header {
            http::HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| wrong("body_hmac_header", format!("`{name}` is not the name of a header")))?;
        }
        if self.webhooks.fail_after == Some(0) {
            return Err(wrong("fail_after", "it is at least 1; leave it out for never"));
        }
        if !matches!(body, Body::Template(_))
            && let Some(name) = self.options.keys().next()
        {
            return Err(wrong(
                name,
                "nothing asks for this option: options are for templates to ask",
            ));
        }
        let event_attributes = expressions(self.events.attributes);
        check_attributes(&event_attributes)?;
        let placeholders = expressions(self.placeholders);
        check_placeholders(&placeholders)?;
        let schema_check = match (self.events.schema_check, &self.events.catalogue) {
            (Some(WrittenCheck::Off), _) | (None, None) => SchemaCheck::Off,
            (Some(WrittenCheck::Warn), _) => SchemaCheck::Warn,
            (Some(WrittenCheck::Reject), _) | (None, Some(_)) => SchemaCheck::Reject,
        };
        Ok(Profile {
            name: self.name,
            description: self.description,
            body,
            signature: Signature {
                standard_webhooks: self.signature.standard_webhooks,
                body_hmac_header: self.signature.body_hmac_header,
            },
            ladder,
            timeout: self.request.timeout.0,
            redirect_is_success: self.request.success.contains(&Answers::Redirects),
            timeout_max,
            generate_secret: self.signature.generate_secret,
            catalogue: self.events.catalogue,
            schema_check,
            event_attributes,
            placeholders,
            options: self
                .options
                .into_iter()
                .map(|(name, switch)| Switch {
                    name,
                    description: switch.description,
                    default: switch.default,
                })
                .collect(),
            hold_while_paused: self.webhooks.pause == WrittenPause::Hold,
            fail_after: self.webhooks.fail_after,
            endpoint_check: self.webhooks.endpoint_check,
            unique_url: self.webhooks.unique_url,
            protected_values_follow_url: self.webhooks.protected_values_follow_url,
        })
    }
}

fn expressions(written: BTreeMap<String, String>) -> Vec<Expression> {
    written
        .into_iter()
        .map(|(name, expression)| Expression { name, expression })
        .collect()
}

/// What a template asks for has to be there, and the options that are there have to be asked for.
fn check_template(template: &str, options: &BTreeMap<String, WrittenSwitch>) -> Result<(), String> {
    let template = Template::compile(template).map_err(|error| error.to_string())?;
    known(&template.unknown_names(), &NAMES_OF_WEBHOOKS)?;
    let asked = template.options();
    if let Some(name) = asked.iter().find(|name| !options.contains_key(name.as_str())) {
        return Err(format!("it asks for `options.{name}`, and there is no such option"));
    }
    match options.keys().find(|name| !asked.contains(name)) {
        Some(name) => Err(format!("it never asks for the option `{name}`")),
        None => Ok(()),
    }
}

/// The names that template and placeholders know, each as it is said. An event has its attributes before any webhook.
const NAMES_OF_WEBHOOKS: [&[&str]; 2] = [&NAMES, &[VARIABLES]];

fn known(unknown: &[String], names: &[&[&str]]) -> Result<(), String> {
    match unknown {
        [] => Ok(()),
        [name, ..] => Err(format!("there is no `{name}`; there are {}", names.concat().join(", "))),
    }
}

fn check_attributes(attributes: &[Expression]) -> Result<(), Wrong> {
    for attribute in attributes {
        if !is_word(&attribute.name) {
            return Err(wrong(
                &attribute.name,
                "an attribute's name is 1 to 64 of a-z, 0-9 and _",
            ));
        }
    }
    let compiled = Expressions::compile(attributes).map_err(|(name, fault)| (name, fault.to_string()))?;
    // Which of them it is, each alone tells.
    let unknown = |it: &[Expression]| Expressions::compile(it).map(|compiled| compiled.unknown_names());
    known(&compiled.unknown_names(), &[&NAMES]).map_err(|reason| (culprit(attributes, unknown), reason))
}

fn check_placeholders(placeholders: &[Expression]) -> Result<(), Wrong> {
    for placeholder in placeholders {
        let name = placeholder.name.strip_prefix(':').and_then(|it| it.strip_suffix(':'));
        if !name.is_some_and(is_word) {
            let reason = "a placeholder's text is like `:name:`, with 1 to 64 of a-z, 0-9 and _ in it";
            return Err(wrong(&placeholder.name, reason));
        }
    }
    let compiled = Placeholders::compile(placeholders).map_err(|(name, fault)| (name, fault.to_string()))?;
    let unknown = |it: &[Expression]| Placeholders::compile(it).map(|compiled| compiled.unknown_names());
    known(&compiled.unknown_names(), &NAMES_OF_WEBHOOKS).map_err(|reason| (culprit(placeholders, unknown), reason))
}

/// The first one that uses a name there is not.
fn culprit<E>(expressions: &[Expression], unknown: impl Fn(&[Expression]) -> Result<Vec<String>, E>) -> String {
    expressions
        .iter()
        .find(|it| unknown(std::slice::from_ref(it)).is_ok_and(|names| !names.is_empty()))
        .map(|it| it.name.clone())
        .unwrap_or_default()
}

fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn envelope(members: Vec<Member>) -> Result<Vec<(String, EnvelopeSource)>, String> {
    if members.is_empty() {
        return Err("an envelope has at least one member".to_owned());
    }
    for (i, member) in members.iter().enumerate() {
        if members[..i].iter().any(|earlier| earlier.name == member.name) {
            return Err(format!("`{}` is there twice", member.name));
        }
    }
    Ok(members
        .into_iter()
        .map(|member| (member.name, member.from.into()))
        .collect())
}

impl From<Source> for EnvelopeSource {
    fn from(source: Source) -> Self {
        match source {
            Source::EventId => Self::EventId,
            Source::EventType => Self::EventType,
            Source::Timestamp => Self::Timestamp,
            Source::ProjectName => Self::ProjectName,
            Source::Data => Self::Data,
        }
    }
}
