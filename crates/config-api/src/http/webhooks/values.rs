//! A webhook's headers and variables.

use serde::{Deserialize, Serialize};
use store::webhooks::{MaybeSealed, NamedValue};
use utoipa::ToSchema;

use crate::changes::ValueChange;

/// A header to be sent with every request. In a change, a value that is null or absent keeps the stored one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct HeaderBody {
    /// Its name.
    #[schema(min_length = 1, example = "X-Team")]
    pub(super) key: String,
    /// Its value: visible ASCII.
    #[schema(max_length = 4096, example = "blue")]
    pub(super) value: Option<String>,
    /// Whether the value is never given out again. Names that sound secret are protected by default.
    pub(super) protected: Option<bool>,
}

/// What expressions find as `variables.key`. In a change, a value that is null or absent keeps the stored one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct VariableBody {
    /// Its name: letters, digits and `_`; it does not begin with a digit.
    #[schema(
        min_length = 1,
        max_length = 64,
        pattern = "^[A-Za-z_][A-Za-z0-9_]*$",
        example = "routing_key"
    )]
    pub(super) key: String,
    /// Its value.
    #[schema(max_length = 4096, example = "0123456789abcdef")]
    pub(super) value: Option<String>,
    /// Whether the value is never given out again, and shown as `***` in requests. Names that sound secret are protected by default.
    pub(super) protected: Option<bool>,
}

impl From<HeaderBody> for ValueChange {
    fn from(header: HeaderBody) -> Self {
        Self {
            key: header.key,
            value: header.value,
            protected: header.protected,
        }
    }
}

impl From<VariableBody> for ValueChange {
    fn from(variable: VariableBody) -> Self {
        Self {
            key: variable.key,
            value: variable.value,
            protected: variable.protected,
        }
    }
}

/// A header that is sent with every request, or a variable.
#[derive(Serialize, ToSchema)]
#[schema(as = NamedValue)]
pub(in crate::http) struct ValueView {
    /// Its name.
    key: String,
    /// Its value; null for a protected one.
    #[schema(required)]
    value: Option<String>,
    /// Whether the value is never given out.
    protected: bool,
}

impl ValueView {
    /// Headers or variables of a webhook, protected values left out.
    pub(super) fn all(values: &[NamedValue]) -> Vec<Self> {
        let view = |stored: &NamedValue| {
            let (value, protected) = match &stored.value {
                MaybeSealed::Plain(value) => (Some(value.clone()), false),
                MaybeSealed::Sealed(_) => (None, true),
            };
            Self {
                key: stored.key.clone(),
                value,
                protected,
            }
        };
        values.iter().map(view).collect()
    }
}
