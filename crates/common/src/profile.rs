//! Profiles: how a project's webhooks look, sign, retry and succeed. Data, not code: a profile is a TOML file.
//!
//! Five are shipped, in `deploy/profiles`, and are part of the program; `--profiles-dir` adds an operator's own, and
//! replaces a shipped one of the same name. config-api alone reads profiles: what it publishes for ingest and dispatcher
//! has them applied already.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto_schemas::definition::{Body, Expression, SchemaCheck, Signature};

mod written;

use self::written::parse;

/// The profile of a project that names none.
pub const DEFAULT: &str = "standard";

const SHIPPED: [(&str, &str); 5] = [
    ("standard.toml", include_str!("../../../deploy/profiles/standard.toml")),
    (
        "cloudthinker.toml",
        include_str!("../../../deploy/profiles/cloudthinker.toml"),
    ),
    ("uniskai.toml", include_str!("../../../deploy/profiles/uniskai.toml")),
    ("ubiops.toml", include_str!("../../../deploy/profiles/ubiops.toml")),
    ("once.toml", include_str!("../../../deploy/profiles/once.toml")),
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
    /// Whether stored protected values go along when a webhook's url is given another host, unless they are given anew.
    pub protected_values_follow_url: bool,
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
    /// A file that was named cannot be read.
    #[error("cannot read {}", path.display())]
    Given {
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

/// Reads one profile, to see whether it is one.
///
/// # Errors
/// [`Error`], naming file, line and reason.
pub fn check(path: &Path) -> Result<Profile, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Given {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &text)
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

#[cfg(test)]
mod tests;
