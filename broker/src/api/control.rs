//! The operator's door: a UNIX socket that only its owner (and root) may use.
//!
//! Nothing here ever answers with a secret: operators see fingerprints, agents get placeholders.

use super::answer::{ApiError, Failure, json, json_with, parse};
use super::health::Readiness;
use super::view::{Changed, CreateSession, Reloaded, SessionView, SetAccessMode, Variable};
use super::withheld::Withheld;
use super::{Health, Metrics, authority, feed, health, rotation, run};
use crate::ca::Ca;
use crate::changes::Feed;
use crate::clock::Now;
use crate::config::values::DialAddress;
use crate::config::{AgentValue, Credential};
use crate::envoy::Shape;
use crate::leases::{Leases, Standing};
use crate::operator::{Done, Operator};
use crate::rotation::Rotations;
use crate::sessions::{NewSession, Session, SessionError, Sessions};
use crate::store::Store;
use attache_core::names::Name;
use attache_core::policy::AccessMode;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post, put};
use serde::Deserialize;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tower_http::timeout::RequestBodyTimeoutLayer;

/// Longest request, in bytes.
const BODY: usize = 64 * 1024;

/// How long a request's next bytes may take. Answers take what they take: some wait for workers.
const BODY_TIME: Duration = Duration::from_secs(10);

/// The variable that names a session without a credential.
pub const SESSION_TOKEN_ENV: &str = "ATTACHE_SESSION_TOKEN";

/// What the operator's door leads to.
pub struct Control {
    /// Acts on sessions.
    pub operator: Arc<Operator>,
    /// Reads them.
    pub sessions: Arc<Sessions>,
    /// How credentials stand.
    pub leases: Arc<Leases>,
    /// How their secrets are replaced.
    pub rotations: Arc<Rotations>,
    /// What has been.
    pub store: Arc<Store>,
    /// The certificate authority.
    pub ca: Arc<Ca>,
    /// Who follows.
    pub feed: Arc<Feed>,
    /// Whether all is well.
    pub health: Health,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What agents' environments need.
    pub credentials: Vec<Credential>,
    /// Where agents reach Envoy.
    pub proxy: SocketAddr,
    /// What listens there, where that is known.
    pub shape: Option<Shape>,
    /// What none of them needs.
    pub withheld: Withheld,
    /// Holds true when the broker ends.
    pub stopping: watch::Receiver<bool>,
}

pub(super) type Door = State<Arc<Control>>;
pub(super) type Body = Result<Bytes, BytesRejection>;
pub(super) type Answer = Result<Response, ApiError>;

