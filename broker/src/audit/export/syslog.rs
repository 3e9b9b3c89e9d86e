//! Syslog: RFC 5424 messages, one a datagram (RFC 5426, or a UNIX socket) or, over TCP, with their
//! length before them (RFC 6587).

use super::SinkError;
use super::sighted::{Severity, Sighted};
use crate::config::SyslogAddress;
use rustix::io::Errno;
use syslog_fmt::Facility;
use syslog_fmt::v5424::{Config, Formatter, Msg, Timestamp};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket, UnixDatagram};

/// One syslog server.
pub struct Syslog {
    to: SyslogAddress,
    formatter: Formatter,
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
        // Authpriv: what hosts keep where users cannot read it. The host is the receiver's to know.
        let proc_id = std::process::id().to_string();
        let facility = Facility::Authpriv;
        let config = Config { facility, hostname: None, app_name: Some("attache"), proc_id: Some(&proc_id) };
        Self { to, formatter: config.into_formatter(), wire: None }
    }

    /// Sends the lines. Datagrams that are longer than the system takes are dropped.
    pub async fn send(&mut self, lines: &[String]) -> Result<u64, SinkError> {
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => connect(&self.to).await?,
        };
        let mut dropped = 0;
        for line in lines {
            let message = message(&self.formatter, line)?;
            let sent = match &mut wire {
                Wire::Unix(socket) => socket.send(&message).await.map(drop),
                Wire::Udp(socket) => socket.send(&message).await.map(drop),
                Wire::Tcp(stream) => {
                    let mut frame = format!("{} ", message.len()).into_bytes();
                    frame.extend_from_slice(&message);
                    stream.write_all(&frame).await
                }
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

/// A record as a message: the text is the line as it stands in the log, which is printable ASCII and
/// needs no byte order mark.
fn message(formatter: &Formatter, line: &str) -> std::io::Result<Vec<u8>> {
    let record = Sighted::read(line);
    let severity = match record.severity() {
        Severity::Warning => syslog_fmt::Severity::Warning,
        Severity::Notice => syslog_fmt::Severity::Notice,
        Severity::Info => syslog_fmt::Severity::Info,
    };
    let timestamp = record.text("timestamp").map_or(Timestamp::None, Timestamp::PreformattedStr);
    let (text, mut message) = (Msg::NonUnicodeBytes(line.as_bytes()), Vec::with_capacity(line.len() + 80));
    formatter.write_without_data(&mut message, severity, timestamp, text, Some(record.kind()))?;
    Ok(message)
}
