//! The operator's door: a UNIX socket that only its owner (and root) may use.
//!
//! Nothing here ever answers with a secret: operators see fingerprints, agents get placeholders.

use super::Health;
use super::answer::{ApiError, json, json_with, parse};
use super::view::{Changed, CreateSession, SessionView, SetAccessMode, Variable};
use crate::clock::Now;
use crate::config::{AgentValue, Credential};
use crate::leases::Leases;
use crate::operator::{Done, Operator};
use crate::sessions::{NewSession, Session, Sessions};
use attache_core::names::Name;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post, put};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Longest request, in bytes.
const BODY: usize = 64 * 1024;

/// The variable that names a session without a credential.
pub const SESSION_TOKEN_ENV: &str = "ATTACHE_SESSION_TOKEN";

/// What the operator's door leads to.
pub struct Control {
    /// Acts on sessions.
    pub operator: Operator,
    /// Reads them.
    pub sessions: Arc<Sessions>,
    /// How credentials stand.
    pub leases: Arc<Leases>,
    /// Whether all is well.
    pub health: Health,
    /// What agents' environments need.
    pub credentials: Vec<Credential>,
    /// Where agents reach Envoy.
    pub proxy: SocketAddr,
}

type Door = State<Arc<Control>>;
type Body = Result<Bytes, BytesRejection>;
type Answer = Result<Response, ApiError>;

impl Control {
    /// All routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/v1/sessions", get(list).post(create))
            .route("/v1/sessions/{name}", get(show))
            .route("/v1/sessions/{name}/env", get(env))
            .route("/v1/sessions/{name}/access-mode", put(set_access_mode))
            .route("/v1/sessions/{name}/revoke", post(revoke))
            .route("/v1/credentials", get(async |State(door): Door| json(&door.leases.standings())))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(async |State(door): Door| door.health.readyz()))
            .fallback(async || ApiError::NotFound)
            .layer(DefaultBodyLimit::max(BODY))
            .with_state(Arc::new(self))
    }

    fn live(&self, name: &str) -> Result<Arc<Session>, ApiError> {
        Ok(self.sessions.live(&parse_name(name)?, Now::read())?)
    }

    /// What an agent of this session finds in its environment.
    fn environment(&self, session: &Session) -> Vec<Variable> {
        let mut variables = Vec::new();
        for credential in self.credentials.iter().filter(|c| session.credentials.contains(&c.name)) {
            for variable in &credential.agent_env {
                let value = match &variable.value {
                    AgentValue::Placeholder => self.sessions.placeholder(session, &credential.name),
                    AgentValue::GatewayUrl { route_prefix, suffix } => {
                        Some(format!("http://{}{route_prefix}{suffix}", self.proxy))
                    }
                };
                variables.extend(value.map(|value| Variable { name: variable.name.clone(), value }));
            }
        }
        variables.push(Variable { name: SESSION_TOKEN_ENV.into(), value: self.sessions.token(session) });
        variables
    }
}

async fn list(State(door): Door) -> Response {
    let now = Now::read();
    let views: Vec<_> = door.sessions.all().iter().map(|session| SessionView::of(session, now)).collect();
    json(&views)
}

async fn create(State(door): Door, body: Body) -> Answer {
    let CreateSession { name, credentials, access_mode, ttl_ms, bind } = parse(&body?)?;
    let new = NewSession { name, credentials, access_mode, ttl: ttl_ms.map(Duration::from_millis), bind };
    let session = door.operator.create(new).await?;
    Ok(json_with(StatusCode::CREATED, &SessionView::of(&session, Now::read())))
}

async fn show(State(door): Door, Path(name): Path<String>) -> Answer {
    Ok(json(&SessionView::of(&*door.live(&name)?, Now::read())))
}

async fn env(State(door): Door, Path(name): Path<String>) -> Answer {
    Ok(json(&door.environment(&*door.live(&name)?)))
}

async fn set_access_mode(State(door): Door, Path(name): Path<String>, body: Body) -> Answer {
    let SetAccessMode { access_mode } = parse(&body?)?;
    Ok(changed(door.operator.set_access_mode(&parse_name(&name)?, access_mode).await?))
}

async fn revoke(State(door): Door, Path(name): Path<String>) -> Answer {
    Ok(changed(door.operator.revoke(&parse_name(&name)?).await?))
}

fn changed(done: Done) -> Response {
    let session = SessionView::of(&done.session, Now::read());
    json(&Changed { session, applied: done.applied, recorded: done.recorded })
}

fn parse_name(name: &str) -> Result<Name, ApiError> {
    Name::parse(name).map_err(|_| ApiError::Field("the session's name"))
}
