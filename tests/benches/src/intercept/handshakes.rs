//! Tunnels for names that nobody has asked for, and for names that somebody has: every way with both in each round, in
//! a random order.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::{Method, StatusCode};
use rustls::ProtocolVersion;
use serde_json::{Value, json};

use super::report;
use super::upstream::Upstream;
use super::way::{Tunnel, Way, nothing, whole};
use crate::counters::{self, Interval, Meter, Probe, Snapshot};
use crate::estimate::{Figure, is_undisturbed};
use crate::rules::LOAD_PATH;
use crate::stats::{quantile, quantile_interval, slope};

/// The way that the others are held against.
const DIRECT: usize = 0;
/// How often the machine is looked at; the rule of the slices holds for what lies between two looks.
const BLOCK: Duration = Duration::from_secs(1);
/// After a tunnel, for both sides to take it down before the next.
const PAUSE: Duration = Duration::from_millis(5);
/// Rounds that count for nothing: code and caches are warm after them.
pub const WARM: usize = 8;
/// Of fewer names in the second half, what each takes in memory is not told.
const ENOUGH_NAMES: usize = 20;
/// With fewer clean tunnels than this, all are used.
const ENOUGH: usize = 30;

/// What is measured of one tunnel, in ms.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    way: usize,
    is_first: bool,
    round: usize,
    /// From opening TCP until the inner handshake has ended.
    handshake: f64,
    /// From there too, until the head of the first answer.
    answer: f64,
    /// CPU of the proxy, taking the tunnel down included.
    proxy: f64,
    /// CPU of its service.
    service: f64,
    /// Handshakes of the upstream meanwhile.
    upstream: u64,
    /// What was spoken with the client, and with the upstream last.
    versions: [Option<ProtocolVersion>; 2],
    clean: bool,
}

/// A quantity of one tunnel.
type Quantity = fn(&Tried) -> f64;

/// Everything that was tried.
#[derive(Debug)]
pub struct Handshakes {
    ways: Vec<&'static str>,
    has_service: Vec<bool>,
    tried: Vec<Tried>,
    /// Of each way, whose memory was read when.
    memory: Vec<Vec<Memory>>,
}

/// What a proxy and its service had in memory when so many names had been asked for.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    names: usize,
    /// Bytes of the proxy, and of its service.
    bytes: [Option<u64>; 2],
}

/// A quantile with half of its interval.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// The value.
    pub value: f64,
    /// Its error, where there are enough values beyond it.
    pub error: Option<f64>,
}

/// Tunnels of one kind through one way.
#[derive(Debug)]
pub struct Row {
    /// The way.
    pub way: &'static str,
    /// For names that nobody has asked for.
    pub is_first: bool,
    /// Half, 95 % and 99 % of the handshakes were over after these.
    pub handshake: [Option<Share>; 3],
    /// And the first answers had begun.
    pub answer: [Option<Share>; 3],
    /// Handshake and first answer against direct, round by round.
    pub ratios: [Option<Figure>; 2],
    /// The proxy's CPU, and its service's.
    pub cpu: [Option<Figure>; 2],
    /// Handshakes of the upstream for each tunnel.
    pub upstream: f64,
    /// What was spoken with the client, and with the upstream.
    pub versions: [Option<ProtocolVersion>; 2],
    /// How many were clean, and how many there were.
    pub counts: (usize, usize),
    /// Bytes that one more name takes in the proxy, and in its service, over the second half of all names.
    pub of_a_name: [Option<f64>; 2],
}

