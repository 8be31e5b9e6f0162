//! Event types as they are asked. A schema is compiled when it is asked, and kept while there is room ([`compiled`]):
//! dispatcher never asks.
//!
//! [`compiled`]: super::compiled

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use proto_schemas::definition;
use sha2::{Digest as _, Sha256};

use super::compiled::{Compiled, Digest};
use crate::schema::Schema;

/// An event type: a project's own, or a catalogue's.
#[derive(Debug)]
pub struct EventType {
    name: String,
    versions: Vec<Version>,
    compiled: Arc<Compiled>,
}

/// One version of an event type.
#[derive(Debug)]
pub struct Version {
    /// What it is called.
    pub version: String,
    text: String,
    digest: Digest,
    deprecated: bool,
}

impl EventType {
    /// Takes a definition, by itself.
    #[must_use]
    pub fn of(definition: &definition::EventType) -> Self {
        Self::among(definition, &Arc::default())
    }

    /// Takes a definition, whose schemas are compiled among others.
    pub(super) fn among(definition: &definition::EventType, compiled: &Arc<Compiled>) -> Self {
        let versions = definition.versions.iter().map(|version| Version {
            version: version.version.clone(),
            text: version.schema.clone(),
            digest: Sha256::digest(&version.schema).into(),
            deprecated: version.deprecated,
        });
        Self {
            name: definition.name.clone(),
            versions: versions.collect(),
            compiled: Arc::clone(compiled),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version that an event names, or, where it names none, the last one that is not deprecated, or, where all
    /// are, the last one.
    #[must_use]
    pub fn version(&self, named: Option<&str>) -> Option<&Version> {
        let mut latest_first = self.versions.iter().rev();
        match named {
            Some(name) => latest_first.find(|version| version.version == name),
            None => latest_first
                .find(|version| !version.deprecated)
                .or_else(|| self.versions.last()),
        }
    }

    /// The versions' names, in the order they were made and separated by commas; for messages.
    #[must_use]
    pub fn version_names(&self) -> String {
        let names: Vec<&str> = self.versions.iter().map(|version| version.version.as_str()).collect();
        names.join(", ")
    }
}

impl Version {
    /// What events are checked by; `None` where anything is allowed. Compiling it takes its time.
    #[must_use]
    pub fn schema(&self, of: &EventType) -> Option<Arc<Schema>> {
        if self.text.is_empty() {
            return None;
        }
        let compile = || compile(&of.name, &self.version, &self.text);
        of.compiled.get_or_compile(&self.digest, compile)
    }

    /// Whether checking this data is so little work that it may be done in between; it is not where the schema is still
    /// to be compiled.
    #[must_use]
    pub fn is_moderate(&self, of: &EventType, data: &[u8]) -> bool {
        if self.text.is_empty() {
            return true;
        }
        let known = of.compiled.get(&self.digest);
        known.is_some_and(|schema| schema.is_none_or(|schema| schema.is_moderate(data)))
    }
}

/// A schema that is none here is as good as absent: config-api lets none through, so it was written by another release,
/// and its events must not wait for that.
fn compile(event_type: &str, version: &str, text: &str) -> Option<Schema> {
    // Whatever the compiler does, it does not to every event of the type.
    let fault = match catch_unwind(AssertUnwindSafe(|| Schema::compile(text))) {
        Ok(Ok(schema)) => return Some(schema),
        Ok(Err(fault)) => fault.to_string(),
        Err(_) => "compiling it ended in a panic".to_owned(),
    };
    tracing::error!(
        event_type,
        version,
        fault,
        "a schema cannot be used; events of this type are not checked"
    );
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event_type(versions: &[(&str, &str, bool)]) -> EventType {
        EventType::of(&definition::EventType {
            name: "a".into(),
            versions: versions
                .iter()
                .map(|(version, schema, deprecated)| definition::EventTypeVersion {
                    version: (*version).into(),
                    schema: (*schema).into(),
                    deprecated: *deprecated,
                })
                .collect(),
            deleted: false,
        })
    }

    #[test]
    fn the_version_meant_is_the_one_named_or_the_last_that_is_not_deprecated() {
        let found = event_type(&[("1", "", false), ("2", "", false), ("3", "", true)]);
        let version = |named| found.version(named).map(|version| version.version.as_str());
        assert_eq!(version(None), Some("2"));
        assert_eq!(version(Some("3")), Some("3"));
        assert_eq!(version(Some("4")), None);
        assert_eq!(found.version_names(), "1, 2, 3");
        let all = event_type(&[("1", "", true), ("2", "", true)]);
        assert_eq!(
            all.version(None).unwrap().version,
            "2",
            "deprecated, and checked all the same"
        );
    }

    #[test]
    fn a_schema_that_does_not_compile_is_as_good_as_absent() {
        let found = event_type(&[("1", "{}", false), ("2", r#"{"type":"thing"}"#, false)]);
        assert!(found.version(Some("1")).unwrap().schema(&found).is_some());
        assert!(found.version(None).unwrap().schema(&found).is_none());
    }
}
