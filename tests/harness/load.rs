//! Traffic: requests at a given rate, or as many as the machine sustains, over HTTP/1 and HTTP/2. Each has a path
//! of its own, and what became of it is kept.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, JoinSet};

use crate::agent::{H1, H2, PATIENCE, Wire, head};
use crate::{Agent, Response, Unanswered, refusal};

/// How many requests one load makes at most: no loop is without an end.
const MOST: u64 = 100_000;
/// Connections that HTTP/2 requests share.
const SHARED: usize = 4;

/// How often is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// So many requests a second, however long the answers take.
    PerSecond(u32),
    /// So many agents ask one after the other, each as soon as it has its answer: as often as the machine sustains.
    Most(usize),
}

/// One request to make.
pub struct Ask {
    pub host: &'static str,
    pub path: String,
    pub bearer: String,
}

/// Makes the nth request.
pub type Asking = Arc<dyn Fn(u64) -> Ask + Send + Sync>;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// 200, whole.
    Served,
    /// Refused by the filter, for this reason.
    Refused(String),
    /// Another status than 200, and no reason: Envoy's own answer, or the upstream's.
    Other(u16),
    /// An answer that broke off.
    Cut,
    /// Nobody took the connection (of HTTP/2 not even a greeting came), or it was over before the request was on it:
    /// nothing was asked.
    NotAsked,
    /// No answer, for this reason.
    Unanswered(String),
}

/// One request that was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its path names it.
    pub path: String,
    pub at: Instant,
    pub took: Duration,
    pub class: Class,
}

/// Traffic that goes on until it is stopped.
pub struct Load {
    lanes: Arc<Lanes>,
    driving: JoinHandle<()>,
}

struct Lanes {
    agent: Agent,
    proxy: SocketAddr,
    asking: Asking,
    idle: Mutex<Vec<H1>>,
    shared: Vec<tokio::sync::Mutex<Option<H2>>>,
    next: AtomicU64,
    stop: AtomicBool,
    made: Mutex<Vec<Made>>,
}

impl Load {
    /// Begins to ask.
    #[must_use]
    pub fn begin(agent: Agent, proxy: SocketAddr, rate: Rate, asking: Asking) -> Self {
        let lanes = Arc::new(Lanes {
            agent,
            proxy,
            asking,
            idle: Mutex::default(),
            shared: (0..SHARED).map(|_| tokio::sync::Mutex::new(None)).collect(),
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            made: Mutex::default(),
        });
        let driving = match rate {
            Rate::PerSecond(rate) => tokio::spawn(open(Arc::clone(&lanes), rate)),
            Rate::Most(agents) => tokio::spawn(closed(Arc::clone(&lanes), agents)),
        };
        Self { lanes, driving }
    }

    /// Asks no more, waits for every answer, and tells of every request.
    ///
    /// # Panics
    /// When an agent has panicked.
    pub async fn stop(self) -> Vec<Made> {
        self.lanes.stop.store(true, Ordering::Relaxed);
        self.driving.await.expect("no agent panics");
        std::mem::take(&mut self.lanes.made.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many requests have their answer by now.
    #[must_use]
    pub fn so_far(&self) -> usize {
        self.lanes.made.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// A request at each tick; each is waited for on its own.
async fn open(lanes: Arc<Lanes>, rate: u32) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut asked = JoinSet::new();
    while let Some(n) = lanes.turn() {
        ticks.tick().await;
        let lanes = Arc::clone(&lanes);
        asked.spawn(async move { lanes.ask(n).await });
        while asked.try_join_next().is_some_and(|ended| ended.is_ok()) {}
    }
    while let Some(ended) = asked.join_next().await {
        ended.expect("no agent panics");
    }
}

/// Some agents, each with its next request after its last answer.
async fn closed(lanes: Arc<Lanes>, agents: usize) {
    let mut asked = JoinSet::new();
    for _ in 0..agents {
        let lanes = Arc::clone(&lanes);
        asked.spawn(async move {
            while let Some(n) = lanes.turn() {
                lanes.ask(n).await;
            }
        });
    }
    while let Some(ended) = asked.join_next().await {
        ended.expect("no agent panics");
    }
}

impl Lanes {
    /// The number of the next request, unless it is enough.
    fn turn(&self) -> Option<u64> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        (n < MOST && !self.stop.load(Ordering::Relaxed)).then_some(n)
    }

    async fn ask(&self, n: u64) {
        let ask = (self.asking)(n);
        let at = Instant::now();
        let class = match n % 2 {
            0 => self.over_h1(&ask).await,
            _ => self.over_h2(&ask, usize::try_from(n / 2).unwrap_or_default() % SHARED).await,
        };
        // An agent whom nobody takes in tries again a moment later.
        if class == Class::NotAsked {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let made = Made { path: ask.path, at, took: at.elapsed(), class };
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(made);
    }

    /// On a connection that has been used before, or a new one.
    async fn over_h1(&self, ask: &Ask) -> Class {
        let used = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match used {
            Some(connection) => connection,
            None => match Wire::dial(self.proxy).await {
                Ok(wire) => self.agent.h1_over(wire, format!("HTTP/1 to {}", self.proxy)),
                Err(_) => return Class::NotAsked,
            },
        };
        let headers = [("authorization", ask.bearer.as_str())];
        let answer = connection.request("GET", ask.host, &ask.path, &headers, b"").await;
        if answer.as_ref().is_ok_and(goes_on) {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        classed(answer)
    }

    /// On a connection that others use as well.
    async fn over_h2(&self, ask: &Ask, lane: usize) -> Class {
        let begun = {
            let mut shared = self.shared[lane].lock().await;
            let connection = match shared.take() {
                Some(connection) => connection,
                None => match Wire::dial(self.proxy).await {
                    Ok(wire) => self.agent.h2_over(wire, format!("HTTP/2 to {}", self.proxy)).await,
                    Err(_) => return Class::NotAsked,
                },
            };
            let connection = shared.insert(connection);
            let head = head("GET", ask.host, &ask.path, &[("authorization", &ask.bearer)]);
            let begun = connection.start(head, true).await;
            if begun.is_err() {
                *shared = None;
            }
            begun
        };
        let Ok(exchange) = begun else { return Class::NotAsked };
        let transcript = exchange.transcript();
        match exchange.response(PATIENCE).await {
            Err(why) if !matches!(why, Unanswered::TimedOut(_)) && transcript.raw().is_empty() => Class::NotAsked,
            answer => classed(answer),
        }
    }
}

/// Whether the connection of this answer can be used again.
fn goes_on(answer: &Response) -> bool {
    answer.complete && answer.header("connection").is_none_or(|said| !said.eq_ignore_ascii_case("close"))
}

fn classed(answer: Result<Response, Unanswered>) -> Class {
    match answer {
        Ok(answer) if !answer.complete => Class::Cut,
        Ok(answer) if answer.status == 200 => Class::Served,
        Ok(answer) => refusal::reason(&answer).map_or(Class::Other(answer.status), Class::Refused),
        Err(why) => Class::Unanswered(why.to_string()),
    }
}
