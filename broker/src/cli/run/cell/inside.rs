//! The first process of the new namespaces: hides, gives up, starts the command, and stays with it. When it
//! ends, everything in there does.

use super::line::Line;
use super::outside::Failure;
use super::{Order, Plan, Told, devices, hide, kernel, loopback};
use crate::cli::common::{FAILED, complain};
use crate::cli::run::child::{End, ended, not_started_code, pid};
use crate::cli::run::{outfit, signals};
use keyutils_raw::keyctl_join_session_keyring;
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, kill_process, set_dumpable_behavior, set_parent_process_death_signal,
    wait,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};
use std::ffi::OsString;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Command, ExitCode};
use std::sync::Arc;

/// Does the work of this process.
pub fn inside(command: &[OsString]) -> ExitCode {
    // Before anything is read: there is nothing of ours in there but this process.
    let closed = set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .and_then(|()| set_parent_process_death_signal(Some(Signal::KILL)));
    // Masked out there; in here the kernel keeps the first process from what it does not catch.
    let unmasked = signals::unmask();
    let (Ok(()), Ok(()), Ok(line)) = (closed, unmasked, Line::of_stdin()) else { return ExitCode::from(FAILED) };
    let line = Arc::new(line);
    // Theirs are the terminals' names for as long as we are here.
    let Prepared { stdin, listener, terminals: _terminals } = match prepare(&line) {
        Ok(prepared) => prepared,
        Err((step, cause)) => {
            let _ = line.send(&Told::Failed { step: step.into(), cause: cause.to_string() }, &[]);
            return ExitCode::from(FAILED);
        }
    };
    if line.send(&Told::Ready, &[listener.as_fd()]).is_err() {
        return ExitCode::from(FAILED);
    }
    // Theirs alone from now on.
    drop(listener);
    let end = run(command, stdin, &line);
    let _ = line.send(&Told::Ended(end), &[]);
    ExitCode::SUCCESS
}

/// What a cell has when all is hidden.
struct Prepared {
    stdin: OwnedFd,
    listener: TcpListener,
    terminals: devices::Taken,
}

fn prepare(line: &Line) -> Result<Prepared, Failure> {
    let (order, mut with) = line.receive().map_err(|error| ("the plan of the cell", error))?;
    let Order::Begin(Plan { directories, above, files, certificates, proxy }) = order else {
        return Err(("the plan of the cell", io::ErrorKind::InvalidData.into()));
    };
    let mut with = with.drain(..);
    let stdin = with.next().ok_or(("the command's standard input", io::ErrorKind::InvalidData.into()))?;
    // Where we stand is beneath what is held from now on, and is to be reached through that.
    let here = std::env::current_dir();
    hide::apart().map_err(|error| ("mounts that are not the system's", error))?;
    hide::mount_over(&directories).map_err(|error| ("hiding directories", error))?;
    hide::bury(&files).map_err(|error| ("hiding sockets", error))?;
    hide::hold(&above).map_err(|error| ("holding what is above hidden directories", error))?;
    if let (Some(directory), Some(file)) = (certificates, with.next()) {
        hide::certificates(&directory, file).map_err(|error| ("the file of certificates", error))?;
    }
    let terminals = devices::replace(&stdin).map_err(|error| ("a /dev of its own", error))?;
    kernel::read_only().map_err(|error| ("/sys for reading alone", error))?;
    kernel::mount_proc()
        .map_err(|error| ("a /proc of its own (in a container, all of /proc must be visible)", error))?;
    if let Ok(here) = here {
        std::env::set_current_dir(here).map_err(|error| ("the working directory", error))?;
    }
    leave_keys().map_err(|error| ("a session keyring of its own", error))?;
    loopback::bring_up().map_err(|error| ("a loopback device", error))?;
    let listener = TcpListener::bind(proxy).map_err(|error| ("a port on the loopback device", error))?;
    give_up().map_err(|error| ("giving up capabilities", error))?;
    Ok(Prepared { stdin, listener, terminals })
}

/// What is in a session's keyring is its processes', whatever namespace they are in: they get an empty one.
fn leave_keys() -> io::Result<()> {
    match keyctl_join_session_keyring(None).map_err(|error| Errno::from_raw_os_error(error.0)) {
        Ok(_) => Ok(()),
        // No keys here, or none for us: then there are none for the child.
        Err(Errno::NOSYS | Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Every capability, for ever: also those that a program or a user id would give back.
fn give_up() -> io::Result<()> {
    clear_ambient_capability_set()?;
    for capability in (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel's last one is behind us.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    set_no_new_privs(true)?;
    Ok(())
}

fn run(command: &[OsString], stdin: OwnedFd, line: &Arc<Line>) -> End {
    let Some((program, arguments)) = command.split_first() else { return End::Code(FAILED) };
    let mut command = Command::new(program);
    outfit::dress(command.args(arguments).stdin(stdin));
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let _ = complain(FAILED, format_args!("{}: {error}", program.to_string_lossy()));
            return End::Code(not_started_code(&error));
        }
    };
    let Ok(child) = pid(child.id()) else { return End::Code(FAILED) };
    let orders = line.clone();
    std::thread::spawn(move || obey(&orders, child));
    loop {
        // Everybody's orphans are ours.
        match wait(WaitOptions::UNTRACED) {
            Ok(Some((who, status))) if who == child && status.stopped() => drop(line.send(&Told::Stopped, &[])),
            Ok(Some((who, status))) if who == child => match ended(status) {
                Some(end) => return end,
                None => continue,
            },
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return End::Code(FAILED),
        }
    }
}

/// Does as it is told, until nobody is there to tell: then all of us end.
fn obey(line: &Line, child: Pid) {
    loop {
        match line.receive() {
            Ok((Order::Signal(number), _)) => {
                if let Some(signal) = Signal::from_named_raw(number) {
                    let _ = kill_process(child, signal);
                }
            }
            Ok((Order::Ask, _)) => drop(line.send(&Told::Stands(stands(child)), &[])),
            Ok((Order::Begin(_), _)) => {}
            Err(_) => std::process::exit(i32::from(FAILED)),
        }
    }
}

/// Whether a process has been stopped (proc_pid_stat(5)).
fn stands(child: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}
