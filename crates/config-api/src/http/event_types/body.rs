//! How event types stand in requests and answers, and what they may be.

use common::catalogue::{self, EventType};
use common::http::{FieldError, Problem};
use common::schema::{self, Schema};
use jiff::Timestamp;
use proto_schemas::id::{EVENT_TYPE_MAX, is_event_type};
use proto_schemas::operational::{PREFIX, is_operational};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use store::event_types::EventTypeVersion;
use store::projects::Project;
use utoipa::ToSchema;

use super::super::json::nullable;

/// What a type's first version is called, if nothing else is said.
const FIRST_VERSION: &str = "1.0.0";

/// Longest description, in characters.
const DESCRIPTION_MAX: usize = 1000;

/// Largest example, in bytes.
const EXAMPLE_MAX: usize = 64 * 1024;

/// An event type to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NewEventType {
    /// The type's name, as it stands in events: `invoice.paid`.
    name: String,
    /// What its first version is called; `1.0.0` if absent.
    version: Option<String>,
    /// What people should know of it.
    #[serde(default)]
    description: String,
    /// JSON Schema of an event's `data`; anything is allowed if absent.
    #[schema(value_type = Option<Object>)]
    schema: Option<Box<RawValue>>,
    /// An event's `data`.
    #[schema(value_type = Option<Object>)]
    example: Option<Box<RawValue>>,
}

/// A version to be made of a type. Once made, its schema does not change.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NewVersion {
    /// What it is called.
    version: String,
    /// JSON Schema of an event's `data`; anything is allowed if absent.
    #[schema(value_type = Option<Object>)]
    schema: Option<Box<RawValue>>,
    /// An event's `data`.
    #[schema(value_type = Option<Object>)]
    example: Option<Box<RawValue>>,
}

/// Changes to a type.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ChangedEventType {
    /// What people should know of it.
    description: Option<String>,
}

/// Changes to a version.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ChangedVersion {
    /// An event's `data`; null for none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Object>)]
    example: Option<Option<Box<RawValue>>>,
    /// Whether events should no longer be made of it. A deprecated version applies to events that name it.
    deprecated: Option<bool>,
}

/// Changes that may be made to a version.
pub(super) struct CheckedVersion {
    example: Option<Option<String>>,
    deprecated: Option<bool>,
}

/// An event type.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventType)]
pub(in super::super) struct EventTypeView {
    /// Its name, as it stands in events.
    name: String,
    /// `project` for one of its own, `catalogue` for one that comes with the project's profile.
    #[schema(value_type = String)]
    source: &'static str,
    /// What people should know of it.
    description: String,
    /// In the order they were made. The last one that is not deprecated applies to events that name none in their
    /// attribute `type_version`.
    versions: Vec<VersionView>,
}

/// A version of an event type.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventTypeVersion)]
pub(in super::super) struct VersionView {
    /// What it is called.
    version: String,
    /// JSON Schema of an event's `data`; null where anything is allowed.
    #[schema(value_type = Option<Object>, required)]
    schema: Option<Box<RawValue>>,
    /// An event's `data`, or null.
    #[schema(value_type = Option<Object>, required)]
    example: Option<Box<RawValue>>,
    /// Whether events should no longer be made of it.
    deprecated: bool,
    /// When it was made; null for a catalogue's.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    created_at: Option<Timestamp>,
}

/// A version that may be made.
pub(super) struct Draft {
    pub(super) version: String,
    pub(super) schema: Option<String>,
    example: Option<String>,
}

impl NewEventType {
    /// Name, description and first version.
    pub(super) async fn checked(self) -> Result<(String, String, Draft), Problem> {
        let mut errors = Vec::new();
        if !is_event_type(&self.name) {
            let detail =
                format!("an event type is words of A-Z a-z 0-9 _ - joined by dots, at most {EVENT_TYPE_MAX} bytes");
            errors.push(FieldError::new("/name", detail));
        }
        if is_operational(&self.name) {
            let detail = format!("types that begin with `{PREFIX}` are what Posthaste tells of itself; choose another");
            errors.push(FieldError::new("/name", detail));
        }
        errors.extend(check_description(&self.description));
        let new = NewVersion {
            version: self.version.unwrap_or_else(|| FIRST_VERSION.to_owned()),
            schema: self.schema,
            example: self.example,
        };
        let draft = Draft::collect(new, errors).await?;
        Ok((self.name, self.description, draft))
    }
}

impl ChangedEventType {
    pub(super) fn checked(self) -> Result<Option<String>, Problem> {
        let error = self.description.as_deref().and_then(check_description);
        match error {
            Some(error) => Err(Problem::fields(vec![error])),
            None => Ok(self.description),
        }
    }
}