impl Control {
    /// All routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/v1/sessions", get(list).post(create))
            .route("/v1/sessions/{name}", get(show))
            .route("/v1/sessions/{name}/env", get(env))
            .route("/v1/sessions/{name}/access-mode", put(set_access_mode))
            .route("/v1/sessions/{name}/revoke", post(revoke))
            .route("/v1/sessions/{name}/outfit", get(run::outfit))
            .route("/v1/sessions/{name}/hold", post(run::hold))
            .route("/v1/credentials", get(credentials))
            .route("/v1/credentials/{name}/reload", post(reload))
            .route("/v1/credentials/{name}/rotate", post(rotation::rotate))
            .route("/v1/credentials/{name}/test", post(test))
            .route("/v1/ca", get(authority::show))
            .route("/v1/ca/bundle", get(authority::trusted))
            .route("/v1/ca/rotate", post(authority::rotate))
            .route("/v1/workers", get(feed::workers))
            .route("/v1/changes", get(feed::changes))
            .route("/healthz", get(health::healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .fallback(async || ApiError::NotFound)
            .layer(DefaultBodyLimit::max(BODY))
            .layer(RequestBodyTimeoutLayer::new(BODY_TIME))
            .with_state(Arc::new(self))
    }

    pub(super) fn live(&self, name: &str) -> Result<Arc<Session>, ApiError> {
        Ok(self.sessions.live(&parse_name(name)?, Now::read())?)
    }

    /// The credentials that a session may use.
    pub(super) fn credentials_of(&self, session: &Session) -> impl Iterator<Item = &Credential> {
        self.credentials.iter().filter(|credential| session.credentials.contains(&credential.name))
    }

    /// What an agent of this session finds in its environment, where it finds the proxy there.
    fn environment(&self, session: &Session, proxy: &dyn Display) -> Result<Vec<Variable>, ApiError> {
        let mut variables = self.variables(session, proxy, |_| true)?;
        variables.push(Variable { name: SESSION_TOKEN_ENV.into(), value: self.sessions.token(session) });
        Ok(variables)
    }

    /// What its credentials put there, each name once.
    pub(super) fn variables(
        &self,
        session: &Session,
        proxy: &dyn Display,
        wanted: impl Fn(&AgentValue) -> bool,
    ) -> Result<Vec<Variable>, ApiError> {
        let mut variables = Vec::new();
        for credential in self.credentials_of(session) {
            for variable in credential.agent_env.iter().filter(|variable| wanted(&variable.value)) {
                let value = match &variable.value {
                    AgentValue::Placeholder => self.sessions.placeholder(session, &credential.name),
                    AgentValue::GatewayUrl { host: Some(host), suffix, .. } => Some(format!("http://{host}{suffix}")),
                    AgentValue::GatewayUrl { host: None, route_prefix, suffix } => {
                        Some(format!("http://{proxy}{route_prefix}{suffix}"))
                    }
                    AgentValue::Field(field) => {
                        let unknown = |why| ApiError::NoPublicField(credential.name.clone(), why);
                        Some(self.leases.public(&credential.name, field).map_err(unknown)?)
                    }
                };
                // Credentials of one host may share its URL.
                let known = variables.iter().any(|known: &Variable| known.name == variable.name);
                variables.extend(value.filter(|_| !known).map(|value| Variable { name: variable.name.clone(), value }));
            }
        }
        Ok(variables)
    }
}

/// All sessions that are known, those that are over included.
#[utoipa::path(get, path = "/v1/sessions", responses((status = 200, body = Vec<SessionView>)))]
pub(super) async fn list(State(door): Door) -> Response {
    let now = Now::read();
    let views: Vec<_> = door.sessions.all().iter().map(|session| SessionView::of(session, now)).collect();
    json(&views)
}

/// Makes a session.
#[utoipa::path(post, path = "/v1/sessions", request_body = CreateSession, responses(
    (status = 201, body = SessionView), (status = 400, body = Failure), (status = 409, body = Failure),
    (status = 413, body = Failure), (status = 503, body = Failure),
))]
pub(super) async fn create(State(door): Door, body: Body) -> Answer {
    let CreateSession { name, credentials, access_mode, ttl_ms, bind, scopes } = parse(&body?)?;
    let new = NewSession { name, credentials, access_mode, ttl: ttl_ms.map(Duration::from_millis), bind, scopes };
    let session = whole(async move { door.operator.create(new).await }).await??;
    Ok(json_with(StatusCode::CREATED, &SessionView::of(&session, Now::read())))
}

/// A session that is alive.
#[utoipa::path(get, path = "/v1/sessions/{name}", params(("name" = Name, Path)), responses(
    (status = 200, body = SessionView), (status = 400, body = Failure), (status = 404, body = Failure),
))]
pub(super) async fn show(State(door): Door, Path(name): Path<String>) -> Answer {
    Ok(json(&SessionView::of(&*door.live(&name)?, Now::read())))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct EnvQuery {
    /// Where the agent finds the proxy, `HOST:PORT`, as a config writes it; without it, where the config lets Envoy
    /// listen. The pattern has the usual ones.
    #[param(
        value_type = Option<String>,
        pattern = "^([a-z]([a-z0-9-]{0,30}[a-z0-9])?(\\.[a-z]([a-z0-9-]{0,30}[a-z0-9])?){0,3}|((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])|\\[::1\\]):([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$"
    )]
    proxy: Option<DialAddress>,
}

/// What an agent of a session needs in its environment: placeholders, its token, base URLs.
#[utoipa::path(get, path = "/v1/sessions/{name}/env", params(("name" = Name, Path), EnvQuery), responses(
    (status = 200, body = Vec<Variable>), (status = 400, body = Failure), (status = 404, body = Failure),
    (status = 503, body = Failure),
))]
pub(super) async fn env(
    State(door): Door,
    Path(name): Path<String>,
    query: Result<Query<EnvQuery>, QueryRejection>,
) -> Answer {
    let Query(EnvQuery { proxy }) = query?;
    let session = door.live(&name)?;
    door.sessions.note_given(&session, Now::read()).await.map_err(SessionError::Store)?;
    let variables = match &proxy {
        Some(DialAddress(proxy)) => door.environment(&session, proxy)?,
        None => door.environment(&session, &door.proxy)?,
    };
    Ok(json(&variables))
}

