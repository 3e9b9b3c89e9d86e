//! A broker that can misbehave: the data plane at socket level, switchable while it runs.
//!
//! It shares no type with the product, so that a drift on either side shows. It writes an audit
//! log for the [oracle](crate::Oracle) (an issue before each grant, each intent, every use record once),
//! it is not chained, and it holds no session: grants are what the test says, and an issue record says
//! for which evidence (`asked`) it was.

mod answers;
mod behaviour;
mod serve;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub use answers::Grant;
pub use behaviour::Behaviour;

use crate::fields::Fields;
use crate::util;

/// What a filter can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// `GET /v1/policy`
    Policy,
    /// `POST /v1/grants`
    Grants,
    /// `POST /v1/tunnels`
    Tunnels,
    /// `GET /v1/changes`
    Changes,
    /// `POST /v1/intents`
    Intents,
    /// `POST /v1/audit`
    Audit,
}

impl Endpoint {
    /// All six.
    pub const ALL: [Self; 6] = [Self::Policy, Self::Grants, Self::Tunnels, Self::Changes, Self::Intents, Self::Audit];
}

/// One call as it arrived.
#[derive(Clone, Debug)]
pub struct Call {
    pub endpoint: Endpoint,
    pub at: Instant,
    /// Path and query.
    pub target: String,
    pub fields: Fields,
    pub body: Bytes,
}

/// A running fake broker; dropping it closes its port.
pub struct FakeBroker {
    addr: SocketAddr,
    shared: Arc<Shared>,
    serving: Mutex<Option<JoinHandle<()>>>,
    dir: TempDir,
}

type Granting = Arc<dyn Fn(&Value) -> Value + Send + Sync>;

struct Shared {
    state: Mutex<State>,
    changed: Notify,
    audit: PathBuf,
}

struct State {
    policy: Value,
    /// The same, as it is sent: written once, for it may be long.
    written: Bytes,
    /// How often it was sent since it became so.
    sent: usize,
    granting: Granting,
    recording: Granting,
    tunnelling: Granting,
    standing: BTreeMap<Endpoint, Behaviour>,
    scripted: BTreeMap<Endpoint, VecDeque<Behaviour>>,
    calls: Vec<Call>,
    epoch: u64,
    changes: Vec<Value>,
    /// What each worker has acknowledged of the change feed.
    heard: BTreeMap<String, u64>,
    /// The last record held of each worker.
    acked: BTreeMap<String, u64>,
    records: Vec<Value>,
    leases: u64,
}

