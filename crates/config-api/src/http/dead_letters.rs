//! `/v1/projects/{project}/dead-letters`: deliveries that nobody will try again by themselves.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use common::http::{Body, Code, Json, Page, PageQuery, Problem, Query, page};
use jiff::Timestamp;
use proto_schemas::id::WebhookId;
use serde::{Deserialize, Serialize};
use store::log::{self, DeadLetterGroup, DeliveryFilter, GroupCursor, Grouping};
use store::replays::Kind;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::deliveries::{Cursor, DeliveryView, shown};
use super::idempotency::NothingDone;
use super::replays::{self as shown_replays, Chosen, CountView, Discard, ReplayView, Selected, accepted};
use super::{tests, webhook_filter};
use crate::access::{Configure, InProject, Read};
use crate::api::{Api, failed};
use crate::replays;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(discard))
}

/// Which dead letters.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// `webhook`, `reason` or `webhook,reason`: tell how many have these in common, instead of each.
    group_by: Option<String>,
    /// Those of this webhook, by name or id; by its id a deleted one's can still be read.
    webhook: Option<String>,
    /// Those that are dead for this reason, word for word; without `group_by`.
    reason: Option<String>,
    // Not flattened: serde would let misspelt names pass.
    /// Most items on the page.
    #[serde(default = "page::default_limit", deserialize_with = "page::limit")]
    #[param(minimum = 1, maximum = 250, default = 50)]
    limit: u16,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// Dead letters that have in common what they are grouped by.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetterGroup)]
struct GroupView {
    /// Null where they are not grouped by it.
    #[schema(required)]
    webhook: Option<Uuid>,
    #[schema(required)]
    webhook_name: Option<String>,
    /// Null where they are not grouped by it.
    #[schema(required)]
    reason: Option<String>,
    /// How many.
    deliveries: u64,
    /// When the oldest event of them was accepted.
    #[schema(value_type = String, format = DateTime)]
    oldest_event_at: Timestamp,
    /// When the last of them died.
    #[schema(value_type = String, format = DateTime)]
    last_at: Timestamp,
}

/// Dead letters, each or in groups.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum DeadLetters {
    Each(Page<DeliveryView>),
    Groups(Page<GroupView>),
}

/// Where a page of groups ends.
#[derive(Debug, Serialize, Deserialize)]
struct Place(Option<Uuid>, Option<String>);

impl From<DeadLetterGroup> for GroupView {
    fn from(group: DeadLetterGroup) -> Self {
        Self {
            webhook: group.webhook.map(WebhookId::as_uuid),
            webhook_name: group.webhook_name,
            reason: group.reason,
            deliveries: group.deliveries,
            oldest_event_at: group.oldest_event_at,
            last_at: group.last_at,
        }
    }
}

/// List dead letters, or how many there are
///
/// A dead letter is a delivery in the state `dead`. While it is made again it is none; delivered or discarded, it is none any
/// more.
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/dead-letters",
    operation_id = "list_dead_letters",
    tag = "Replays",
    params(Filter),
    responses((status = 200, description = "Dead letters, newest event first, or groups of them", body = DeadLetters)),
)]
async fn list(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Query(filter): Query<Filter>,
) -> Result<Json<DeadLetters>, Problem> {
    let query = PageQuery {
        limit: filter.limit,
        cursor: filter.cursor,
    };
    let project = within.project.id;
    let mut connection = api.connection_in(project).await?;
    let webhook = webhook_filter(&mut connection, project, filter.webhook.as_deref()).await?;
    let Some(by) = filter.group_by.as_deref().map(grouping).transpose()? else {
        let after = query.after()?.map(Cursor::place);
        let wanted = DeliveryFilter {
            state: Some(log::State::Dead),
            events: None,
            webhook,
            reason: filter.reason.as_deref(),
        };
        let page = log::deliveries(&mut connection, project, &wanted, after, u32::from(query.limit)).await;
        return Ok(Json(DeadLetters::Each(shown(page.map_err(failed)?)?)));
    };
    if filter.reason.is_some() {
        return Err(Problem::new(
            Code::MalformedQuery,
            "`reason` and `group_by` do not go together",
        ));
    }
    let after = query.after()?.map(|Place(webhook, reason)| GroupCursor {
        webhook: webhook.map(WebhookId::from_uuid),
        reason,
    });
    let limit = u32::from(query.limit) + 1;
    let groups = log::dead_letter_groups(&mut connection, project, webhook, by, after.as_ref(), limit).await;
    let page = Page::cut(groups.map_err(failed)?, &query, |last| {
        Place(last.webhook.map(WebhookId::as_uuid), last.reason.clone())
    })?;
    Ok(Json(DeadLetters::Groups(page.map(GroupView::from))))
}

fn grouping(text: &str) -> Result<Grouping, Problem> {
    let (mut webhook, mut reason) = (false, false);
    for word in text.split(',') {
        match word.trim() {
            "webhook" => webhook = true,
            "reason" => reason = true,
            _ => {
                return Err(Problem::new(
                    Code::MalformedQuery,
                    "`group_by` is `webhook`, `reason` or `webhook,reason`",
                ));
            }
        }
    }
    Ok(Grouping { webhook, reason })
}

/// Put dead letters away
///
/// Their deliveries are `cancelled` from then on, with a reason that says by whose token. Selects them like a replay does;
/// with `dry_run`, counts them and does nothing else.
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/dead-letters:discard",
    operation_id = "discard_dead_letters",
    tag = "Replays",
    request_body = Option<Discard>,
    responses(
        (status = 200, description = "How many would be put away", body = CountView),
        (status = 202, description = "The order to do so, which is found among the replays", body = ReplayView),
    )
)]
async fn discard(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Body(body): Body,
) -> Result<Response, Problem> {
    let project = &within.project;
    let chosen = Chosen::from(tests::body::<Discard>(&body)?);
    let Selected { selection, dry_run, .. } = chosen.select(&api, project, Kind::Discard).await?;
    if dry_run {
        let found = replays::count(&api, project, &selection, replays::COUNT_ALONE).await?;
        let mut connection = api.connection_in(project.id).await?;
        let counted = shown_replays::counted(&mut connection, &found).await?;
        return Ok(NothingDone::but(Json(counted)));
    }
    let order = replays::order(&api, project, &within.caller, Kind::Discard, &selection, None).await?;
    Ok(accepted(&api, project, order))
}

#[cfg(test)]
mod grouping_tests {
    use super::*;

    #[test]
    fn letters_are_grouped_by_webhook_reason_or_both() {
        let by = |text: &str| grouping(text).map(|by| (by.webhook, by.reason)).ok();
        assert_eq!(by("webhook"), Some((true, false)));
        assert_eq!(by("reason"), Some((false, true)));
        assert_eq!(by("webhook,reason"), Some((true, true)));
        assert_eq!(by("webhook, reason"), Some((true, true)));
        assert_eq!(by("type"), None);
        assert_eq!(by(""), None);
    }
}
