//! `/v1/projects/{project}/tests`

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use common::http::{Code, Json, Page, PageQuery, Path, Problem, Query, page, parse};
use common::render::{Renderer, Subject};
use common::request::Opened;
use jiff::Timestamp;
use proto_schemas::definition::{self, MaybeSealed};
use proto_schemas::delivery::{DeliveryDue, TrialKind};
use proto_schemas::id::{AttemptRef, EventKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use store::log::{self, Attempt};
use store::projects::Project;
use store::tests::Test;
use store::{Connection, tests as rows, webhook_health, webhooks};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::attempts::AttemptWithResponse;
use super::json::Text;
use super::webhook_filter;
use crate::access::{Configure, InProject, Read};
use crate::api::{Api, failed};
use crate::resolve;
use crate::trials::{self, Sample, Target};
use crate::webhooks::{absent as no_webhook, profile};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(show))
}

/// The event of a test.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = Sample)]
#[serde(deny_unknown_fields)]
pub(super) struct SampleBody {
    /// Its type. Absent: the first that the webhook names in full, or that its profile's catalogue has for it.
    r#type: Option<String>,
    /// Its payload. Absent: its type's example.
    #[schema(value_type = Option<Object>)]
    data: Option<Box<RawValue>>,
    /// Its attributes.
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

impl From<SampleBody> for Sample {
    fn from(body: SampleBody) -> Self {
        Self {
            event_type: body.r#type,
            data: body.data.map(|data| Bytes::from(data.get().to_owned())),
            attributes: body.attributes,
        }
    }
}

/// A test to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTest {
    /// The webhook to be tested, by name or id.
    webhook: String,
    r#type: Option<String>,
    #[schema(value_type = Option<Object>)]
    data: Option<Box<RawValue>>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

/// Which tests.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Of this webhook, by name or id.
    webhook: Option<String>,
    // Not flattened: serde would let misspelt names pass.
    #[serde(default = "page::default_limit", deserialize_with = "page::limit")]
    limit: u16,
    cursor: Option<String>,
}

/// A test, or an endpoint check.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Test)]
pub(super) struct TestView {
    id: Uuid,
    /// `test` or `check`.
    kind: String,
    /// Null: it tries a definition that is not stored.
    #[schema(required)]
    webhook: Option<Uuid>,
    /// The id that the receiver sees.
    event_id: String,
    r#type: String,
    /// `pending` until the request is made and on record, then `completed` or `failed`.
    status: &'static str,
    /// What went wrong, in one word.
    #[schema(required)]
    error_class: Option<String>,
    /// What went wrong, in one line.
    #[schema(required)]
    error_message: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When the request was begun.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    started_at: Option<Timestamp>,
}

/// A test, what was sent and what came back.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TestWithAttempt {
    #[serde(flatten)]
    test: TestView,
    /// Null while nothing was sent, and where what was sent cannot be told any more.
    #[schema(required)]
    request: Option<RequestView>,
    /// Null while nothing is on record.
    #[schema(required)]
    attempt: Option<AttemptWithResponse>,
}

/// A request as it was sent, but for the headers that every request has.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TestRequest)]
struct RequestView {
    method: &'static str,
    url: String,
    headers: Vec<HeaderLine>,
    #[serde(flatten)]
    body: Text,
}

/// A header of a request.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HeaderLine {
    /// Its name, in lower case.
    pub(super) key: String,
    /// Null for a protected header.
    #[schema(required)]
    pub(super) value: Option<String>,
}

impl From<Test> for TestView {
    fn from(test: Test) -> Self {
        let event_id = test.id.test_event_id();
        let (status, started_at) = match &test.made {
            None => ("pending", None),
            Some(made) if made.delivered => ("completed", Some(made.started_at)),
            Some(made) => ("failed", Some(made.started_at)),
        };
        let (error_class, error_message) = test.made.map_or((None, None), |made| (made.error_class, made.error));
        Self {
            id: test.id.as_uuid(),
            kind: test.kind,
            webhook: test.webhook.map(|webhook| webhook.as_uuid()),
            event_id,
            r#type: test.event_type,
            status,
            error_class,
            error_message,
            created_at: test.created_at,
            started_at,
        }
    }
}

/// Reads a body that may be left out.
pub(super) fn body<T: DeserializeOwned + Default>(bytes: &[u8]) -> Result<T, Problem> {
    match bytes.is_empty() {
        true => Ok(T::default()),
        false => parse(bytes),
    }
}

/// 202, and where to look what becomes of the test.
pub(super) fn accepted(project: &Project, test: Test) -> Response {
    let location = format!("/v1/projects/{}/tests/{}", project.name, test.id);
    let headers = [(header::LOCATION, location)];
    (StatusCode::ACCEPTED, headers, Json(TestView::from(test))).into_response()
}

