//! `/v1/projects`

use std::sync::Arc;

use axum::extract::State;
use common::http::openapi::ProblemBody;
use common::http::{Code, ETag, FieldError, IfMatch, Json, Page, PageQuery, Problem, Query, Tagged};
use common::profile;
use common::token::Scope;
use jiff::Timestamp;
use proto_schemas::id::ProjectId;
use proto_schemas::stream::config_key::Key;
use serde::{Deserialize, Serialize};
use store::projects::{self, Project};
use uuid::Uuid;

use super::json::{given, nullable};
use crate::access::{Administrator, Caller, Configure, InProject, Read};
use crate::api::{Api, failed, new_id, note_changed};
use crate::validate;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(show, change))
}

/// A project to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewProject {
    /// 1 to 63 of a-z, 0-9 and -, not beginning or ending with -.
    #[schema(
        min_length = 1,
        max_length = 63,
        pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        example = "shop"
    )]
    name: String,
    /// How its webhooks behave; `standard` if absent.
    #[schema(example = "standard")]
    profile: Option<String>,
}

/// Changes to a project.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangedProject {
    /// What is done with an event that its type's schema refuses; null: as the profile says.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<SchemaCheckWord>)]
    schema_check: Option<Option<SchemaCheckWord>>,
    /// Who is told by e-mail what is wrong, if the operator has a mail server for it: deliveries that are dead, webhooks that have failed. At most 10.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_items = 10, example = json!(["ops@example.com"]))]
    alert_emails: Option<Vec<String>>,
}

/// What is done with an event that its type's schema refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = SchemaCheck)]
pub(super) enum SchemaCheckWord {
    /// Schemas are not looked at.
    Off,
    /// It is accepted, and what is wrong is kept with it.
    Warn,
    /// It is refused.
    Reject,
}

impl SchemaCheckWord {
    const ALL: [Self; 3] = [Self::Off, Self::Warn, Self::Reject];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Warn => "warn",
            Self::Reject => "reject",
        }
    }
}

/// A project.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Project)]
pub(super) struct ProjectView {
    id: Uuid,
    name: String,
    profile: String,
    /// Null: as the profile says.
    #[schema(required)]
    schema_check: Option<SchemaCheckWord>,
    /// Who is told by e-mail what is wrong.
    alert_emails: Vec<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<Project> for ProjectView {
    fn from(project: Project) -> Self {
        Self {
            id: project.id.as_uuid(),
            name: project.name,
            profile: project.profile,
            schema_check: project
                .schema_check
                .and_then(|word| SchemaCheckWord::ALL.into_iter().find(|check| check.as_str() == word)),
            alert_emails: project.alert_emails,
            created_at: project.created_at,
        }
    }
}

/// Create a project
///
/// The administrator's.
#[utoipa::path(
    post,
    path = "/v1/projects",
    operation_id = "create_project",
    security(("token" = ["admin"])),
    tag = "Projects",
    request_body = NewProject,
    responses(
        (status = 201, description = "The project", body = ProjectView),
        (status = 409, description = "The name is another project's", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Administrator(_): Administrator,
    Json(new): Json<NewProject>,
) -> Result<Tagged<ProjectView>, Problem> {
    validate::project_name(&new.name).map_err(|reason| Problem::field("/name", reason))?;
    let profile = new.profile.unwrap_or_else(|| profile::DEFAULT.to_owned());
    if api.profiles.get(&profile).is_none() {
        let known = api.profiles.names();
        return Err(Problem::field(
            "/profile",
            format!("there is no profile `{profile}`; there are: {known}"),
        ));
    }
    let now = api.now();
    let id = ProjectId::from_uuid(new_id(now, &mut rand::rng()));
    let project = Project {
        id,
        name: new.name,
        profile,
        schema_check: None,
        alert_emails: Vec::new(),
        created_at: now,
    };

    let mut transaction = api.database.of_all_projects().begin().await.map_err(failed)?;
    projects::insert(&mut transaction, &project)
        .await
        .map_err(|error| match error.constraint() {
            Some(projects::NAME_KEY) => {
                Problem::new(Code::Conflict, format!("there is a project `{}` already", project.name))
            }
            _ => failed(error),
        })?;
    note_changed(&mut transaction, &Key::Project(project.id)).await?;
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    let path = format!("/v1/projects/{}", project.name);
    Ok(Tagged::of(ProjectView::from(project))?.created(path))
}

/// List projects
///
/// A token of one project sees that one.
#[utoipa::path(
    get,
    path = "/v1/projects",
    operation_id = "list_projects",
    tag = "Projects",
    params(PageQuery),
    responses((status = 200, description = "A page of projects, newest first", body = Page<ProjectView>)),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ProjectView>>, Problem> {
    caller.require(Scope::Read)?;
    let before: Option<Uuid> = query.after()?;
    let mut connection = api
        .database
        .of_project_or_all(caller.project)
        .connection()
        .await
        .map_err(failed)?;
    let rows = match caller.project {
        // A token of one project sees that one.
        Some(own) => projects::by_ids(&mut connection, &[own]).await,
        None => {
            projects::page(
                &mut connection,
                before.map(ProjectId::from_uuid),
                u32::from(query.limit) + 1,
            )
            .await
        }
    };
    let page = Page::cut(rows.map_err(failed)?, &query, |project| project.id.as_uuid())?;
    Ok(Json(page.map(ProjectView::from)))
}

/// Show a project
#[utoipa::path(
    get,
    path = "/v1/projects/{project}",
    operation_id = "show_project",
    tag = "Projects",
    responses((status = 200, description = "The project", body = ProjectView, headers(("etag" = String, description = "Its version")))),
)]
pub(super) async fn show(within: InProject<Read>) -> Result<Tagged<ProjectView>, Problem> {
    Tagged::of(within.project.into())
}

