//! The rule table behind `ext_authz` by gRPC: one call of one answer for each request.

use std::collections::HashMap;
use std::future::{Ready, ready};
use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::routing::post;
use http::Method;
use serde_json::json;
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::grpc::{self, HeaderValueOption, HttpStatus};
use super::{Part, Workbench};
use crate::rules::Rules;

const CLUSTER: &str = "bench_ext_authz_grpc";
const CALL: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Of `google.rpc.Code`.
const PERMISSION_DENIED: i32 = 7;

/// `CheckRequest` (envoy/service/auth/v3/external_auth.proto).
#[derive(Clone, PartialEq, prost::Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<AttributeContext>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AttributeContext {
    #[prost(message, optional, tag = "4")]
    request: Option<AttributesOfRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AttributesOfRequest {
    #[prost(message, optional, tag = "2")]
    http: Option<HttpRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HttpRequest {
    #[prost(string, tag = "2")]
    method: String,
    #[prost(map = "string, string", tag = "3")]
    headers: HashMap<String, String>,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<RpcStatus>,
    #[prost(message, optional, tag = "2")]
    denied: Option<Denied>,
    #[prost(message, optional, tag = "3")]
    ok: Option<Allowed>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Denied {
    #[prost(message, optional, tag = "1")]
    status: Option<HttpStatus>,
    #[prost(string, tag = "3")]
    body: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Allowed {
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderValueOption>,
    #[prost(string, repeated, tag = "5")]
    headers_to_remove: Vec<String>,
}

/// The filter, and the service on the load core.
pub fn part(bench: &Workbench) -> Result<Part> {
    let service = Service(Arc::new(bench.rules.clone()));
    let call = async |request: axum::extract::Request| {
        Grpc::new(ProstCodec::default()).unary(service, request).await.map(axum::body::Body::new)
    };
    let served = grpc::serve("ext_authz_grpc", Router::new().route(CALL, post(call)))?;
    let filter = json!({
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "grpc_service": grpc::service(CLUSTER),
        },
    });
    Ok(grpc::part(bench, filter, CLUSTER, served))
}

#[derive(Clone)]
struct Service(Arc<Rules>);

impl UnaryService<CheckRequest> for Service {
    type Response = CheckResponse;
    type Future = Ready<Result<Response<CheckResponse>, Status>>;

    fn call(&mut self, request: Request<CheckRequest>) -> Self::Future {
        let http = request.into_inner().attributes.and_then(|attributes| attributes.request?.http).unwrap_or_default();
        ready(Ok(Response::new(answer(&self.0, &http))))
    }
}

fn answer(rules: &Rules, http: &HttpRequest) -> CheckResponse {
    let method = Method::from_bytes(http.method.as_bytes()).unwrap_or_default();
    let shown = http.headers.get("authorization").map(String::as_str);
    match rules.decide(&method, &http.host, &http.path, shown) {
        Ok(authorization) => CheckResponse {
            status: Some(RpcStatus { code: 0 }),
            denied: None,
            ok: Some(Allowed {
                headers: vec![HeaderValueOption::authorization(authorization)],
                headers_to_remove: grpc::removed(),
            }),
        },
        Err(refusal) => CheckResponse {
            status: Some(RpcStatus { code: PERMISSION_DENIED }),
            denied: Some(Denied { status: grpc::status(&refusal), body: refusal.reason.to_owned() }),
            ok: None,
        },
    }
}
