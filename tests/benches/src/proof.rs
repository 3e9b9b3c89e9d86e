//! Before a variant is measured, it shows that it does what its name says.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Result, ensure};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST as HOST_HEADER};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Full;

use crate::client::Client;
use crate::rules::PROOF_PATH;
use crate::upstream::Upstream;
use crate::variants::Claim;

/// A second credential that the agent tries to bring along.
const SECOND_CREDENTIAL: (&str, &str) = ("x-api-key", "the agent's own");

/// An audit may be batched.
const AUDIT_LIMIT: Duration = Duration::from_secs(5);

/// One variant's listener under proof.
#[derive(Clone, Copy, Debug)]
pub struct Prover<'a> {
    /// Sends the requests.
    pub client: &'a Client,
    /// Remembers what arrived.
    pub upstream: &'a Upstream,
    /// The variant's port.
    pub port: u16,
    /// Whom the requests are for.
    pub host: &'a str,
    /// What stands before the path: nothing, or a prefix of the gateway.
    pub prefix: &'a str,
}

impl Prover<'_> {
    /// Fails unless the claim holds on the wire.
    pub fn prove(&self, claim: &Claim, placeholder: &str) -> Result<()> {
        let own = format!("Bearer {placeholder}");
        match claim {
            Claim::Untouched => self.arrives(&own, &own).map(drop),
            Claim::Injects { authorization } => self.arrives(&own, authorization).map(drop),
            Claim::Decides { authorization, read_only } => {
                let received = self.arrives(&own, authorization)?;
                let second = received.get(SECOND_CREDENTIAL.0);
                ensure!(second.is_none(), "a second credential reached the upstream");
                self.arrives(&format!("Bearer {read_only}"), authorization)?;
                self.refused(Method::GET, "Bearer ghp_ATTACHEunknown", "", StatusCode::UNAUTHORIZED)?;
                self.refused(Method::POST, &format!("Bearer {read_only}"), "", StatusCode::FORBIDDEN)
            }
        }
    }

    /// Fails unless a request of the proof appears in the audit log in time.
    pub fn prove_audit(&self, log: &Path) -> Result<()> {
        let deadline = Instant::now() + AUDIT_LIMIT;
        while !fs::read_to_string(log).unwrap_or_default().contains(PROOF_PATH) {
            ensure!(Instant::now() < deadline, "no request appears in {}", log.display());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// A read must be answered 200, with `expected` at the upstream.
    fn arrives(&self, sent: &str, expected: &str) -> Result<HeaderMap> {
        self.sent(Method::GET, sent, "", expected)
    }

    /// A POST of JSON must be answered 200, with `expected` at the upstream.
    pub fn posted(&self, sent: &str, json: &str, expected: &str) -> Result<()> {
        self.sent(Method::POST, sent, json, expected).map(drop)
    }

    /// A POST of JSON must be refused because the session only reads.
    pub fn not_posted(&self, sent: &str, json: &str) -> Result<()> {
        self.refused(Method::POST, sent, json, StatusCode::FORBIDDEN)
    }

    fn sent(&self, method: Method, sent: &str, json: &str, expected: &str) -> Result<HeaderMap> {
        let (status, body) = self.send(method.clone(), sent, json)?;
        ensure!(status == StatusCode::OK, "a {method} is answered {status}: {body}");
        let received = self.upstream.take_received().unwrap_or_default();
        let values: Vec<_> = received.get_all(AUTHORIZATION).iter().collect();
        ensure!(values == [expected], "not the one expected Authorization reached the upstream");
        Ok(received)
    }

    /// Must be answered `expected`, and not reach the upstream.
    fn refused(&self, method: Method, sent: &str, json: &str, expected: StatusCode) -> Result<()> {
        let (status, body) = self.send(method.clone(), sent, json)?;
        ensure!(status == expected, "{method} is answered {status}, not {expected}: {body}");
        ensure!(self.upstream.take_received().is_none(), "a refused {method} reached the upstream");
        Ok(())
    }

    fn send(&self, method: Method, authorization: &str, json: &str) -> Result<(StatusCode, String)> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://127.0.0.1:{}{}{PROOF_PATH}", self.port, self.prefix))
            .header(HOST_HEADER, self.host)
            .header(AUTHORIZATION, authorization)
            .header(SECOND_CREDENTIAL.0, SECOND_CREDENTIAL.1);
        if !json.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        self.client.send(request.body(Full::from(json.to_owned()))?)
    }
}
