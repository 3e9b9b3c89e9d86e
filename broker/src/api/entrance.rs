//! What stands before every route of the filters' door: who asks, how long a body may be, how long it may take. One look
//! at each request, not a layer for each question: a layer costs a box for the request and one for what becomes of it, on
//! the way to every grant.

use super::answer::ApiError;
use super::bodies::Bodies;
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

/// What a request for a grant or a way has at most, in bytes.
const GRANT_BODY: usize = 64 * 1024;
/// What an intent has: texts of 4 kB, each of their bytes escaped.
const INTENT_BODY: usize = 128 * 1024;
/// How long a body may be, in bytes, where one is read. Certificates are asked for by a stream, which has bounds of its own
/// and no end.
const BODIES: [(&str, usize); 6] = [
    (wire::GRANTS_PATH, GRANT_BODY),
    (wire::TUNNELS_PATH, GRANT_BODY),
    (wire::INTENTS_PATH, INTENT_BODY),
    (wire::AUDIT_PATH, MOST_AUDIT_BYTES),
    (witness::ACCESS_LOG_PATH, witness::MOST_BYTES),
    (witness::grpc::PATH, witness::MOST_BYTES),
];
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

/// How it is known who asks.
pub enum Admission {
    /// By what every call must show.
    Token(Secret),
    /// By the certificate of the connection, which was verified before anything was read.
    Certificate,
}

/// Who is let in, and what of bodies is under way.
#[derive(Clone)]
pub struct Entrance {
    admission: Arc<Admission>,
    bodies: Arc<Bodies>,
    routes: Router,
}

impl Entrance {
    /// Before these routes.
    pub(super) fn new(admission: Admission, routes: Router) -> Self {
        Self { admission: Arc::new(admission), bodies: Arc::default(), routes }
    }

    /// Who asks, if anybody whom we let in.
    fn asker(&self, request: &Request) -> Option<Asker> {
        match &*self.admission {
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

/// How long a body may be that goes there; `None`: none is read.
fn longest(path: &str) -> Option<usize> {
    BODIES.iter().find(|(of, _)| *of == path).map(|(_, longest)| *longest)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{bodies, openapi};

    /// A route that is missing in the table would have no bound on its time and its share.
    #[test]
    fn every_route_that_reads_a_body_says_how_long_it_may_be() {
        let document = serde_json::to_value(openapi::Door::DataPlane.document()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let reads_one =
            |path: &&String| paths[*path].as_object().unwrap().values().any(|how| how["requestBody"].is_object());
        let mut reading: Vec<_> = paths.keys().filter(reads_one).map(String::as_str).collect();
        // What tonic reads is no part of the document.
        reading.push(witness::grpc::PATH);
        reading.sort();
        let mut said: Vec<_> = BODIES.iter().map(|(path, _)| *path).collect();
        said.sort();
        assert_eq!(reading, said);
        assert!(BODIES.iter().all(|(_, longest)| *longest <= bodies::LONGEST));
    }
}
