//! Who may do what.
//!
//! A handler says what it needs by its arguments: [`InProject`] is a project the token may see and a scope it has, the
//! scope being part of the type, so a handler cannot forget to ask. A project of another's is not there (404), so that
//! nobody learns which there are; a scope that is missing is named (403).
//!
//! Tokens are looked up in Postgres for each request: here a revoked token is refused at once. A browser's request has a
//! session instead ([`crate::sessions`]), which stands for the token it was begun with. Nothing is looked up for who has
//! guessed too often ([`common::http::rate_limit`]), nor for a token that is a mistyped one by its checksum.
//!
//! That and the project's name are all that is read of every project; what a handler reads and writes in a project it has
//! from [`store::Database::of_project`], by which Postgres keeps it to that.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::ops::DerefMut;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use common::http::auth::bearer;
use common::http::rate_limit::Proof;
use common::http::{Code, Path, Problem};
use common::token::{self, Scope};
use proto_schemas::id::ProjectId;
use store::projects::Project;
use store::sessions::Session;
use store::tokens::Token;
use store::{Connection, projects, tokens};
use uuid::Uuid;

use crate::api::{Api, failed};
use crate::audit;
use crate::sessions::{self, Secret};

/// Whoever bears the request's token.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The token.
    pub token: Uuid,
    /// The one project it is good for; `None` for every project.
    pub project: Option<ProjectId>,
    scopes: Vec<Scope>,
    /// The session, where it is a session's request.
    pub(crate) session: Option<Session>,
    /// The entry of the request in the audit trail, where it has one.
    pub(crate) entry: Option<audit::Entry>,
}

impl Caller {
    /// Refuses a token without the scope.
    ///
    /// # Errors
    /// 403, naming the scope.
    pub fn require(&self, needed: Scope) -> Result<(), Problem> {
        match self.scopes.iter().any(|scope| scope.allows(needed)) {
            true => Ok(()),
            false => Err(Problem::new(
                Code::MissingScope,
                format!("the token lacks the scope `{needed}`"),
            )),
        }
    }

    /// Refuses a token without the scope in this project; for who looks again at a token that was good.
    ///
    /// # Errors
    /// 403, or 404 where the token is for another project.
    pub fn require_in(&self, project: ProjectId, needed: Scope) -> Result<(), Problem> {
        match self.project.is_none_or(|own| own == project) {
            true => self.require(needed),
            false => Err(Code::NotFound.into()),
        }
    }

    /// Whether it may change anything at all.
    pub(crate) fn may_write(&self) -> bool {
        let writes = |scope: &Scope| scope.allows(Scope::Configure);
        self.scopes.iter().any(writes)
    }

    /// Whoever makes the request, which is counted; and the connection by which that was found out.
    async fn of(
        parts: &Parts,
        api: &Api,
    ) -> Result<(Self, impl DerefMut<Target = Connection> + Send + use<>), Problem> {
        let (caller, mut connection) = Self::identify(parts, api).await?;
        if parts.extensions.get::<Counted>().is_none() {
            caller.count(parts, api)?;
        }
        // Who only watches does not use the session.
        if let Some(session) = caller.session.as_ref().filter(|_| !is_watching(&parts.headers)) {
            sessions::touch(&mut connection, session, api.now())
                .await
                .map_err(failed)?;
        }
        Ok((caller, connection))
    }

    /// Whoever has this token, for a request that has it in its body, which is counted; and the connection by which that
    /// was found out.
    ///
    /// # Errors
    /// 401, 429
    pub(crate) async fn with_token(
        token: &str,
        parts: &Parts,
        api: &Api,
    ) -> Result<(Self, impl DerefMut<Target = Connection> + Send + use<>), Problem> {
        let (caller, connection) = Self::look_up(Credential::Token(token), parts, api).await?;
        caller.count(parts, api)?;
        Ok((caller, connection))
    }

    /// The same as it is now; for who goes on answering. It is no request, and none of what it was asked with is needed.
    ///
    /// # Errors
    /// 401 where its token is good no more, or its session has ended.
    pub(crate) async fn again(&self, api: &Api) -> Result<Self, Problem> {
        let mut connection = api.database.of_all_projects().connection().await.map_err(failed)?;
        let (session, token) = match &self.session {
            None => {
                let token = tokens::by_id(&mut connection, self.token).await.map_err(failed)?;
                (None, token.ok_or_else(unknown)?)
            }
            Some(session) => {
                let (session, token) =
                    (sessions::find(&mut connection, &session.hash, api.now()).await?).ok_or_else(ended)?;
                (Some(session), token)
            }
        };
        Self::bearing(&token, session, api)
    }

