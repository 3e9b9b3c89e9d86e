//! One fault at one load: traffic before it, during it and after it, and what must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::time::sleep;

use super::felt::{self, Before};
use super::world::{Broker, World, stranger};
use super::{Fault, Load, Row, kills, traps};
use crate::agent::{PATIENCE, SILENCE, Wire};
use crate::fake_broker::Behaviour;
use crate::load::{self, Class, Made, Rate};
use crate::oracle::{Audit, Violation};
use crate::stack::SOON;
use crate::util;

/// What a busy machine may add to a bound.
const SLACK: Duration = Duration::from_secs(1);
/// How long is waited for what does not come back in time, to say how late it is.
const LATEST: Duration = Duration::from_secs(15);
/// How long records that nobody took may take to be taken, once they are.
const SETTLES: Duration = Duration::from_millis(500);
/// By how much Envoy may grow, in bytes: buffers, its allocator's own, and no more however long it lasts.
const GROWTH: u64 = 96 << 20;
/// The same while a broker answers without measure: about 1 GB was seen. 32 MB of each answer, which is Envoy's
/// `http.async_response_buffer_limit`, could be 6 GB for as many callouts as one worker has under way.
const GROWTH_BY_ANSWERS: u64 = 2 << 30;
/// A refusal that took so long waited for something: whether it had to is a matter of time. A callout's timeout.
const WAITED: Duration = Duration::from_secs(2);
/// Who waits for a processor for more of the time than this cannot be held to times.
const BUSY: f64 = 0.7;

/// How Envoy ends a request over HTTP/1 whose answer comes to a VM that has trapped as another request was over: it
/// closes the connection.
const CLOSED: &str = "closed";
/// As agents tell of it.
const WITHOUT_A_WORD: &str = "closed without an answer";

/// What became of a fault at one load.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    pub load: &'static str,
    pub requests: usize,
    pub served: usize,
    /// By reason, or by Envoy's own status: how many.
    pub others: BTreeMap<String, usize>,
    pub unanswered: usize,
    /// What went upstream without being asked for, granted, or on record; and records that are no good.
    pub undecided: usize,
    /// Secrets that stand where they must not.
    pub secrets_out: usize,
    /// Uses whose record a VM took along. Each has its issue on record.
    pub lost: usize,
    pub slowest: Duration,
    pub recovery: Option<Duration>,
    /// By how much Envoy has grown, in bytes.
    pub grown: u64,
    /// How much of the time in which Envoy and the test could run they waited for a processor, from 0 to 1.
    pub waited: f64,
    /// What did not hold in time, or was not served in time.
    pub late: Vec<String>,
    /// What did not hold.
    pub failures: Vec<String>,
}

impl Cell {
    /// What could not even be tried.
    #[must_use]
    pub fn failed(load: &'static str, why: String) -> Self {
        Self { load, failures: vec![why], ..Self::default() }
    }

    /// Whether something was late that the machine had no time for: then it says nothing.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.failures.is_empty() && !self.late.is_empty() && self.waited > BUSY
    }

    /// All that did not hold.
    pub fn wrong(&self) -> impl Iterator<Item = &String> {
        self.failures.iter().chain(&self.late)
    }
}

/// What Envoy and this process were let have of the processors, against what they would have had.
struct Share {
    pids: [u32; 2],
    ran: u64,
    waited: u64,
}

impl Share {
    fn now(pids: [u32; 2]) -> Self {
        let (ran, waited) = pids
            .map(util::scheduled)
            .into_iter()
            .fold((0, 0), |(ran, waited), (more, longer)| (ran + more, waited + longer));
        Self { pids, ran, waited }
    }

    /// How much of the time in which they could run they waited, from 0 to 1.
    fn waited_since(&self) -> f64 {
        let now = Self::now(self.pids);
        let (ran, waited) = (now.ran.saturating_sub(self.ran), now.waited.saturating_sub(self.waited));
        waited as f64 / (ran + waited).max(1) as f64
    }
}

/// When a fault began, from when to when it was whole, and when all went on again.
struct Times {
    begun: Instant,
    whole: Option<(Instant, Instant)>,
    back: Option<Instant>,
}

