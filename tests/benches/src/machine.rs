//! The machine: which core serves what, and the words that describe it in the
//! results.

use std::fs;
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

/// One core for Envoy alone, one for everything that loads or serves it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cores {
    /// Envoy's.
    pub envoy: usize,
    /// wrk's, the upstream's, and that of every service a variant asks.
    pub load: usize,
}

impl Cores {
    /// The last core we may use for Envoy; for the load the first that is not
    /// its hyper-thread.
    pub fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("reading the CPU affinity")?;
        let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false));
        let Some(load) = cores.next() else {
            bail!("no core may be used");
        };
        let siblings = siblings(load);
        let Some(envoy) = cores.rfind(|core| !siblings.contains(core)) else {
            bail!("the benchmark needs two physical cores: one for Envoy, one for the load");
        };
        Ok(Self { envoy, load })
    }
}

/// Binds the calling thread, and every thread and process it starts from now
/// on, to one core.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("binding to core {core}"))
}

/// Runs `start` on a thread bound to `core`: a process started there inherits
/// the binding before its first instruction.
pub fn pinned<T: Send>(core: usize, start: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let run = || {
        pin(core)?;
        start()
    };
    thread::scope(|scope| match scope.spawn(run).join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// What the results say about the machine.
#[derive(Debug, Serialize)]
pub struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    load_average_before: String,
    pinned: Cores,
}

impl Machine {
    /// Reads `/proc`; a field that is not there stays empty.
    pub fn describe(pinned: Cores) -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        Self {
            cpu: model.map(|name| name.trim_start_matches([' ', '\t', ':']).to_owned()).unwrap_or_default(),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average_before: read("/proc/loadavg").trim().to_owned(),
            pinned,
        }
    }
}

fn siblings(core: usize) -> Vec<usize> {
    let list = read(&format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"));
    list.trim().split(',').flat_map(core_range).collect()
}

/// `3` or `2-5`.
fn core_range(text: &str) -> Vec<usize> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => (first..=last).collect(),
        _ => Vec::new(),
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
