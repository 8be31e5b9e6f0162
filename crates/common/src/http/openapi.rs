//! OpenAPI documents, made of the handlers: each handler says what it alone does; what holds for all of them is added
//! here, once: the licence, how to authenticate, the variables of paths, and the problems that any request may meet.

use axum::Router;
use axum::http::header;
use axum::routing::get;
use bytes::Bytes;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{AnyOfBuilder, Schema};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, ContentBuilder, HeaderBuilder, InfoBuilder, LicenseBuilder, Object, ObjectBuilder, OpenApi,
    OpenApiBuilder, Ref, RefOr, Required, Response, ResponseBuilder, Type,
};
use utoipa::{PartialSchema as _, ToSchema as _};
use utoipa_axum::router::OpenApiRouter;

pub use super::problem::Written as ProblemBody;
use super::problem::{self, Code, FieldError};
use crate::token::Scope;

/// Where a document is served.
pub const PATH: &str = "/openapi.json";

/// What a document says of its service.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Its title.
    pub title: &'static str,
    /// What can be done with it, in Markdown.
    pub description: &'static str,
    /// Groups of operations, and what they are about.
    pub tags: &'static [(&'static str, &'static str)],
    /// The variables of paths, and what they stand for.
    pub variables: &'static [(&'static str, &'static str)],
    /// The scope that a token needs to read, and the one to do anything else. Where it is another, the handler says so.
    pub scopes: [Scope; 2],
    /// Whether a POST may have an `Idempotency-Key`.
    pub idempotency_keys: bool,
}

/// Makes the document of these routes complete. What a route's handler says itself is left as it is.
#[must_use]
pub fn complete(routes: OpenApi, about: &About) -> OpenApi {
    let licence = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0"));
    let info = InfoBuilder::new()
        .title(about.title)
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(about.description))
        .license(Some(licence.build()));
    let tags = about
        .tags
        .iter()
        .map(|(name, text)| TagBuilder::new().name(*name).description(Some(*text)).build());
    let mut components: Components = routes.components.unwrap_or_default();
    components.schemas.insert("Problem".to_owned(), ProblemBody::schema());
    components
        .schemas
        .insert(FieldError::name().into_owned(), FieldError::schema());
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A token of a project, or the administrator's. `Authorization: Token …` does as well. Each operation says \
             which scope it needs; where it names none, any token will do. In a browser, a session does as well.",
        ))
        .build();
    components
        .security_schemes
        .insert("token".to_owned(), RefOr::T(SecurityScheme::Http(scheme)));
    components.schemas.values_mut().for_each(allow_overlap);
    let mut paths = routes.paths;
    for (path, item) in &mut paths.paths {
        let repeatable = |post: &&mut Operation| about.idempotency_keys && !is_for_everybody(post);
        if let Some(post) = item.post.as_mut().filter(repeatable) {
            allow_idempotency_key(post);
        }
        if let Some(get) = item.get.as_mut().filter(|get| is_tagged(get)) {
            allow_if_none_match(get);
        }
        let [to_read, to_change] = about.scopes;
        let operations = [
            (&mut item.get, to_read),
            (&mut item.put, to_change),
            (&mut item.post, to_change),
            (&mut item.patch, to_change),
            (&mut item.delete, to_change),
        ];
        for (operation, scope) in operations {
            if let Some(operation) = operation {
                complete_operation(operation, path, scope, about);
            }
        }
    }
    OpenApiBuilder::new()
        .info(info.build())
        .tags(Some(tags))
        .paths(paths)
        .components(Some(components))
        .build()
}

/// One of several bodies may be what another is, too: an empty page is a page of anything.
fn allow_overlap(schema: &mut RefOr<Schema>) {
    if let RefOr::T(Schema::OneOf(one)) = schema
        && one.items.iter().all(|item| matches!(item, RefOr::Ref(_)))
    {
        let mut any = AnyOfBuilder::new().description(one.description.take());
        for item in std::mem::take(&mut one.items) {
            any = any.item(item);
        }
        *schema = RefOr::T(Schema::AnyOf(any.build()));
    }
}

