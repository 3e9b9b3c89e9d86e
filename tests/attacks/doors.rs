//! The broker's own doors, spoken to as anybody could who reaches them; and decisions that are not acted upon.

use std::net::SocketAddr;
use std::time::Duration;

use attache_core::door::Call;
use attache_core::headers;
use attache_core::policy::Policy;
use attache_core::request::Snapshot;
use attache_tests::table::Promise;
use attache_tests::{Attache, Stack, util};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::case::{At, Case, Ending};
use crate::values::Known;

/// How long a door may take to answer.
const SOON: Duration = Duration::from_secs(10);

/// Knocks as a case says, at the doors of this stack's broker.
///
/// # Errors
/// What happened instead of what is expected.
pub async fn knock(case: &Case, stack: &Stack<Attache>, known: &Known) -> Result<(), String> {
    let request = case.request.as_ref().expect("a door is asked something");
    let mut asked = [request.first.bytes(known), b" HTTP/1.1\r\nconnection: close\r\n".to_vec()].concat();
    for (name, value) in &request.lines {
        asked.extend([name.bytes(known), b": ".to_vec(), value.bytes(known), b"\r\n".to_vec()].concat());
    }
    let body = request.body.as_ref().map(|body| body.bytes(known)).unwrap_or_default();
    if !body.is_empty() {
        asked.extend(format!("content-length: {}\r\n", body.len()).into_bytes());
    }
    asked.extend_from_slice(b"\r\n");
    asked.extend(body);
    let state = &stack.config.state_dir;
    let runtime = std::fs::read(state.join("runtime.json")).expect("an announcement");
    let runtime: Value = serde_json::from_slice(&runtime).expect("JSON");
    let address = |name: &str| {
        let told = runtime[name].as_str().unwrap_or_else(|| panic!("{name} is not in {runtime:#}"));
        told.parse::<SocketAddr>().unwrap_or_else(|why| panic!("{told}: {why}"))
    };
    let said = match case.at {
        At::Operators => {
            let door = UnixStream::connect(state.join("control.sock")).await.expect("the operators' door");
            converse(door, &asked).await
        }
        At::Probes => converse(TcpStream::connect(address("health")).await.expect("a door"), &asked).await,
        _ => converse(TcpStream::connect(address("data_plane")).await.expect("a door"), &asked).await,
    };
    stack.site.oracle.text(&format!("what the broker said to {}", case.path()), said.clone());
    let shown = || said.escape_debug().to_string();
    let (head, body) = said.split_once("\r\n\r\n").ok_or_else(shown)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).map(Ending::Status);
    let expected = case.ends.first().map(|(_, ending)| *ending);
    let answer = case.answer.clone().unwrap_or_default();
    let lines: Vec<String> = head.lines().skip(1).map(str::to_lowercase).collect();
    let wanted = answer.lines.iter().map(|(name, value)| format!("{}: {}", name.text(known), value.text(known)));
    let has_all = wanted.map(|line| line.to_lowercase()).all(|line| lines.contains(&line));
    let has_none = answer.absent.iter().all(|name| !lines.iter().any(|line| line.starts_with(&format!("{name}:"))));
    let agrees = answer.body.is_none_or(|wanted| wanted.text(known) == body);
    if status == expected && has_all && has_none && agrees { Ok(()) } else { Err(shown()) }
}

/// Says something, and returns all that comes until the door is closed.
async fn converse(mut door: impl AsyncRead + AsyncWrite + Unpin, asked: &[u8]) -> String {
    // Whoever is turned away early may not be heard to the end.
    door.write_all(asked).await.ok();
    let mut said = Vec::new();
    util::within(SOON, door.read_to_end(&mut said)).await.ok();
    String::from_utf8_lossy(&said).into_owned()
}

/// Decides as the door of a forward proxy does. Nothing is dialled: there is no proxy.
///
/// # Errors
/// What was decided instead of what is expected.
pub fn decide(case: &Case, policy: &Policy, known: &Known) -> Result<(), String> {
    let tunnel = case.tunnel.as_ref().map(|tunnel| ("CONNECT".to_owned(), tunnel.first.text(known)));
    let asked = case.request.as_ref().map(|request| {
        let host = request.lines.iter().find(|(name, _)| name.text(known) == "host");
        ("GET".to_owned(), host.map(|(_, value)| value.text(known)).unwrap_or_default())
    });
    let (method, authority) = tunnel.or(asked).expect("something is asked for");
    let lines = [(":method", method.as_str()), (":authority", authority.as_str()), (":path", "/"), (":scheme", "http")];
    let fields = lines.into_iter().filter(|(name, _)| method != "CONNECT" || !matches!(*name, ":path" | ":scheme"));
    let fields: Vec<(&str, &[u8])> = fields.map(|(name, value)| (name, value.as_bytes())).collect();
    let snapshot = Snapshot::read(headers::serialize(fields), policy);
    let decided = Call::read(&snapshot, policy).map(|call| call.passage);
    match (case.ends.first(), decided) {
        (Some((_, Ending::Promise(Promise::Refused(reason)))), Err(why)) if why == *reason => Ok(()),
        (Some((_, Ending::Promise(Promise::Served))), Ok(_)) => Ok(()),
        (_, decided) => Err(format!("{decided:?}")),
    }
}
