//! `/v1/projects`

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use common::http::{Code, Json, Page, PageQuery, Problem, Query};
use common::profile;
use common::token::Scope;
use jiff::Timestamp;
use proto_schemas::id::ProjectId;
use proto_schemas::stream::config_key::Key;
use serde::{Deserialize, Serialize};
use store::projects::{self, Project};
use uuid::Uuid;

use super::json::nullable;
use crate::access::{Administrator, Caller, Configure, InProject, Read};
use crate::api::{Api, failed, new_id, note_changed};
use crate::validate;

/// A project to be made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewProject {
    name: String,
    profile: Option<String>,
}

/// Changes to a project.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangedProject {
    /// Null: as the profile says.
    #[serde(default, deserialize_with = "nullable")]
    schema_check: Option<Option<SchemaCheckWord>>,
}

/// What is done with an event that its type's schema refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
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
#[derive(Debug, Serialize)]
pub(super) struct ProjectView {
    id: Uuid,
    name: String,
    profile: String,
    /// Null: as the profile says.
    schema_check: Option<SchemaCheckWord>,
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
            created_at: project.created_at,
        }
    }
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Administrator(_): Administrator,
    Json(new): Json<NewProject>,
) -> Result<(StatusCode, Json<ProjectView>), Problem> {
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
        created_at: now,
    };

    let mut transaction = api.store.begin().await.map_err(failed)?;
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
    Ok((StatusCode::CREATED, Json(project.into())))
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ProjectView>>, Problem> {
    caller.require(Scope::Read)?;
    let before: Option<Uuid> = query.after()?;
    let mut connection = api.store.connection().await.map_err(failed)?;
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

pub(super) async fn show(within: InProject<Read>) -> Json<ProjectView> {
    Json(within.project.into())
}

pub(super) async fn change(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Json(changed): Json<ChangedProject>,
) -> Result<Json<ProjectView>, Problem> {
    let id = within.project.id;
    let mut transaction = api.store.begin().await.map_err(failed)?;
    projects::lock(&mut transaction, id).await.map_err(failed)?;
    let stored = projects::by_ids(&mut transaction, &[id]).await.map_err(failed)?;
    let mut project = stored.into_iter().next().unwrap_or(within.project);
    let Some(check) = changed.schema_check else {
        return Ok(Json(project.into()));
    };
    project.schema_check = check.map(|check| check.as_str().to_owned());
    projects::set_schema_check(&mut transaction, id, project.schema_check.as_deref())
        .await
        .map_err(failed)?;
    note_changed(&mut transaction, &Key::Project(id)).await?;
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    Ok(Json(project.into()))
}
