//! The event types of the platforms that Posthaste can be: the files under `catalogues/`, one folder per platform and in it
//! one per event type. They are only text here; `common` reads them and compiles the schemas.

/// The event types of one platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Catalogue {
    /// What profiles name it by.
    pub name: &'static str,
    /// Its types, by name.
    pub types: &'static [EventType],
}

/// An event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventType {
    /// `recommendation.created`
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// For people, in a line.
    pub description: &'static str,
    /// JSON Schema (2020-12) of an event's data, as text.
    pub schema: &'static str,
    /// An event's data, as JSON text.
    pub example: &'static str,
}

const CATALOGUES: &[Catalogue] = include!(concat!(env!("OUT_DIR"), "/catalogues.rs"));

/// Every catalogue, by name.
#[must_use]
pub fn all() -> &'static [Catalogue] {
    CATALOGUES
}

/// The catalogue of that name.
#[must_use]
pub fn get(name: &str) -> Option<&'static Catalogue> {
    CATALOGUES.iter().find(|catalogue| catalogue.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{is_event_type, is_project_name};

    #[test]
    fn every_platform_has_all_of_its_types() {
        let counts: Vec<_> = all().iter().map(|found| (found.name, found.types.len())).collect();
        assert_eq!(
            counts,
            [
                ("cloudthinker", 20),
                ("once", 2),
                ("posthaste", 6),
                ("ubiops", 8),
                ("uniskai", 8)
            ]
        );
        for catalogue in all() {
            assert!(is_project_name(catalogue.name), "{}", catalogue.name);
            for event_type in catalogue.types {
                assert!(is_event_type(event_type.name), "{}", event_type.name);
                assert!(!event_type.description.is_empty(), "{}", event_type.name);
            }
        }
    }

    #[test]
    fn a_catalogue_is_found_by_its_name() {
        assert!(
            get("uniskai")
                .unwrap()
                .types
                .iter()
                .any(|found| found.name == "spot-recreated")
        );
        assert_eq!(get("nobody"), None);
    }
}