impl ChangedVersion {
    /// The changes, if they may be made to a version with this schema.
    pub(super) async fn checked(self, schema: Option<String>) -> Result<CheckedVersion, Problem> {
        let example = self.example.map(|example| example.map(text));
        if let Some(example) = &example {
            let errors = compile(schema, example.clone()).await?;
            if !errors.is_empty() {
                return Err(Problem::fields(errors));
            }
        }
        Ok(CheckedVersion {
            example,
            deprecated: self.deprecated,
        })
    }
}

impl CheckedVersion {
    pub(super) fn apply(self, version: &mut EventTypeVersion) {
        if let Some(example) = self.example {
            version.example = example;
        }
        if let Some(deprecated) = self.deprecated {
            version.deprecated = deprecated;
        }
    }
}

impl Draft {
    pub(super) async fn checked(new: NewVersion) -> Result<Self, Problem> {
        Self::collect(new, Vec::new()).await
    }

    /// Says all that is wrong at once.
    async fn collect(new: NewVersion, mut errors: Vec<FieldError>) -> Result<Self, Problem> {
        let draft = Self {
            version: new.version,
            schema: new.schema.map(text),
            example: new.example.map(text),
        };
        if let Err(reason) = catalogue::check_version(&draft.version) {
            errors.push(FieldError::new("/version", reason));
        }
        errors.extend(compile(draft.schema.clone(), draft.example.clone()).await?);
        match errors.is_empty() {
            true => Ok(draft),
            false => Err(Problem::fields(errors)),
        }
    }

    pub(super) fn into_row(
        self,
        project: &Project,
        name: String,
        description: String,
        now: Timestamp,
    ) -> EventTypeVersion {
        EventTypeVersion {
            project: project.id,
            name,
            version: self.version,
            description,
            schema: self.schema,
            example: self.example,
            deprecated: false,
            created_at: now,
            updated_at: now,
        }
    }
}

impl EventTypeView {
    /// A project's own; its versions in the order they were made.
    pub(super) fn own(versions: Vec<EventTypeVersion>) -> Self {
        let last = versions.last();
        Self {
            name: last.map_or_else(String::new, |version| version.name.clone()),
            source: "project",
            description: last.map_or_else(String::new, |version| version.description.clone()),
            versions: versions.into_iter().map(VersionView::from).collect(),
        }
    }

    /// A catalogue's.
    pub(super) fn catalogues(event_type: &EventType) -> Self {
        Self {
            name: event_type.name.clone(),
            source: "catalogue",
            description: event_type.description.clone(),
            versions: vec![VersionView {
                version: event_type.version.clone(),
                schema: RawValue::from_string(event_type.schema.clone()).ok(),
                example: RawValue::from_string(event_type.example.clone()).ok(),
                deprecated: false,
                created_at: None,
            }],
        }
    }

    /// The version of that name.
    pub(super) fn into_version(self, named: &str) -> Option<VersionView> {
        self.versions.into_iter().find(|version| version.version == named)
    }
}

impl From<EventTypeVersion> for VersionView {
    fn from(version: EventTypeVersion) -> Self {
        let raw = |text: Option<String>| text.and_then(|text| RawValue::from_string(text).ok());
        Self {
            version: version.version,
            schema: raw(version.schema),
            example: raw(version.example),
            deprecated: version.deprecated,
            created_at: Some(version.created_at),
        }
    }
}

fn text(value: Box<RawValue>) -> String {
    Box::<str>::from(value).into_string()
}

fn check_description(description: &str) -> Option<FieldError> {
    let length = description.chars().count();
    if length > DESCRIPTION_MAX {
        let detail = format!("a description is at most {DESCRIPTION_MAX} characters long; this one has {length}");
        return Some(FieldError::new("/description", detail));
    }
    // Postgres cannot hold it.
    (description.contains('\0')).then(|| FieldError::new("/description", "a description holds no U+0000"))
}

/// What is wrong with a schema and an example, each by itself and together. On a thread of its own: a schema full of
/// patterns takes its time.
async fn compile(schema: Option<String>, example: Option<String>) -> Result<Vec<FieldError>, Problem> {
    let work = tokio::task::spawn_blocking(move || errors(schema.as_deref(), example.as_deref()));
    work.await.map_err(Problem::internal)
}

fn errors(schema: Option<&str>, example: Option<&str>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(example) = example.filter(|example| example.len() > EXAMPLE_MAX) {
        let detail = format!(
            "an example has at most {EXAMPLE_MAX} bytes; this one has {}",
            example.len()
        );
        errors.push(FieldError::new("/example", detail));
    }
    let at = |prefix: &str, fault: schema::Fault| {
        let fault = fault.under(prefix);
        FieldError::at(&fault.pointer, fault.detail)
    };
    match schema.map(Schema::compile) {
        None => {}
        Some(Err(fault)) => errors.push(at("/schema", fault)),
        Some(Ok(schema)) => {
            if let (Some(example), true) = (example, errors.is_empty()) {
                let faults = schema.check_text(example.as_bytes()).into_iter();
                errors.extend(faults.map(|fault| at("/example", fault)));
            }
        }
    }
    errors
}