/// Sets what a session may do; for a time with `for_ms`.
#[utoipa::path(put, path = "/v1/sessions/{name}/access-mode", params(("name" = Name, Path)),
    request_body = SetAccessMode, responses(
    (status = 200, body = Changed), (status = 400, body = Failure), (status = 404, body = Failure),
    (status = 409, body = Failure), (status = 413, body = Failure), (status = 503, body = Failure),
))]
pub(super) async fn set_access_mode(State(door): Door, Path(name): Path<String>, body: Body) -> Answer {
    let SetAccessMode { access_mode, for_ms } = parse(&body?)?;
    let name = parse_name(&name)?;
    let length = match (access_mode, for_ms.map(Duration::from_millis)) {
        (AccessMode::ReadOnly, Some(_)) => return Err(ApiError::Field("for_ms beside read-only")),
        (_, length) => length,
    };
    let done = whole(async move {
        match length {
            None => door.operator.set_access_mode(&name, access_mode).await,
            Some(length) => door.operator.elevate(&name, length).await,
        }
    });
    Ok(changed(done.await??))
}

/// Ends a session, and answers when every live worker has applied that.
#[utoipa::path(post, path = "/v1/sessions/{name}/revoke", params(("name" = Name, Path)), responses(
    (status = 200, body = Changed), (status = 400, body = Failure), (status = 404, body = Failure),
    (status = 409, body = Failure),
))]
pub(super) async fn revoke(State(door): Door, Path(name): Path<String>) -> Answer {
    let name = parse_name(&name)?;
    Ok(changed(whole(async move { door.operator.revoke(&name).await }).await??))
}

/// Does an operator's work to its end, whether or not somebody waits for the answer: a change that
/// is in force and neither stored nor on record helps nobody.
pub(super) async fn whole<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, ApiError> {
    tokio::spawn(work).await.map_err(|_| ApiError::Failed)
}

/// How all credentials stand.
#[utoipa::path(get, path = "/v1/credentials", responses((status = 200, body = Vec<Standing>)))]
pub(super) async fn credentials(State(door): Door) -> Response {
    let mut standings = door.leases.standings();
    door.rotations.mark(&mut standings);
    json(&standings)
}

/// What each thing is like that a grant depends on.
#[utoipa::path(get, path = "/readyz", responses((status = 200, body = Readiness), (status = 503, body = Readiness)))]
pub(super) async fn readyz(State(door): Door) -> Response {
    door.health.readyz().await
}

/// What is counted, as OpenMetrics text.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, body = String, content_type = "application/openmetrics-text"),
))]
pub(super) async fn metrics(State(door): Door) -> Answer {
    door.metrics.page()
}

/// Looks at a credential's source once more, and makes all grants that draw on it void.
#[utoipa::path(post, path = "/v1/credentials/{name}/reload", params(("name" = Name, Path)), responses(
    (status = 200, body = Reloaded), (status = 400, body = Failure), (status = 404, body = Failure),
))]
pub(super) async fn reload(State(door): Door, Path(name): Path<String>) -> Answer {
    let name = Name::parse(&name).map_err(|_| ApiError::Field("the credential's name"))?;
    let done = door.operator.reload(&name).await;
    let (credential, applied) = done.ok_or(ApiError::NoSuchCredential(name))?;
    Ok(json(&Reloaded { credential, applied }))
}

/// Asks a credential's source now, and says how it stands.
#[utoipa::path(post, path = "/v1/credentials/{name}/test", params(("name" = Name, Path)), responses(
    (status = 200, body = Standing), (status = 400, body = Failure), (status = 404, body = Failure),
))]
pub(super) async fn test(State(door): Door, Path(name): Path<String>) -> Answer {
    let name = Name::parse(&name).map_err(|_| ApiError::Field("the credential's name"))?;
    Ok(json(&door.leases.test(&name).await.ok_or(ApiError::NoSuchCredential(name))?))
}

fn changed(done: Done) -> Response {
    let session = SessionView::of(&done.session, Now::read());
    json(&Changed { session, applied: done.applied, recorded: done.recorded })
}

pub(super) fn parse_name(name: &str) -> Result<Name, ApiError> {
    Name::parse(name).map_err(|_| ApiError::Field("the session's name"))
}
