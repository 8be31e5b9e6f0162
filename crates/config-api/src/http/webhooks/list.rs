//! `GET /v1/projects/{project}/webhooks`

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use common::http::{Code, Json, Page, PageQuery, Problem, Query, cursor, page};
use common::model::Pattern;
use proto_schemas::definition::WebhookState;
use proto_schemas::id::WebhookId;
use serde::Deserialize;
use store::webhook_health::{self, Health};
use store::webhooks::{self, Webhook, WebhookFilter};
use utoipa::IntoParams;
use uuid::Uuid;

use super::view::WebhookView;
use crate::access::{InProject, Read};
use crate::api::{Api, failed};
use crate::resolve;

/// Rows read for one page. Where few of many match, a page may be short, and still say where the next begins.
const READ_MAX: usize = 2_000;

/// Rows read at once where a page may need many.
const BATCH: usize = 250;

/// Which webhooks.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Filter {
    /// Those that have this label; several are separated by commas, and all have to be there.
    #[param(example = "team:blue")]
    label: Option<String>,
    /// Those in this state.
    #[param(value_type = Option<StateWord>, inline)]
    state: Option<String>,
    /// Those whose name contains this text, in capitals or not.
    name: Option<String>,
    /// Those that are subscribed to events of this type.
    #[param(example = "invoice.paid")]
    event: Option<String>,
    // Not flattened: serde would let misspelt names pass.
    /// Most items on the page.
    #[serde(default = "page::default_limit", deserialize_with = "page::limit")]
    #[param(minimum = 1, maximum = 250, default = 50)]
    limit: u16,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// The states.
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "stands in the OpenAPI document for the words of WebhookState")]
enum StateWord {
    Pending,
    Active,
    Paused,
    Failed,
    Disabled,
}

const STATES: [WebhookState; 5] = [
    WebhookState::Pending,
    WebhookState::Active,
    WebhookState::Paused,
    WebhookState::Failed,
    WebhookState::Disabled,
];

/// List webhooks
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/webhooks",
    operation_id = "list_webhooks",
    tag = "Webhooks",
    params(Filter),
    responses((status = 200, description = "A page of webhooks, newest first", body = Page<WebhookView>))
)]
pub(in crate::http) async fn list(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<WebhookView>>, Problem> {
    let labels = filter.label.as_deref().map(labels).transpose()?.unwrap_or_default();
    let state = filter.state.as_deref().map(state).transpose()?;
    let query = PageQuery {
        limit: filter.limit,
        cursor: filter.cursor,
    };
    let mut before: Option<WebhookId> = query.after::<Uuid>()?.map(WebhookId::from_uuid);
    let wanted = WebhookFilter {
        labels: &labels,
        name: filter.name.as_deref(),
    };
    let matches = |webhook: &Webhook, health: Option<&Health>| {
        state.is_none_or(|state| resolve::standing(webhook, health).state == state)
            && filter.event.as_deref().is_none_or(|event| subscribed(webhook, event))
    };
    let limit = usize::from(query.limit);
    // What a row says is enough for some filters; for the others the rows are read here, more of them at once.
    let batch = match (state, &filter.event) {
        (None, None) => limit,
        _ => limit.max(BATCH),
    };
    let now = api.now();
    let mut connection = api.connection_in(within.project.id).await?;
    let (mut items, mut read) = (Vec::new(), 0);
    loop {
        let fetch = u32::try_from(batch + 1).unwrap_or(u32::MAX);
        let rows = webhooks::page(&mut connection, within.project.id, &wanted, before, fetch).await;
        let rows = rows.map_err(failed)?;
        let ids: Vec<WebhookId> = rows.iter().map(|webhook| webhook.id).collect();
        let healths = webhook_health::find(&mut connection, &ids).await.map_err(failed)?;
        let found = rows.len();
        for (index, webhook) in rows.into_iter().take(batch).enumerate() {
            before = Some(webhook.id);
            read += 1;
            let health = healths.get(&webhook.id);
            if matches(&webhook, health) {
                items.push(WebhookView::of(&webhook, health, now));
            }
            if items.len() == limit || read == READ_MAX {
                return answer(items, before.filter(|_| index + 1 < found));
            }
        }
        if found <= batch {
            return answer(items, None);
        }
    }
}

fn answer(items: Vec<WebhookView>, last: Option<WebhookId>) -> Result<Json<Page<WebhookView>>, Problem> {
    let next = last.map(|last| cursor::encode(&last.as_uuid())).transpose()?;
    Ok(Json(Page { items, next }))
}

fn subscribed(webhook: &Webhook, event_type: &str) -> bool {
    let mut patterns = webhook.events.iter().filter_map(|text| Pattern::parse(text).ok());
    patterns.any(|pattern| pattern.matches(event_type))
}

fn state(word: &str) -> Result<WebhookState, Problem> {
    STATES.into_iter().find(|state| state.as_str() == word).ok_or_else(|| {
        let words = STATES.map(WebhookState::as_str).join(", ");
        Problem::new(
            Code::MalformedQuery,
            format!("`{word}` is not a state; the states are {words}"),
        )
    })
}

/// Reads `key:value,key:value`.
fn labels(text: &str) -> Result<BTreeMap<String, String>, Problem> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once(':')?;
        (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
    };
    text.split(',').map(pair).collect::<Option<_>>().ok_or_else(|| {
        let detail = "`label` is written key:value, several of them separated by commas";
        Problem::new(Code::MalformedQuery, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_pairs_separated_by_commas() {
        let read = |text| labels(text).map(|labels| labels.into_iter().collect::<Vec<_>>()).ok();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(read("a:1"), Some(vec![pair("a", "1")]));
        assert_eq!(read("a:1:2,b:"), Some(vec![pair("a", "1:2"), pair("b", "")]));
        for wrong in ["", "a", ":1", "a:1,", "a:1,b"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
