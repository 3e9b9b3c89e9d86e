//! The rule table behind `ext_authz`: one HTTP call per request to a service
//! that answers with the headers to set and to remove.

use anyhow::Result;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;

use super::{Claim, Part, Workbench};
use crate::counters::Meter;
use crate::envoy;
use crate::rules::{AUTH_HEADERS, Refusal, Rules};
use crate::upstream::serve;

const CLUSTER: &str = "bench_ext_authz";
/// Envoy removes the headers that this answer header lists.
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// The filter, and the service on the load core.
pub fn part(bench: &Workbench) -> Result<Part> {
    let rules = bench.rules.clone();
    let to_remove = HeaderValue::from_str(&AUTH_HEADERS.join(","))?;
    let (port, thread) = serve("ext_authz", move |request| answer(&rules, &to_remove, request))?;
    let filter = json!({
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "http_service": {
                "server_uri": {"uri": format!("http://127.0.0.1:{port}"), "cluster": CLUSTER, "timeout": "2s"},
                "authorization_response": {
                    "allowed_upstream_headers": {"patterns": [{"exact": "authorization"}]},
                },
            },
        },
    });
    Ok(Part {
        clusters: vec![envoy::cluster(CLUSTER, port)],
        service: Some(Meter::Thread(thread)),
        ..Part::filters(bench, vec![filter], Claim::decides_by(&bench.rules))
    })
}

/// Envoy sends the request's method, path, authority and Authorization.
fn answer(rules: &Rules, to_remove: &HeaderValue, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let text = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let authority = text(http::header::HOST).unwrap_or_default();
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let decision = rules.decide(request.method(), authority, path, text(AUTHORIZATION));
    let mut response = Response::new(Full::default());
    match decision.map(HeaderValue::from_str) {
        Ok(Ok(authorization)) => {
            response.headers_mut().insert(AUTHORIZATION, authorization);
            response.headers_mut().insert(TO_REMOVE, to_remove.clone());
        }
        Ok(Err(_)) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        Err(Refusal { status, reason }) => {
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
            *response.body_mut() = Full::from(reason);
        }
    }
    response
}