/// Change a project
#[utoipa::path(
    patch,
    path = "/v1/projects/{project}",
    operation_id = "change_project",
    tag = "Projects",
    request_body = ChangedProject,
    params(("if-match" = Option<String>, Header, description = "The `ETag` of the project as it is to be changed")),
    responses(
        (status = 200, description = "The project as it is now", body = ProjectView, headers(("etag" = String, description = "Its version"))),
        (status = 412, description = "It was changed since it was read", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn change(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    if_match: IfMatch,
    Json(changed): Json<ChangedProject>,
) -> Result<Tagged<ProjectView>, Problem> {
    if let Some(emails) = &changed.alert_emails {
        validate::emails(emails).map_err(|(index, reason)| {
            let path = index.map_or_else(|| "/alert_emails".to_owned(), |index| format!("/alert_emails/{index}"));
            Problem::fields(vec![FieldError::new(&path, reason)])
        })?;
    }
    let id = within.project.id;
    let mut transaction = api.begin_in(id).await?;
    projects::lock(&mut transaction, id).await.map_err(failed)?;
    let stored = projects::by_ids(&mut transaction, &[id]).await.map_err(failed)?;
    let mut project = stored.into_iter().next().unwrap_or(within.project);
    if_match.check(&ETag::of(&ProjectView::from(project.clone()))?)?;
    if let Some(emails) = changed.alert_emails {
        project.alert_emails = emails;
        projects::set_alert_emails(&mut transaction, id, &project.alert_emails)
            .await
            .map_err(failed)?;
    }
    let Some(check) = changed.schema_check else {
        // Whom mails go to is no business of ingest's or dispatcher's: nothing is to be published.
        transaction.commit().await.map_err(failed)?;
        return Tagged::of(project.into());
    };
    project.schema_check = check.map(|check| check.as_str().to_owned());
    projects::set_schema_check(&mut transaction, id, project.schema_check.as_deref())
        .await
        .map_err(failed)?;
    note_changed(&mut transaction, &Key::Project(id)).await?;
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    Tagged::of(project.into())
}
