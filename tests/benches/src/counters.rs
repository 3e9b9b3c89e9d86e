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

use crate::machine::{self, Cores};

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

impl Meter {
    /// The CPU time spent so far.
    pub fn read(&self) -> Result<Duration> {
        let threads = match self {
            Self::Process(pid) => {
                fs::read_dir(format!("/proc/{pid}/task"))?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?
            }
            Self::Thread(tid) => vec![PathBuf::from(format!("/proc/self/task/{tid}"))],
        };
        let mut sum = Duration::ZERO;
        for thread in threads {
            sum += match read_schedstat(&thread) {
                // It has ended since it was listed; what it spent since the last reading is lost with it.
                Err(_) if matches!(self, Self::Process(_)) && !thread.exists() => continue,
                read => read?,
            };
        }
        Ok(sum)
    }
}

/// Its first number. The second, how long the thread was runnable without running, says nothing of others: siblings
/// that share one core wait for each other.
fn read_schedstat(thread: &Path) -> Result<Duration> {
    let path = thread.join("schedstat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    match text.split_whitespace().next().map(str::parse) {
        Some(Ok(cpu)) => Ok(Duration::from_nanos(cpu)),
        _ => Err(anyhow!("{} begins with no number: {text:?}", path.display())),
    }
}

/// Whom to read at a slice's edges.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The cores in use.
    pub cores: Cores,
    /// The processes of the benchmark that are bound to Envoy's core, idle ones included.
    pub on_envoy_core: Vec<Meter>,
    /// Those on the load core, beside this process and its children.
    pub on_load_core: Vec<Meter>,
}

/// One reading of everything.
#[derive(Debug)]
pub struct Snapshot {
    at: Instant,
    envoy: Duration,
    service: Duration,
    envoy_core: Core,
    load_core: Core,
}

/// One core's line of `/proc/stat`, and what the benchmark spent there.
#[derive(Clone, Copy, Debug, Default)]
struct Core {
    /// Waiting for a disk included.
    idle: Duration,
    stolen: Duration,
    /// In interrupts that no process is charged for.
    interrupts: Duration,
    ours: Duration,
}

/// What one core did between two readings.
#[derive(Clone, Copy, Debug)]
struct Used {
    busy: Duration,
    foreign: Duration,
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
    /// CPU time on Envoy's core of who does not belong to the benchmark.
    pub envoy_core_foreign: Duration,
    /// CPU time on the load core that is neither wrk's, nor the upstream's,
    /// nor the variant's service's.
    pub load_core_foreign: Duration,
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
        let sum = |meters: &[Meter]| meters.iter().map(Meter::read).sum::<Result<Duration>>();
        let is_apart = machine::counts_interrupts_apart();
        let stat = fs::read_to_string("/proc/stat")?;
        let at = Instant::now();
        let core = |core, ours| anyhow::Ok(Core { ours, ..Core::parse(&stat, core, is_apart)? });
        Ok(Snapshot {
            at,
            envoy: envoy.read()?,
            service: service.map(Meter::read).transpose()?.unwrap_or_default(),
            envoy_core: core(self.cores.envoy, sum(&self.on_envoy_core)?)?,
            load_core: core(self.cores.load, own_cpu()? + sum(&self.on_load_core)?)?,
        })
    }

    /// With another Envoy on its core, and another process on the load core.
    pub fn with(&self, envoy: Meter, process: Meter) -> Self {
        let mut probe = self.clone();
        probe.on_envoy_core.push(envoy);
        probe.on_load_core.push(process);
        probe
    }
}

impl Snapshot {
    /// What happened between `self` and `later`.
    pub fn until(&self, later: &Self) -> Interval {
        let wall = later.at.duration_since(self.at);
        let envoy_core = self.envoy_core.until(&later.envoy_core, wall);
        let load_core = self.load_core.until(&later.load_core, wall);
        Interval {
            wall,
            envoy: later.envoy.saturating_sub(self.envoy),
            service: later.service.saturating_sub(self.service),
            envoy_core_foreign: envoy_core.foreign,
            load_core_foreign: load_core.foreign,
            stolen: envoy_core.stolen + load_core.stolen,
            load_core: load_core.busy,
        }
    }
}