fn complete_operation(operation: &mut Operation, path: &str, scope: Scope, about: &About) {
    let parameters = operation.parameters.get_or_insert_default();
    let mut codes = vec![Code::TooManyRequests, Code::Internal, Code::Unavailable];
    let needed = || vec![SecurityRequirement::new("token", [scope.to_string()])];
    if !operation.security.get_or_insert_with(needed).is_empty() {
        codes.extend([Code::Unauthenticated, Code::MissingScope]);
    }
    if parameters.iter().any(|it| is_in(it, &ParameterIn::Query)) {
        codes.push(Code::MalformedQuery);
    }
    if let Some(RefOr::T(created)) = operation.responses.responses.get_mut("201") {
        let text = Object::with_type(Type::String);
        let location = HeaderBuilder::new()
            .schema(Some(text.clone()))
            .description(Some("The path it is found at"));
        let etag = HeaderBuilder::new()
            .schema(Some(text))
            .description(Some("Its version, for `If-Match`"));
        created
            .headers
            .insert("location".to_owned(), RefOr::T(location.build()));
        created.headers.insert("etag".to_owned(), RefOr::T(etag.build()));
    }
    let variables = about
        .variables
        .iter()
        .filter(|(name, _)| path.contains(&format!("{{{name}}}")));
    for (name, text) in variables {
        parameters.push(RefOr::T(variable(name, text)));
    }
    if path.contains('{') {
        codes.push(Code::NotFound);
    }
    if operation.request_body.is_some() {
        codes.extend([
            Code::MalformedBody,
            Code::BodyTimeout,
            Code::BodyTooLarge,
            Code::UnsupportedMediaType,
            Code::Invalid,
        ]);
    }
    for code in codes {
        let status = code.status().as_str().to_owned();
        let response = || RefOr::T(problem_response(code.title()));
        operation.responses.responses.entry(status).or_insert_with(response);
    }
}

/// Whether no token is needed. Whose the key of a request is, its token says.
fn is_for_everybody(operation: &Operation) -> bool {
    operation.security.as_ref().is_some_and(Vec::is_empty)
}

fn is_tagged(operation: &Operation) -> bool {
    let answer = operation.responses.responses.get("200");
    matches!(answer, Some(RefOr::T(answer)) if answer.headers.contains_key(header::ETAG.as_str()))
}

/// Who has it already is told so.
fn allow_if_none_match(operation: &mut Operation) {
    let known = ParameterBuilder::new()
        .name(header::IF_NONE_MATCH.as_str())
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("The `ETag` of what is known already"))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build();
    operation.parameters.get_or_insert_default().push(RefOr::T(known));
    let unchanged = ResponseBuilder::new()
        .description("It is what is known already")
        .build();
    operation
        .responses
        .responses
        .insert("304".to_owned(), RefOr::T(unchanged));
}

/// A POST may be repeated with its key.
fn allow_idempotency_key(operation: &mut Operation) {
    let text = "Whatever the client chooses, new for each request: a request that is repeated with it within a day is \
                answered as the first time";
    let key = ParameterBuilder::new()
        .name("idempotency-key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(text))
        .schema(Some(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .min_length(Some(1))
                .max_length(Some(255)),
        ))
        .build();
    operation.parameters.get_or_insert_default().push(RefOr::T(key));
    for (code, description) in [
        (Code::Conflict, "The first request with this key is being worked on"),
        (
            Code::IdempotencyKeyReused,
            "The key was sent with another request, or some fields are not valid",
        ),
        (Code::MalformedHeader, "The body or a header cannot be read"),
    ] {
        let status = code.status().as_str().to_owned();
        let response = || RefOr::T(problem_response(description));
        operation.responses.responses.entry(status).or_insert_with(response);
    }
}

fn is_in(parameter: &RefOr<Parameter>, place: &ParameterIn) -> bool {
    matches!(parameter, RefOr::T(parameter) if parameter.parameter_in == *place)
}

fn variable(name: &str, text: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(text))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}

/// A response that is a problem.
fn problem_response(description: &str) -> Response {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .build();
    ResponseBuilder::new()
        .description(description)
        .content(problem::CONTENT_TYPE, content)
        .build()
}

/// The routes, and their document at [`PATH`].
pub fn serve<S: Clone + Send + Sync + 'static>(routes: OpenApiRouter<S>, about: &About) -> (Router<S>, OpenApi) {
    let (router, document) = routes.split_for_parts();
    let document = complete(document, about);
    let text = Bytes::from(text(&document));
    let show = async move || ([(header::CONTENT_TYPE, "application/json")], text);
    (router.route(PATH, get(show)), document)
}

/// The document as it is served, and kept in `docs`.
#[must_use]
pub fn text(document: &OpenApi) -> String {
    // Text and numbers alone: nothing here can fail to be JSON.
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}