pub(super) async fn run(row: &Row, load: &Load, world: &World, nth: usize) -> Cell {
    let mut cell = Cell { load: load.name, ..Cell::default() };
    let [before, mut during, after] = load.phases;
    // Longer than a callout waits.
    if matches!(row.fault, Fault::Stopped) {
        during += Duration::from_millis(1_200);
    }
    world.prepare(row.fault, load);
    let (vms, memory, asked) = (vms(world).await, util::resident(world.envoy().pid()), world.questions());
    let seen = Before::of(world).await;
    let rate = load.per_second.map_or(Rate::Most(row.agents), Rate::PerSecond);
    let traffic = load::Load::begin(world.site().oracle.agent(), world.proxy(), rate, world.asking(row.fault));
    let share = Share::now([world.envoy().pid(), std::process::id()]);
    sleep(before).await;
    let (begun, mut whole) = (Instant::now(), None);
    match row.fault {
        Fault::Kills(times) => cell.recovery = Some(kills::run(world, times).await),
        // Over with the next VM: that is when all goes on.
        Fault::Traps(_) => {
            world.begin(row.fault, load).await;
            cell.recovery = recovery(world, row.fault).await;
            sleep(during).await;
        }
        _ => {
            world.begin(row.fault, load).await;
            let from = Instant::now();
            sleep(during).await;
            cell.grown = util::resident(world.envoy().pid()).saturating_sub(memory);
            cell.failures.extend(felt::missing(world, row.fault, &seen).await);
            whole = Some((from, Instant::now()));
            world.end(row.fault).await;
            if row.back.is_some() {
                cell.recovery = recovery(world, row.fault).await;
            }
        }
    }
    let back = (row.back.is_some() && cell.recovery.is_some()).then(Instant::now);
    if row.back.is_some() {
        sleep(after).await;
    }
    let made = traffic.stop().await;
    cell.grown = cell.grown.max(util::resident(world.envoy().pid()).saturating_sub(memory));
    cell.count(row, &made, &Times { begun, whole, back });
    cell.waited = share.waited_since();
    cell.bounds(row);
    let replaced = self::vms(world).await - vms;
    if let (Some((before, beside_before)), Some((now, beside))) = (asked, world.questions()) {
        // Each request asks once at most, and so do those that look, spring and leave. A VM that has just begun asks anew what
        // it asked before it knew the broker's life: for the load's agents, and for who looks whether all goes on.
        let anew = usize::try_from(replaced).unwrap_or(usize::MAX).saturating_mul(row.agents + 1);
        let (questions, requests) = (now - before, made.len() + beside - beside_before);
        cell.expect(questions <= requests + anew, || format!("{questions} questions for {requests} requests"));
    }
    if !matches!(row.fault, Fault::Traps(_)) {
        cell.expect(replaced == 0, || format!("{replaced} VMs were replaced"));
        cell.expect(traps::sprung(&world.envoy().log()) == 0, || "a VM has trapped".into());
    }
    cell.reconcile(row, world, nth).await;
    cell
}

