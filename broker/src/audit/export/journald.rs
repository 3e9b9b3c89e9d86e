//! The systemd journal, in its native protocol: one datagram a record, one `FIELD=value` a line.
//! A record is one line of printable ASCII, so no value needs the protocol's binary form.

use super::SinkError;
use super::sighted::Sighted;
use super::syslog::is_too_long;
use std::fmt::Write as _;
use std::path::PathBuf;
use tokio::net::UnixDatagram;

/// Members that become fields of their own (`ATTACHE_SESSION=…`), for `journalctl` to filter by.
const FIELDS: [&str; 10] = [
    "instance",
    "kind",
    "session",
    "session_id",
    "credential",
    "decision",
    "reason",
    "destination",
    "lease_id",
    "request_id",
];

/// The journal.
pub struct Journald {
    socket: PathBuf,
    wire: Option<UnixDatagram>,
}

impl Journald {
    /// The journal that listens at this socket.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, wire: None }
    }

    /// Sends the lines. A record longer than a datagram may be is dropped.
    pub async fn send(&mut self, lines: &[String]) -> Result<u64, SinkError> {
        let wire = match self.wire.take() {
            Some(wire) => wire,
            None => {
                let wire = UnixDatagram::unbound()?;
                wire.connect(&self.socket)?;
                wire
            }
        };
        let mut dropped = 0;
        for line in lines {
            match wire.send(entry(line).as_bytes()).await {
                Ok(_) => {}
                Err(error) if is_too_long(&error) => dropped += 1,
                Err(error) => return Err(error.into()),
            }
        }
        self.wire = Some(wire);
        Ok(dropped)
    }
}

fn entry(line: &str) -> String {
    let record = Sighted::read(line);
    let priority = record.severity() as u8;
    let mut entry = format!("MESSAGE={line}\nPRIORITY={priority}\nSYSLOG_IDENTIFIER=attache\n");
    for field in FIELDS {
        // Parsed, a value may hold any character again; one with a line break would begin a field.
        if let Some(value) = record.text(field).filter(|value| !value.contains('\n')) {
            let _ = writeln!(entry, "ATTACHE_{}={value}", field.to_ascii_uppercase());
        }
    }
    entry
}
