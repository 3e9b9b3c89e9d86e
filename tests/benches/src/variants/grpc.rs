//! What the two services share that Envoy asks by gRPC: serving, and the messages that both calls are made of, as far as
//! they matter here.

use std::net::Ipv4Addr;
use std::thread;

use anyhow::{Context, Result};
use axum::Router;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime;

use super::{Claim, Part, Workbench};
use crate::counters::Meter;
use crate::envoy;
use crate::rules::{AUTH_HEADERS, Refusal};

/// `HeaderValue` (envoy/config/core/v3/base.proto).
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValue {
    /// Lower case.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Text; where it is, there is no `raw_value`.
    #[prost(string, tag = "2")]
    pub value: String,
    /// Bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub raw_value: bytes::Bytes,
}

/// `HeaderValueOption`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValueOption {
    /// The header.
    #[prost(message, optional, tag = "1")]
    pub header: Option<HeaderValue>,
    /// Of `HeaderAppendAction`: 2 overwrites, or adds.
    #[prost(int32, tag = "3")]
    pub append_action: i32,
}

/// `HttpStatus` (envoy/type/v3/http_status.proto).
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct HttpStatus {
    /// The status.
    #[prost(int32, tag = "1")]
    pub code: i32,
}

/// `OVERWRITE_IF_EXISTS_OR_ADD`.
const OVERWRITE: i32 = 2;

impl HeaderValueOption {
    /// Sets Authorization to a text, which is where `ext_authz` looks for it.
    pub fn authorization(value: &str) -> Self {
        Self::set(HeaderValue { value: value.to_owned(), ..HeaderValue::default() })
    }

    /// Sets it to bytes, which is where `ext_proc` looks for it.
    pub fn raw_authorization(value: &str) -> Self {
        let raw_value = bytes::Bytes::copy_from_slice(value.as_bytes());
        Self::set(HeaderValue { raw_value, ..HeaderValue::default() })
    }

    fn set(value: HeaderValue) -> Self {
        let header = HeaderValue { key: "authorization".to_owned(), ..value };
        Self { header: Some(header), append_action: OVERWRITE }
    }
}

/// The headers that go.
pub fn removed() -> Vec<String> {
    AUTH_HEADERS.iter().map(|name| (*name).to_owned()).collect()
}

/// The status of a refusal.
pub fn status(refusal: &Refusal) -> Option<HttpStatus> {
    Some(HttpStatus { code: i32::from(refusal.status) })
}

/// A cluster of one address that is spoken to over HTTP/2.
fn cluster(name: &str, port: u16) -> Value {
    let mut cluster = envoy::cluster(name, port);
    cluster["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        },
    });
    cluster
}

/// A part that is this filter before the router, and the service behind it: its port, and its thread.
pub fn part(bench: &Workbench, filter: Value, cluster: &str, (port, thread): (u16, i32)) -> Part {
    Part {
        clusters: vec![self::cluster(cluster, port)],
        service: Some(Meter::Thread(thread)),
        ..Part::filters(bench, vec![filter], Claim::decides_by(&bench.rules))
    }
}

/// What asks it.
pub fn service(cluster: &str) -> Value {
    json!({"envoy_grpc": {"cluster_name": cluster}, "timeout": "2s"})
}

/// Serves on a new thread with a runtime of its own. Answers with the port and the thread's id.
pub fn serve(name: &str, router: Router) -> Result<(u16, i32)> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let (announce, thread_id) = std::sync::mpsc::channel();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _ = announce.send(nix::unistd::gettid().as_raw());
        runtime.block_on(accept(listener, router))
    })?;
    Ok((port, thread_id.recv().context("the server thread ended at once")?))
}

async fn accept(listener: std::net::TcpListener, router: Router) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            // A connection that Envoy ends is no event for the benchmark.
            let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
