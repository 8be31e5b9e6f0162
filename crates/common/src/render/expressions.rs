//! Attributes that an event gets from expressions over it.

use std::collections::BTreeMap;

use minijinja::value::{Serde, Value, ValueKind};
use proto_schemas::definition::Expression as Definition;
use proto_schemas::event::Event;

use super::expression::{Engine, Expression, Fault, Run, Subject, VARIABLES};
use super::json;
use crate::model::limits::attributes_fit;

/// Named expressions, compiled.
#[derive(Debug)]
pub struct Expressions {
    engine: Engine,
    compiled: Vec<(String, Expression)>,
}

impl Expressions {
    /// Compiles them.
    ///
    /// # Errors
    /// The name of the one that is wrong, and where.
    pub fn compile(definitions: &[Definition]) -> Result<Self, (String, Fault)> {
        let mut engine = Engine::new();
        let mut compiled = Vec::with_capacity(definitions.len());
        for definition in definitions {
            let expression = engine
                .expression(&definition.expression)
                .map_err(|fault| (definition.name.clone(), fault))?;
            compiled.push((definition.name.clone(), expression));
        }
        Ok(Self { engine, compiled })
    }

    /// The names they use that no event ever has, the one of a webhook's variables among them.
    #[must_use]
    pub fn unknown_names(&self) -> Vec<String> {
        let variables = self.engine.uses(VARIABLES).then(|| VARIABLES.to_owned());
        self.engine.unknown_names().into_iter().chain(variables).collect()
    }

    /// Whether one of them looks into the payload.
    #[must_use]
    pub fn use_data(&self) -> bool {
        self.engine.uses("data")
    }

    /// What they come to: strings, and numbers and booleans as text. What finds nothing, or something else, is absent;
    /// so is all that comes after a limit is reached. `data` is the payload, parsed; only where [`Self::use_data`].
    #[must_use]
    pub fn values(&self, event: &Event, project: &str, data: Option<&serde_json::Value>) -> BTreeMap<String, String> {
        let data = data.map(|data| Value::from(Serde(data))).unwrap_or_default();
        let subject = Subject {
            data: Some(&data),
            ..Subject::new(event, project, &[])
        };
        let mut run = Run::new(&self.engine, &subject);
        let mut values = BTreeMap::new();
        for (name, expression) in &self.compiled {
            let Ok(value) = run.value(expression, name) else { break };
            if let Some(text) = scalar(&value) {
                values.insert(name.clone(), text);
            }
        }
        values
    }

    /// Adds to an event the attributes that its producer did not give. Where they would be too many or too long, the
    /// producer's are all there is, and the answer is no.
    pub fn add_to(&self, event: &mut Event, project: &str) -> bool {
        let json = self.use_data() && event.is_json();
        let data = json.then(|| serde_json::from_slice(&event.payload).ok()).flatten();
        let mut attributes = self.values(event, project, data.as_ref());
        attributes.extend(event.attributes.clone());
        let fit = attributes_fit(&attributes);
        if fit {
            event.attributes = attributes;
        }
        fit
    }
}

/// A string, number or boolean as text.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value.kind() {
        ValueKind::String => value.as_str().map(str::to_owned),
        ValueKind::Number | ValueKind::Bool => json::text(value).ok(),
        _ => None,
    }
}
