//! Profiles: how a project's webhooks look, sign, retry and succeed. Data, not code: a profile is a TOML file.
//!
//! Three are shipped, in `deploy/profiles`, and are part of the program; `--profiles-dir` adds an operator's own, and
//! replaces a shipped one of the same name. config-api alone reads profiles: what it publishes for ingest and dispatcher
//! has them applied already.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto_schemas::definition::{Body, EnvelopeSource, Expression, SchemaCheck, Signature};
use serde::Deserialize;

use crate::model::limits;

/// The profile of a project that names none.
pub const DEFAULT: &str = "standard";

const SHIPPED: [(&str, &str); 3] = [
    ("standard.toml", include_str!("../../../deploy/profiles/standard.toml")),
    (
        "cloudthinker.toml",
        include_str!("../../../deploy/profiles/cloudthinker.toml"),
    ),
    ("uniskai.toml", include_str!("../../../deploy/profiles/uniskai.toml")),
];

/// Where profiles come from.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Folder with profiles of your own, one TOML file each (deploy/profiles has examples)
    #[arg(long, env = "POSTHASTE_PROFILES_DIR", value_name = "FOLDER")]
    pub profiles_dir: Option<PathBuf>,
}

/// How a project's webhooks behave, where they do not say otherwise themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// What projects name it by: the file's name without `.toml`.
    pub name: String,
    /// For people, in a line.
    pub description: String,
    /// How a request's body is made.
    pub body: Body,
    /// How a request is signed.
    pub signature: Signature,
    /// The delay before each attempt, the first one's included; never empty.
    pub ladder: Vec<Duration>,
    /// Total time of one request, response included.
    pub timeout: Duration,
    /// Longest timeout a webhook may ask for.
    pub timeout_max: Duration,
    /// Whether a 3xx answer counts as delivered.
    pub redirect_is_success: bool,
    /// Whether a webhook that is created without a secret gets a generated one.
    pub generate_secret: bool,
    /// The catalogue whose event types are the project's.
    pub catalogue: Option<String>,
    /// What is done with an event that its type's schema refuses.
    pub schema_check: SchemaCheck,
    /// Attributes of an event that its producer did not give.
    pub event_attributes: Vec<Expression>,
    /// Texts that stand in url and headers for what their expressions give for the event.
    pub placeholders: Vec<Expression>,
    /// What a webhook may switch on or off, for `body` to ask.
    pub options: Vec<Switch>,
    /// Whether deliveries are kept while a webhook is paused; otherwise they are skipped.
    pub hold_while_paused: bool,
    /// Failed attempts in a row after which a webhook has failed; `None`: never.
    pub fail_after: Option<u32>,
    /// Whether a webhook's endpoint has to answer a GET with 200 before the webhook gets events.
    pub endpoint_check: bool,
    /// Whether no two webhooks of a project may have the same url.
    pub unique_url: bool,
}

/// Something that a webhook may switch on or off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// Its name among a webhook's `options`.
    pub name: String,
    /// For people, in a line.
    pub description: String,
    /// How it is where a webhook says nothing.
    pub default: bool,
}

/// Every profile there is.
#[derive(Debug, Clone)]
pub struct Profiles(BTreeMap<String, Profile>);

/// Why profiles cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("cannot read {}, which --profiles-dir (POSTHASTE_PROFILES_DIR) leads to", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not a profile.
    #[error("{file}{place}: {reason}")]
    Invalid {
        /// The file.
        file: String,
        /// `, line 3`, where the line is known.
        place: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

impl Profiles {
    /// The shipped profiles and those of the folder.
    ///
    /// # Errors
    /// [`Error`], naming file, line and reason.
    pub fn load(config: &Config) -> Result<Self, Error> {
        let mut profiles = BTreeMap::new();
        let mut add = |profile: Profile| profiles.insert(profile.name.clone(), profile);
        for (file, text) in SHIPPED {
            add(parse(Path::new(file), text)?);
        }
        if let Some(folder) = &config.profiles_dir {
            for path in files(folder)? {
                let text = std::fs::read_to_string(&path).map_err(|source| Error::Unreadable {
                    path: path.clone(),
                    source,
                })?;
                add(parse(&path, &text)?);
            }
        }
        Ok(Self(profiles))
    }

    /// The profile of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Profile> {
        self.0.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Profile> {
        self.0.values()
    }

    /// Their names, in order and separated by commas; for messages.
    #[must_use]
    pub fn names(&self) -> String {
        self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// The profiles of a folder, in the order of their names.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let unreadable = |source| Error::Unreadable {
        path: folder.to_owned(),
        source,
    };
    let mut paths = std::fs::read_dir(folder)
        .map_err(unreadable)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    Ok(paths)
}

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
fn parse(file: &Path, text: &str) -> Result<Profile, Error> {
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
        let line = text.lines().position(|line| line.trim_start().starts_with(setting));
        let place = line.map(|line| format!(", line {}", line + 1)).unwrap_or_default();
        invalid(place, format!("{setting}: {reason}"))
    })
}