    /// Whoever bears the request's token; the request is not counted, unless the token is no good.
    ///
    /// # Errors
    /// 401, 429
    pub(crate) async fn known(parts: &Parts, api: &Api) -> Result<Self, Problem> {
        Self::identify(parts, api).await.map(|(caller, _)| caller)
    }

    /// Has the request refused with this where it is handled, for who has found out that its token is no good: it is neither
    /// looked up nor counted again.
    pub(crate) fn refuse_ahead(parts: &mut Parts, problem: Problem) {
        parts.extensions.insert(Refused(problem));
    }

    /// Counts the request here rather than where it is handled, for who may answer it without its handler.
    ///
    /// # Errors
    /// 429
    pub(crate) fn count_ahead(&self, parts: &mut Parts, api: &Api) -> Result<(), Problem> {
        self.count(parts, api)?;
        parts.extensions.insert(Counted);
        Ok(())
    }

    fn count(&self, parts: &Parts, api: &Api) -> Result<(), Problem> {
        api.rate_limits
            .count(self.token, self.project.map(ProjectId::as_uuid), parts)
    }

    async fn identify(
        parts: &Parts,
        api: &Api,
    ) -> Result<(Self, impl DerefMut<Target = Connection> + Send + use<>), Problem> {
        match parts.extensions.get() {
            Some(Refused(problem)) => Err(problem.clone()),
            None => Self::look_up(Credential::of(parts)?, parts, api).await,
        }
    }

    async fn look_up(
        credential: Credential<'_>,
        parts: &Parts,
        api: &Api,
    ) -> Result<(Self, impl DerefMut<Target = Connection> + Send + use<>), Problem> {
        let proof = credential.proof();
        let mut connection = connection_for(&credential, &proof, parts, api).await?;
        let found = match credential {
            Credential::Token(_) => {
                let found = tokens::by_hash(&mut connection, &proof.hash).await.map_err(failed)?;
                found.map(|token| (None, token)).ok_or_else(unknown)
            }
            Credential::Session(_) => {
                let found = sessions::find(&mut connection, &proof.hash, api.now()).await?;
                let found = found.map(|(session, token)| (Some(session), token));
                found.ok_or_else(ended)
            }
        };
        let caller = found.and_then(|(session, token)| {
            let caller = Self::bearing(&token, session, api)?;
            api.uses.note(&token, api.clock.now());
            Ok(caller)
        });
        match &caller {
            Ok(_) => api.rate_limits.note_valid(parts, &proof),
            Err(_) => api.rate_limits.count_refused(parts, &proof),
        }
        Ok((caller?, connection))
    }

    fn bearing(token: &Token, session: Option<Session>, api: &Api) -> Result<Self, Problem> {
        let now = api.clock.now();
        if token.revoked_at.is_some() || token.expires_at.is_some_and(|expiry| expiry <= now) {
            return Err(unknown());
        }
        // A scope that a newer release has added allows nothing here.
        let scopes = token.scopes.iter().filter_map(|scope| scope.parse().ok()).collect();
        Ok(Self {
            token: token.id,
            project: token.project,
            scopes,
            session,
            entry: None,
        })
    }
}

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        Self::of(parts, api).await.map(|(caller, _)| caller)
    }
}

/// Left with a request that was counted before it came to its handler.
#[derive(Debug, Clone, Copy)]
struct Counted;

/// Left with a request of which it is known before it comes to its handler that its token is no good, and why.
#[derive(Debug, Clone)]
struct Refused(Problem);

/// Whether the request is for an answer without end, as a page has a browser ask for it (HTML Living Standard, 9.2.2).
fn is_watching(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT);
    accept.is_some_and(|accept| accept.as_bytes().starts_with(b"text/event-stream"))
}

