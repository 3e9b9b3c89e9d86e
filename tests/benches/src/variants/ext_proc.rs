//! The rule table behind `ext_proc`: one gRPC stream for each request, on which its head goes out and what becomes of it
//! comes back. Nothing else of the request or the answer is sent there.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::routing::post;
use http::Method;
use serde_json::json;
use tokio_stream::{Stream, StreamExt};
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::grpc::{self, HeaderValue, HeaderValueOption, HttpStatus};
use super::{Part, Workbench};
use crate::rules::Rules;

const CLUSTER: &str = "bench_ext_proc";
const CALL: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

/// `ProcessingRequest` (envoy/service/ext_proc/v3/external_processor.proto).
#[derive(Clone, PartialEq, prost::Message)]
struct ProcessingRequest {
    #[prost(message, optional, tag = "2")]
    request_headers: Option<HttpHeaders>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HttpHeaders {
    #[prost(message, optional, tag = "1")]
    headers: Option<HeaderMap>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HeaderMap {
    #[prost(message, repeated, tag = "1")]
    headers: Vec<HeaderValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProcessingResponse {
    #[prost(message, optional, tag = "1")]
    request_headers: Option<HeadersResponse>,
    #[prost(message, optional, tag = "7")]
    immediate: Option<ImmediateResponse>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HeadersResponse {
    #[prost(message, optional, tag = "1")]
    response: Option<CommonResponse>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CommonResponse {
    #[prost(message, optional, tag = "2")]
    header_mutation: Option<HeaderMutation>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HeaderMutation {
    #[prost(message, repeated, tag = "1")]
    set_headers: Vec<HeaderValueOption>,
    #[prost(string, repeated, tag = "2")]
    remove_headers: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImmediateResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<HttpStatus>,
    #[prost(string, tag = "3")]
    body: String,
}

/// The filter, and the service on the load core.
pub fn part(bench: &Workbench) -> Result<Part> {
    let service = Service(Arc::new(bench.rules.clone()));
    let call = async |request: axum::extract::Request| {
        Grpc::new(ProstCodec::default()).streaming(service, request).await.map(axum::body::Body::new)
    };
    let served = grpc::serve("ext_proc", Router::new().route(CALL, post(call)))?;
    let filter = json!({
        "name": "envoy.filters.http.ext_proc",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
            "grpc_service": grpc::service(CLUSTER),
            "message_timeout": "2s",
            "processing_mode": {"request_header_mode": "SEND", "response_header_mode": "SKIP"},
        },
    });
    Ok(grpc::part(bench, filter, CLUSTER, served))
}

#[derive(Clone)]
struct Service(Arc<Rules>);

type Answers = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;

impl StreamingService<ProcessingRequest> for Service {
    type Response = ProcessingResponse;
    type ResponseStream = Answers;
    type Future = Ready<Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Streaming<ProcessingRequest>>) -> Self::Future {
        let rules = self.0.clone();
        let answers = request.into_inner().map(move |asked| Ok(answer(&rules, &asked?)));
        ready(Ok(Response::new(Box::pin(answers))))
    }
}

fn answer(rules: &Rules, asked: &ProcessingRequest) -> ProcessingResponse {
    let headers = asked.request_headers.iter().flat_map(|head| &head.headers).flat_map(|map| &map.headers);
    let (mut method, mut authority, mut path, mut shown) = ("", "", "", None);
    for header in headers {
        // Text that is no UTF-8 matches no rule.
        let value = std::str::from_utf8(&header.raw_value).unwrap_or_default();
        match header.key.as_str() {
            ":method" => method = value,
            ":authority" => authority = value,
            ":path" => path = value,
            "authorization" => shown = Some(value),
            _ => {}
        }
    }
    let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
    match rules.decide(&method, authority, path, shown) {
        Ok(authorization) => {
            let set_headers = vec![HeaderValueOption::raw_authorization(authorization)];
            let header_mutation = Some(HeaderMutation { set_headers, remove_headers: grpc::removed() });
            let request_headers = Some(HeadersResponse { response: Some(CommonResponse { header_mutation }) });
            ProcessingResponse { request_headers, immediate: None }
        }
        Err(refusal) => ProcessingResponse {
            request_headers: None,
            immediate: Some(ImmediateResponse { status: grpc::status(&refusal), body: refusal.reason.to_owned() }),
        },
    }
}
