//! Deadlines, free ports, and where the built parts lie.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often a condition is looked at again.
const STEP: Duration = Duration::from_millis(5);

/// Waits until `condition` holds; panics at the caller's line when `deadline` has passed.
#[track_caller]
pub fn eventually(deadline: Duration, mut condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    eventually_some(deadline, move || condition().then_some(()))
}

/// Waits until `attempt` yields a value and returns it; panics at the caller's line otherwise.
#[track_caller]
pub fn eventually_some<T>(deadline: Duration, mut attempt: impl FnMut() -> Option<T>) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        let end = Instant::now() + deadline;
        loop {
            if let Some(value) = attempt() {
                return value;
            }
            assert!(Instant::now() < end, "the condition at {caller} did not hold within {deadline:?}");
            tokio::time::sleep(STEP).await;
        }
    }
}

/// Runs `work` and panics at the caller's line when it takes longer than `deadline`.
#[track_caller]
pub fn within<T>(deadline: Duration, work: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        match tokio::time::timeout(deadline, work).await {
            Ok(value) => value,
            Err(_) => panic!("what was awaited at {caller} took longer than {deadline:?}"),
        }
    }
}

/// Whether every thread of a process has been stopped by a signal (proc_pid_stat(5)).
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn stands(pid: u32) -> bool {
    let stands = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    };
    std::fs::read_dir(format!("/proc/{pid}/task")).expect("a running process").flatten().all(stands)
}

/// What a process has in memory, in bytes (proc_pid_status(5)).
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// For how long the threads of a process have run, and for how long they have waited to, in nanoseconds
/// (`/proc/PID/task/TID/schedstat`, Documentation/scheduler/sched-stats.rst). Zero for what has ended.
#[must_use]
pub fn scheduled(pid: u32) -> (u64, u64) {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_task = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let mut numbers = text.split_whitespace().map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    };
    tasks.map(of_task).fold((0, 0), |(ran, waited), (more, longer)| (ran + more, waited + longer))
}

/// A loopback port that was free a moment ago: only for programs that cannot bind port 0.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback accepts a bind");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// `127.0.0.1:0`: let the kernel choose.
#[must_use]
pub fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// A fresh directory, removed when dropped.
#[must_use]
pub fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("attache-test-").tempdir().expect("a temporary directory")
}

/// Milliseconds since the Unix epoch.
#[must_use]
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970");
    u64::try_from(since.as_millis()).expect("a clock before the year 500 million")
}

/// The root of this workspace.
#[must_use]
pub fn workspace_root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("this crate lies beneath the workspace root").to_path_buf()
}

/// Says that a test is skipped, and why and what to do: on standard error, which a test that passes does not
/// show, and in `skipped` in Cargo's target directory, which `make test` shows at its end.
pub fn skipped(why: impl std::fmt::Display) {
    use std::io::Write as _;
    eprintln!("SKIPPED: {why}");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_root().join("target"), PathBuf::from);
    let list = std::fs::OpenOptions::new().create(true).append(true).open(target.join("skipped"));
    // One write, so that tests beside each other do not mix their lines.
    let told = list.and_then(|mut list| list.write_all(format!("{why}\n").as_bytes()));
    told.expect("the target directory is writable");
}

/// The compiled filter: `$ATTACHE_FILTER`, else what `make filter` built.
#[must_use]
pub fn filter_wasm() -> PathBuf {
    built("ATTACHE_FILTER", "target/filter/attache_filter.wasm", "make filter")
}

/// The filter built to trap on demand: `$ATTACHE_FILTER_TRAP`, else what `make filter` built.
#[must_use]
pub fn filter_trap_wasm() -> PathBuf {
    built("ATTACHE_FILTER_TRAP", "target/filter/attache_filter_trap.wasm", "make filter")
}

/// The broker: `$ATTACHE_BIN`, else what `cargo build` made.
#[must_use]
pub fn broker_bin() -> PathBuf {
    built("ATTACHE_BIN", "target/debug/attache", "cargo build -p attache-broker")
}

fn built(variable: &str, default: &str, remedy: &str) -> PathBuf {
    let path = match std::env::var_os(variable) {
        Some(given) => PathBuf::from(given),
        None => workspace_root().join(default),
    };
    assert!(path.is_file(), "{} is missing: run `{remedy}` or set ${variable}", path.display());
    path
}
