//! Catalogues: the event types of a platform, which a profile may name. Data, not code: a folder per catalogue, and in it
//! one per event type with `type.json` (version and description), `schema.json` and `example.json`.
//!
//! Those under `proto-schemas/catalogues` are part of the program; `--catalogues-dir` adds an operator's own, and replaces
//! a shipped one of the same name. config-api alone reads catalogues: ingest gets their schemas as definitions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proto_schemas::definition::{self, EventTypeVersion};
use proto_schemas::id::{is_event_type, is_project_name};
use serde::Deserialize;

use crate::schema::Schema;

/// Where catalogues come from.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Folder with catalogues of your own, one folder each (proto-schemas/catalogues has examples)
    #[arg(long, env = "POSTHASTE_CATALOGUES_DIR", value_name = "FOLDER")]
    pub catalogues_dir: Option<PathBuf>,
}

/// An event type of a catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventType {
    /// `recommendation.created`
    pub name: String,
    /// Its version.
    pub version: String,
    /// For people, in a line.
    pub description: String,
    /// JSON Schema of an event's data, as text.
    pub schema: String,
    /// An event's data, as JSON text.
    pub example: String,
}

impl EventType {
    /// What ingest checks events of this type by.
    #[must_use]
    pub fn definition(&self) -> definition::EventType {
        definition::EventType {
            name: self.name.clone(),
            versions: vec![EventTypeVersion {
                version: self.version.clone(),
                schema: self.schema.clone(),
                deprecated: false,
            }],
            deleted: false,
        }
    }
}

/// Every catalogue there is, each with its types by name.
#[derive(Debug, Clone, Default)]
pub struct Catalogues(BTreeMap<String, BTreeMap<String, EventType>>);

/// Why catalogues cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("cannot read {}, which --catalogues-dir (POSTHASTE_CATALOGUES_DIR) leads to", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file or folder is not what it should be.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

/// `type.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: String,
    description: String,
}

impl Catalogues {
    /// The shipped catalogues and those of the folder.
    ///
    /// # Errors
    /// [`Error`], naming the file and the reason.
    pub fn load(config: &Config) -> Result<Self, Error> {
        let mut catalogues: BTreeMap<_, _> = proto_schemas::catalogue::all()
            .iter()
            .map(|catalogue| (catalogue.name.to_owned(), shipped(catalogue)))
            .collect();
        if let Some(folder) = &config.catalogues_dir {
            for (name, folder) in folders(folder)? {
                if !is_project_name(&name) {
                    return Err(invalid(&folder, "a catalogue's name is 1 to 63 of a-z, 0-9 and -"));
                }
                let types = folders(&folder)?
                    .into_iter()
                    .map(|(name, folder)| Ok((name.clone(), read(name, &folder)?)))
                    .collect::<Result<_, Error>>()?;
                catalogues.insert(name, types);
            }
        }
        Ok(Self(catalogues))
    }

    /// The types of a catalogue, by name; `None` where there is no such catalogue.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&BTreeMap<String, EventType>> {
        self.0.get(name)
    }

    /// A type of a catalogue.
    #[must_use]
    pub fn event_type(&self, catalogue: &str, name: &str) -> Option<&EventType> {
        self.0.get(catalogue)?.get(name)
    }

    /// Their names, in order and separated by commas; for messages.
    #[must_use]
    pub fn names(&self) -> String {
        self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

fn shipped(catalogue: &proto_schemas::catalogue::Catalogue) -> BTreeMap<String, EventType> {
    let types = catalogue.types.iter().map(|shipped| EventType {
        name: shipped.name.to_owned(),
        version: shipped.version.to_owned(),
        description: shipped.description.to_owned(),
        schema: shipped.schema.to_owned(),
        example: shipped.example.to_owned(),
    });
    types.map(|event_type| (event_type.name.clone(), event_type)).collect()
}

/// Reads a type's folder, and sees that schema and example fit.
fn read(name: String, folder: &Path) -> Result<EventType, Error> {
    if !is_event_type(&name) {
        return Err(invalid(
            folder,
            "an event type is words of A-Z a-z 0-9 _ - joined by dots",
        ));
    }
    let text = |file: &str| {
        let path = folder.join(file);
        std::fs::read_to_string(&path).map_err(|source| Error::Unreadable { path, source })
    };
    let about: Written = serde_json::from_str(&text("type.json")?)
        .map_err(|error| invalid(&folder.join("type.json"), &error.to_string()))?;
    check_version(&about.version).map_err(|reason| invalid(&folder.join("type.json"), &reason))?;
    let (schema, example) = (text("schema.json")?, text("example.json")?);
    let compiled =
        Schema::compile(&schema).map_err(|fault| invalid(&folder.join("schema.json"), &fault.to_string()))?;
    if let Some(fault) = compiled.check_text(example.as_bytes()).first() {
        let reason = format!("it is not what schema.json asks for: {fault}");
        return Err(invalid(&folder.join("example.json"), &reason));
    }
    Ok(EventType {
        name,
        version: about.version,
        description: about.description,
        schema,
        example,
    })
}

/// Whether a text may be a version's name.
///
/// # Errors
/// What it may be.
pub fn check_version(version: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match (1..=32).contains(&version.len()) && version.bytes().all(allowed) && !version.starts_with('.') {
        true => Ok(()),
        false => Err("a version is 1 to 32 of A-Z a-z 0-9 . _ - and does not begin with a dot: 1.0.0".to_owned()),
    }
}

/// The folders of a folder, by name.
fn folders(folder: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
    let unreadable = |source| Error::Unreadable {
        path: folder.to_owned(),
        source,
    };
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if let (true, Some(name)) = (path.is_dir(), path.file_name().and_then(|name| name.to_str())) {
            found.insert(name.to_owned(), path);
        }
    }
    Ok(found)
}

