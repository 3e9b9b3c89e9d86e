//! Syslog: RFC 5424 messages, one a datagram (RFC 5426, or a UNIX socket) or, over TCP, with their
//! length before them (RFC 6587).

use super::SinkError;
use super::sighted::Sighted;
use crate::config::SyslogAddress;
use rustix::io::Errno;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket, UnixDatagram};

/// "log audit" of RFC 5424's facilities.
const FACILITY: u8 = 13;

/// One syslog server.
pub struct Syslog {
    to: SyslogAddress,
    wire: Option<Wire>,
}

enum Wire {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Syslog {
    /// Sends there, as soon as there is something to send.
    pub fn new(to: SyslogAddress) -> Self {
        Self { to, wire: None }
    }

    /// Sends the lines. Datagrams that are longer than the system takes are dropped.
    pub async fn send(&mut self, lines: &[String]) -> Result<u64, SinkError> {
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => connect(&self.to).await?,
        };
        let mut dropped = 0;
        for line in lines {
            let message = message(line);
            let sent = match &mut wire {
                Wire::Unix(socket) => socket.send(message.as_bytes()).await.map(drop),
                Wire::Udp(socket) => socket.send(message.as_bytes()).await.map(drop),
                Wire::Tcp(stream) => stream.write_all(format!("{} {message}", message.len()).as_bytes()).await,
            };
            match sent {
                Ok(()) => {}
                Err(error) if is_too_long(&error) => dropped += 1,
                Err(error) => return Err(error.into()),
            }
        }
        // What failed is connected anew.
        self.wire = Some(wire);
        Ok(dropped)
    }
}

/// Whether no second try would do better.
pub fn is_too_long(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error())
}

async fn connect(to: &SyslogAddress) -> std::io::Result<Wire> {
    Ok(match to {
        SyslogAddress::Unix(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            Wire::Unix(socket)
        }
        SyslogAddress::Udp(address) => {
            let target = tokio::net::lookup_host(address).await?.next().ok_or(std::io::ErrorKind::NotFound)?;
            let any: std::net::IpAddr = if target.is_ipv4() {
                std::net::Ipv4Addr::UNSPECIFIED.into()
            } else {
                std::net::Ipv6Addr::UNSPECIFIED.into()
            };
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(target).await?;
            Wire::Udp(socket)
        }
        SyslogAddress::Tcp(address) => Wire::Tcp(TcpStream::connect(address).await?),
    })
}

/// `<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG`. The message is the record
/// as it stands in the log, which is printable ASCII; the host is the receiver's to know.
fn message(line: &str) -> String {
    let record = Sighted::read(line);
    let priority = FACILITY * 8 + record.severity() as u8;
    let timestamp = record.text("timestamp").unwrap_or("-");
    format!("<{priority}>1 {timestamp} - attache {} {} - {line}", std::process::id(), record.kind())
}
