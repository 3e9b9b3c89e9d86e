//! A whole Attaché under fault: who asks for what, how each fault begins and how it ends.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use attache_core::placeholder::Shape as Placeholder;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::around::{self, Around, IN_OPENBAO, Identity, Vault};
use super::{Fault, Load, traps};
use crate::agent::Wire;
use crate::disk::{self, Disk};
use crate::failing_disk::FailingDisk;
use crate::fake_broker::{Behaviour, Endpoint, Grant};
use crate::load::{Ask, Asking};
use crate::stack::{GITHUB, Plan, SOON, Site};
use crate::upstream::{Part, magic};
use crate::{Agent, Attache, Envoy, FakeBroker, Reply, Stack, util};

/// Where the credential is whose uses are announced one by one: no request of it goes without the broker.
const STRICT_HOST: &str = "pay.extra.test";
const STRICT_SECRET: &str = "sk_the-real-key-of-the-till-0123456789";
const STRICT: &str = "inject: bearer, audit: strict, agent_env: {PAY_KEY: placeholder}, \
                      destinations: [{host: pay.extra.test, upstream: DIAL}]";
const HOST: &str = "api.github.com";
/// How many answers without an end are under way at once, at most.
const ENDLESS: u32 = 40;
/// Connections beside those that are idle, at most.
const OTHERS: usize = 100;
/// The state's disk, in bytes: the records of a load have room.
const DISK: u64 = 256 << 20;

/// A running Attaché, and what the fault needs.
pub struct World {
    pub(super) broker: Broker,
    pub(super) around: Around,
    asked: AtomicU64,
    /// How many requests were made beside a load's.
    beside: Arc<AtomicUsize>,
    /// What lasts while the fault does.
    held: Mutex<Vec<TcpStream>>,
    busy: Mutex<Vec<JoinHandle<()>>>,
}

/// The broker, real or a stand-in.
pub(super) enum Broker {
    Fake(Stack<FakeBroker>),
    Real { stack: Stack<Attache>, github: String, pay: String },
}

impl World {
    /// Starts what this fault needs.
    pub async fn of(fault: Fault) -> Self {
        let around = Around::of(fault, STRICT_SECRET).await;
        let broker = match fault {
            Fault::Answers(_)
            | Fault::Behaves(_)
            | Fault::Refuses
            | Fault::TakesNoRecords
            | Fault::AgentsLeave
            | Fault::EnvoyDrains => Broker::Fake(Plan::default().start_with_fake().await),
            Fault::Traps(_) => {
                let stack = Plan::default().with_traps().edit(traps::stranded_sooner).start_with_fake().await;
                stack.upstream().answer_with(traps::answer);
                Broker::Fake(stack)
            }
            _ => real(fault, &around).await,
        };
        let (held, busy) = (Mutex::default(), Mutex::default());
        let (asked, beside) = (AtomicU64::new(0), Arc::default());
        let world = Self { broker, around, asked, beside, held, busy };
        if let Broker::Fake(stack) = &world.broker {
            stack.broker.in_touch(2, SOON).await;
            // Slow enough that a fault finds requests in its way.
            if matches!(fault, Fault::Traps(_) | Fault::AgentsLeave) {
                stack.broker.behave(Endpoint::Grants, Behaviour::Delay(Duration::from_millis(15)));
            } else if matches!(fault, Fault::EnvoyDrains) {
                stack.broker.behave(Endpoint::Grants, Behaviour::Delay(Duration::from_millis(400)));
            }
        }
        world
    }

    /// Who asks, and for what: with a stand-in each time a stranger, of whom no cache knows; else one who has a grant,
    /// and one whose every use is announced, by turns.
    pub fn asking(&self, fault: Fault) -> Asking {
        // The numbers of one load, then of what is asked beside it.
        let from = ((self.asked.load(Ordering::Relaxed) >> 20) + 1) << 20;
        self.asked.store(from + (1 << 19), Ordering::Relaxed);
        match &self.broker {
            Broker::Fake(_) => Arc::new(move |n| {
                let one = matches!(fault, Fault::TakesNoRecords);
                let bearer = stranger(if one { from } else { from + n });
                Ask { host: HOST, path: format!("/load/{}", from + n), bearer }
            }),
            Broker::Real { github, pay, .. } => {
                let (github, pay) = (format!("Bearer {github}"), format!("Bearer {pay}"));
                // By turns over each protocol.
                Arc::new(move |n| {
                    let (host, bearer) = if n / 2 % 2 == 0 { (HOST, &github) } else { (STRICT_HOST, &pay) };
                    Ask { host, path: format!("/load/{}", from + n), bearer: bearer.clone() }
                })
            }
        }
    }

