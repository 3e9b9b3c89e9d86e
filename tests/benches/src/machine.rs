//! The machine: which core serves what, and the words that describe it in the
//! results.

use std::fs;
use std::process::Command;
use std::sync::LazyLock;
use std::thread;

use anyhow::{Context, Result, bail};
use attache_broker::clock::{Now, rfc3339};
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

/// Memory that could be had now, without swapping: in bytes (proc_meminfo(5), `MemAvailable`).
pub fn available_memory() -> Result<u64> {
    memory_in(&read("/proc/meminfo")).context("/proc/meminfo does not say what memory is available")
}

fn memory_in(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?.trim().strip_suffix(" kB")?;
    Some(kib.trim().parse::<u64>().ok()? * 1024)
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

/// Whether the kernel charges nobody for interrupts, so that those of the benchmark's own packets are in no process's
/// time. The file that most distributions keep says so; without it, they are taken for somebody's.
pub fn counts_interrupts_apart() -> bool {
    static IS_APART: LazyLock<bool> = LazyLock::new(|| {
        let kernel = read("/proc/sys/kernel/osrelease");
        has_irq_time(&read(&format!("/boot/config-{}", kernel.trim())))
    });
    *IS_APART
}

fn has_irq_time(config: &str) -> bool {
    config.lines().any(|line| line == "CONFIG_IRQ_TIME_ACCOUNTING=y")
}

/// What the results say about the machine, and of what and when they are.
#[derive(Debug, Serialize)]
pub struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    load_average_before: String,
    /// Where nothing is bound to a core, nothing.
    pinned: Option<Cores>,
    commit: String,
    date: String,
}

impl Machine {
    /// Reads `/proc`; a field that is not there stays empty.
    pub fn describe(pinned: impl Into<Option<Cores>>) -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        Self {
            cpu: model.map(|name| name.trim_start_matches([' ', '\t', ':']).to_owned()).unwrap_or_default(),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average_before: read("/proc/loadavg").trim().to_owned(),
            pinned: pinned.into(),
            commit: commit(),
            date: rfc3339(Now::read().wall_ms).chars().take_while(|c| *c != 'T').collect(),
        }
    }

    /// The line above a report's tables: who copies them copies it.
    pub fn to_line(&self) -> String {
        let Self { cpu, cores, kernel, commit, date, .. } = self;
        let cpu = if cpu.is_empty() { "unknown CPU" } else { cpu };
        format!("Measured on {date} at {commit}: {cpu}, {cores} cores, Linux {kernel}")
    }
}

/// Of the repository that the bench runs in, and whether it is all of what was built.
fn commit() -> String {
    let git = |arguments: &[&str]| Command::new("git").args(arguments).output().ok();
    let told = git(&["rev-parse", "--short", "HEAD"]).filter(|told| told.status.success());
    let Some(told) = told else { return "no commit".to_owned() };
    let is_changed = git(&["diff", "--quiet", "HEAD"]).is_none_or(|told| !told.status.success());
    let changed = if is_changed { ", changed since" } else { "" };
    format!("commit {}{changed}", String::from_utf8_lossy(&told.stdout).trim())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied_says_where_of_what_and_when() {
        let machine = Machine {
            cpu: "Some CPU @ 2 GHz".to_owned(),
            cores: 2,
            kernel: "6.1.0".to_owned(),
            load_average_before: String::new(),
            pinned: None,
            commit: "commit 0123456".to_owned(),
            date: "2026-01-31".to_owned(),
        };
        let line = "Measured on 2026-01-31 at commit 0123456: Some CPU @ 2 GHz, 2 cores, Linux 6.1.0";
        assert_eq!(machine.to_line(), line);
        let here = Machine::describe(None);
        assert!(here.commit == "no commit" || here.commit.starts_with("commit "), "{here:?}");
        assert_eq!(here.date.len(), "2026-01-31".len(), "{here:?}");
    }

    #[test]
    fn memory_is_what_could_be_had_not_what_is_free() {
        let meminfo = "MemTotal:  24000000 kB\nMemFree:    1000 kB\nMemAvailable:   2000 kB\n";
        assert_eq!(memory_in(meminfo), Some(2_048_000));
        assert_eq!(memory_in("MemTotal:  24000000 kB\n"), None);
    }

    #[test]
    fn interrupts_are_apart_where_the_kernels_config_says_so() {
        assert!(has_irq_time("CONFIG_HZ=250\nCONFIG_IRQ_TIME_ACCOUNTING=y\n"));
        assert!(!has_irq_time("CONFIG_HAVE_IRQ_TIME_ACCOUNTING=y\n# CONFIG_IRQ_TIME_ACCOUNTING is not set\n"));
        assert!(!has_irq_time(""));
    }
}