/// Takes one name after another for as long as time is left. The first way is direct.
pub async fn measure(
    (ways, names): (&[&Way], &[String]),
    upstream: &Upstream,
    probe: &Probe,
    budget: Duration,
) -> Result<Handshakes> {
    let began = Instant::now();
    let mut tried: Vec<Tried> = Vec::new();
    let mut memory = vec![Vec::new(); ways.len()];
    let mut block = Block::begin(ways, probe, 0)?;
    for (round, name) in names.iter().enumerate() {
        // Who was asked for in the round before is known to all.
        let known = round.checked_sub(1).and_then(|before| names.get(before));
        let firsts = (0..ways.len()).map(|way| (way, name, true));
        let seconds = (0..ways.len()).filter_map(|way| Some((way, known?, false)));
        let mut order: Vec<_> = firsts.chain(seconds).collect();
        fastrand::shuffle(&mut order);
        for (way, host, is_first) in order {
            let one =
                try_one(ways[way], host, upstream).await.with_context(|| format!("{} to {host}", ways[way].name))?;
            tried.push(Tried { way, is_first, round, ..one });
        }
        let is_last = round + 1 == names.len() || began.elapsed() > budget;
        if is_last || block.began.elapsed() >= BLOCK {
            block.end(ways, probe, &mut tried)?;
            for (way, memory) in ways.iter().zip(&mut memory) {
                memory.push(Memory { names: round + 1, bytes: [resident(&way.proxy)?, resident(&way.service)?] });
            }
            block = Block::begin(ways, probe, tried.len())?;
        }
        if is_last {
            break;
        }
    }
    tried.retain(|one| one.round >= WARM);
    let has_service = ways.iter().map(|way| way.service.is_some()).collect();
    Ok(Handshakes { ways: ways.iter().map(|way| way.name).collect(), has_service, tried, memory })
}

/// Bytes of a process, where it is one.
fn resident(meter: &Option<Meter>) -> Result<Option<u64>> {
    match meter {
        Some(Meter::Process(pid)) => Ok(Some(counters::resident(*pid)?)),
        _ => Ok(None),
    }
}

/// What one more name takes: the slope over the second half of the names. What the first ones take, code and buffers
/// among it, is not a name's.
fn of_a_name(memory: &[Memory], whose: usize) -> Option<f64> {
    let half = memory.last()?.names / 2;
    if half < ENOUGH_NAMES {
        return None;
    }
    let late = memory.iter().filter(|one| one.names >= half);
    let points: Vec<_> = late.filter_map(|one| Some((one.names as f64, one.bytes[whose]? as f64))).collect();
    slope(&points)
}

async fn try_one(way: &Way, host: &str, upstream: &Upstream) -> Result<Tried> {
    let spent = |meter: &Option<Meter>| anyhow::Ok(meter.as_ref().map(Meter::read).transpose()?.unwrap_or_default());
    let before = [spent(&way.proxy)?, spent(&way.service)?];
    let shaken = upstream.handshakes();
    let mut tunnel: Tunnel = way.open(host).await?;
    let answer = tunnel.send(Method::GET, LOAD_PATH, nothing()).await?;
    let answered = Instant::now();
    let (status, body) = whole(answer).await?;
    ensure!(status == StatusCode::OK, "answered {status}: {}", body.escape_ascii());
    let millis = |until: Instant| (until - tunnel.began).as_secs_f64() * 1e3;
    let (handshake, answer) = (millis(tunnel.shaken), millis(answered));
    let versions = [tunnel.version, upstream.version()];
    drop(tunnel);
    tokio::time::sleep(PAUSE).await;
    let after = [spent(&way.proxy)?, spent(&way.service)?];
    let [proxy, service] = [0, 1].map(|who| after[who].saturating_sub(before[who]).as_secs_f64() * 1e3);
    let upstream = upstream.handshakes() - shaken;
    let (way, is_first, round, clean) = (0, false, 0, false);
    Ok(Tried { way, is_first, round, handshake, answer, proxy, service, upstream, versions, clean })
}

/// A look at the machine, and the tunnels since.
struct Block {
    began: Instant,
    from: usize,
    before: Vec<Snapshot>,
}

impl Block {
    fn begin(ways: &[&Way], probe: &Probe, from: usize) -> Result<Self> {
        Ok(Self { began: Instant::now(), from, before: look(ways, probe)? })
    }