impl Cell {
    fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(otherwise());
        }
    }

    fn expect_in_time(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.late.push(otherwise());
        }
    }

    /// What became of the requests, and what must not have.
    fn count(&mut self, row: &Row, made: &[Made], times: &Times) {
        let mut bitten = false;
        // Who looks whether all goes on has a grant of his own; the records of others are taken some ticks later.
        let settles = if matches!(row.fault, Fault::TakesNoRecords) { SETTLES } else { Duration::ZERO };
        for one in made {
            self.requests += 1;
            self.slowest = self.slowest.max(one.took);
            let ended = one.at + one.took;
            let Some(name) = named(row.fault, &one.class) else {
                self.served += 1;
                continue;
            };
            if let Class::Unanswered(why) = &one.class
                && name != CLOSED
            {
                self.unanswered += 1;
                // Nothing came for so long as is waited; else it was closed or reset, at whatever time.
                match one.took >= PATIENCE {
                    true => self.expect_in_time(false, || format!("{}: {why}", one.path)),
                    false => self.expect(false, || format!("{}: {why}", one.path)),
                }
                continue;
            }
            *self.others.entry(name.clone()).or_default() += 1;
            bitten = true;
            let may = row.may.contains(&name.as_str());
            let during = ended >= times.begun;
            let late = times.back.is_some_and(|back| one.at > back + settles);
            // What waited, or was refused because the worker had heard nothing for so long.
            let for_time = one.took >= WAITED || name == "stale";
            for (holds, when) in [(may, ""), (during, " before the fault"), (!late, " after all was well again")] {
                let otherwise = || format!("{}: {name}{when}", one.path);
                match for_time {
                    true => self.expect_in_time(holds, otherwise),
                    false => self.expect(holds, otherwise),
                }
            }
        }
        self.late.truncate(8);
        // Where little is asked, it may have been of what the fault does not touch.
        self.expect(bitten || !row.bites || self.load == "1/s", || "the fault was none".into());
        self.slowed(row, made, times);
    }

    /// Who asked while all was slow, or stood still, shows it.
    fn slowed(&mut self, row: &Row, made: &[Made], times: &Times) {
        let Some((from, to)) = times.whole else { return };
        let meanwhile = |one: &&Made| one.at >= from && one.at + one.took <= to && one.class == Class::Served;
        let soonest = made.iter().filter(meanwhile).map(|one| one.took).min();
        let least = felt::at_least(row.fault);
        let (slowest, soon) = (self.slowest, least.zip(soonest).is_some_and(|(least, soonest)| soonest < least));
        self.expect(!soon, || format!("the fault was none: served after {soonest:?}"));
        self.expect(row.bites || least.is_none_or(|least| slowest >= least), || "the fault was none".into());
        let stood = !matches!(row.fault, Fault::EnvoyStopped) || soonest.is_none();
        self.expect(stood, || "the fault was none: served by what stood still".into());
    }

    fn bounds(&mut self, row: &Row) {
        let (slowest, recovery) = (self.slowest, self.recovery);
        // Who asked of what stood still is answered once it goes on.
        let stood = if matches!(row.fault, Fault::EnvoyStopped) { Duration::from_secs(3) } else { Duration::ZERO };
        let bound = row.answers + SLACK + stood;
        self.expect_in_time(slowest <= bound, || format!("answered after {slowest:?}"));
        if let Some(back) = row.back {
            let in_time = recovery.is_some_and(|took| took <= back + SLACK);
            self.expect_in_time(in_time, || format!("back after {recovery:?}"));
        }
        let grown = self.grown;
        let most = match row.fault {
            Fault::Answers(Behaviour::Oversized(_)) => GROWTH_BY_ANSWERS,
            _ => GROWTH,
        };
        self.expect(grown <= most, || format!("Envoy has grown by {} MB", grown >> 20));
    }

    /// The oracle, once what is on its way has come.
    async fn reconcile(&mut self, row: &Row, world: &World, nth: usize) {
        let oracle = &world.site().oracle;
        if nth == 0 && world.envoy().alive() {
            oracle.text("config_dump", world.envoy().config_dump().await);
        }
        let end = Instant::now() + SOON;
        let found = loop {
            let mut found = oracle.violations();
            found.retain(|one| !excused(row.fault, one));
            let lost = found.iter().filter(|one| lost(row.fault, one)).count();
            if found.len() == lost || Instant::now() > end {
                break found;
            }
            sleep(Duration::from_millis(100)).await;
        };
        let issued = issued(world);
        for one in &found {
            match one {
                Violation::Unrecorded { hit } if lost(row.fault, one) && was_issued(&issued, hit) => self.lost += 1,
                Violation::Leak { .. } | Violation::Astray { .. } => {
                    self.secrets_out += 1;
                    self.expect(false, || one.to_string());
                }
                // What became of each request is told already: here those beside them, too. It may still come.
                Violation::Unanswered { why: None, .. } => self.expect_in_time(false, || one.to_string()),
                Violation::Unanswered { why: Some(why), .. } if why.starts_with(SILENCE) => {
                    self.expect_in_time(false, || one.to_string());
                }
                Violation::Unanswered { .. } => self.expect(false, || one.to_string()),
                // Some seconds from the verdict to the upstream: the lease was alive when it was asked for.
                Violation::Expired { .. } => self.expect_in_time(false, || one.to_string()),
                _ => {
                    self.undecided += 1;
                    self.expect(false, || one.to_string());
                }
            }
        }
        self.late.truncate(8);
        self.failures.truncate(8);
        if let Broker::Real { stack, .. } = &world.broker {
            self.expect(stack.broker.alive(), || "the broker is gone".into());
            let verified = stack.broker.cli(&["audit", "verify"]).status.code();
            self.expect(verified == Some(0), || "the log does not verify".into());
        }
    }
}

