//! `/v1/projects/{project}/event-types`: the project's own types, and its catalogue's.

mod body;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use common::catalogue::EventType;
use common::http::openapi::ProblemBody;
use common::http::{Code, Json, Page, PageQuery, Path, Problem, Query};
use proto_schemas::stream::config_key::Key;
use store::event_types::{self as rows, EventTypeVersion};
use store::projects::Project;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::body::{ChangedEventType, ChangedVersion, Draft, EventTypeView, NewEventType, NewVersion, VersionView};
use crate::access::{Configure, InProject, Read};
use crate::api::{Api, failed, note_changed};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(show, change, remove))
        .routes(routes!(create_version))
        .routes(routes!(show_version, change_version))
}

/// Most types of a project's own: ingest holds them all in memory.
const TYPES_MAX: i64 = 200;

/// Most versions of one type.
const VERSIONS_MAX: usize = 20;

/// Most that the schemas of a type may come to, in bytes: its definition is one message on NATS.
const SCHEMAS_BYTES_MAX: usize = 256 * 1024;

type Created<T> = (StatusCode, [(header::HeaderName, String); 1], Json<T>);

/// Create an event type
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/event-types",
    operation_id = "create_event_type",
    tag = "Event types",
    request_body = NewEventType,
    responses(
        (status = 201, description = "The event type", body = EventTypeView),
        (status = 409, description = "There is one, or the project has as many as it may", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn create(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Json(new): Json<NewEventType>,
) -> Result<Created<EventTypeView>, Problem> {
    let project = within.project;
    let (name, description, draft) = new.checked().await?;
    let mut transaction = api.begin_in(project.id).await?;
    rows::lock(&mut transaction, project.id).await.map_err(failed)?;
    let there = rows::versions(&mut transaction, project.id, std::slice::from_ref(&name)).await;
    if !there.map_err(failed)?.is_empty() {
        let detail = format!("there is an event type `{name}` already; a new version of it goes to …/{name}/versions");
        return Err(Problem::new(Code::Conflict, detail));
    }
    if rows::count(&mut transaction, project.id).await.map_err(failed)? >= TYPES_MAX {
        let detail = format!("a project has at most {TYPES_MAX} event types of its own");
        return Err(Problem::new(Code::Conflict, detail));
    }
    let version = draft.into_row(&project, name, description, api.now());
    rows::insert(&mut transaction, &version).await.map_err(failed)?;
    note_changed(&mut transaction, &Key::EventType(project.id, version.name.clone())).await?;
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    let location = format!("/v1/projects/{}/event-types/{}", project.name, version.name);
    let view = EventTypeView::own(vec![version]);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)))
}

/// Create a version of an event type
#[utoipa::path(
    post,
    path = "/v1/projects/{project}/event-types/{event_type}/versions",
    operation_id = "create_event_type_version",
    tag = "Event types",
    request_body = NewVersion,
    responses(
        (status = 201, description = "The version", body = VersionView),
        (status = 409, description = "There is one, or the type has as many as it may", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn create_version(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Path((_, name)): Path<(String, String)>,
    Json(new): Json<NewVersion>,
) -> Result<Created<VersionView>, Problem> {
    let project = within.project;
    let draft = Draft::checked(new).await?;
    let mut transaction = api.begin_in(project.id).await?;
    rows::lock(&mut transaction, project.id).await.map_err(failed)?;
    let versions = own(&api, &mut transaction, &project, &name).await?;
    if versions.iter().any(|there| there.version == draft.version) {
        let detail = format!("there is a version `{}` of `{name}` already", draft.version);
        return Err(Problem::new(Code::Conflict, detail));
    }
    if versions.len() >= VERSIONS_MAX {
        let detail = format!("an event type has at most {VERSIONS_MAX} versions");
        return Err(Problem::new(Code::Conflict, detail));
    }
    let schemas = versions
        .iter()
        .map(|version| version.schema.as_deref())
        .chain([draft.schema.as_deref()]);
    if schemas.map(|schema| schema.map_or(0, str::len)).sum::<usize>() > SCHEMAS_BYTES_MAX {
        let detail = format!("the schemas of a type come to at most {SCHEMAS_BYTES_MAX} bytes together");
        return Err(Problem::field("/schema", detail));
    }
    let description = versions
        .last()
        .map_or_else(String::new, |version| version.description.clone());
    let version = draft.into_row(&project, name, description, api.now());
    rows::insert(&mut transaction, &version).await.map_err(failed)?;
    note_changed(&mut transaction, &Key::EventType(project.id, version.name.clone())).await?;
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    let location = format!(
        "/v1/projects/{}/event-types/{}/versions/{}",
        project.name, version.name, version.version
    );
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(version.into()),
    ))
}