/// What a request shows that it is somebody's.
#[derive(Clone, Copy)]
enum Credential<'a> {
    Token(&'a str),
    Session(Secret<'a>),
}

impl<'a> Credential<'a> {
    /// The request's token, or the session of its cookie where it has none.
    fn of(parts: &'a Parts) -> Result<Self, Problem> {
        let cookie = Secret::of(&parts.headers).filter(|_| !parts.headers.contains_key(header::AUTHORIZATION));
        match cookie {
            Some(secret) => sessions::may_ask(parts, secret).map(|()| Self::Session(secret)),
            None => bearer(&parts.headers).map(Self::Token),
        }
    }

    fn proof(self) -> Proof {
        match self {
            Self::Token(token) => Proof {
                hash: token::hash(token),
                is_random: token::looks_like_token(token),
            },
            Self::Session(secret) => secret.proof(),
        }
    }
}

/// A connection to look this up with, where that is worth while and its network has not guessed too often.
async fn connection_for(
    credential: &Credential<'_>,
    proof: &Proof,
    parts: &Parts,
    api: &Api,
) -> Result<impl DerefMut<Target = Connection> + Send + use<>, Problem> {
    api.rate_limits.may_try(parts, proof)?;
    if let Credential::Token(token) = credential
        && token::is_mistyped(token)
    {
        api.rate_limits.count_refused(parts, proof);
        return Err(unknown());
    }
    let connection = api.database.of_all_projects().connection().await.map_err(failed)?;
    // Others may have used up what there was while this one waited for its connection.
    api.rate_limits.may_try(parts, proof)?;
    Ok(connection)
}

fn ended() -> Problem {
    Problem::new(Code::Unauthenticated, "the session has ended; log in again")
}

fn unknown() -> Problem {
    Problem::new(
        Code::Unauthenticated,
        "the token is not known, has expired or was revoked",
    )
}

/// The administrator: a token that is good for every project, with the scope `admin`.
#[derive(Debug, Clone)]
pub struct Administrator(pub Caller);

impl FromRequestParts<Arc<Api>> for Administrator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let (mut caller, mut connection) = Caller::of(parts, api).await?;
        caller.require(Scope::Admin)?;
        if caller.project.is_some() {
            return Err(Problem::new(
                Code::MissingScope,
                "the scope `admin` for every project is needed; this token is good for one project only",
            ));
        }
        audit::begin(parts, api, &mut connection, &mut caller, None).await?;
        Ok(Self(caller))
    }
}

/// A scope as a type.
pub trait Needs: Send + Sync {
    /// The scope.
    const SCOPE: Scope;
}

/// `admin`
#[derive(Debug, Clone, Copy)]
pub struct Admin;
/// `configure`
#[derive(Debug, Clone, Copy)]
pub struct Configure;
/// `read`
#[derive(Debug, Clone, Copy)]
pub struct Read;

impl Needs for Admin {
    const SCOPE: Scope = Scope::Admin;
}

impl Needs for Configure {
    const SCOPE: Scope = Scope::Configure;
}

impl Needs for Read {
    const SCOPE: Scope = Scope::Read;
}

/// The one project that the caller's token is good for, where no path names it, with the scope `N`.
#[derive(Debug, Clone)]
pub struct OfToken<N>(pub InProject<N>);

impl<N: Needs> FromRequestParts<Arc<Api>> for OfToken<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let (mut caller, mut connection) = Caller::of(parts, api).await?;
        let Some(own) = caller.project else {
            return Err(Problem::new(
                Code::MissingScope,
                "the project is the token's here, and this token is good for every project: take one that was made for \
                 the project (POST /v1/projects/{project}/tokens)",
            ));
        };
        let project = projects::by_ids(&mut connection, &[own]).await.map_err(failed)?;
        let project = project
            .into_iter()
            .next()
            .ok_or_else(|| Problem::new(Code::NotFound, "the token's project is not there any more"))?;
        caller.require(N::SCOPE)?;
        audit::begin(parts, api, &mut connection, &mut caller, Some(project.id)).await?;
        Ok(Self(InProject {
            caller,
            project,
            scope: PhantomData,
        }))
    }
}

/// The project that the path's `{project}` names or identifies, which the caller may see, with the scope `N`.
#[derive(Debug, Clone)]
pub struct InProject<N> {
    /// Who calls.
    pub caller: Caller,
    /// The project.
    pub project: Project,
    scope: PhantomData<N>,
}

impl<N: Needs> FromRequestParts<Arc<Api>> for InProject<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let (mut caller, mut connection) = Caller::of(parts, api).await?;
        let absent = || Problem::new(Code::NotFound, "there is no such project, or the token is for another");
        let Path(mut path) = Path::<HashMap<String, String>>::from_request_parts(parts, api).await?;
        let named = path.remove("project").ok_or_else(absent)?;
        let project = match Uuid::parse_str(&named) {
            Ok(id) => {
                let found = projects::by_ids(&mut connection, &[ProjectId::from_uuid(id)]).await;
                found.map_err(failed)?.into_iter().next()
            }
            Err(_) => projects::by_name(&mut connection, &named).await.map_err(failed)?,
        };
        let project = project
            .filter(|project| caller.project.is_none_or(|own| own == project.id))
            .ok_or_else(absent)?;
        caller.require(N::SCOPE)?;
        audit::begin(parts, api, &mut connection, &mut caller, Some(project.id)).await?;
        Ok(Self {
            caller,
            project,
            scope: PhantomData,
        })
    }
}
