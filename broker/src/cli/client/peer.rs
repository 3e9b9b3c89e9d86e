//! Who listens at a socket, and whether that can be a broker of ours.
//!
//! A path alone proves nothing: in a directory that others may write to, anybody listens. Nor does the user:
//! what runs in a namespace for processes beneath ours (a command of `attache run`, a container) may be our
//! user's, and be kept from what we are about to believe.

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// Whether a broker of this user is one to operate.
pub fn is_ours(owner: u32, us: u32, of_config: bool) -> bool {
    owner == us || owner == 0 || (us == 0 && of_config)
}

/// Whether who listens runs in a namespace for processes beneath ours.
///
/// Asked of its descriptor, for its number may be another's by now. Which namespaces a process is in, by the
/// links in `/proc/PID/ns`, the kernel does not tell of a broker: that has its memory closed.
pub fn is_beneath(socket: impl AsFd, process: Option<i32>) -> io::Result<bool> {
    let told = match getsockopt(&socket, sockopt::PeerPidfd) {
        Ok(peer) => std::fs::read_to_string(format!("/proc/self/fdinfo/{}", peer.as_raw_fd()))?,
        // Linux before 6.5. Who has no number here is in none of our namespaces.
        Err(Errno::ENOPROTOOPT) => match process.filter(|process| *process > 0) {
            Some(process) => std::fs::read_to_string(format!("/proc/{process}/status"))?,
            None => return Ok(false),
        },
        Err(error) => return Err(error.into()),
    };
    depth(&told).map(|depth| depth > 1).ok_or_else(|| io::Error::other("who listens there has ended"))
}

/// In how many namespaces a process has a number, from ours on: one, where it is in ours (proc_pid_status(5),
/// pidfd_open(2)). Of a process that is in none of ours, that one is 0; one that has ended has none.
fn depth(told: &str) -> Option<usize> {
    let numbers = told.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    Some(numbers.split_whitespace().count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn only_ones_own_broker_and_roots_are_believed() {
        assert!(is_ours(1000, 1000, false) && is_ours(0, 1000, false) && is_ours(0, 0, false));
        assert!(!is_ours(1001, 1000, false) && !is_ours(1001, 1000, true) && !is_ours(1000, 0, false));
        assert!(is_ours(1000, 0, true), "root, on the config of the broker's user");
    }

    #[test]
    fn who_has_more_numbers_than_one_is_beneath() {
        assert_eq!(depth("pos:\t0\nPid:\t27\nNSpid:\t27\n"), Some(1));
        assert_eq!(depth("Name:\tsh\nNSpid:\t27\t3\t1\n"), Some(3));
        assert_eq!(depth("Pid:\t-1\n"), None);
    }

    #[test]
    fn who_is_here_is_not_beneath() {
        let (socket, _other) = UnixStream::pair().unwrap();
        assert!(!is_beneath(&socket, i32::try_from(std::process::id()).ok()).unwrap());
    }
}