fn invalid(path: &Path, reason: &str) -> Error {
    Error::Invalid {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn shipped_type(catalogue: &str, name: &str) -> (Schema, Value) {
        let catalogues = Catalogues::load(&Config::default()).unwrap();
        let found = catalogues.event_type(catalogue, name).unwrap();
        (
            Schema::compile(&found.schema).unwrap(),
            serde_json::from_str(&found.example).unwrap(),
        )
    }

    /// Where the type's schema has something against its example with one value put at `pointer`, or taken away.
    fn faults_with(catalogue: &str, name: &str, pointer: &str, put: Option<Value>) -> Vec<String> {
        let (schema, mut example) = shipped_type(catalogue, name);
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        let members = example.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match put {
            Some(value) => drop(members.insert(last.to_owned(), value)),
            None => drop(members.remove(last).unwrap()),
        }
        schema
            .check(&example, 0)
            .into_iter()
            .map(|fault| fault.pointer)
            .collect()
    }

    #[test]
    fn every_shipped_schema_compiles_and_every_example_fits() {
        let catalogues = Catalogues::load(&Config::default()).unwrap();
        assert_eq!(catalogues.names(), "cloudthinker, once, posthaste, ubiops, uniskai");
        for catalogue in proto_schemas::catalogue::all() {
            for (name, found) in catalogues.get(catalogue.name).unwrap() {
                let schema = Schema::compile(&found.schema).unwrap_or_else(|fault| panic!("{name}: {fault}"));
                assert_eq!(schema.check_text(found.example.as_bytes()), [], "{name}");
                check_version(&found.version).unwrap();
                let schema: Value = serde_json::from_str(&found.schema).unwrap();
                assert_eq!(
                    schema["$schema"], "https://json-schema.org/draft/2020-12/schema",
                    "{name}"
                );
                assert_eq!(schema["title"], name.as_str());
            }
        }
    }

    #[test]
    fn every_required_field_is_missed_and_every_type_is_told_from_another() {
        for catalogue in proto_schemas::catalogue::all() {
            for found in catalogue.types {
                let (schema, example) = shipped_type(catalogue.name, found.name);
                let written: Value = serde_json::from_str(found.schema).unwrap();
                // What a device sends of itself has no fields of ours.
                let written = written.get("then").unwrap_or(&written);
                let required = written["required"].as_array().unwrap();
                assert!(!required.is_empty(), "{}", found.name);
                for name in required {
                    let mut less = example.clone();
                    less.as_object_mut().unwrap().remove(name.as_str().unwrap()).unwrap();
                    assert_eq!(schema.check(&less, 0).len(), 1, "{} without {name}", found.name);
                }
                for member in example.as_object().unwrap().keys() {
                    let mut other = example.clone();
                    other[member] = json!([[]]);
                    let free = written["properties"][member].get("type").is_none();
                    let constant = ["const", "enum"]
                        .iter()
                        .any(|it| !written["properties"][member][*it].is_null());
                    let refused = !schema.check(&other, 0).is_empty();
                    assert_eq!(refused, constant || !free, "{}: {member}", found.name);
                }
            }
        }
    }

    #[test]
    fn documented_enumerations_and_nulls_are_kept_to() {
        let none = Vec::<String>::new();
        for (catalogue, name, pointer, put, fault) in [
            (
                "uniskai",
                "cloudsitter-policy-failed",
                "/failed_action",
                json!("off"),
                false,
            ),
            (
                "uniskai",
                "cloudsitter-policy-failed",
                "/failed_action",
                json!("ON"),
                true,
            ),
            (
                "uniskai",
                "team-member-permission-request",
                "/permissions/0/mode",
                json!("Was withdrawn"),
                false,
            ),
            (
                "uniskai",
                "team-member-permission-request",
                "/permissions/0/mode",
                json!("Write"),
                true,
            ),
            (
                "uniskai",
                "team-member-permission-request",
                "/permissions/0/service",
                json!("Savings"),
                false,
            ),
            (
                "uniskai",
                "team-member-permission-request",
                "/environment_id",
                json!(4.5),
                true,
            ),
            (
                "uniskai",
                "team-member-permission-request",
                "/account_name",
                json!(null),
                true,
            ),
            ("uniskai", "spot-recreated", "/resources/0/vpc", json!(null), false),
            ("uniskai", "spot-rollback", "/resources/0/vpc", json!(7), true),
            (
                "uniskai",
                "managed-on-demand-back-to-spot",
                "/resources/0/region",
                json!(null),
                true,
            ),
            (
                "uniskai",
                "trial-period-ending",
                "/accounts/0/trial_days",
                json!(10),
                true,
            ),
            (
                "uniskai",
                "trial-period-ended",
                "/type",
                json!("trial-period-ending"),
                true,
            ),
            (
                "cloudthinker",
                "recommendation.created",
                "/potential_savings",
                json!("150"),
                true,
            ),
            (
                "cloudthinker",
                "task.completed",
                "/finished_at",
                json!("yesterday"),
                true,
            ),
            (
                "ubiops",
                "deployment_request_finished",
                "/status",
                json!("cancelled"),
                false,
            ),
            (
                "ubiops",
                "deployment_request_completed",
                "/status",
                json!("failed"),
                true,
            ),
            (
                "ubiops",
                "pipeline_request_started",
                "/pipeline_version_name",
                json!(null),
                false,
            ),
            ("ubiops", "pipeline_request_failed", "/request_id", json!(7), true),
            ("once", "TELEMETRY_DATA", "/version", json!("2.0.0"), true),
            ("once", "LIFECYCLE", "/device/iccid", json!("none"), true),
        ] {
            let found = faults_with(catalogue, name, pointer, Some(put.clone()));
            let expected = if fault { vec![pointer.to_owned()] } else { none.clone() };
            assert_eq!(found, expected, "{name} with {put}");
        }
        assert_eq!(
            faults_with("uniskai", "spot-recreated", "/resources/0/vpc", None),
            ["/resources/0/vpc"]
        );
        assert_eq!(faults_with("uniskai", "spot-recreated", "/type", None), none);
    }

    #[test]
    fn a_policy_stopped_something_or_started_something() {
        let (schema, mut example) = shipped_type("uniskai", "cloudsitter-start-stop");
        example["started"] = example["stopped"].clone();
        assert_eq!(schema.check(&example, 0).len(), 1, "both");
        example.as_object_mut().unwrap().remove("stopped");
        assert_eq!(schema.check(&example, 0), [], "started");
        example.as_object_mut().unwrap().remove("started");
        assert_eq!(schema.check(&example, 0).len(), 1, "neither");
    }

    #[test]
    fn a_devices_bytes_are_json_or_text() {
        let payload = |value| faults_with("once", "TELEMETRY_DATA", "/payload", Some(value));
        assert_eq!(payload(json!({ "type": "JSON", "value": [1] })), Vec::<String>::new());
        assert_eq!(
            payload(json!({ "type": "BASE64", "value": "AQI=" })),
            Vec::<String>::new()
        );
        assert_eq!(payload(json!({ "type": "BASE64", "value": [1] })), ["/payload/value"]);
    }

    #[test]
    fn a_folder_adds_catalogues_and_says_what_is_wrong_with_one() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("shop/order.placed");
        std::fs::create_dir_all(&folder).unwrap();
        let put = |file: &str, text: &str| std::fs::write(folder.join(file), text).unwrap();
        let config = Config {
            catalogues_dir: Some(root.path().to_owned()),
        };
        let refused = || Catalogues::load(&config).unwrap_err().to_string();
        put("type.json", r#"{"version":"2","description":"An order"}"#);
        put("schema.json", r#"{"type":"object"}"#);
        assert!(refused().contains("order.placed/example.json"), "{}", refused());
        put("example.json", "[]");
        assert!(refused().contains("order.placed/example.json: it is not what schema.json asks for"));
        put("example.json", "{}");
        let catalogues = Catalogues::load(&config).unwrap();
        assert_eq!(
            catalogues.names(),
            "cloudthinker, once, posthaste, shop, ubiops, uniskai"
        );
        assert_eq!(catalogues.event_type("shop", "order.placed").unwrap().version, "2");
        put("schema.json", r#"{"type":"thing"}"#);
        assert!(refused().contains("schema.json: /type"), "{}", refused());
        put("type.json", r#"{"version":"a b","description":""}"#);
        assert!(refused().contains("type.json: a version is"), "{}", refused());
    }
}
