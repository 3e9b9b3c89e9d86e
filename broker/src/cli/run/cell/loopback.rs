//! The one device of a new network namespace, which is down at first.
//!
//! One message to the kernel (rtnetlink(7)), whose two structures are written out here: the crates for it
//! bring an executor, or a model of every message there is.

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};
use std::io;

const RTM_NEWLINK: u16 = 16;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const ACKNOWLEDGED_REQUEST: u16 = 0x1 | 0x4;
const IFF_UP: u32 = 1;
/// In every network namespace.
const LOOPBACK: i32 = 1;

/// Brings it up.
pub fn bring_up() -> io::Result<()> {
    // No protocol is protocol 0, NETLINK_ROUTE.
    let kernel = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    sendto(&kernel, &message(), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0; 64];
    let (read, _) = recv(&kernel, &mut answer, RecvFlags::empty())?;
    acknowledged(answer.get(..read).unwrap_or_default())
}

/// `struct nlmsghdr`, then `struct ifinfomsg`.
fn message() -> Vec<u8> {
    let body: Vec<u8> = [
        &[0, 0, 0, 0][..],
        &LOOPBACK.to_ne_bytes(),
        &IFF_UP.to_ne_bytes(),
        // Of the flags, this one is to change.
        &IFF_UP.to_ne_bytes(),
    ]
    .concat();
    let length = 16 + 16_u32;
    [
        &length.to_ne_bytes()[..],
        &RTM_NEWLINK.to_ne_bytes(),
        &ACKNOWLEDGED_REQUEST.to_ne_bytes(),
        // Number and sender: there is one message.
        &[0; 8],
        &body,
    ]
    .concat()
}

/// `struct nlmsghdr`, then `struct nlmsgerr`, which begins with the error, negative; none is 0.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let error = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match error {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}
