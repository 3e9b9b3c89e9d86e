//! What a process that holds secrets does first: no core files, no readable `/proc/PID`, files for
//! the owner alone, nothing handed on of what it was started with.

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask};

/// The kernel refused one of the measures.
#[derive(Debug, thiserror::Error)]
#[error("cannot turn off {what}: {cause}")]
pub struct HygieneError {
    what: &'static str,
    cause: rustix::io::Errno,
}

/// As many open files as the system lets us have: each connection is one. Whatever it is, we can work with it.
fn open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// The first descriptor that is no standard stream.
const FIRST: i32 = 3;

/// Applies to the whole process, and to its children unless they undo it.
pub fn apply() -> Result<(), HygieneError> {
    // What a shell left open (a pipe, a lock) stays ours, and is no child's: a command that rotates could use it.
    close_fds::set_fds_cloexec_threadsafe(FIRST, &[]);
    umask(Mode::RWXG | Mode::RWXO);
    open_files();
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|cause| HygieneError { what: "core files", cause })?;
    // Also makes /proc/PID/{mem,environ,fd} root's, and debuggers of the same user unwelcome.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|cause| HygieneError { what: "memory dumps", cause })
}
