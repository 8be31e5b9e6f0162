//! A webhook's variables, as its expressions find them: `{{ variables.routing_key }}`.
//!
//! A protected one's value may be made into anything by an expression, a piece of it or its Base64, so a body that is to
//! be shown cannot be had by looking for values in the one that is sent. It is rendered anew, with a mask in their place.

use std::collections::BTreeMap;
use std::fmt;

use minijinja::value::Value;

/// What stands for a protected value wherever a request is shown.
pub const MASK: &str = "***";

/// A webhook's variables.
#[derive(Clone, Default)]
pub struct Variables {
    value: Value,
    has_secrets: bool,
}

impl Variables {
    /// Variables and their values; `has_secrets` where one of these is protected, and not masked.
    #[must_use]
    pub fn new(values: BTreeMap<String, String>, has_secrets: bool) -> Self {
        Self {
            value: values.into(),
            has_secrets,
        }
    }

    /// Whether one of the values may not be shown.
    #[must_use]
    pub const fn has_secrets(&self) -> bool {
        self.has_secrets
    }

    pub(super) fn value(&self) -> Value {
        self.value.clone()
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Variables(…)")
    }
}