/// Whether Envoy may close a connection without an answer.
fn may_close(fault: Fault) -> bool {
    matches!(fault, Fault::Traps("delete"))
}

/// How a request that was not served is told of.
fn named(fault: Fault, class: &Class) -> Option<String> {
    match class {
        Class::Unanswered(why) if may_close(fault) && why.ends_with(WITHOUT_A_WORD) => Some(CLOSED.into()),
        Class::Served => None,
        Class::Refused(reason) => Some(reason.clone()),
        Class::Other(status) => Some(status.to_string()),
        Class::Cut => Some("cut".into()),
        Class::NotAsked => Some("not asked".into()),
        Class::Unanswered(_) => Some("unanswered".into()),
    }
}

/// How long it takes until all that is asked is served.
async fn recovery(world: &World, fault: Fault) -> Option<Duration> {
    let (begun, agent) = (Instant::now(), world.site().oracle.agent());
    while begun.elapsed() < LATEST {
        let mut served = true;
        for ask in world.probes(fault) {
            let Ok(wire) = Wire::dial(world.proxy()).await else {
                served = false;
                break;
            };
            let mut connection = agent.h1_over(wire, "a look whether all goes on");
            let headers = [("authorization", ask.bearer.as_str())];
            let answer = connection.request("GET", ask.host, &ask.path, &headers, b"").await;
            served &= answer.is_ok_and(|answer| answer.status == 200);
        }
        if served {
            return Some(begun.elapsed());
        }
        sleep(Duration::from_millis(10)).await;
    }
    None
}

pub(super) async fn recovered(world: &World, fault: Fault) -> Duration {
    recovery(world, fault).await.unwrap_or(LATEST)
}

async fn vms(world: &World) -> u64 {
    world.envoy().wait_stat("wasm.envoy.wasm.runtime.v8.created", |_| true, SOON).await
}

/// What is part of the fault.
fn excused(fault: Fault, found: &Violation) -> bool {
    match (fault, found) {
        // The upstream has another clock. That each issue came first it knows by the length of the log.
        (Fault::ClockJumps(_), Violation::IssuedLate { how, .. }) => *how == "by its timestamp",
        (Fault::ClockJumps(_), Violation::Expired { .. }) => true,
        // Only what the load asks, and of that it is told already who found nobody there.
        (Fault::EnvoyDrains, Violation::Unanswered { .. }) => true,
        // An answer is cut, and said to be.
        (Fault::UpstreamCuts | Fault::Traps(_), Violation::Unanswered { why: Some(why), .. }) => {
            why.ends_with("was cut off") || may_close(fault) && why.ends_with(WITHOUT_A_WORD)
        }
        _ => false,
    }
}

/// A record that a VM has taken along.
fn lost(fault: Fault, found: &Violation) -> bool {
    matches!((fault, found), (Fault::Traps(_), Violation::Unrecorded { .. }))
}

/// For which evidence, as its digest, the stand-in has granted.
fn issued(world: &World) -> BTreeSet<String> {
    let Broker::Fake(stack) = &world.broker else { return BTreeSet::new() };
    let (audit, _) = Audit::read(Some(&stack.broker.audit_path()));
    let digests = audit.of_kind("issue").filter_map(|issue| issue.json["asked"]["placeholder"].as_str());
    digests.map(str::to_owned).collect()
}

/// Whether the log has an issue for who asked for this hit, whose path names the asker.
fn was_issued(issued: &BTreeSet<String>, hit: &str) -> bool {
    let number = hit.split("/load/").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    let bearer = stranger(number.unwrap_or(traps::SPRINGER));
    let digest = Sha256::digest(bearer.trim_start_matches("Bearer "));
    issued.contains(&digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// What does not add up, where nothing was done.
pub(super) async fn account(world: &World) -> Vec<String> {
    let end = Instant::now() + SOON;
    loop {
        let found = world.site().oracle.violations();
        if found.is_empty() || Instant::now() > end {
            return found.iter().take(4).map(ToString::to_string).collect();
        }
        sleep(Duration::from_millis(200)).await;
    }
}