impl Core {
    /// Busy is what is neither idle nor stolen: of a kernel that stops its tick on an idle core, idle is a clock's,
    /// where user and system are samples, which are off by several per cent of a second on a core that is half busy.
    fn until(&self, later: &Self, wall: Duration) -> Used {
        let since = |of: fn(&Self) -> Duration| of(later).saturating_sub(of(self));
        let stolen = since(|core| core.stolen);
        let busy = wall.saturating_sub(since(|core| core.idle)).saturating_sub(stolen);
        let charged = busy.saturating_sub(since(|core| core.interrupts));
        Used { busy, foreign: charged.saturating_sub(since(|core| core.ours)), stolen }
    }

    /// Parses `cpuN user nice system idle iowait irq softirq steal …`.
    fn parse(stat: &str, core: usize, is_apart: bool) -> Result<Self> {
        let name = format!("cpu{core}");
        let line = stat.lines().find(|line| line.split_whitespace().next() == Some(&name));
        let ticks = |ticks| Duration::from_millis(ticks * TICK_MILLIS);
        let fields: Vec<u64> =
            line.into_iter().flat_map(str::split_whitespace).skip(1).map_while(|f| f.parse().ok()).collect();
        match fields[..] {
            [_user, _nice, _system, idle, iowait, irq, softirq, steal, ..] => Ok(Self {
                idle: ticks(idle + iowait),
                stolen: ticks(steal),
                interrupts: if is_apart { ticks(irq + softirq) } else { Duration::ZERO },
                ours: Duration::ZERO,
            }),
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
        let core = Core::parse(stat, 1, false).unwrap();
        assert_eq!(core.idle, Duration::from_millis(1_100), "who waits for a disk is not busy");
        assert_eq!(core.stolen, Duration::from_millis(30));
        assert_eq!(core.interrupts, Duration::ZERO, "they are in the processes' time");
        assert_eq!(Core::parse(stat, 1, true).unwrap().interrupts, Duration::from_millis(240));
        assert!(Core::parse(stat, 2, false).is_err());
    }

    #[test]
    fn on_a_core_is_foreign_what_is_not_the_benchmarks_own() {
        let ms = Duration::from_millis;
        let foreign = |idle, ours, stolen, interrupts| {
            let later = Core { idle: ms(idle), ours: ms(ours), stolen: ms(stolen), interrupts: ms(interrupts) };
            Core::default().until(&later, ms(1_000)).foreign
        };
        assert_eq!(foreign(0, 1_000, 0, 0), ms(0), "siblings that wait for each other all the time disturb nobody");
        assert_eq!(foreign(300, 500, 0, 0), ms(200));
        assert_eq!(foreign(300, 500, 150, 0), ms(50), "what the hypervisor took has a limit of its own");
        assert_eq!(foreign(300, 500, 0, 200), ms(0));
        assert_eq!(foreign(300, 800, 0, 0), ms(0), "two clocks may differ");
    }

    #[test]
    fn each_core_has_its_own_processes() {
        let ms = Duration::from_millis;
        let at = Instant::now();
        let snapshot = |at, envoy_core, load_core| Snapshot {
            at,
            envoy: Duration::ZERO,
            service: Duration::ZERO,
            envoy_core: Core { ours: envoy_core, ..Core::default() },
            load_core: Core { ours: load_core, ..Core::default() },
        };
        let before = snapshot(at, ms(0), ms(0));
        let between = before.until(&snapshot(at + ms(1_000), ms(900), ms(600)));
        assert_eq!((between.envoy_core_foreign, between.load_core_foreign), (ms(100), ms(400)));
    }

    #[test]
    fn burning_cpu_time_shows_in_the_process_and_in_the_thread() {
        let process = Meter::Process(std::process::id());
        let thread = Meter::Thread(nix::unistd::gettid().as_raw());
        let before = [process.read().unwrap(), thread.read().unwrap(), own_cpu().unwrap()];
        let enough = Duration::from_millis(50);
        let deadline = Instant::now() + Duration::from_secs(10);
        while thread.read().unwrap() - before[1] < enough {
            assert!(Instant::now() < deadline, "the thread's clock stands still");
        }
        assert!(process.read().unwrap() - before[0] >= enough);
        // `getrusage` may lag by a scheduler tick.
        assert!(own_cpu().unwrap() - before[2] >= enough - Duration::from_millis(10));
    }
}
