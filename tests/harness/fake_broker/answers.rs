//! What a broker in good health answers.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Call, Endpoint, Shared, State};
use crate::util;

/// How long a poll for changes is held when it does not say.
const HOLD: Duration = Duration::from_millis(1_000);

/// A grant to hand out.
#[derive(Clone, Debug)]
pub struct Grant {
    pub credential: String,
    pub session: String,
    pub session_id: String,
    /// `read-only` or `read-write`.
    pub access_mode: String,
    pub ttl_ms: u64,
    pub refresh_after_ms: u64,
    pub max_unacked_uses: u32,
    /// Whether each use is announced before it begins.
    pub strict: bool,
    /// `{"header": NAME, "value": V}` or `{"query": NAME, "value": V}`.
    pub injections: Vec<Value>,
    /// What is masked in answers; nothing by default.
    pub mask: Vec<String>,
}

impl Grant {
    /// One header, for session `agent`, read-write, on a lease of a minute.
    #[must_use]
    pub fn header(credential: &str, name: &str, value: &str) -> Self {
        Self::injecting(credential, json!({"header": name, "value": value}))
    }

    /// One query parameter, its value already percent-encoded.
    #[must_use]
    pub fn query(credential: &str, name: &str, value: &str) -> Self {
        Self::injecting(credential, json!({"query": name, "value": value}))
    }

    fn injecting(credential: &str, injection: Value) -> Self {
        Self {
            credential: credential.to_owned(),
            session: "agent".to_owned(),
            session_id: "session-1".to_owned(),
            access_mode: "read-write".to_owned(),
            ttl_ms: 60_000,
            refresh_after_ms: 30_000,
            max_unacked_uses: 1_000,
            strict: false,
            injections: vec![injection],
            mask: Vec::new(),
        }
    }

    /// As an answer without its nonce.
    #[must_use]
    pub fn answer(&self) -> Value {
        let mut answer = json!({"granted": {
            "session_id": self.session_id,
            "session": self.session,
            "credential": self.credential,
            "access_mode": self.access_mode,
            "lease": {
                "fingerprint": "0123456789abcdef",
                "ttl_ms": self.ttl_ms,
                "refresh_after_ms": self.refresh_after_ms,
            },
            "max_unacked_uses": self.max_unacked_uses,
            "injections": self.injections,
            "mask": self.mask,
        }});
        if self.strict {
            answer["granted"]["strict"] = true.into();
        }
        answer
    }
}

/// The status and body of the right answer. `hold` is false when it is to be spoiled at once.
pub(super) async fn answer(shared: &Arc<Shared>, call: &Call, hold: bool) -> (u16, Value) {
    match call.endpoint {
        Endpoint::Policy => match shared.state().policy.clone() {
            Value::Null => (404, json!({"error": "no policy"})),
            policy => (200, policy),
        },
        Endpoint::Grants => match serde_json::from_slice(&call.body) {
            Ok(request) => (200, grant(shared, &request)),
            Err(error) => (400, json!({"error": error.to_string()})),
        },
        Endpoint::Tunnels => match serde_json::from_slice(&call.body) {
            Ok(request) => (200, tunnel(shared, &request)),
            Err(error) => (400, json!({"error": error.to_string()})),
        },
        Endpoint::Changes => (200, changes(shared, call, hold).await),
        Endpoint::Intents => match serde_json::from_slice(&call.body) {
            Ok(intent) => (200, record(shared, &intent)),
            Err(error) => (400, json!({"error": error.to_string()})),
        },
        Endpoint::Audit => audit(shared, call),
    }
}

fn grant(shared: &Shared, request: &Value) -> Value {
    // Called without the lock: a test's closure may ask the broker for something.
    let granting = Arc::clone(&shared.state().granting);
    let mut answer = granting(request);
    let mut state = shared.state();
    answer["nonce"] = request["nonce"].clone();
    if answer.get("granted").is_none() {
        return answer;
    }
    state.leases += 1;
    let granted = &mut answer["granted"];
    if granted.get("as_of").is_none() {
        granted["as_of"] = state.cursor().into();
    }
    if granted["lease"].get("id").is_none() {
        granted["lease"]["id"] = format!("lease-{}", state.leases).into();
    }
    write(
        shared,
        &json!({
            "kind": "issue",
            "timestamp": util::wall_ms(),
            "session_id": granted["session_id"],
            "session": granted["session"],
            "access_mode": granted["access_mode"],
            "credential": granted["credential"],
            "destination": request["destination"],
            "lease_id": granted["lease"]["id"],
            "fingerprint": granted["lease"]["fingerprint"],
            "issued_to": request["worker"],
            "ttl_ms": granted["lease"]["ttl_ms"],
            "count": if granted["strict"] == true { json!(0) } else { granted["max_unacked_uses"].clone() },
            "asked": request["evidence"],
        }),
    );
    answer
}

