//! A table of requests spelled out by hand, each with its promised outcome over HTTP/1, over HTTP/2 and in an
//! intercepted tunnel; one Attaché answers them all, one after the other.
//!
//! Beyond the answers it holds: nothing goes upstream but what is served; each request that reached
//! the filter has one audit record; each request, whether it reached it or not, has one line in
//! Envoy's access log, which is the only witness of those that did not.

mod tunnels;

use std::fmt;

use attache_broker::envoy::{TESTED_VERSION, Version, process};
use attache_core::refusal::Reason;
use serde_json::Value;

pub use tunnels::{Inside, Tunnel};

use crate::oracle::{Audit, Record};
use crate::stack::SOON;
use crate::upstream::magic;
use crate::{Attache, Reply, Response, Spelled, Stack, Unanswered, refusal, util};

/// What must become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// It goes upstream, once, with the row's credential alone; the agent gets 200.
    Served,
    /// It goes upstream, once, with the row's credential alone, and the upstream answers with this status.
    Reached(u16),
    /// It goes upstream, once, with the row's credential alone; the answer is replaced, for this reason.
    Withheld(Reason),
    /// It goes upstream, once, with the row's credential alone; the answer ends before its end.
    Cut,
    /// The filter refuses it.
    Refused(Reason),
    /// The door of a forward proxy refuses it, and says how clients of a proxy say who they are: 407.
    Challenged(Reason),
    /// The filter refuses it as clients of gRPC understand it: 200, and `grpc-status` 7.
    Grpc(Reason),
    /// Envoy answers by itself: this status, and these details in its access log.
    Envoy(u16, &'static str),
    /// Envoy ends the HTTP/2 stream or connection without an answer, with these details.
    Ended(&'static str),
    /// The TLS handshake in the tunnel is refused.
    Unshaken,
    /// The tunnel is closed without a byte.
    Shut,
}

/// The way that a request travels on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    H1,
    H2,
    /// HTTP/1 in TLS that ends at the proxy, in a tunnel.
    Tls,
}

impl Way {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
            Self::Tls => "tls",
        }
    }
}

/// One request and what must become of it, by each way that can spell it.
#[derive(Clone)]
pub struct Row {
    /// How it is told from others.
    pub name: String,
    pub request: Spelled,
    pub promises: Vec<(Way, Promise)>,
    /// Where it goes upstream, it goes with this credential.
    pub credential: String,
    /// Headers that the answer must have with this value, or must not have.
    pub headers: Vec<(String, Option<String>)>,
    /// The body that the answer must have.
    pub body: Option<Vec<u8>>,
    /// What the upstream answers, rather than what its path says.
    pub reply: Option<Reply>,
    /// Where its tunnel leads, and who opens it.
    pub tunnel: Option<Tunnel>,
    /// What Envoys before a version do otherwise.
    pub before: Vec<(Version, Option<Way>, Promise)>,
}

/// The line that names the row, in its request.
const NAME: &str = "x-row";

impl Row {
    /// What this Envoy must do with it.
    fn here(&self, version: Version, way: Way, promise: Promise) -> Promise {
        let mut older = self.before.iter();
        let found = older.find(|(before, over, _)| version < *before && over.is_none_or(|over| over == way));
        found.map_or(promise, |(.., promise)| *promise)
    }
}

/// What kept its promise, so far.
pub struct Held(Vec<Kept>);

/// A request that was made and kept its promise.
struct Kept {
    row: String,
    way: Way,
    promise: Promise,
    /// What the refusal named.
    request_id: String,
}

/// A request that ended otherwise than promised.
#[derive(Debug)]
pub struct Broken {
    /// The row's name.
    pub row: String,
    pub way: Way,
    pub promise: Promise,
    /// What happened instead.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {}: {:?}, but {}", self.row, self.way.word(), self.promise, self.what)
    }
}

/// Connections that break the rules are closed soon. Envoy would linger for a second each, for the sake of
/// peers that still send; closed at once, a busy machine's client would find a reset in the place of its answer.
pub fn without_lingering(bootstrap: &mut Value) {
    let listeners = bootstrap.pointer_mut("/static_resources/listeners").and_then(Value::as_array_mut);
    for listener in listeners.expect("listeners") {
        let manager = listener.pointer_mut("/filter_chains/0/filters/0/typed_config");
        if let Some(manager) = manager.filter(|manager| manager["http_filters"].is_array()) {
            manager["delayed_close_timeout"] = "0.1s".into();
        }
    }
}