    /// What all goes on with: each is served once it does.
    pub fn probes(&self, fault: Fault) -> Vec<Ask> {
        let from = self.asked.fetch_add(1, Ordering::Relaxed);
        self.beside.fetch_add(1, Ordering::Relaxed);
        let ask = |host, bearer| Ask { host, path: format!("/load/{from}"), bearer };
        match &self.broker {
            // The one whose records are not taken is the one who asks all the time.
            Broker::Fake(_) if matches!(fault, Fault::TakesNoRecords) => vec![ask(HOST, stranger((from >> 20) << 20))],
            Broker::Fake(_) => vec![ask(HOST, stranger(from))],
            Broker::Real { github, pay, .. } => {
                vec![ask(STRICT_HOST, format!("Bearer {pay}")), ask(HOST, format!("Bearer {github}"))]
            }
        }
    }

    /// Before anything is asked at this load.
    pub fn prepare(&self, fault: Fault, load: &Load) {
        if let (Broker::Fake(stack), Fault::TakesNoRecords) = (&self.broker, fault) {
            // More than is under way between two deliveries, less than comes while nothing is taken.
            let max_unacked_uses = match load.per_second {
                Some(1) => 1,
                Some(rate) => rate,
                None => 400,
            };
            let grant = Grant::header("github", "authorization", &format!("Bearer {GITHUB}"));
            stack.broker.grant(Grant { max_unacked_uses, ..grant });
        }
    }

    /// The fault begins.
    pub async fn begin(&self, fault: Fault, load: &Load) {
        match (&self.broker, fault) {
            (Broker::Fake(stack), Fault::Answers(behaviour)) => stack.broker.behave(Endpoint::Grants, behaviour),
            (Broker::Fake(stack), Fault::Behaves(behaviour)) => stack.broker.behave_all(behaviour),
            (Broker::Fake(stack), Fault::Refuses) => stack.broker.refuse().await,
            (Broker::Fake(stack), Fault::TakesNoRecords) => {
                stack.broker.behave(Endpoint::Audit, Behaviour::Status(503));
            }
            (Broker::Fake(stack), Fault::Traps(callback)) => {
                self.beside.fetch_add(1, Ordering::Relaxed);
                traps::spring(stack, callback).await;
            }
            (Broker::Fake(_), Fault::AgentsLeave) => self.leave(load),
            (Broker::Real { stack, .. }, Fault::Killed) => stack.broker.kill(),
            (Broker::Real { stack, .. }, Fault::Stopped) => {
                stack.broker.signal("STOP");
                util::eventually(SOON, || util::stands(stack.broker.pid())).await;
            }
            (Broker::Real { stack, .. }, Fault::DiskFull) => disk::fill(&stack.dir().join("state/filler")),
            (Broker::Real { stack, .. }, Fault::SourceGone) => {
                std::fs::remove_file(stack.dir().join("state/default/secrets/pay")).expect("the credential's file");
            }
            (Broker::Real { stack, .. }, Fault::TornLog) => {
                stack.broker.kill();
                around::tear(&stack.dir().join("state/default/audit.jsonl"));
                stack.broker.begin_again();
            }
            (Broker::Real { stack, .. }, Fault::StrangeCertificate) => {
                self.around.identity.iter().for_each(Identity::becomes_strange);
                stack.broker.begin_again();
            }
            (Broker::Real { stack, .. }, Fault::Sealed) => {
                self.vault().bao.seal().await;
                stack.broker.begin_again();
            }
            (_, Fault::TokenRevoked) => self.vault().revoke_tokens().await,
            (_, Fault::SecretRejected) => self.take_another_secret().await,
            (_, Fault::DiskReadOnly) => self.around.disk.iter().for_each(FailingDisk::becomes_read_only),
            (_, Fault::DiskFailsToSync) => self.around.disk.iter().for_each(FailingDisk::fails_to_sync),
            (_, Fault::ClockJumps(seconds)) => self.around.clock.iter().for_each(|clock| clock.off_by(seconds)),
            (_, Fault::Idle(count)) => self.hold(count).await,
            (_, Fault::UpstreamResets) => self.site().upstream.answer_with(|_| Reply::reset()),
            (_, Fault::UpstreamCuts) => self
                .site()
                .upstream
                .answer_with(|_| Reply::new(200).field("content-length", "1000").body("short").part(Part::Reset)),
            (_, Fault::UpstreamSlow(ms)) => {
                self.site().upstream.answer_with(move |asked| magic(asked).after(Duration::from_millis(ms)))
            }
            (_, Fault::UpstreamEndless) => self.pour(load).await,
            (_, Fault::EnvoyStopped) => {
                signal(self.envoy().pid(), "STOP");
                util::eventually(SOON, || util::stands(self.envoy().pid())).await;
            }
            (_, Fault::EnvoyDrains) => drop(self.envoy().admin_post("/drain_listeners").await),
            (_, other) => unreachable!("{other:?} has another broker"),
        }
    }

