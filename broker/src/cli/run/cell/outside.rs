//! The process that leaves our namespaces, starts the first one of the new ones, and waits for it.

use super::Told;
use super::line::Line;
use crate::cli::common::FAILED;
use crate::cli::run::BECOME_INIT;
use crate::envoy::process;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::SigSet;
use rustix::process::{Signal, getegid, geteuid};
use rustix::thread::{CapabilitySet, capabilities, configure_capability_in_ambient_set, set_capabilities};
use std::ffi::OsString;
use std::io;
use std::process::{Command, ExitCode};

/// What is left.
const NAMESPACES: [CloneFlags; 5] = [
    CloneFlags::CLONE_NEWUSER,
    CloneFlags::CLONE_NEWNS,
    CloneFlags::CLONE_NEWPID,
    CloneFlags::CLONE_NEWNET,
    CloneFlags::CLONE_NEWIPC,
];

/// What could not be done, and why.
pub type Failure = (&'static str, io::Error);

/// Does the work of this process, as a child of the attache with this process id.
pub fn outside(parent: u32, command: &[OsString]) -> ExitCode {
    let Ok(line) = Line::of_stdin() else { return ExitCode::from(FAILED) };
    match leave(parent, command) {
        Ok(mut first) => {
            // What is of interest it tells itself.
            let _ = first.wait();
            ExitCode::SUCCESS
        }
        Err((step, cause)) => {
            let told = line.send(&Told::Failed { step: step.into(), cause: cause.to_string() }, &[]);
            if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
        }
    }
}

fn leave(parent: u32, command: &[OsString]) -> Result<std::process::Child, Failure> {
    let ours = || -> io::Result<()> {
        process::end_with(parent, Signal::KILL)?;
        // What a terminal sends to all is not for us: we end when the first process does.
        SigSet::all().thread_block()?;
        Ok(())
    };
    ours().map_err(|error| ("the process of the cell", error))?;

    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    unshare(NAMESPACES.into_iter().collect())
        .map_err(|error| ("the kernel gives no user, mount, process, network and IPC namespaces", error.into()))?;
    // One user and one group, as themselves: files are whose they are, and everybody else is nobody.
    let mapped = || -> io::Result<()> {
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
        std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"))
    };
    mapped().map_err(|error| ("the kernel takes no user and group for a user namespace", error))?;
    keep_capabilities().map_err(|error| ("capabilities in a user namespace", error))?;

    let own = std::env::current_exe();
    let first = own.and_then(|own| Command::new(own).arg(BECOME_INIT).arg("--").args(command).spawn());
    first.map_err(|error| ("the first process of the cell", error))
}

/// What we may do in the new namespaces survives the next exec, which takes it from whoever is not root.
fn keep_capabilities() -> io::Result<()> {
    let mut sets = capabilities(None)?;
    sets.inheritable = sets.permitted;
    set_capabilities(None, sets)?;
    for capability in (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
        if sets.permitted.contains(capability) {
            configure_capability_in_ambient_set(capability, true)?;
        }
    }
    Ok(())
}