impl FakeBroker {
    /// Listens on a random port of 127.0.0.1. It has no policy (404) until [given](Self::policy)
    /// one, and denies every grant.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(util::any_port()).await.expect("loopback accepts a bind");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let dir = util::temp_dir();
        let audit = dir.path().join("audit.jsonl");
        let state = State {
            policy: Value::Null,
            written: Bytes::new(),
            sent: 0,
            granting: Arc::new(|_| json!({"denied": {"reason": "credential_not_granted"}})),
            recording: Arc::new(|_| json!({"recorded": true})),
            tunnelling: Arc::new(|_| json!({"denied": {"reason": "host_unresolved"}})),
            standing: BTreeMap::new(),
            scripted: BTreeMap::new(),
            calls: Vec::new(),
            epoch: 1,
            changes: Vec::new(),
            heard: BTreeMap::new(),
            acked: BTreeMap::new(),
            records: Vec::new(),
            leases: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Notify::new(), audit });
        let serving = tokio::spawn(serve::run(listener, Arc::clone(&shared)));
        Self { addr, shared, serving: Mutex::new(Some(serving)), dir }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it listens, as JSON for an Envoy endpoint.
    #[must_use]
    pub fn endpoint(&self) -> Value {
        let (address, port) = (self.addr.ip().to_string(), self.addr.port());
        json!({"socket_address": {"address": address, "port_value": port}})
    }

    /// The policy from now on; its `version` is also the ETag and stands in the change feed.
    pub fn policy(&self, spec: Value) {
        self.edit_policy(|policy| *policy = spec);
    }

    /// The same policy, with changes. As the broker does it: with a change in the feed, by which a worker that is between
    /// two polls hears of it at its next one, and which voids what was granted before.
    pub fn edit_policy(&self, edit: impl FnOnce(&mut Value)) {
        {
            let mut state = self.shared.state();
            edit(&mut state.policy);
            state.written = state.policy.to_string().into();
            state.sent = 0;
        }
        self.change(json!({}));
    }

    /// Waits until the policy was sent so often, once to each VM.
    ///
    /// # Panics
    /// When it is not in time.
    pub async fn fetched(&self, times: usize, deadline: Duration) {
        util::eventually(deadline, || self.shared.state().sent >= times).await;
    }

    /// Grants this to everyone from now on, each time on a new lease.
    pub fn grant(&self, grant: Grant) {
        self.answer_grants(move |_| grant.answer());
    }

    /// Denies everyone for this reason from now on.
    pub fn deny(&self, reason: &str) {
        let answer = json!({"denied": {"reason": reason}});
        self.answer_grants(move |_| answer.clone());
    }

    /// Answers each grant request by this: `{"granted": …}` or `{"denied": …}`. The nonce is added,
    /// and `lease.id` and `as_of` where they are missing.
    pub fn answer_grants(&self, granting: impl Fn(&Value) -> Value + Send + Sync + 'static) {
        self.shared.state().granting = Arc::new(granting);
    }

    /// Answers each intent by this: `{"recorded": …}`. The nonce is added; what is recorded is in the log.
    pub fn answer_intents(&self, recording: impl Fn(&Value) -> Value + Send + Sync + 'static) {
        self.shared.state().recording = Arc::new(recording);
    }

    /// Answers each question for a way through the door by this: `{"granted": …}` or `{"denied": …}`. The
    /// nonce is added, and `as_of`, `session`, `session_id` and `ttl_ms` where they are missing.
    pub fn answer_tunnels(&self, tunnelling: impl Fn(&Value) -> Value + Send + Sync + 'static) {
        self.shared.state().tunnelling = Arc::new(tunnelling);
    }

    /// How an endpoint behaves from now on.
    pub fn behave(&self, endpoint: Endpoint, behaviour: Behaviour) {
        self.shared.state().standing.insert(endpoint, behaviour);
    }

    /// How all endpoints behave from now on.
    pub fn behave_all(&self, behaviour: Behaviour) {
        Endpoint::ALL.into_iter().for_each(|endpoint| self.behave(endpoint, behaviour));
    }

    /// How an endpoint behaves for its next calls, one each, before its standing behaviour.
    pub fn behave_next(&self, endpoint: Endpoint, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.shared.state().scripted.entry(endpoint).or_default().extend(behaviours);
    }

    /// Closes the port and every connection: all endpoints refuse.
    pub async fn refuse(&self) {
        let serving = self.serving.lock().expect("no panic while switching").take();
        if let Some(serving) = serving {
            serving.abort();
            serving.await.ok();
        }
    }

    /// Opens the same port again.
    ///
    /// # Panics
    /// When another program has taken it meanwhile.
    pub async fn accept(&self) {
        self.refuse().await;
        let listener = TcpListener::bind(self.addr).await.expect("the port is still free");
        let serving = tokio::spawn(serve::run(listener, Arc::clone(&self.shared)));
        *self.serving.lock().expect("no panic while switching") = Some(serving);
    }

    /// Publishes a change (`{"session_id": …}`, `{"credential": …}` or `{}`); returns its cursor.
    pub fn change(&self, change: Value) -> u64 {
        let mut state = self.shared.state();
        let mut change = change;
        let cursor = state.cursor() + 1;
        change["cursor"] = cursor.into();
        state.changes.push(change);
        self.shared.changed.notify_waiters();
        cursor
    }

    /// Begins another life: a new epoch, an empty change feed.
    pub fn new_epoch(&self) {
        let mut state = self.shared.state();
        state.epoch += 1;
        state.changes.clear();
        self.shared.changed.notify_waiters();
    }

    /// The workers that poll for changes, and the cursor each has acknowledged.
    #[must_use]
    pub fn workers(&self) -> BTreeMap<String, u64> {
        self.shared.state().heard.clone()
    }

    /// Waits until so many VMs know this life of the broker: what they are granted from then on,
    /// they keep. An Envoy has one for each worker, and one on its main thread.
    pub async fn in_touch(&self, vms: usize, deadline: Duration) {
        let epoch = format!("&epoch={}&", self.shared.state().epoch_name());
        let know = || {
            let polls = self.heard(Endpoint::Changes);
            let know = polls.iter().filter(|poll| poll.target.contains(&epoch));
            know.map(|poll| poll.target.split('&').next().map(str::to_owned)).collect::<BTreeSet<_>>().len()
        };
        util::eventually(deadline, || know() >= vms).await;
    }

    /// How often an endpoint was called.
    #[must_use]
    pub fn calls(&self, endpoint: Endpoint) -> usize {
        self.shared.state().calls.iter().filter(|call| call.endpoint == endpoint).count()
    }

    /// Every call of an endpoint.
    #[must_use]
    pub fn heard(&self, endpoint: Endpoint) -> Vec<Call> {
        self.shared.state().calls.iter().filter(|call| call.endpoint == endpoint).cloned().collect()
    }

    /// Every audit record held, each once.
    #[must_use]
    pub fn records(&self) -> Vec<Value> {
        self.shared.state().records.clone()
    }

    /// Waits until it holds `n` audit records, and returns them all.
    ///
    /// # Panics
    /// When they do not come in time.
    pub async fn wait_records(&self, n: usize, deadline: Duration) -> Vec<Value> {
        util::eventually_some(deadline, || Some(self.records()).filter(|records| records.len() >= n)).await
    }

    /// The audit log it writes.
    #[must_use]
    pub fn audit_path(&self) -> PathBuf {
        self.dir.path().join("audit.jsonl")
    }
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        if let Ok(Some(serving)) = self.serving.get_mut().map(Option::take) {
            serving.abort();
        }
    }
}

impl Shared {
    /// The policy as it is sent, where that is what is asked for and nothing spoils it.
    fn whole_policy(&self, call: &Call, behaviour: Behaviour) -> Option<Bytes> {
        let is_whole = matches!(behaviour, Behaviour::Ok | Behaviour::Delay(_) | Behaviour::Oversized(_));
        let mut state = self.state();
        if call.endpoint != Endpoint::Policy || !is_whole || state.policy.is_null() {
            return None;
        }
        state.sent += 1;
        Some(state.written.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn cursor(&self) -> u64 {
        self.changes.len() as u64
    }
}