/// Makes all requests, which are the first of this stack: straight, or `inside` the tunnels of a forward proxy.
pub async fn attempt_all(stack: &Stack<Attache>, rows: &[Row], inside: Option<&Inside>) -> (Held, Vec<Broken>) {
    let (mut kept, mut broken) = (Vec::new(), Vec::new());
    let version = here();
    for row in rows {
        for (way, promise) in &row.promises {
            let (way, promise) = (*way, row.here(version, *way, *promise));
            if (way == Way::Tls) != inside.is_some() {
                continue;
            }
            let row_name = row.name.clone();
            match attempt(stack, row, way, promise, inside).await {
                Ok(request_id) => kept.push(Kept { row: row_name, way, promise, request_id }),
                Err(what) => broken.push(Broken { row: row_name, way, promise, what }),
            }
        }
    }
    (Held(kept), broken)
}

/// The version of the Envoy that runs.
fn here() -> Version {
    process::version(&crate::envoy::binary()).expect("an Envoy")
}

impl Held {
    /// How many kept their promise.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none did.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Holds everything that was seen against the audit log, which has one record of each refusal.
    ///
    /// # Panics
    /// With an account of what does not add up.
    pub async fn adds_up(&self, stack: &Stack<Attache>) {
        stack.reconcile().await;
        audited(stack, &self.0, here() < Version::MINTS).await;
    }

    /// Ends Envoy, which then writes the rest of its access log: one line for each request, in
    /// order, that says what became of it.
    ///
    /// # Panics
    /// When a line is missing, or says something else.
    pub async fn is_witnessed(self, stack: &Stack<Attache>) {
        stack.envoy.quit(SOON).await;
        let log = stack.envoy.log();
        // A tunnel that was opened has a line of its own, and what is asked in it another.
        let tunnel = |line: &Value| verdict(line)["decision"] == "intercept";
        let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        let lines: Vec<Value> = lines.filter(|line| !tunnel(line)).collect();
        let asked = |kept: &&Kept| !matches!(kept.promise, Promise::Unshaken | Promise::Shut);
        let kept: Vec<&Kept> = self.0.iter().filter(asked).collect();
        assert_eq!(lines.len(), kept.len(), "lines in the access log");
        // Each Envoy has its own words for why it ended a stream; those of the default are held.
        let older = Ok(here()) != TESTED_VERSION.parse();
        let ended = |kept: &Kept| older && matches!(kept.promise, Promise::Ended(_));
        let others = lines.iter().zip(kept).filter(|(line, kept)| !ended(kept) && !kept.is_witnessed_by(line));
        let others: Vec<_> = others.map(|(line, kept)| format!("  - {} is logged as {line}", kept.row)).collect();
        assert!(
            others.is_empty(),
            "{} line(s) of the access log say something else:\n{}",
            others.len(),
            others.join("\n")
        );
    }
}

/// What came of a request.
enum Outcome {
    Http(Result<Response, Unanswered>),
    /// No handshake, and why.
    Unshaken(String),
    /// What came before the tunnel was closed.
    Shut(Vec<u8>),
}

async fn attempt(
    stack: &Stack<Attache>,
    row: &Row,
    way: Way,
    promise: Promise,
    inside: Option<&Inside>,
) -> Result<String, String> {
    let mut request = row.request.clone();
    request.lines.insert(0, (NAME.into(), row.name.clone().into_bytes()));
    if let Promise::Ended(_) | Promise::Cut = promise {
        stack.site.oracle.excuse(&row.name.as_bytes().escape_ascii().to_string());
    }
    let reply = row.reply.clone();
    stack.upstream().answer_with(move |asked| reply.clone().unwrap_or_else(|| magic(asked)));
    let before = stack.upstream().requests().len();
    let outcome = match (way, &row.tunnel, inside) {
        (Way::H2, ..) => Outcome::Http(request.over_h2(&stack.agent(), stack.proxy).await),
        (Way::Tls, Some(tunnel), Some(inside)) => tunnel.carry(stack, &request, inside).await,
        _ => Outcome::Http(request.over_h1(&stack.agent(), stack.proxy).await),
    };
    let sent = stack.upstream().requests().split_off(before);
    let request_id = answered(&outcome, promise)?;
    if let Outcome::Http(Ok(answer)) = &outcome {
        row.agrees(answer)?;
    }
    let carried: Vec<Vec<&str>> = sent.iter().map(|hit| hit.secrets.iter().map(String::as_str).collect()).collect();
    let expected = if promise.reaches() { vec![vec![row.credential.as_str()]] } else { vec![] };
    if carried == expected { Ok(request_id) } else { Err(format!("upstream got {sent:#?}")) }
}

