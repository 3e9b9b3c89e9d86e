//! A table of requests spelled out by hand, each with its promised outcome over HTTP/1 and over
//! HTTP/2; one Attaché answers them all, one after the other.
//!
//! Beyond the answers it holds: nothing goes upstream but what is served; each request that reached
//! the filter has one audit record; each request, whether it reached it or not, has one line in
//! Envoy's access log, which is the only witness of those that did not.

use attache_broker::envoy::{TESTED_VERSION, Version, process};
use attache_core::refusal::Reason;
use serde_json::Value;

use crate::oracle::{Audit, Record};
use crate::stack::SOON;
use crate::{Attache, Response, Spelled, Stack, Unanswered, refusal, util};

/// What must become of a request.
#[derive(Clone, Copy, Debug)]
pub enum Promise {
    /// It goes upstream, once, with the row's credential alone; the agent gets 200.
    Served,
    /// It goes upstream, once, with the row's credential alone, and the upstream answers with this status.
    Reached(u16),
    /// The filter refuses it.
    Refused(Reason),
    /// Envoy answers by itself: this status, and these details in its access log.
    Envoy(u16, &'static str),
    /// Envoy ends the HTTP/2 stream or connection without an answer, with these details.
    Ended(&'static str),
}

/// One request and what must become of it; `None` where a protocol cannot spell it.
pub struct Row {
    name: String,
    request: Spelled,
    promises: [(Protocol, Option<Promise>); 2],
    credential: &'static str,
    header: Option<(&'static str, Option<&'static str>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    H1,
    H2,
}

/// The line that names the row, in its request.
const NAME: &str = "x-row";

/// What Envoys before a version do otherwise with the rows of these names: they leave `..;` to the filter, which refuses it,
/// know no QUERY, and mend what HTTP/2 lacks.
const BEFORE: [(&str, &str, Option<Protocol>, Promise); 9] = [
    ("1.39", "custom /v1/.;/x", None, Promise::Refused(Reason::PathMalformed)),
    ("1.39", "custom /v1/..;/v2/x", None, Promise::Refused(Reason::PathMalformed)),
    ("1.39", "custom /v1/..;a=b/v2", None, Promise::Refused(Reason::PathMalformed)),
    ("1.39", "gateway /api.custom.test/..;/api.github.com/user", None, Promise::Refused(Reason::PathMalformed)),
    ("1.40", "reader QUERY", Some(Protocol::H1), Promise::Envoy(400, "http1.codec_error")),
    ("1.40", "QUERY /", Some(Protocol::H1), Promise::Envoy(400, "http1.codec_error")),
    ("1.37", "to ", Some(Protocol::H2), Promise::Refused(Reason::AuthorityMalformed)),
    ("1.37", "no scheme", Some(Protocol::H2), Promise::Served),
    ("1.37", "odd scheme", Some(Protocol::H2), Promise::Served),
];

/// What this Envoy must do with a row.
fn here(version: Version, row: &str, protocol: Protocol, promise: Promise) -> Promise {
    let is_before = |before: &str| version < before.parse().expect("a version");
    let mut all = BEFORE.iter();
    let found = all
        .find(|(before, name, over, _)| is_before(before) && *name == row && over.is_none_or(|over| over == protocol));
    found.map_or(promise, |(.., promise)| *promise)
}

impl Row {
    /// The same promise over both protocols.
    pub fn new(name: impl Into<String>, request: Spelled, promise: Promise) -> Self {
        let promises = [(Protocol::H1, Some(promise)), (Protocol::H2, Some(promise))];
        Self { name: name.into(), request, promises, credential: "github", header: None }
    }

    /// Where it goes upstream, it goes with this credential; else with GitHub's.
    #[must_use]
    pub fn carrying(mut self, credential: &'static str) -> Self {
        self.credential = credential;
        self
    }

    /// Another promise over HTTP/1.
    #[must_use]
    pub fn h1(mut self, promise: impl Into<Option<Promise>>) -> Self {
        self.promises[0].1 = promise.into();
        self
    }

    /// Another promise over HTTP/2.
    #[must_use]
    pub fn h2(mut self, promise: impl Into<Option<Promise>>) -> Self {
        self.promises[1].1 = promise.into();
        self
    }

    /// A header that the answer must have with this value, or must not have.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: Option<&'static str>) -> Self {
        self.header = Some((name, value));
        self
    }
}

/// A table of which every promise was kept, so far.
pub struct Held(Vec<Kept>);

/// A request that was made and kept its promise.
struct Kept {
    row: String,
    protocol: Protocol,
    promise: Promise,
    /// What the refusal named.
    request_id: String,
}

/// Connections that break the rules are closed soon. Envoy would linger for a second each, for the sake of
/// peers that still send; closed at once, a busy machine's client would find a reset in the place of its answer.
pub fn without_lingering(bootstrap: &mut Value) {
    let manager = bootstrap.pointer_mut("/static_resources/listeners/0/filter_chains/0/filters/0/typed_config");
    manager.expect("the connection manager")["delayed_close_timeout"] = "0.1s".into();
}

/// Makes all requests, which are the first of this stack, and holds every promise.
///
/// # Panics
/// With all rows that broke their promise, or with an account of what does not add up.
pub async fn hold(stack: &Stack<Attache>, rows: Vec<Row>) -> Held {
    let (mut kept, mut broken) = (Vec::new(), Vec::new());
    let version = process::version(&crate::envoy::binary()).expect("an Envoy");
    for row in rows {
        for (protocol, promise) in row.promises {
            let Some(promise) = promise else { continue };
            let promise = here(version, &row.name, protocol, promise);
            match attempt(stack, &row, protocol, promise).await {
                Ok(request_id) => kept.push(Kept { row: row.name.clone(), protocol, promise, request_id }),
                Err(what) => broken.push(format!("  - {} over {protocol:?}: {promise:?}, but {what}", row.name)),
            }
        }
    }
    assert!(broken.is_empty(), "{} broken promise(s):\n{}", broken.len(), broken.join("\n"));
    stack.reconcile().await;
    audited(stack, &kept, version < Version::MINTS).await;
    Held(kept)
}

impl Held {
    /// Ends Envoy, which then writes the rest of its access log: one line for each request, in
    /// order, that says what became of it.
    ///
    /// # Panics
    /// When a line is missing, or says something else.
    pub async fn is_witnessed(self, stack: &Stack<Attache>) {
        stack.envoy.quit(SOON).await;
        let log = stack.envoy.log();
        let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        assert_eq!(lines.len(), self.0.len(), "lines in the access log");
        // Each Envoy has its own words for why it ended a stream; those of the default are held.
        let version = process::version(&crate::envoy::binary()).expect("an Envoy");
        let older = Ok(version) != TESTED_VERSION.parse();
        let ended = |kept: &Kept| older && matches!(kept.promise, Promise::Ended(_));
        let others = lines.iter().zip(&self.0).filter(|(line, kept)| !ended(kept) && !kept.is_witnessed_by(line));
        let others: Vec<_> = others.map(|(line, kept)| format!("  - {} is logged as {line}", kept.row)).collect();
        assert!(
            others.is_empty(),
            "{} line(s) of the access log say something else:\n{}",
            others.len(),
            others.join("\n")
        );
    }
}

async fn attempt(stack: &Stack<Attache>, row: &Row, protocol: Protocol, promise: Promise) -> Result<String, String> {
    let mut request = row.request.clone();
    request.lines.insert(0, (NAME.into(), row.name.clone().into_bytes()));
    if let Promise::Ended(_) = promise {
        stack.site.oracle.excuse(&row.name.as_bytes().escape_ascii().to_string());
    }
    let before = stack.upstream().requests().len();
    let answer = match protocol {
        Protocol::H1 => request.over_h1(&stack.agent(), stack.proxy).await,
        Protocol::H2 => request.over_h2(&stack.agent(), stack.proxy).await,
    };
    let sent = stack.upstream().requests().split_off(before);
    let request_id = answered(&answer, promise)?;
    if let (Some((name, value)), Ok(answer)) = (row.header, &answer)
        && answer.header(name).as_deref() != value
    {
        return Err(format!("{name} is {:?}", answer.header(name)));
    }
    let carried: Vec<Vec<&str>> = sent.iter().map(|hit| hit.secrets.iter().map(String::as_str).collect()).collect();
    let expected =
        if let Promise::Served | Promise::Reached(_) = promise { vec![vec![row.credential]] } else { vec![] };
    if carried == expected { Ok(request_id) } else { Err(format!("upstream got {sent:#?}")) }
}

fn answered(answer: &Result<Response, Unanswered>, promise: Promise) -> Result<String, String> {
    let shown = match answer {
        Ok(answer) => format!("{} {:?} {:?}", answer.status, answer.fields, answer.text()),
        Err(why) => why.to_string(),
    };
    match (promise, answer) {
        (Promise::Served, Ok(answer)) if answer.status == 200 => Ok(String::new()),
        (Promise::Reached(status), Ok(answer)) if answer.status == status => Ok(String::new()),
        (Promise::Refused(reason), Ok(answer)) => refusal::check(answer, reason),
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
    let refused = |kept: &&Kept| matches!(kept.promise, Promise::Refused(_));
    let refused: Vec<&Kept> = kept.iter().filter(refused).collect();
    let by_envoy = kept.iter().filter(|kept| matches!(kept.promise, Promise::Envoy(..))).count();
    let seen_by_envoy = |record: &Record| record.text("reason") == "not_decided";
    let denied = || Audit::read(Some(&path)).0.of_kind("deny").cloned().partition::<Vec<_>, _>(seen_by_envoy);
    let all_there = |(witnessed, denied): &(Vec<Record>, Vec<Record>)| {
        witnessed.len() >= by_envoy && denied.iter().filter(|record| !is_aborted(record)).count() >= refused.len()
    };
    let (witnessed, mut denied) = util::eventually_some(SOON, || Some(denied()).filter(all_there)).await;
    // Envoys before 1.37 tell of a stream that they have ended as of one that they have answered.
    let ended = kept.iter().filter(|kept| older && matches!(kept.promise, Promise::Ended(_))).count();
    let told = by_envoy..=by_envoy + ended;
    assert!(told.contains(&witnessed.len()), "Envoy answered {} by itself, and should {told:?}", witnessed.len());
    denied.retain(|record| !is_aborted(record));
    for Kept { row, promise, request_id, .. } in &refused {
        let Promise::Refused(reason) = promise else { continue };
        if request_id.is_empty() {
            // The answer to a HEAD named none.
            let same = |record: &Record| record.text("method") == "HEAD" && record.text("reason") == reason.as_str();
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

/// Of a request that Envoy ended without an answer.
fn is_aborted(record: &Record) -> bool {
    record.text("reason") == "aborted"
}

impl Kept {
    fn is_witnessed_by(&self, line: &Value) -> bool {
        let verdict: Value = serde_json::from_str(line["attache"].as_str().unwrap_or("null")).expect("JSON");
        let spoken = if self.protocol == Protocol::H1 { "HTTP/1.1" } else { "HTTP/2" };
        let (status, details, decision) = match self.promise {
            Promise::Served => (200, "via_upstream", Some("forward")),
            Promise::Reached(status) => (status, "via_upstream", Some("forward")),
            Promise::Refused(reason) => (reason.status(), reason.as_str(), Some("refuse")),
            Promise::Envoy(status, details) => (status, details, None),
            Promise::Ended(details) => (0, details, None),
        };
        let reason = if let Promise::Refused(reason) = self.promise { Some(reason.as_str()) } else { None };
        // An agent that has its answer leaves, and may be seen to leave before the upstream is seen to end.
        let left = details == "via_upstream" && line["response_code_details"] == "downstream_remote_disconnect";
        line["protocol"] == spoken
            && line["response_code"] == status
            && (left || line["response_code_details"] == details)
            && verdict["decision"].as_str() == decision
            && verdict["reason"].as_str() == reason
    }
}
