//! Event types as they are asked: their schemas compiled.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proto_schemas::definition;

use crate::schema::Schema;

/// An event type: a project's own, or a catalogue's.
#[derive(Debug)]
pub struct EventType {
    name: String,
    versions: Vec<Version>,
}

/// One version of an event type.
#[derive(Debug)]
pub struct Version {
    /// What it is called.
    pub version: String,
    /// `None` where anything is allowed.
    pub schema: Option<Schema>,
    deprecated: bool,
}

impl EventType {
    /// Compiles a definition.
    #[must_use]
    pub fn of(definition: &definition::EventType) -> Self {
        let versions = definition.versions.iter().map(|version| Version {
            version: version.version.clone(),
            schema: compile(&definition.name, version),
            deprecated: version.deprecated,
        });
        Self {
            name: definition.name.clone(),
            versions: versions.collect(),
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

/// A schema that is none here is as good as absent: config-api lets none through, so it was written by another release,
/// and its events must not wait for that.
fn compile(event_type: &str, version: &definition::EventTypeVersion) -> Option<Schema> {
    if version.schema.is_empty() {
        return None;
    }
    // The watch on definitions must survive whatever the compiler does.
    let fault = match catch_unwind(AssertUnwindSafe(|| Schema::compile(&version.schema))) {
        Ok(Ok(schema)) => return Some(schema),
        Ok(Err(fault)) => fault.to_string(),
        Err(_) => "compiling it ended in a panic".to_owned(),
    };
    tracing::error!(
        event_type,
        version = version.version,
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
        assert!(found.version(Some("1")).unwrap().schema.is_some());
        assert!(found.version(None).unwrap().schema.is_none());
    }
}