/// List event types
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/event-types",
    operation_id = "list_event_types",
    tag = "Event types",
    params(PageQuery),
    responses(
        (status = 200, description = "Event types by name, the project's own and its catalogue's", body = Page<EventTypeView>),
    )
)]
async fn list(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<EventTypeView>>, Problem> {
    let project = within.project;
    let after: Option<String> = query.after()?;
    let fetch = u32::from(query.limit) + 1;
    let mut connection = api.connection_in(project.id).await?;
    let mut names: BTreeSet<String> = rows::names(&mut connection, project.id, after.as_deref(), fetch)
        .await
        .map_err(failed)?
        .into_iter()
        .collect();
    let catalogue = catalogue(&api, &project);
    if let Some(types) = catalogue {
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let more = types.range::<str, _>((from, Bound::Unbounded)).take(fetch as usize);
        names.extend(more.map(|(name, _)| name.clone()));
    }
    let page = Page::cut(names.into_iter().collect(), &query, |name| name.clone())?;

    let versions = rows::versions(&mut connection, project.id, &page.items)
        .await
        .map_err(failed)?;
    let mut own: HashMap<String, Vec<EventTypeVersion>> = HashMap::new();
    for version in versions {
        own.entry(version.name.clone()).or_default().push(version);
    }
    let items = page.items.iter().filter_map(|name| match own.remove(name) {
        Some(versions) => Some(EventTypeView::own(versions)),
        None => catalogue?.get(name).map(EventTypeView::catalogues),
    });
    Ok(Json(Page {
        items: items.collect(),
        next: page.next.clone(),
    }))
}

/// Show an event type
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/event-types/{event_type}",
    operation_id = "show_event_type",
    tag = "Event types",
    responses(
        (status = 200, description = "The event type", body = EventTypeView),
    )
)]
async fn show(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Path((_, name)): Path<(String, String)>,
) -> Result<Json<EventTypeView>, Problem> {
    find(&api, &within.project, &name).await.map(Json)
}

/// Show a version of an event type
#[utoipa::path(
    get,
    path = "/v1/projects/{project}/event-types/{event_type}/versions/{version}",
    operation_id = "show_event_type_version",
    tag = "Event types",
    responses(
        (status = 200, description = "The version", body = VersionView),
    )
)]
async fn show_version(
    State(api): State<Arc<Api>>,
    within: InProject<Read>,
    Path((_, name, version)): Path<(String, String, String)>,
) -> Result<Json<VersionView>, Problem> {
    let found = find(&api, &within.project, &name).await?;
    found.into_version(&version).map(Json).ok_or_else(no_version)
}