fn tunnel(shared: &Shared, request: &Value) -> Value {
    let tunnelling = Arc::clone(&shared.state().tunnelling);
    let mut answer = tunnelling(request);
    answer["nonce"] = request["nonce"].clone();
    if let Some(granted) = answer.get_mut("granted").and_then(Value::as_object_mut) {
        let cursor = shared.state().cursor();
        let usual = json!({"as_of": cursor, "session": "agent", "session_id": "session-1", "ttl_ms": 30_000});
        for (name, value) in usual.as_object().cloned().unwrap_or_default() {
            granted.entry(name).or_insert(value);
        }
    }
    answer
}

fn record(shared: &Shared, intent: &Value) -> Value {
    let recording = Arc::clone(&shared.state().recording);
    let mut answer = recording(intent);
    answer["nonce"] = intent["nonce"].clone();
    if answer["recorded"] == true {
        let mut record = intent.clone();
        record["kind"] = "intent".into();
        record["timestamp"] = record["at_ms"].take();
        record["issued_to"] = record["worker"].take();
        let _one_line_at_a_time = shared.state();
        write(shared, &record);
    }
    answer
}

async fn changes(shared: &Shared, call: &Call, hold: bool) -> Value {
    let number = |name: &str| parameter(&call.target, name).and_then(|text| text.parse::<u64>().ok());
    let (after, epoch) = (number("after").unwrap_or(0), parameter(&call.target, "epoch"));
    if let Some(worker) = parameter(&call.target, "worker") {
        shared.state().heard.insert(worker, after);
    }
    let wait = number("wait_ms").map_or(HOLD, Duration::from_millis);
    let end = tokio::time::Instant::now() + wait;
    loop {
        let changed = shared.changed.notified();
        let news = {
            let state = shared.state();
            let same_life = epoch.as_deref() == Some(&state.epoch_name());
            let nothing_new = same_life && state.cursor() <= after;
            let since = if same_life { usize::try_from(after).unwrap_or(usize::MAX) } else { 0 };
            let news = state.news(since);
            (!nothing_new).then_some(news)
        };
        match news {
            Some(news) => return news,
            None if !hold => return shared.state().news(usize::MAX),
            None => {
                if tokio::time::timeout_at(end, changed).await.is_err() {
                    return shared.state().news(usize::MAX);
                }
            }
        }
    }
}

fn audit(shared: &Shared, call: &Call) -> (u16, Value) {
    let worker = parameter(&call.target, "worker").unwrap_or_default();
    let mut state = shared.state();
    for line in call.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let Ok(mut record) = serde_json::from_slice::<Value>(line) else {
            return (400, json!({"error": "not JSON"}));
        };
        let (seq, acked) = (record["seq"].as_u64().unwrap_or(0), state.acked.entry(worker.clone()).or_insert(0));
        if seq <= *acked {
            continue;
        }
        if seq != *acked + 1 {
            return (409, json!({"error": "a gap"}));
        }
        *acked = seq;
        record["timestamp"] = record["at_ms"].clone();
        record["worker"] = worker.clone().into();
        write(shared, &record);
        state.records.push(record);
    }
    (200, json!({"acked": state.acked.get(&worker).copied().unwrap_or(0)}))
}

fn write(shared: &Shared, record: &Value) {
    let mut log = std::fs::OpenOptions::new();
    let mut log = log.create(true).append(true).open(&shared.audit).expect("the audit log opens");
    log.write_all(format!("{record}\n").as_bytes()).expect("the audit log is writable");
}

fn parameter(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(own, _)| *own == name).map(|(_, value)| value.to_owned())
}

impl State {
    pub(super) fn epoch_name(&self) -> String {
        format!("epoch-{}", self.epoch)
    }

    fn policy_version(&self) -> String {
        self.policy["version"].as_str().unwrap_or_default().to_owned()
    }

    fn news(&self, since: usize) -> Value {
        json!({
            "epoch": self.epoch_name(),
            "cursor": self.cursor(),
            "policy": self.policy_version(),
            "changes": self.changes.get(since..).unwrap_or_default(),
        })
    }
}
