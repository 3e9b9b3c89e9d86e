//! One request at a time, for proofs and for Envoy's admin. The load is wrk's.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(5);

/// A blocking HTTP/1.1 client.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    http: legacy::Client<HttpConnector, Full<Bytes>>,
}

impl Client {
    /// A client with a runtime of its own.
    pub fn new() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, http: legacy::Client::builder(TokioExecutor::new()).build_http() })
    }

    /// Sends a request, and reads the whole answer.
    pub fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, String)> {
        let exchange = async {
            let response = self.http.request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        self.runtime.block_on(async { timeout(LIMIT, exchange).await }).context("no answer in time")?
    }

    /// An admin page.
    pub fn admin(&self, port: u16, path: &str) -> Result<String> {
        let request = Request::get(format!("http://127.0.0.1:{port}{path}")).body(Full::default())?;
        Ok(self.send(request)?.1)
    }
}