    /// A tunnel is clean where nobody else took much of either core.
    fn end(&self, ways: &[&Way], probe: &Probe, tried: &mut [Tried]) -> Result<()> {
        let after = look(ways, probe)?;
        let since = self.before.iter().zip(&after).map(|(before, after)| before.until(after));
        // Who goes directly has no proxy on that core.
        let own = |(way, between): (&&Way, Interval)| match way.proxy {
            Some(_) => between,
            None => Interval { envoy_core_foreign: Duration::ZERO, ..between },
        };
        let between: Vec<Interval> = ways.iter().zip(since).map(own).collect();
        for one in &mut tried[self.from..] {
            one.clean = is_undisturbed(&between[one.way]);
        }
        Ok(())
    }
}

fn look(ways: &[&Way], probe: &Probe) -> Result<Vec<Snapshot>> {
    ways.iter().map(|way| probe.read(&way.meter(), way.service.as_ref())).collect()
}

impl Handshakes {
    /// One row for each way and kind.
    pub fn rows(&self) -> Vec<Row> {
        let kinds = (0..self.ways.len()).flat_map(|way| [(way, true), (way, false)]);
        kinds.map(|(way, is_first)| self.row(way, is_first)).collect()
    }

    fn row(&self, way: usize, is_first: bool) -> Row {
        let quantiles = |quantity: Quantity| {
            let values = self.values(way, is_first, quantity);
            [0.5, 0.95, 0.99].map(|share| Share::of(&values, share))
        };
        let figure = |quantity: Quantity| {
            let of = |only_clean| self.of(way, is_first, only_clean).map(quantity).collect();
            Figure::of(of, ENOUGH).filter(|_| way != DIRECT)
        };
        let all = self.of(way, is_first, false);
        let (tunnels, upstream) = all.fold((0, 0), |(tunnels, sum), one| (tunnels + 1, sum + one.upstream));
        Row {
            way: self.ways[way],
            is_first,
            handshake: quantiles(|one| one.handshake),
            answer: quantiles(|one| one.answer),
            ratios: [self.ratio(way, is_first, |one| one.handshake), self.ratio(way, is_first, |one| one.answer)],
            cpu: [figure(|one| one.proxy), figure(|one| one.service).filter(|_| self.has_service[way])],
            upstream: upstream as f64 / f64::from(tunnels.max(1)),
            versions: self.of(way, is_first, false).last().map_or([None; 2], |one| one.versions),
            counts: (self.of(way, is_first, true).count(), self.of(way, is_first, false).count()),
            of_a_name: [0, 1].map(|whose| of_a_name(self.memory.get(way)?, whose)),
        }
    }

    /// Against direct in the same round, to a name of the same kind. Direct against itself is to a name of the other
    /// kind, which is the same to it: the method's own error.
    fn ratio(&self, way: usize, is_first: bool, quantity: Quantity) -> Option<Figure> {
        let against = if way == DIRECT { !is_first } else { is_first };
        let values = |only_clean: bool| {
            let pairs = self.of(way, is_first, only_clean).filter_map(|one| {
                let mut direct = self.of(DIRECT, against, only_clean);
                Some(quantity(one) / quantity(direct.find(|other| other.round == one.round)?))
            });
            pairs.collect()
        };
        Figure::of(values, ENOUGH)
    }

    /// The clean ones, or all where those are too few.
    fn values(&self, way: usize, is_first: bool, quantity: Quantity) -> Vec<f64> {
        let clean: Vec<f64> = self.of(way, is_first, true).map(quantity).collect();
        if clean.len() >= ENOUGH { clean } else { self.of(way, is_first, false).map(quantity).collect() }
    }

    fn of(&self, way: usize, is_first: bool, only_clean: bool) -> impl Iterator<Item = &Tried> {
        let mine = move |one: &&Tried| one.way == way && one.is_first == is_first && (one.clean || !only_clean);
        self.tried.iter().filter(mine)
    }
}

impl Share {
    fn of(values: &[f64], share: f64) -> Option<Self> {
        let error = quantile_interval(values, share).map(|(low, high)| (high - low) / 2.0);
        Some(Self { value: quantile(values, share)?, error })
    }
}

