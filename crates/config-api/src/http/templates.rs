//! `/v1/templates`

use std::sync::Arc;

use axum::extract::State;
use common::http::{Code, Json, Page, Path, Problem, Tagged};
use common::template::{Blank, NamedValue, Template};
use common::token::Scope;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::Caller;
use crate::api::Api;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show))
}

/// A webhook with blanks, to make webhooks from.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Template)]
struct TemplateView {
    /// What `template` is to say.
    name: String,
    /// For people.
    description: String,
    /// Where its requests go; `<…>` is a blank.
    url: String,
    /// Event types it is meant for.
    events: Vec<String>,
    /// Its headers.
    headers: Vec<TemplateValue>,
    /// Its variables.
    variables: Vec<TemplateValue>,
    /// Its body, as JSON whose strings hold expressions.
    #[schema(value_type = Object)]
    transform: Value,
    /// What `blanks` are to say.
    blanks: Vec<BlankView>,
}

/// A header or a variable of a template.
#[derive(Debug, Serialize, ToSchema)]
struct TemplateValue {
    key: String,
    value: String,
    /// Whether its value never comes back out of a webhook.
    protected: bool,
}

/// Something to be filled in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Blank)]
struct BlankView {
    name: String,
    /// What to fill in.
    description: String,
    example: String,
    /// Whether it has to be filled in.
    required: bool,
    /// What it is where it is not filled in; null: nothing.
    #[schema(required)]
    default: Option<String>,
    /// Whether it is to be typed and kept like a password.
    secret: bool,
}

impl From<&Blank> for BlankView {
    fn from(blank: &Blank) -> Self {
        Self {
            name: blank.name.clone(),
            description: blank.description.clone(),
            example: blank.example.clone(),
            required: blank.required && blank.default.is_none(),
            default: blank.default.clone(),
            secret: blank.secret,
        }
    }
}

impl From<&NamedValue> for TemplateValue {
    fn from(value: &NamedValue) -> Self {
        Self {
            key: value.key.clone(),
            value: value.value.clone(),
            protected: value.protected,
        }
    }
}

impl From<&Template> for TemplateView {
    fn from(template: &Template) -> Self {
        Self {
            name: template.name.clone(),
            description: template.description.clone(),
            url: template.url.clone(),
            events: template.events.clone(),
            headers: template.headers.iter().map(TemplateValue::from).collect(),
            variables: template.variables.iter().map(TemplateValue::from).collect(),
            // Loading refuses a template that is not JSON.
            transform: serde_json::from_str(&template.transform).unwrap_or_default(),
            blanks: template.blanks.iter().map(BlankView::from).collect(),
        }
    }
}

/// List templates
#[utoipa::path(
    get,
    path = "/v1/templates",
    operation_id = "list_templates",
    tag = "Templates",
    responses((status = 200, description = "All templates, by name", body = Page<TemplateView>))
)]
async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Page<TemplateView>>, Problem> {
    caller.require(Scope::Read)?;
    Ok(Json(Page {
        items: api.templates.iter().map(TemplateView::from).collect(),
        next: None,
    }))
}

/// Show a template
#[utoipa::path(
    get,
    path = "/v1/templates/{template}",
    operation_id = "show_template",
    tag = "Templates",
    responses((status = 200, description = "The template", body = TemplateView, headers(("etag" = String, description = "Its version"))))
)]
async fn show(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Tagged<TemplateView>, Problem> {
    caller.require(Scope::Read)?;
    let found = api.templates.get(&name);
    let absent = || Problem::new(Code::NotFound, "there is no such template; `/v1/templates` lists them");
    Tagged::of(found.ok_or_else(absent)?.into())
}
