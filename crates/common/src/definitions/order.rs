//! What a webhook's deliveries are kept in order by.

use std::sync::Arc;

use proto_schemas::definition::{Expression, Ordering};
use proto_schemas::event::Event;
use proto_schemas::id::OrderKey;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::render::Expressions;

/// What the deliveries of one webhook are kept in order by.
#[derive(Debug, Clone)]
pub(super) enum Order {
    None,
    Webhook,
    Key(Arc<Expressions>),
}

/// The name of the one expression there is.
const KEY: &str = "key";

impl Order {
    pub(super) fn of(ordering: &Ordering) -> Self {
        match ordering {
            Ordering::None => Self::None,
            Ordering::Webhook => Self::Webhook,
            // One this release cannot read keeps all in order, which keeps those with the same key in order, too;
            // config-api lets none through.
            Ordering::Key(expression) => compile(expression).map_or(Self::Webhook, |key| Self::Key(Arc::new(key))),
        }
    }

    pub(super) fn key<'a>(
        &self,
        event: &Event,
        project: &str,
        data: impl FnOnce() -> Option<&'a serde_json::Value>,
    ) -> Option<OrderKey> {
        let expressions = match self {
            Self::None => return None,
            Self::Webhook => return Some(OrderKey::WHOLE),
            Self::Key(expressions) => expressions,
        };
        let data = expressions.use_data().then(data).flatten();
        let found = expressions.values(event, project, data).remove(KEY);
        Some(digest(found.as_deref()))
    }
}

fn compile(expression: &str) -> Result<Expressions, String> {
    let expression = Expression {
        name: KEY.to_owned(),
        expression: expression.to_owned(),
    };
    Expressions::compile(&[expression]).map_err(|(_, fault)| fault.reason)
}

/// What is wrong with an expression that deliveries are to be kept in order by, if anything is.
///
/// # Errors
/// What, in one line.
pub fn check_key(expression: &str) -> Result<(), String> {
    let compiled = compile(expression)?;
    match compiled.unknown_names().first() {
        None => Ok(()),
        Some(name) => Err(format!("no event has `{name}`")),
    }
}

/// The key of a value; events without one have a key of their own.
fn digest(value: Option<&str>) -> OrderKey {
    let mut hash = Sha256::new();
    if let Some(value) = value {
        hash.update(b"=");
        hash.update(value);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    OrderKey::from_uuid(Uuid::from_bytes(key))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use bytes::Bytes;
    use jiff::Timestamp;
    use proto_schemas::id::{EventKey, ProjectId};

    use super::*;

    fn event(data: &'static str) -> Event {
        Event {
            key: EventKey::of_message(Timestamp::UNIX_EPOCH, 1),
            id: "evt".into(),
            project: ProjectId::from_uuid(Uuid::from_u128(1)),
            event_type: "order.paid".into(),
            occurred_at: Timestamp::UNIX_EPOCH,
            accepted_at: Timestamp::UNIX_EPOCH,
            attributes: BTreeMap::from([("region".to_owned(), "eu".to_owned())]),
            content_type: "application/json".into(),
            payload: Bytes::from_static(data.as_bytes()),
            traceparent: String::new(),
        }
    }

    fn key(ordering: &Ordering, data: &'static str) -> Option<OrderKey> {
        let parsed = serde_json::from_str(data).ok();
        Order::of(ordering).key(&event(data), "acme", || parsed.as_ref())
    }

    fn by(expression: &str) -> Ordering {
        Ordering::Key(expression.to_owned())
    }

    #[test]
    fn deliveries_without_an_order_have_no_key_and_those_all_in_order_have_one() {
        assert_eq!(key(&Ordering::None, "{}"), None);
        assert_eq!(key(&Ordering::Webhook, r#"{"a":1}"#), Some(OrderKey::WHOLE));
        assert_eq!(key(&Ordering::Webhook, "not json"), Some(OrderKey::WHOLE));
    }

    #[test]
    fn a_key_is_made_of_the_value_that_the_expression_finds() {
        let ordering = by("data.customer");
        let found = |data| key(&ordering, data).unwrap();
        assert_eq!(
            found(r#"{"customer":"c-1","n":1}"#),
            found(r#"{"n":2,"customer":"c-1"}"#)
        );
        let all: BTreeSet<_> = [
            r#"{"customer":"c-1"}"#,
            r#"{"customer":"c-2"}"#,
            r#"{"customer":7}"#,
            r#"{"customer":""}"#,
            "{}",
        ]
        .map(found)
        .into();
        assert_eq!(all.len(), 5, "each a key of its own, those without one included");
        assert_eq!(found("{}"), found("not json"));
        assert_eq!(found("{}"), found(r#"{"customer":{"id":1}}"#));
        assert_eq!(key(&by("attributes.region"), "{}"), key(&by("attributes.region"), "[]"));
    }

    #[test]
    fn an_expression_that_cannot_be_read_keeps_all_in_order() {
        assert_eq!(key(&by("data."), "{}"), Some(OrderKey::WHOLE));
        assert!(check_key("data.").is_err());
        assert!(check_key("date.customer").unwrap_err().contains("date"));
        assert!(check_key("variables.customer").unwrap_err().contains("variables"));
        assert_eq!(check_key("data.customer.id"), Ok(()));
    }
}