    /// The cause is gone.
    pub async fn end(&self, fault: Fault) {
        match (&self.broker, fault) {
            (Broker::Fake(stack), Fault::Answers(_)) => stack.broker.behave(Endpoint::Grants, Behaviour::Ok),
            (Broker::Fake(stack), Fault::Behaves(_) | Fault::TakesNoRecords) => stack.broker.behave_all(Behaviour::Ok),
            (Broker::Fake(stack), Fault::Refuses) => stack.broker.accept().await,
            (Broker::Real { stack, .. }, Fault::Killed) => stack.broker.restart().await,
            (Broker::Real { stack, .. }, Fault::Stopped) => stack.broker.signal("CONT"),
            (Broker::Real { stack, .. }, Fault::DiskFull) => {
                std::fs::remove_file(stack.dir().join("state/filler")).expect("what filled the disk");
            }
            (Broker::Real { stack, .. }, Fault::SourceGone) => stack.site.keep("pay", STRICT_SECRET),
            (Broker::Real { stack, .. }, Fault::StrangeCertificate) => {
                self.around.identity.iter().for_each(Identity::becomes_known);
                stack.broker.begin_again();
            }
            (_, Fault::Sealed) => self.vault().bao.unseal().await,
            (_, Fault::DiskReadOnly | Fault::DiskFailsToSync) => self.around.disk.iter().for_each(FailingDisk::works),
            (_, Fault::ClockJumps(_)) => self.around.clock.iter().for_each(|clock| clock.off_by(0)),
            (_, Fault::UpstreamResets | Fault::UpstreamCuts | Fault::UpstreamSlow(_)) => {
                self.site().upstream.answer_with(magic);
            }
            (_, Fault::EnvoyStopped) => signal(self.envoy().pid(), "CONT"),
            _ => {}
        }
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let busy = std::mem::take(&mut *self.busy.lock().unwrap_or_else(PoisonError::into_inner));
        for one in busy {
            one.abort();
            one.await.ok();
        }
    }

    fn vault(&self) -> &Vault {
        self.around.vault.as_ref().expect("this fault has an OpenBao")
    }

    /// The service has another secret, and takes no other.
    async fn take_another_secret(&self) {
        let secret = self.vault().another().await;
        self.site().secrets.add("pay", &secret);
        let bearer = format!("Bearer {secret}");
        self.site().upstream.answer_with(move |asked| {
            let is_taken = asked.fields.text("authorization").is_some_and(|shown| shown == bearer);
            if is_taken || asked.authority != STRICT_HOST { magic(asked) } else { Reply::new(401) }
        });
    }

    /// Opens connections, and asks nothing on them.
    async fn hold(&self, count: usize) {
        let mut held = Vec::new();
        for _ in 0..count {
            held.push(TcpStream::connect(self.proxy()).await.expect("a connection"));
        }
        self.envoy().wait_stat("http.attache.downstream_cx_active", |open| open >= count as u64, SOON).await;
        self.held.lock().unwrap_or_else(PoisonError::into_inner).extend(held);
    }

