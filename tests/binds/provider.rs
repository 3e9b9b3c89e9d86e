//! A real OpenID provider as a process: `scripts/oidc-provider`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use attache_tests::{Agent, util};
use serde_json::{Value, json};

/// A running provider; killed when dropped.
pub struct Provider {
    child: Child,
    asks: ChildStdin,
    says: BufReader<ChildStdout>,
    pub issuer: String,
}

impl Provider {
    /// Starts one. `None`, with the reason on standard error, where Node or npm's packages cannot be had.
    pub fn start() -> Option<Self> {
        let mut command = Command::new(util::workspace_root().join("scripts/oidc-provider"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the script runs");
        let asks = child.stdin.take().expect("its input");
        let mut says = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        says.read_line(&mut line).expect("its first line");
        let Ok(first) = serde_json::from_str::<Value>(&line) else {
            let status = child.wait().expect("a child can be waited for");
            assert_eq!(status.code(), Some(77), "the provider did not start: {line}");
            attache_tests::util::skipped("no OpenID provider here: scripts/oidc-provider says what is missing");
            return None;
        };
        let issuer = first["issuer"].as_str().expect("an issuer").to_owned();
        Some(Self { child, asks, says, issuer })
    }

    fn ask(&mut self, line: &Value) -> Value {
        writeln!(self.asks, "{line}").expect("the provider listens");
        let mut answer = String::new();
        self.says.read_line(&mut answer).expect("the provider answers");
        serde_json::from_str(&answer).expect("JSON")
    }

    /// Other keys from now on.
    pub fn rotate(&mut self) {
        self.ask(&json!({"rotate": true}));
    }

    /// A token that it signs as told.
    pub fn sign(&mut self, header: Value, claims: &Value) -> String {
        let answer = self.ask(&json!({"header": header, "claims": claims}));
        answer["token"].as_str().expect("a token").to_owned()
    }

    /// A token as an agent gets it: by its client credentials.
    pub async fn token(&self) -> String {
        let address: SocketAddr = self.issuer.trim_start_matches("http://").parse().expect("an address");
        let form = "grant_type=client_credentials&client_id=agent-1&client_secret=a-client-secret";
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let host = address.to_string();
        let answer = Agent::new().request(address, "POST", &host, "/token", &headers, form.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["access_token"].as_str().expect("a token").to_owned()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // An error means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
