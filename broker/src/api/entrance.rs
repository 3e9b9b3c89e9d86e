//! What stands before every route of the filters' door: who asks, how long a body may be, how long it may take. One look
//! at each request, not a layer for each question: on the way to a grant, layers are most of what the broker's own code
//! costs.

use super::answer::ApiError;
use super::bodies::Bodies;
use super::data_plane::{Admission, DataPlane};
use crate::config::data_plane::Peer;
use crate::grants::Asker;
use crate::sessions::Sight;
use crate::witness;
use attache_core::Secret;
use attache_core::wire::{self, MOST_AUDIT_BYTES};
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::time::timeout;
use tower_service::Service;

/// Longest request for a grant or a way, in bytes.
const GRANT_BODY: usize = 64 * 1024;
/// Longest intent, in bytes: texts of 4 kB, each of their bytes escaped.
const INTENT_BODY: usize = 128 * 1024;
/// How long a body may take to arrive and be answered.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What an Envoy needs that serves some sessions alone. The rest is refused: certificates of an authority that all
/// agents trust, ways through a proxy, how the instance is.
const OF_SIDECARS: [&str; 7] = [
    wire::POLICY_PATH,
    wire::GRANTS_PATH,
    wire::INTENTS_PATH,
    wire::CHANGES_PATH,
    wire::AUDIT_PATH,
    witness::ACCESS_LOG_PATH,
    "/healthz",
];

/// Who is let in, and what of bodies is under way.
#[derive(Clone)]
pub struct Entrance {
    door: Arc<DataPlane>,
    bodies: Arc<Bodies>,
    routes: Router,
}

impl Entrance {
    /// Before these routes.
    pub(super) fn new(door: Arc<DataPlane>, routes: Router) -> Self {
        Self { door, bodies: Arc::default(), routes }
    }

    /// Who asks, if anybody whom we let in.
    fn asker(&self, request: &Request) -> Option<Asker> {
        match &self.door.admission {
            Admission::Token(token) => shows(request, token).then_some(Asker { sight: Sight::All, peer: None }),
            Admission::Certificate => request.extensions().get::<Arc<Peer>>().map(|peer| Asker::from(&**peer)),
        }
    }

    /// Lets a request on to its route.
    async fn enter(mut self, mut request: Request) -> Result<Response, Infallible> {
        let Some(asker) = self.asker(&request) else {
            // Strangers hold no connection.
            return Ok(([(header::CONNECTION, "close")], ApiError::Unauthorized).into_response());
        };
        let path = request.uri().path();
        if asker.sight.is_narrow() && !OF_SIDECARS.contains(&path) {
            return Ok(ApiError::NotForThisPeer.into_response());
        }
        let Some(longest) = longest(path) else {
            request.extensions_mut().insert(asker);
            return self.routes.call(request).await;
        };
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        request.extensions_mut().insert(asker.clone());
        DefaultBodyLimit::max(longest).apply(&mut request);
        let answered = async {
            // Within the time: nobody waits for room for ever.
            let _room = self.bodies.room(&asker, length).await;
            self.routes.call(request).await
        };
        timeout(BODY_TIME, answered).await.unwrap_or_else(|_| Ok(StatusCode::SERVICE_UNAVAILABLE.into_response()))
    }
}

/// How long a body may be that goes there, in bytes; `None`: none is read, or a stream is, which has its own bounds and
/// no end.
fn longest(path: &str) -> Option<usize> {
    match path {
        wire::GRANTS_PATH | wire::TUNNELS_PATH => Some(GRANT_BODY),
        wire::INTENTS_PATH => Some(INTENT_BODY),
        wire::AUDIT_PATH => Some(MOST_AUDIT_BYTES),
        witness::ACCESS_LOG_PATH | witness::grpc::PATH => Some(witness::MOST_BYTES),
        _ => None,
    }
}

/// Around the router, not on its routes: not even which methods a path takes shows without the token.
impl Service<Request<Incoming>> for Entrance {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        Box::pin(self.clone().enter(request.map(Body::new)))
    }
}

fn shows(request: &Request, token: &Secret) -> bool {
    let mut shown = request.headers().get_all(header::AUTHORIZATION).iter();
    let shown = match (shown.next(), shown.next()) {
        (Some(one), None) => one.as_bytes().strip_prefix(b"Bearer ").unwrap_or_default(),
        _ => &[],
    };
    // Exposed to the comparison, which takes as long for any token of this length.
    bool::from(shown.ct_eq(token.expose().as_bytes()))
}

impl From<&Peer> for Asker {
    fn from(peer: &Peer) -> Self {
        let sight = peer.sessions.clone().map_or(Sight::All, Sight::These);
        Self { sight, peer: Some(peer.id.clone()) }
    }
}