impl Row {
    /// Too few were clean: all were used.
    pub fn is_rough(&self) -> bool {
        self.counts.0 < ENOUGH
    }

    /// The row for machines.
    pub fn to_json(&self) -> Value {
        let shares = |shares: &[Option<Share>; 3]| {
            let [p50, p95, p99] = shares.map(|share| json!(share.map(|s| json!({"ms": s.value, "error": s.error}))));
            json!({"p50": p50, "p95": p95, "p99": p99})
        };
        let [ratio, answer_ratio] = self.ratios.map(report::figure);
        let [proxy, service] = self.cpu.map(report::figure);
        json!({
            "way": self.way, "name": if self.is_first { "never seen" } else { "seen" },
            "handshake": shares(&self.handshake), "first_answer": shares(&self.answer),
            "handshake_vs_direct": ratio, "first_answer_vs_direct": answer_ratio,
            "upstream_handshakes": self.upstream, "tls": self.versions.map(|version| format!("{version:?}")),
            "proxy_cpu_ms": proxy, "service_cpu_ms": service,
            "bytes_a_name": self.of_a_name[0], "service_bytes_a_name": self.of_a_name[1],
            "tunnels_clean": self.counts.0, "tunnels_total": self.counts.1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_held_against_direct_of_its_own_round_and_kind() {
        // The machine is half as fast from half-way on; a first handshake costs three times direct, a later one twice.
        let tried = (0..80).flat_map(|round| {
            let speed = if round < 40 { 1.0 } else { 2.0 };
            let one = move |way, is_first, times: f64| tunnel(way, is_first, round, speed * times);
            [one(0, true, 1.0), one(0, false, 1.0), one(1, true, 3.0), one(1, false, 2.0)]
        });
        let handshakes = Handshakes {
            ways: vec!["direct", "proxy"],
            has_service: vec![false, true],
            tried: tried.collect(),
            memory: vec![],
        };
        let medians: Vec<f64> = handshakes.rows().iter().map(|row| row.ratios[0].unwrap().median).collect();
        assert_eq!(medians, [1.0, 1.0, 3.0, 2.0]);
    }

    #[test]
    fn what_was_disturbed_is_left_out_unless_little_else_is_there() {
        let of = |disturbed: usize| {
            let tried = (0..60).map(|round| {
                let is_disturbed = round < disturbed;
                Tried { clean: !is_disturbed, ..tunnel(0, true, round, if is_disturbed { 9.0 } else { 1.0 }) }
            });
            let handshakes =
                Handshakes { ways: vec!["direct"], has_service: vec![false], tried: tried.collect(), memory: vec![] };
            let row = handshakes.row(0, true);
            (row.handshake[1].unwrap().value, row.counts, row.is_rough())
        };
        assert_eq!(of(20), (1.0, (40, 60), false));
        assert_eq!(of(50), (9.0, (10, 60), true));
    }

    #[test]
    fn a_name_takes_what_the_second_half_of_them_adds() {
        // Ten thousand bytes of warming up, all in the first half; then a hundred a name.
        let memory = (1..=20).map(|tens: usize| {
            let warm = if tens < 8 { 0 } else { 10_000 };
            Memory { names: tens * 10, bytes: [Some(warm + 1_000 * tens as u64), None] }
        });
        let memory: Vec<_> = memory.collect();
        assert!((of_a_name(&memory, 0).unwrap() - 100.0).abs() < 1e-6);
        assert_eq!(of_a_name(&memory, 1), None);
        assert_eq!(of_a_name(&memory[..3], 0), None);
        assert_eq!(of_a_name(&[], 0), None);
    }

    fn tunnel(way: usize, is_first: bool, round: usize, ms: f64) -> Tried {
        let (proxy, service, upstream, versions) = (0.0, 0.0, 1, [None; 2]);
        Tried { way, is_first, round, handshake: ms, answer: ms, proxy, service, upstream, versions, clean: true }
    }
}
