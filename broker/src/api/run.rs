//! What `attache run` asks for: a child's outfit, and a session that lives as long as the child.

use super::answer::Failure;
use super::answer::json;
use super::control::{Answer, Control, Door, parse_name, whole};
use super::view::{Login, Outfit};
use crate::clock::Now;
use crate::config::AgentValue;
use crate::operator::Release;
use crate::sessions::{Session, SessionError};
use attache_core::injection::Injection;
use attache_core::names::Name;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// What a child of `attache run` needs, and what is kept from it.
#[utoipa::path(get, path = "/v1/sessions/{name}/outfit", params(("name" = Name, Path)), responses(
    (status = 200, body = Outfit), (status = 400, body = Failure), (status = 404, body = Failure),
    (status = 503, body = Failure),
))]
pub(super) async fn outfit(State(door): Door, Path(name): Path<String>) -> Answer {
    let session = door.live(&name)?;
    door.sessions.note_given(&session, Now::read()).await.map_err(SessionError::Store)?;
    Ok(json(&Outfit {
        proxy: door.proxy,
        shape: door.shape,
        session_token: door.sessions.token(&session),
        // Base URLs are the gateway's: who has a proxy calls hosts by their names.
        placeholders: door.variables(&session, &door.proxy, |value| !matches!(value, AgentValue::GatewayUrl { .. }))?,
        logins: logins(&door, &session),
        hidden_directories: door.withheld.directories(),
        hidden_variables: door.withheld.variables.clone(),
    }))
}

/// Keeps a session alive for as long as this connection is open, then ends it. The answer begins at once;
/// its body is empty, and ends when the session does.
#[utoipa::path(post, path = "/v1/sessions/{name}/hold", params(("name" = Name, Path)), responses(
    (status = 200), (status = 400, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure),
    (status = 503, body = Failure),
))]
pub(super) async fn hold(State(door): Door, Path(name): Path<String>) -> Answer {
    let name = parse_name(&name)?;
    let operator = door.operator.clone();
    let session = whole(async move { operator.hold(&name).await }).await??;
    let (held, open) = mpsc::channel(1);
    let (operator, mut stopping) = (door.operator.clone(), door.stopping.clone());
    tokio::spawn(async move {
        let released = async {
            tokio::select! {
                biased;
                // Without the broker nobody says any more that it goes on.
                _ = stopping.wait_for(|stopping| *stopping) => Release::BrokerEnds,
                () = held.closed() => Release::Gone,
            }
        };
        operator.keep(&session, released).await;
    });
    Ok(Response::new(Body::new(Open(open))))
}

/// A body without a byte, for as long as somebody has the other end.
struct Open(mpsc::Receiver<Infallible>);

impl HttpBody for Open {
    type Data = axum::body::Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Infallible>>> {
        self.0.poll_recv(context).map(|never| match never {
            None => None,
            Some(never) => match never {},
        })
    }
}

fn logins(door: &Control, session: &Session) -> Vec<Login> {
    let mut logins: Vec<Login> = Vec::new();
    for credential in door.credentials_of(session) {
        let mut names = credential.agent_env.iter().filter(|variable| variable.value == AgentValue::Placeholder);
        let Some(variable) = names.next() else { continue };
        for destination in credential.destinations.iter().filter(|destination| destination.basic_challenge) {
            let Injection::Basic { username } = &destination.injection else { continue };
            let (scheme, own_port) = if destination.plaintext { ("http", 80) } else { ("https", 443) };
            let port = if destination.port == own_port { String::new() } else { format!(":{}", destination.port) };
            let origin = format!("{scheme}://{}{port}", destination.host);
            if !logins.iter().any(|known| known.origin == origin) {
                logins.push(Login { origin, username: username.clone(), variable: variable.name.clone() });
            }
        }
    }
    logins
}