impl Written {
    /// The rules that the form alone does not hold; what is wrong is named by its setting.
    fn check(self, stem: &str) -> Result<Profile, (&'static str, String)> {
        if self.name != stem {
            return Err((
                "name",
                format!("`{}` is not the file's name without .toml, `{stem}`", self.name),
            ));
        }
        if !proto_schemas::id::is_project_name(&self.name) {
            return Err(("name", "a profile's name is 1 to 63 of a-z, 0-9 and -".to_owned()));
        }
        let ladder: Vec<Duration> = self.retry.delays.iter().map(|span| span.0).collect();
        limits::check_ladder(&ladder).map_err(|(_, reason)| ("delays", reason))?;
        limits::check_timeout(self.request.timeout.0).map_err(|reason| ("timeout", reason))?;
        let timeout_max = self.request.timeout_max.map_or(*limits::TIMEOUT.end(), |span| span.0);
        limits::check_timeout(timeout_max).map_err(|reason| ("timeout_max", reason))?;
        if timeout_max < self.request.timeout.0 {
            return Err(("timeout_max", "it is less than `timeout`".to_owned()));
        }
        if !self.request.success.contains(&Answers::Successes) {
            return Err(("success", "it has to contain \"2xx\"".to_owned()));
        }
        let body = match self.body {
            WrittenBody::Flat {} => Body::Flat,
            WrittenBody::Raw {} => Body::Raw,
            WrittenBody::Base64 {} => Body::Base64,
            WrittenBody::Cloudevents {} => Body::CloudEvents,
            WrittenBody::Template { template } => Body::Template(template),
            WrittenBody::Envelope { members } => Body::Envelope(envelope(members).map_err(|it| ("members", it))?),
        };
        if let Some(name) = &self.signature.body_hmac_header {
            http::HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| ("body_hmac_header", format!("`{name}` is not the name of a header")))?;
        }
        if self.webhooks.fail_after == Some(0) {
            return Err(("fail_after", "it is at least 1; leave it out for never".to_owned()));
        }
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
            event_attributes: expressions(self.events.attributes),
            placeholders: expressions(self.placeholders),
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
        })
    }
}

fn expressions(written: BTreeMap<String, String>) -> Vec<Expression> {
    written
        .into_iter()
        .map(|(name, expression)| Expression { name, expression })
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("../../../deploy/profiles/standard.toml");

    fn refused(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from}");
        parse(Path::new("/p/standard.toml"), &GOOD.replace(from, to))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn every_shipped_profile_is_read_and_none_is_forgotten() {
        let profiles = Profiles::load(&Config::default()).unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/profiles");
        let files = files(&folder).unwrap();
        let stems: Vec<_> = files
            .iter()
            .map(|file| file.file_stem().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(profiles.names(), stems.join(", "));
        assert!(profiles.get(DEFAULT).is_some());
    }

    #[test]
    fn cloudthinker_is_what_its_document_says() {
        let profiles = Profiles::load(&Config::default()).unwrap();
        let profile = profiles.get("cloudthinker").unwrap();
        let Body::Envelope(members) = &profile.body else {
            panic!("no envelope")
        };
        let names: Vec<_> = members.iter().map(|member| member.0.as_str()).collect();
        assert_eq!(names, ["id", "type", "timestamp", "workspace_id", "data"]);
        assert_eq!(
            profile.ladder.iter().map(Duration::as_secs).collect::<Vec<_>>(),
            [0, 60, 300, 1800, 7200, 28800]
        );
        assert_eq!(profile.timeout, Duration::from_secs(30));
        assert_eq!(
            profile.signature.body_hmac_header.as_deref(),
            Some("X-CloudThinker-Signature")
        );
        assert!(!profile.redirect_is_success);
    }

    #[test]
    fn a_folder_adds_profiles_and_replaces_shipped_ones() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("standard.toml"), GOOD.replace("15s", "7s")).unwrap();
        std::fs::write(
            folder.path().join("mine.toml"),
            GOOD.replace("\"standard\"", "\"mine\""),
        )
        .unwrap();
        std::fs::write(folder.path().join("README.md"), "not a profile").unwrap();
        let profiles = Profiles::load(&Config {
            profiles_dir: Some(folder.path().to_owned()),
        })
        .unwrap();
        assert_eq!(profiles.names(), "cloudthinker, mine, standard, uniskai");
        assert_eq!(profiles.get("standard").unwrap().timeout, Duration::from_secs(7));
        assert_eq!(profiles.iter().count(), 4);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named_with_its_setting() {
        let config = Config {
            profiles_dir: Some("/nowhere/at/all".into()),
        };
        let error = Profiles::load(&config).unwrap_err().to_string();
        assert!(
            error.contains("/nowhere/at/all") && error.contains("POSTHASTE_PROFILES_DIR"),
            "{error}"
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_line() {
        let line = |setting: &str| GOOD.lines().position(|line| line.starts_with(setting)).unwrap() + 1;
        for (from, to, setting, reason) in [
            ("name = \"standard\"", "name = \"other\"", "name", "`standard`"),
            (
                "standard_webhooks =",
                "standard_webhook =",
                "standard_webhooks =",
                "unknown field `standard_webhook`",
            ),
            ("\"0s\", \"5s\"", "\"0s\", \"soon\"", "delays", "`soon`"),
            (
                "delays = [\"0s\", \"5s\", \"5m\", \"30m\", \"2h\", \"5h\", \"10h\", \"10h\"]",
                "delays = []",
                "delays",
                "1 to 50",
            ),
            ("timeout = \"15s\"", "timeout = \"2h\"", "timeout", "1m"),
            ("success = [\"2xx\"]", "success = [\"3xx\"]", "success", "2xx"),
            ("success = [\"2xx\"]", "success = [\"4xx\"]", "success", "4xx"),
            ("name = \"type\"", "name = \"id\"", "members", "`id` is there twice"),
            ("kind = \"envelope\"", "kind = \"parcel\"", "kind =", "parcel"),
        ] {
            let error = refused(from, to);
            let expected = format!("/p/standard.toml, line {}: ", line(setting));
            assert!(error.starts_with(&expected), "{error}, not {expected}");
            assert!(error.contains(reason), "{error}");
        }
    }
}