impl Row {
    /// Whether an answer shows what it must.
    fn agrees(&self, answer: &Response) -> Result<(), String> {
        let lines = |name: &str| answer.fields.all(name).iter().map(|value| value.escape_ascii().to_string()).collect();
        for (name, value) in &self.headers {
            let there: Vec<String> = lines(name);
            let agrees = match value {
                Some(value) => there.contains(&value.as_bytes().escape_ascii().to_string()),
                None => there.is_empty(),
            };
            if !agrees {
                return Err(format!("{name} is {there:?}"));
            }
        }
        match &self.body {
            Some(body) if *body != answer.body => {
                Err(format!("the body is {:?}", answer.body.escape_ascii().to_string()))
            }
            _ => Ok(()),
        }
    }
}

impl Promise {
    /// Whether the upstream is asked.
    fn reaches(self) -> bool {
        matches!(self, Self::Served | Self::Reached(_) | Self::Withheld(_) | Self::Cut)
    }

    /// Why the filter refuses, if it does.
    fn refused(self) -> Option<Reason> {
        if let Self::Refused(reason) | Self::Challenged(reason) | Self::Grpc(reason) = self {
            Some(reason)
        } else {
            None
        }
    }
}

fn answered(outcome: &Outcome, promise: Promise) -> Result<String, String> {
    let answer = match (promise, outcome) {
        (_, Outcome::Http(answer)) => answer,
        (Promise::Unshaken, Outcome::Unshaken(_)) => return Ok(String::new()),
        (Promise::Shut, Outcome::Shut(bytes)) if bytes.is_empty() => return Ok(String::new()),
        (_, Outcome::Unshaken(why)) => return Err(format!("no handshake: {why}")),
        (_, Outcome::Shut(bytes)) => return Err(format!("the tunnel said {:?}", bytes.escape_ascii().to_string())),
    };
    let shown = match answer {
        Ok(answer) => format!("{} {:?} {:?}", answer.status, answer.fields, answer.text()),
        Err(why) => why.to_string(),
    };
    match (promise, answer) {
        (Promise::Served, Ok(answer)) if answer.status == 200 && answer.complete => Ok(String::new()),
        (Promise::Reached(status), Ok(answer)) if answer.status == status && answer.complete => Ok(String::new()),
        (Promise::Cut, Ok(answer)) if !answer.complete => Ok(String::new()),
        (Promise::Cut, Err(Unanswered::Closed | Unanswered::Reset(_))) => Ok(String::new()),
        (Promise::Refused(reason) | Promise::Withheld(reason), Ok(answer)) => refusal::check(answer, reason),
        (Promise::Challenged(reason), Ok(answer)) => {
            let asks = answer.header("proxy-authenticate").is_some_and(|how| how.starts_with("Basic realm="));
            let said = (answer.status, refusal::reason(answer));
            if asks && said == (407, Some(reason.as_str().into())) { Ok(String::new()) } else { Err(shown) }
        }
        (Promise::Grpc(reason), Ok(answer)) if answer.status == 200 => {
            let said = [refusal::reason(answer), answer.header("grpc-status")];
            if said == [Some(reason.as_str().into()), Some("7".into())] { Ok(String::new()) } else { Err(shown) }
        }
        (Promise::Envoy(status, details), Ok(answer)) if answer.status == status => {
            // The bootstrap has words for one of Envoy's own answers.
            let word = (details == "upgrade_failed").then(|| "upgrade_refused".to_owned());
            if refusal::reason(answer) == word { Ok(String::new()) } else { Err(shown) }
        }
        (Promise::Ended(_), Err(Unanswered::Closed | Unanswered::Reset(_) | Unanswered::GoAway(_))) => {
            Ok(String::new())
        }
        _ => Err(shown),
    }
}