/// Test a webhook
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/tests",
    operation_id = "create_test",
    tag = "Tests",
    request_body = NewTest,
    responses((status = 202, description = "The test that was begun", body = TestView))
)]
async fn create(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Json(new): Json<NewTest>,
) -> Result<Response, Problem> {
    let mut connection = api.connection_in(within.project.id).await?;
    let webhook = webhooks::find(&mut connection, within.project.id, &new.webhook).await;
    drop(connection);
    let webhook = webhook.map_err(failed)?.ok_or_else(no_webhook)?;
    let sample = SampleBody {
        r#type: new.r#type,
        data: new.data,
        attributes: new.attributes,
    };
    let test = trials::begin(&api, &within.project, Target::Stored(&webhook), sample.into()).await?;
    Ok(accepted(&within.project, test))
}

/// List tests and endpoint checks
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/tests",
    operation_id = "list_tests",
    tag = "Tests",
    params(Filter),
    responses((status = 200, description = "Tests, newest first", body = Page<TestView>))
)]
async fn list(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<TestView>>, Problem> {
    let query = PageQuery {
        limit: filter.limit,
        cursor: filter.cursor,
    };
    let before: Option<Uuid> = query.after()?;
    let mut connection = api.connection_in(within.project.id).await?;
    let project = within.project.id;
    let webhook = webhook_filter(&mut connection, project, filter.webhook.as_deref()).await?;
    let limit = u32::from(query.limit) + 1;
    let before = before.map(EventKey::from_uuid);
    let rows = rows::page(&mut connection, project, webhook, before, limit).await;
    let page = Page::cut(rows.map_err(failed)?, &query, |test| test.id.as_uuid())?;
    Ok(Json(page.map(TestView::from)))
}

/// Show what became of a test
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/tests/{test}",
    operation_id = "show_test",
    tag = "Tests",
    responses((status = 200, description = "The test", body = TestWithAttempt))
)]
async fn show(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Path((_, id)): Path<(String, String)>,
) -> Result<Json<TestWithAttempt>, Problem> {
    let absent = || Problem::new(Code::NotFound, "there is no such test in this project");
    let id: EventKey = id.parse().map_err(|_| absent())?;
    let project = &within.project;
    let mut connection = api.connection_in(project.id).await?;
    let test = rows::find(&mut connection, project.id, id).await.map_err(failed)?;
    let test = test.ok_or_else(absent)?;
    let attempt = (id, test.target, 0, 1);
    let made = log::attempt(&mut connection, project.id, attempt)
        .await
        .map_err(failed)?;
    let request = match &made {
        Some((attempt, _)) => sent(&api, &mut connection, project, attempt).await?,
        None => None,
    };
    Ok(Json(TestWithAttempt {
        test: test.into(),
        request,
        attempt: made.map(AttemptWithResponse::from),
    }))
}

/// What was sent, made again. It is only told where it has the hash that is on record: the webhook may have been changed
/// meanwhile.
async fn sent(
    api: &Api,
    connection: &mut Connection,
    project: &Project,
    attempt: &Attempt,
) -> Result<Option<RequestView>, Problem> {
    let AttemptRef { event, webhook, .. } = attempt.attempt;
    let duties = rows::duties(connection, &[event]).await.map_err(failed)?;
    let Some(due) = duties.into_iter().next() else {
        return Ok(None);
    };
    let Ok(due) = DeliveryDue::decode(due.1.into()) else {
        return Ok(None);
    };
    let Some(trial) = due.trial else { return Ok(None) };
    let definition = match trial.webhook {
        Some(given) => *given,
        None => {
            let stored = webhooks::by_ids(connection, &[webhook]).await.map_err(failed)?;
            let health = webhook_health::find(connection, &[webhook]).await.map_err(failed)?;
            let Some(stored) = stored.into_iter().next() else {
                return Ok(None);
            };
            resolve::webhook(&stored, health.get(&webhook), project, profile(api, project)?)
        }
    };
    let (method, body, shown) = match trial.kind {
        TrialKind::Check => ("GET", Bytes::new(), Bytes::new()),
        TrialKind::Test => {
            // Where no body could be made, nothing was sent.
            let (Ok(variables), Ok(renderer)) =
                (Opened::of(&definition, &api.keys), Renderer::compile(&definition.body))
            else {
                return Ok(None);
            };
            let subject = Subject::new(&due.event, &definition.project_name, &definition.options);
            let [body, shown] = [variables.real(), variables.shown()].map(|it| renderer.render(&subject.with(it)));
            let (Ok(body), Ok(shown)) = (body, shown) else {
                return Ok(None);
            };
            ("POST", body.body, shown.body)
        }
    };
    let is_what_was_sent =
        Sha256::digest(&body).as_slice() == attempt.request_sha256 && definition.revision == attempt.webhook_revision;
    Ok(is_what_was_sent.then(|| RequestView {
        method,
        headers: header_lines(&definition),
        url: definition.url,
        body: Text::new(shown.to_vec(), false),
    }))
}

fn header_lines(definition: &definition::Webhook) -> Vec<HeaderLine> {
    definition
        .headers
        .iter()
        .map(|header| HeaderLine {
            key: header.name.clone(),
            value: match &header.value {
                MaybeSealed::Plain(value) => Some(value.clone()),
                MaybeSealed::Sealed(_) => None,
            },
        })
        .collect()
}