    /// Agents that ask, and break their connections 0 to 40 ms later.
    fn leave(&self, load: &Load) {
        let (agent, proxy) = (self.site().oracle.agent(), self.proxy());
        let every = match load.per_second {
            Some(1) => Duration::from_millis(300),
            Some(_) => Duration::from_millis(20),
            None => Duration::from_millis(4),
        };
        let from = (self.asked.load(Ordering::Relaxed) >> 20) << 20;
        let beside = Arc::clone(&self.beside);
        let leaving = tokio::spawn(async move {
            for n in (1 << 18)..(1 << 19) {
                beside.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(leave(agent.clone(), proxy, from + n));
                tokio::time::sleep(every).await;
            }
        });
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).push(leaving);
    }

    /// Answers without an end, of which the heads are read and no more.
    async fn pour(&self, load: &Load) {
        let piece = vec![b'x'; 64 << 10];
        self.site().upstream.answer_with(move |asked| match asked.path.as_str() {
            "/endless" => Reply::new(200).part(Part::Repeat(piece.clone().into(), 1 << 20)).chunked(),
            _ => magic(asked),
        });
        let Broker::Real { github, .. } = &self.broker else { return };
        let count = match load.per_second {
            Some(1) => 1,
            _ => ENDLESS,
        };
        for _ in 0..count {
            let mut connection = self.site().oracle.agent().h1(self.proxy()).await;
            let head = format!("GET /endless HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {github}\r\n\r\n");
            connection.send(head).await.expect("sent");
            connection.head(SOON).await.expect("a head");
            let kept = tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(connection);
            });
            self.busy.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
        }
    }

    pub fn envoy(&self) -> &Envoy {
        match &self.broker {
            Broker::Fake(stack) => &stack.envoy,
            Broker::Real { stack, .. } => &stack.envoy,
        }
    }

    pub fn site(&self) -> &Site {
        match &self.broker {
            Broker::Fake(stack) => &stack.site,
            Broker::Real { stack, .. } => &stack.site,
        }
    }

    pub fn proxy(&self) -> std::net::SocketAddr {
        match &self.broker {
            Broker::Fake(stack) => stack.proxy,
            Broker::Real { stack, .. } => stack.proxy,
        }
    }

    /// How many questions for grants have come to the stand-in, and how many requests were made beside a load's.
    pub fn questions(&self) -> Option<(usize, usize)> {
        match &self.broker {
            Broker::Fake(stack) => Some((stack.broker.calls(Endpoint::Grants), self.beside.load(Ordering::Relaxed))),
            Broker::Real { .. } => None,
        }
    }
}

/// The real broker, with one credential that is cached and one whose every use is announced.
async fn real(fault: Fault, around: &Around) -> Broker {
    let source = if around.vault.is_some() { IN_OPENBAO } else { "{file: pay}" };
    let plan = Plan::default().credential("pay", STRICT_SECRET, &format!("{{source: {source}, {STRICT}}}"));
    let mut plan = plan.session("{name: till, credentials: [pay]}").limit("grant_ttl: 3s");
    // A start reads the log that it goes on with.
    plan = plan.extra("audit: {rotate: 1MB}\n");
    plan = around.within(plan).await;
    if let Fault::Idle(count) = fault {
        plan = plan.edit(move |bootstrap| allow_connections(bootstrap, count + OTHERS));
    }
    // In memory where that can be: what others do on this machine's disk is no part of the fault.
    if Disk::may_be_mounted() {
        plan = plan.disk(DISK);
    }
    let stack = plan.start().await;
    let (github, pay) = (stack.placeholder("writer", "github"), stack.broker.exported("till", "PAY_KEY"));
    Broker::Real { stack, github, pay }
}

/// The shipped bound would be met by those that are idle.
fn allow_connections(bootstrap: &mut Value, most: usize) {
    let bound = "/overload_manager/resource_monitors/0/typed_config/max_active_downstream_connections";
    *bootstrap.pointer_mut(bound).expect("connections are bounded") = most.into();
}

/// A placeholder that nobody else shows. The stand-in grants to anyone.
pub(super) fn stranger(n: u64) -> String {
    format!("Bearer {}", Placeholder::new("ghp_", 40).mint(&[7; 32], &format!("stranger-{n}"), "github"))
}

/// One agent that leaves.
async fn leave(agent: Agent, proxy: std::net::SocketAddr, n: u64) {
    let Ok(wire) = Wire::dial(proxy).await else { return };
    let mut connection = agent.h1_over(wire, format!("HTTP/1 to {proxy}"));
    let head = format!("GET /left/{n} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {}\r\n\r\n", stranger(n));
    if connection.send(head).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(n * 7 % 41)).await;
        connection.abort();
    }
}

fn signal(pid: u32, name: &str) {
    let sent = std::process::Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{name}");
}
