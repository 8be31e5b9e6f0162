//! Headers and variables: values under names, some of which are protected.

use std::collections::HashSet;

use common::http::FieldError;
use proto_schemas::definition::sealed_variable;
use store::webhooks::{MaybeSealed, NamedValue, Webhook};

use super::{Rules, ValueChange, note, seal};
use crate::validate;

/// A list of a webhook's values, and what they may be.
pub(super) struct List<'a> {
    /// The field of the webhook that it is.
    pub field: &'static str,
    /// What there is.
    pub stored: &'a [NamedValue],
    /// What a key may be.
    pub check_key: &'a dyn Fn(&str) -> Result<(), String>,
    /// What a value may be.
    pub check_value: fn(&str) -> Result<(), String>,
    /// The name that a key says: two keys of one name are the same.
    pub name: fn(&str) -> String,
    /// The field that a protected value of that name is sealed for.
    pub sealed_for: fn(&str) -> String,
}

/// The variables to store.
pub(super) fn apply_variables(
    changes: Vec<ValueChange>,
    webhook: &Webhook,
    rules: &Rules<'_>,
    errors: &mut Vec<FieldError>,
) -> Vec<NamedValue> {
    let list = List {
        field: "variables",
        stored: &webhook.variables,
        check_key: &validate::variable_name,
        check_value: validate::variable_value,
        name: str::to_owned,
        sealed_for: sealed_variable,
    };
    list.apply(changes, webhook, rules, errors)
}

impl List<'_> {
    /// The values to store.
    pub(super) fn apply(
        &self,
        changes: Vec<ValueChange>,
        webhook: &Webhook,
        rules: &Rules<'_>,
        errors: &mut Vec<FieldError>,
    ) -> Vec<NamedValue> {
        let field = self.field;
        if changes.len() > validate::HEADERS_MAX {
            let reason = format!("at most {} {field}", validate::HEADERS_MAX);
            errors.push(FieldError::new(&format!("/{field}"), reason));
            return Vec::new();
        }
        let mut names = HashSet::new();
        let mut bytes = 0;
        let mut values = Vec::with_capacity(changes.len());
        for (index, change) in changes.into_iter().enumerate() {
            let path = |member: &str| format!("/{field}/{index}/{member}");
            note(errors, &path("key"), (self.check_key)(&change.key));
            let name = (self.name)(&change.key);
            if !names.insert(name.clone()) {
                errors.push(FieldError::new(&path("key"), format!("`{name}` is there twice")));
            }
            if let Some(value) = &change.value {
                note(errors, &path("value"), (self.check_value)(value));
            }
            let stored = self.stored.iter().find(|stored| (self.name)(&stored.key) == name);
            let stored = stored.map(|stored| &stored.value);
            bytes += name.len() + size(change.value.as_deref(), stored);
            match value(&change, stored, |value| {
                seal(rules.keys, webhook, &(self.sealed_for)(&name), value)
            }) {
                Ok(value) => values.push(NamedValue { key: change.key, value }),
                Err(reason) => errors.push(FieldError::new(&path("value"), reason)),
            }
        }
        if bytes > validate::HEADERS_BYTES_MAX {
            let reason = format!("{field} come to at most {} bytes together", validate::HEADERS_BYTES_MAX);
            errors.push(FieldError::new(&format!("/{field}"), reason));
        }
        values
    }
}

/// The size that a value will have.
fn size(value: Option<&str>, stored: Option<&MaybeSealed>) -> usize {
    match (value, stored) {
        (Some(value), _) => value.len(),
        (None, Some(MaybeSealed::Plain(value))) => value.len(),
        // Three bytes make four digits of base64.
        (None, Some(MaybeSealed::Sealed(sealed))) => sealed.len() / 4 * 3,
        (None, None) => 0,
    }
}

/// The value to store: a new one, or the stored one where none is given.
fn value(
    change: &ValueChange,
    stored: Option<&MaybeSealed>,
    seal: impl FnOnce(&str) -> String,
) -> Result<MaybeSealed, &'static str> {
    let was_protected = stored.map(|value| matches!(value, MaybeSealed::Sealed(_)));
    let protected = change
        .protected
        .or(was_protected)
        .unwrap_or_else(|| validate::is_protected_by_name(&change.key));
    match (change.value.as_deref(), stored, protected) {
        (Some(value), _, true) => Ok(MaybeSealed::Sealed(seal(value))),
        (Some(value), _, false) => Ok(MaybeSealed::Plain(value.to_owned())),
        (None, None, _) => Err("give a value: none is stored under this name"),
        (None, Some(MaybeSealed::Sealed(_)), false) => {
            Err("give the value anew: a protected one does not become readable")
        }
        (None, Some(MaybeSealed::Plain(value)), true) => Ok(MaybeSealed::Sealed(seal(value))),
        (None, Some(value), _) => Ok(value.clone()),
    }
}