/// Each refusal has one `deny` record with its reason, what Envoy answered by itself has one of the
/// witness, and nothing else was denied.
async fn audited(stack: &Stack<Attache>, kept: &[Kept], older: bool) {
    let path = stack.dir().join("state/default/audit.jsonl");
    let refused: Vec<(&Kept, Reason)> = kept.iter().filter_map(|kept| Some((kept, kept.promise.refused()?))).collect();
    let by_envoy = kept.iter().filter(|kept| matches!(kept.promise, Promise::Envoy(..))).count();
    let seen_by_envoy = |record: &Record| record.text("reason") == "not_decided";
    let denied = || Audit::read(Some(&path)).0.of_kind("deny").cloned().partition::<Vec<_>, _>(seen_by_envoy);
    let all_there = |(witnessed, denied): &(Vec<Record>, Vec<Record>)| {
        witnessed.len() >= by_envoy && denied.iter().filter(|record| is_decided(record)).count() >= refused.len()
    };
    let (witnessed, mut denied) = util::eventually_some(SOON, || Some(denied()).filter(all_there)).await;
    // Envoys before 1.37 tell of a stream that they have ended as of one that they have answered.
    let ended = kept.iter().filter(|kept| older && matches!(kept.promise, Promise::Ended(_))).count();
    let told = by_envoy..=by_envoy + ended;
    assert!(told.contains(&witnessed.len()), "Envoy answered {} by itself, and should {told:?}", witnessed.len());
    denied.retain(is_decided);
    for (Kept { row, request_id, .. }, reason) in &refused {
        if request_id.is_empty() {
            // The answer to a HEAD names none, nor does that of gRPC.
            let same = |record: &Record| record.text("reason") == reason.as_str();
            assert!(denied.iter().any(same), "{row}: no record");
            continue;
        }
        let records: Vec<_> = denied.iter().filter(|record| record.text("request_id") == *request_id).collect();
        let [record] = records[..] else { panic!("{row}: {} records for one refusal", records.len()) };
        let said = ["reason", "decision", "auth_injected", "response_code"].map(|member| record.text(member));
        assert_eq!(said, [reason.as_str(), "refuse", "false", &reason.status().to_string()], "{row}");
    }
    assert_eq!(denied.len(), refused.len(), "more was denied than refused");
}

/// Not of a request that Envoy ended without an answer, nor of a handshake.
fn is_decided(record: &Record) -> bool {
    !["aborted", "handshake_failed"].contains(&record.text("reason").as_str())
}

/// What the filter says of a request in its line.
fn verdict(line: &Value) -> Value {
    serde_json::from_str(line["attache"].as_str().unwrap_or("null")).expect("JSON")
}

impl Kept {
    /// Whether the agent, which had all of its answer, was gone before Envoy was done with it.
    fn may_have_left(&self, line: &Value) -> bool {
        self.promise.reaches() && line["response_code_details"] == "downstream_remote_disconnect"
    }

    fn is_witnessed_by(&self, line: &Value) -> bool {
        let verdict = verdict(line);
        let spoken = if self.way == Way::H2 { "HTTP/2" } else { "HTTP/1.1" };
        let (status, details, decision) = match self.promise {
            // How an answer ended, or a handshake, is Envoy's own to tell.
            Promise::Withheld(_) | Promise::Cut => return verdict["decision"] == "forward",
            Promise::Refused(Reason::UpstreamTls) => return line["response_code"] == 502,
            Promise::Served => (200, "via_upstream", Some("forward")),
            Promise::Reached(status) => (status, "via_upstream", Some("forward")),
            Promise::Refused(reason) => (reason.status(), reason.as_str(), Some("refuse")),
            Promise::Challenged(reason) => (407, reason.as_str(), Some("refuse")),
            Promise::Grpc(reason) => (200, reason.as_str(), Some("refuse")),
            Promise::Envoy(status, details) => (status, details, None),
            Promise::Ended(details) => (0, details, None),
            Promise::Unshaken | Promise::Shut => return false,
        };
        let reason = self.promise.refused().map(Reason::as_str);
        line["protocol"] == spoken
            && line["response_code"] == status
            && (line["response_code_details"] == details || self.may_have_left(line))
            && verdict["decision"].as_str() == decision
            && verdict["reason"].as_str() == reason
    }
}
