//! The main job, step by step.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attache_tests::{Agent, Recorded, Response};
use serde_json::Value;

use crate::screen::{Failed, Screen};
use crate::stage::{Ready, Stage};

/// How long what is under way may take to arrive.
const SOON: Duration = Duration::from_secs(10);
/// Records of uses travel every 100 ms.
const RECORDED: Duration = Duration::from_secs(5);

/// One request of the agent.
struct Call {
    method: &'static str,
    /// A base URL on the gateway.
    base: String,
    path: &'static str,
    placeholder: String,
    body: &'static str,
}

/// The parts of the story that all steps share.
struct Teller {
    stage: Arc<Stage>,
    screen: Arc<Screen>,
    agent: Agent,
}

/// Tells the whole story; ends at the first promise that is not kept.
pub async fn tell(stage: Arc<Stage>, screen: Arc<Screen>) -> Result<(), Failed> {
    screen.step("A local server plays GitHub and OpenAI");
    screen.shows("listens at", format_args!("https://{} (records every byte it is sent)", stage.upstream.addr()));

    let agent = stage.oracle.agent();
    let teller = Teller { stage, screen, agent };
    let ready = teller.starts().await?;
    let (github, openai) = (teller.fingerprint("github").await?, teller.fingerprint("openai").await?);

    let read = Call::to_github(&ready, "GET", "/user", "")?;
    teller.screen.step("The agent reads from GitHub; its token is a placeholder");
    teller.is_injected(&read, 200, &github).await?;

    let question = Call {
        method: "POST",
        base: ready.exported("OPENAI_BASE_URL")?,
        path: "/chat/completions",
        placeholder: ready.exported("OPENAI_API_KEY")?,
        body: r#"{"model":"gpt-5","messages":[{"role":"user","content":"Hello"}]}"#,
    };
    teller.screen.step("It asks OpenAI, whose key came from the broker's environment");
    teller.is_injected(&question, 200, &openai).await?;

    let astray = Call { placeholder: ready.exported("GITHUB_TOKEN")?, ..question };
    teller.screen.step("GitHub's placeholder is worth nothing at OpenAI");
    teller.is_refused(&astray, 403, "placeholder_misplaced").await?;

    let write = Call::to_github(&ready, "POST", "/repos/attache/demo/issues", r#"{"title":"It works"}"#)?;
    teller.screen.step("It writes, but its session may only read");
    teller.is_refused(&write, 403, "read_only").await?;

    teller.screen.step("The operator lets it write");
    teller.set_read_write().await?;

    teller.screen.step("The same write passes now");
    teller.is_injected(&write, 201, &github).await?;

    teller.screen.step("Everything is in the audit log");
    teller.is_audited().await?;

    teller.screen.step("The agent never saw a key");
    teller.has_not_leaked()
}

impl Call {
    fn to_github(ready: &Ready, method: &'static str, path: &'static str, body: &'static str) -> Result<Self, Failed> {
        let base = format!("http://{}/api.github.com", ready.proxy()?);
        Ok(Self { method, base, path, placeholder: ready.exported("GITHUB_TOKEN")?, body })
    }
}

impl Teller {
    async fn starts(&self) -> Result<Ready, Failed> {
        self.screen.step("`attache up` starts the broker, and Envoy with the filter");
        let begun = Instant::now();
        let ready = self.stage.up(&self.screen).await?;
        let promise = format!("ready in {:.1} s at http://{}", begun.elapsed().as_secs_f32(), ready.proxy()?);
        self.screen.check(true, &promise)?;
        Ok(ready)
    }

    /// The fingerprint of a credential, as `attache credential list` shows it.
    async fn fingerprint(&self, name: &str) -> Result<String, Failed> {
        let list = self.json(&["credential", "list", "--json"]).await?;
        let found = list.as_array().into_iter().flatten().find(|credential| credential["name"] == name);
        let text = |member: &str| found.and_then(|credential| credential[member].as_str()).unwrap_or("-").to_owned();
        let (source, fingerprint) = (self.stage.shorten(&text("source")), text("fingerprint"));
        self.screen.shows(name, format_args!("fingerprint {fingerprint}, from {source}"));
        if fingerprint.len() == 16 { Ok(fingerprint) } else { Err(Failed::because(format!("{name} has no secret"))) }
    }

    /// Sends a call that must reach the upstream with the credential of this fingerprint.
    async fn is_injected(&self, call: &Call, status: u16, fingerprint: &str) -> Result<(), Failed> {
        let before = self.stage.upstream.requests().len();
        let answer = self.send(call).await?;
        self.screen.shows("the agent got", answer.status);
        let text = answer.text();
        self.screen.check(answer.status == status, &format!("the answer is {status}: {}", text.trim_end()))?;

        let arrived = self.stage.upstream.wait_for(before + 1, SOON).await;
        let [request] = &arrived[before..] else {
            return Err(Failed::because(format!("{} requests arrived, not one", arrived.len() - before)));
        };
        let credentials = request.fields.all("authorization");
        let received = credentials.first().map(|value| String::from_utf8_lossy(value).into_owned());
        let received = received.as_deref().and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let taken = self.stage.fingerprint(received)?;
        let place = format!("{} https://{}{}", show(&request.method), show(&request.authority), request.path_text());
        self.screen.shows("upstream received", place);
        self.screen.shows("", format_args!("authorization: Bearer [a secret with fingerprint {taken}]"));
        let one = credentials.len() == 1 && !holds(request, &call.placeholder);
        self.screen.check(one && taken == fingerprint, "it got the credential, once, and no placeholder")
    }

    /// Sends a call that must be refused, and arrive nowhere.
    async fn is_refused(&self, call: &Call, status: u16, reason: &str) -> Result<(), Failed> {
        let before = self.stage.upstream.requests().len();
        let answer = self.send(call).await?;
        let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let word = |member: &str| told[member].as_str().unwrap_or("-").to_owned();
        self.screen.shows("the agent got", format_args!("{} {}", answer.status, word("reason")));
        self.screen.shows("", word("hint"));
        let refused = answer.status == status && word("reason") == reason;
        self.screen.check(refused, &format!("refused with {status}, and the reason {reason}"))?;
        self.screen.check(self.stage.upstream.requests().len() == before, "the upstream received nothing")
    }

    async fn set_read_write(&self) -> Result<(), Failed> {
        let args = ["session", "set-access-mode", "agent", "read-write"];
        self.screen.shows("$", format_args!("attache {}", args.join(" ")));
        let said = self.stage.attache_cli(&args).await?;
        self.screen.shows("", &said);
        let (applied, total) = workers(&said).ok_or_else(|| Failed::because("it does not say on how many workers"))?;
        self.screen.check(applied == total && total > 0, "applied on every worker of Envoy")
    }

    async fn is_audited(&self) -> Result<(), Failed> {
        let end = Instant::now() + RECORDED;
        // One use record a request: three were forwarded, two refused.
        let kinds = [("use", 3), ("deny", 2)];
        let all = loop {
            let tail = self.stage.attache_cli(&["audit", "tail", "-n", "100", "--json"]).await?;
            let records: Vec<Value> = tail.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let count = |kind: &str| records.iter().filter(|record| record["kind"] == kind).count();
            let all = kinds.iter().all(|(kind, expected)| count(kind) == *expected);
            if all || Instant::now() > end {
                break all;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        self.screen.shows("$", "attache audit tail -n 4");
        for line in self.stage.attache_cli(&["audit", "tail", "-n", "4"]).await?.lines() {
            self.screen.passes_by(line);
        }
        self.screen.check(all, "one record a request: 3 uses, 2 refusals")?;
        self.screen.shows("$", "attache audit verify");
        let verdict = self.stage.attache_cli(&["audit", "verify"]).await?;
        self.screen.passes_by(&verdict);
        self.screen.check(verdict.contains("unbroken"), "the hash chain holds")
    }

    fn has_not_leaked(&self) -> Result<(), Failed> {
        let received: usize = self.agent.ledger().transcripts().iter().map(|transcript| transcript.raw().len()).sum();
        self.screen.shows("searched", format_args!("{received} bytes that the agent received, and all logs, for both"));
        self.screen.shows("", "secrets: plain, base64, hex, percent-encoded, JSON-escaped");
        for (name, text) in self.stage.logs() {
            self.stage.oracle.text(name, text);
        }
        let violations = self.stage.oracle.violations();
        for violation in &violations {
            self.screen.shows("!", violation);
        }
        self.screen.check(violations.is_empty() && received > 0, "no secret in any of them; every use is accounted for")
    }

    async fn send(&self, call: &Call) -> Result<Response, Failed> {
        let Call { method, base, path, placeholder, body } = call;
        let url = format!("{base}{path}");
        let rest = url.strip_prefix("http://").unwrap_or(&url);
        let (host, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let proxy: SocketAddr = host.parse().map_err(|_| Failed::because(format!("no address: {host}")))?;
        let bearer = format!("Bearer {placeholder}");
        self.screen.shows("the agent sent", format_args!("{method} {url}"));
        self.screen.shows("", format_args!("authorization: {bearer}"));
        Ok(self
            .agent
            .request(
                proxy,
                method,
                host,
                target,
                &[("authorization", &bearer), ("content-type", "application/json")],
                body.as_bytes(),
            )
            .await)
    }

    async fn json(&self, args: &[&str]) -> Result<Value, Failed> {
        let text = self.stage.attache_cli(args).await?;
        serde_json::from_str(&text).map_err(|_| Failed::because(format!("attache {}: not JSON", args.join(" "))))
    }
}

/// `n` and `m` of "applied on n/m workers".
fn workers(said: &str) -> Option<(usize, usize)> {
    let (applied, rest) = said.split_once("applied on ")?.1.split_once('/')?;
    Some((applied.parse().ok()?, rest.split_once(' ')?.0.parse().ok()?))
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Whether any part of a request's head holds this text.
fn holds(request: &Recorded, text: &str) -> bool {
    let head = [&request.path[..], &request.fields.to_lines()].concat();
    String::from_utf8_lossy(&head).contains(text)
}