/// Change an event type
#[utoipa::path(
    patch,
    path = "/v1/projects/{project}/event-types/{event_type}",
    operation_id = "change_event_type",
    tag = "Event types",
    request_body = ChangedEventType,
    responses(
        (status = 200, description = "The event type as it is now", body = EventTypeView),
        (status = 409, description = "It is the catalogue's", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn change(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Path((_, name)): Path<(String, String)>,
    Json(changed): Json<ChangedEventType>,
) -> Result<Json<EventTypeView>, Problem> {
    let project = within.project;
    let description = changed.checked()?;
    let mut transaction = api.begin_in(project.id).await?;
    rows::lock(&mut transaction, project.id).await.map_err(failed)?;
    let mut versions = own(&api, &mut transaction, &project, &name).await?;
    if let Some(description) = description {
        // Nothing that ingest works by: it need not be published.
        for version in &mut versions {
            version.description.clone_from(&description);
            version.updated_at = api.now();
            rows::update(&mut transaction, version).await.map_err(failed)?;
        }
    }
    transaction.commit().await.map_err(failed)?;
    Ok(Json(EventTypeView::own(versions)))
}

/// Change a version of an event type
#[utoipa::path(
    patch,
    path = "/v1/projects/{project}/event-types/{event_type}/versions/{version}",
    operation_id = "change_event_type_version",
    tag = "Event types",
    request_body = ChangedVersion,
    responses(
        (status = 200, description = "The version as it is now", body = VersionView),
        (status = 409, description = "It is the catalogue's", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn change_version(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Path((_, name, named)): Path<(String, String, String)>,
    Json(changed): Json<ChangedVersion>,
) -> Result<Json<VersionView>, Problem> {
    let project = within.project;
    // Before the transaction: a schema full of patterns takes its time, and who changes another type would wait for it.
    let mut connection = api.connection_in(project.id).await?;
    let found = own_version(&api, &mut connection, &project, &name, &named).await?;
    drop(connection);
    let checked = changed.checked(found.schema.clone()).await?;

    let mut transaction = api.begin_in(project.id).await?;
    rows::lock(&mut transaction, project.id).await.map_err(failed)?;
    let mut version = own_version(&api, &mut transaction, &project, &name, &named).await?;
    // A version's schema does not change; this is another version of the same name.
    if version.schema != found.schema {
        let detail = format!("`{name}` was deleted and made anew meanwhile; try again");
        return Err(Problem::new(Code::Conflict, detail));
    }
    checked.apply(&mut version);
    version.updated_at = api.now();
    rows::update(&mut transaction, &version).await.map_err(failed)?;
    note_changed(&mut transaction, &Key::EventType(project.id, name)).await?;
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    Ok(Json(version.into()))
}

/// Delete an event type
#[utoipa::path(
    delete,
    path = "/v1/projects/{project}/event-types/{event_type}",
    operation_id = "delete_event_type",
    tag = "Event types",
    responses(
        (status = 204, description = "It is gone"),
        (status = 409, description = "It is the catalogue's", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn remove(
    State(api): State<Arc<Api>>,
    within: InProject<Configure>,
    Path((_, name)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let project = within.project;
    let mut transaction = api.begin_in(project.id).await?;
    // Nobody adds a version meanwhile to what they have found to be there.
    rows::lock(&mut transaction, project.id).await.map_err(failed)?;
    if !rows::delete(&mut transaction, project.id, &name)
        .await
        .map_err(failed)?
    {
        return Err(absent(&api, &project, &name));
    }
    note_changed(&mut transaction, &Key::EventType(project.id, name)).await?;
    transaction.commit().await.map_err(failed)?;
    api.publication.wait().await;
    Ok(StatusCode::NO_CONTENT)
}

/// The types of the catalogue that the project's profile names.
fn catalogue<'a>(api: &'a Api, project: &Project) -> Option<&'a BTreeMap<String, EventType>> {
    let profile = api.profiles.get(&project.profile)?;
    api.catalogues.get(profile.catalogue.as_deref()?)
}

/// A type as it applies to the project: its own, or else its catalogue's.
async fn find(api: &Api, project: &Project, name: &str) -> Result<EventTypeView, Problem> {
    let mut connection = api.connection_in(project.id).await?;
    let own = rows::versions(&mut connection, project.id, &[name.to_owned()])
        .await
        .map_err(failed)?;
    if !own.is_empty() {
        return Ok(EventTypeView::own(own));
    }
    let shipped = catalogue(api, project).and_then(|types| types.get(name));
    shipped.map(EventTypeView::catalogues).ok_or_else(no_type)
}

/// The versions of a type that the project may change.
async fn own(
    api: &Api,
    connection: &mut store::Connection,
    project: &Project,
    name: &str,
) -> Result<Vec<EventTypeVersion>, Problem> {
    let own = rows::versions(connection, project.id, &[name.to_owned()])
        .await
        .map_err(failed)?;
    match own.is_empty() {
        true => Err(absent(api, project, name)),
        false => Ok(own),
    }
}

/// A version of a type that the project may change.
async fn own_version(
    api: &Api,
    connection: &mut store::Connection,
    project: &Project,
    name: &str,
    version: &str,
) -> Result<EventTypeVersion, Problem> {
    let versions = own(api, connection, project, name).await?;
    let found = versions.into_iter().find(|found| found.version == version);
    found.ok_or_else(no_version)
}

/// Why there is no such type to be changed.
fn absent(api: &Api, project: &Project, name: &str) -> Problem {
    match catalogue(api, project).is_some_and(|types| types.contains_key(name)) {
        true => Problem::new(
            Code::Conflict,
            format!(
                "`{name}` is of the catalogue, which is not the project's to change; a type of its own under this name replaces it"
            ),
        ),
        false => no_type(),
    }
}

fn no_type() -> Problem {
    Problem::new(Code::NotFound, "there is no such event type")
}

fn no_version() -> Problem {
    Problem::new(Code::NotFound, "the event type has no such version")
}
