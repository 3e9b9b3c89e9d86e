//! CPU time and interference, read from `/proc` before and after a slice.
//!
//! A process's CPU time is read from its threads' `schedstat`: the same clock
//! as utime + stime in `/proc/PID/stat`, in nanoseconds where those count
//! ticks of 10 ms, 1 % of a slice.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::resource::{Usage, UsageWho, getrusage};

use crate::machine::Cores;

/// `/proc/stat` counts in these: USER_HZ is 100 on every Linux.
const TICK_MILLIS: u64 = 10;

/// Where a process's or one thread's CPU time is read.
#[derive(Clone, Debug)]
pub enum Meter {
    /// All threads of a process.
    Process(u32),
    /// One thread of this process.
    Thread(i32),
}

/// A reading of a [`Meter`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// On a core.
    pub cpu: Duration,
    /// Runnable, but not running: someone else had the core.
    pub waited: Duration,
}

impl Meter {
    /// The CPU time spent so far.
    pub fn read(&self) -> Result<Spent> {
        let threads = match self {
            Self::Process(pid) => {
                fs::read_dir(format!("/proc/{pid}/task"))?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?
            }
            Self::Thread(tid) => vec![PathBuf::from(format!("/proc/self/task/{tid}"))],
        };
        let mut sum = Spent::default();
        for thread in threads {
            let spent = match read_schedstat(&thread) {
                // It has ended since it was listed; what it spent since the last reading is lost with it.
                Err(_) if matches!(self, Self::Process(_)) && !thread.exists() => continue,
                read => read?,
            };
            sum.cpu += spent.cpu;
            sum.waited += spent.waited;
        }
        Ok(sum)
    }
}

fn read_schedstat(thread: &Path) -> Result<Spent> {
    let path = thread.join("schedstat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut fields = text.split_whitespace().map(str::parse);
    match (fields.next(), fields.next()) {
        (Some(Ok(cpu)), Some(Ok(waited))) => {
            Ok(Spent { cpu: Duration::from_nanos(cpu), waited: Duration::from_nanos(waited) })
        }
        _ => Err(anyhow!("{} is not two numbers: {text:?}", path.display())),
    }
}

/// Whom to read at a slice's edges.
#[derive(Debug)]
pub struct Probe {
    /// The cores in use.
    pub cores: Cores,
    /// The processes other than this one that belong to the benchmark.
    pub processes: Vec<Meter>,
}

/// One reading of everything.
#[derive(Debug)]
pub struct Snapshot {
    at: Instant,
    envoy: Spent,
    service: Duration,
    ours: Duration,
    envoy_core: Core,
    load_core: Core,
}

/// One core's line of `/proc/stat`.
#[derive(Clone, Copy, Debug)]
struct Core {
    busy: Duration,
    stolen: Duration,
}

/// What happened on the machine during a slice.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    /// Wall clock.
    pub wall: Duration,
    /// CPU time of Envoy.
    pub envoy: Duration,
    /// CPU time of the service that the variant asks (a broker, an
    /// authorisation service), if it has one.
    pub service: Duration,
    /// Envoy was ready to run, but something else had its core.
    pub envoy_waited: Duration,
    /// CPU time on the load core that is neither wrk's, nor the upstream's,
    /// nor the variant's service's.
    pub foreign: Duration,
    /// Taken by the hypervisor from either core.
    pub stolen: Duration,
    /// How busy the load core was: near the wall clock, the slice measured
    /// the load generator.
    pub load_core: Duration,
}

impl Probe {
    /// Reads all counters: those of the Envoy under measurement, and of the
    /// service that it asks.
    pub fn read(&self, envoy: &Meter, service: Option<&Meter>) -> Result<Snapshot> {
        let stat = fs::read_to_string("/proc/stat")?;
        let mut ours = own_cpu()?;
        for process in &self.processes {
            ours += process.read()?.cpu;
        }
        Ok(Snapshot {
            at: Instant::now(),
            envoy: envoy.read()?,
            service: service.map(Meter::read).transpose()?.unwrap_or_default().cpu,
            ours,
            envoy_core: Core::parse(&stat, self.cores.envoy)?,
            load_core: Core::parse(&stat, self.cores.load)?,
        })
    }
}

impl Snapshot {
    /// What happened between `self` and `later`.
    pub fn until(&self, later: &Self) -> Interval {
        let load_core = later.load_core.busy.saturating_sub(self.load_core.busy);
        let ours = later.ours.saturating_sub(self.ours);
        let stolen = |core: fn(&Self) -> Core| core(later).stolen.saturating_sub(core(self).stolen);
        Interval {
            wall: later.at.duration_since(self.at),
            envoy: later.envoy.cpu.saturating_sub(self.envoy.cpu),
            service: later.service.saturating_sub(self.service),
            envoy_waited: later.envoy.waited.saturating_sub(self.envoy.waited),
            foreign: load_core.saturating_sub(ours),
            stolen: stolen(|s| s.envoy_core) + stolen(|s| s.load_core),
            load_core,
        }
    }
}

impl Core {
    /// Parses `cpuN user nice system idle iowait irq softirq steal …`.
    fn parse(stat: &str, core: usize) -> Result<Self> {
        let name = format!("cpu{core}");
        let line = stat.lines().find(|line| line.split_whitespace().next() == Some(&name));
        let ticks = |ticks| Duration::from_millis(ticks * TICK_MILLIS);
        let fields: Vec<u64> =
            line.into_iter().flat_map(str::split_whitespace).skip(1).map_while(|f| f.parse().ok()).collect();
        match fields[..] {
            [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] => {
                Ok(Self { busy: ticks(user + nice + system + irq + softirq), stolen: ticks(steal) })
            }
            _ => Err(anyhow!("/proc/stat has no line {name} of eight numbers")),
        }
    }
}

/// This process (the upstream, the authorisation service) and the children it
/// has waited for (wrk).
fn own_cpu() -> Result<Duration> {
    let spent = |usage: Usage| {
        let micros =
            |time: nix::sys::time::TimeVal| time.tv_sec().unsigned_abs() * 1_000_000 + time.tv_usec().unsigned_abs();
        Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
    };
    Ok(spent(getrusage(UsageWho::RUSAGE_SELF)?) + spent(getrusage(UsageWho::RUSAGE_CHILDREN)?))
}

/// A process's resident memory in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmRSS")?.trim().parse()?;
    Ok(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_found_by_its_whole_name() {
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu1 1 2 4 50 60 8 16 3 0 0\ncpu12 7 7 7 7 7 7 7 7 0 0\nintr 1\n";
        let core = Core::parse(stat, 1).unwrap();
        assert_eq!(core.busy, Duration::from_millis(310), "idle and iowait are not busy");
        assert_eq!(core.stolen, Duration::from_millis(30));
        assert!(Core::parse(stat, 2).is_err());
    }

    #[test]
    fn burning_cpu_time_shows_in_the_process_and_in_the_thread() {
        let process = Meter::Process(std::process::id());
        let thread = Meter::Thread(nix::unistd::gettid().as_raw());
        let before = [process.read().unwrap().cpu, thread.read().unwrap().cpu, own_cpu().unwrap()];
        let enough = Duration::from_millis(50);
        let deadline = Instant::now() + Duration::from_secs(10);
        while thread.read().unwrap().cpu - before[1] < enough {
            assert!(Instant::now() < deadline, "the thread's clock stands still");
        }
        assert!(process.read().unwrap().cpu - before[0] >= enough);
        // `getrusage` may lag by a scheduler tick.
        assert!(own_cpu().unwrap() - before[2] >= enough - Duration::from_millis(10));
    }
}
