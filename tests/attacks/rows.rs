//! From a case to the requests that are made of it.

use attache_tests::table::{Row, Tunnel, Way};
use attache_tests::upstream::Part;
use attache_tests::{Reply, Spelled};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::time::Duration;

use crate::case::{At, Case, Ending, Message};
use crate::values::Known;

/// Between two pieces of an answer: long enough for Envoy to have read the first.
const APART: Duration = Duration::from_millis(3);
/// Where a tunnel leads when its request names no destination.
const HOST: &str = "api.github.com";

/// The row of a case. `hosts`: the destinations there are.
pub fn row(case: &Case, known: &Known, hosts: &[String]) -> Row {
    let request = case.request.as_ref().map(|message| spelled(case, message, known));
    let request = request.unwrap_or_else(|| Spelled::get(HOST, "/"));
    let promised = |(way, ending): &(Way, Ending)| match ending {
        Ending::Promise(promise) => Some((*way, *promise)),
        Ending::Status(_) => None,
    };
    let answer = case.answer.clone().unwrap_or_default();
    let mut headers: Vec<_> =
        answer.lines.iter().map(|(name, value)| (name.text(known), Some(value.text(known)))).collect();
    headers.extend(answer.absent.iter().map(|name| (name.clone(), None)));
    Row {
        name: format!("{}/{}", case.class, case.name),
        promises: case.ends.iter().filter_map(promised).collect(),
        credential: case.carries.clone(),
        headers,
        body: answer.body.map(|body| body.bytes(known)),
        reply: case.reply.as_ref().map(|reply| replied(case, reply, known)),
        tunnel: tunnel(case, &request, known, hosts),
        before: case.before.clone(),
        request,
    }
}

fn spelled(case: &Case, message: &Message, known: &Known) -> Spelled {
    let first = message.first.bytes(known);
    let space = first.iter().position(|byte| *byte == b' ').unwrap_or(first.len());
    let (method, target) = first.split_at(space);
    let mut request = Spelled::get("", target.get(1..).unwrap_or_default()).method(method);
    request.authority = None;
    for (name, value) in &message.lines {
        let (name, value) = (name.bytes(known), value.bytes(known));
        if name == b"host" && request.authority.is_none() {
            request.authority = Some(value);
        } else {
            request.lines.push((name, value));
        }
    }
    if let Some(scheme) = &case.scheme {
        request.scheme = scheme.bytes(known);
    }
    let pieces = message.body.as_ref().map(|body| body.pieces(known)).unwrap_or_default();
    let ends = pieces.iter().scan(0, |end, piece| {
        *end += piece.len();
        Some(*end)
    });
    request.cuts = ends.take(pieces.len().saturating_sub(1)).collect();
    request.body(pieces.concat())
}

fn replied(case: &Case, message: &Message, known: &Known) -> Reply {
    let status = message.words.iter().find_map(|word| word.parse().ok()).unwrap_or(200);
    let mut reply = Reply::new(status);
    for (name, value) in &message.lines {
        reply = reply.field(name.bytes(known), value.bytes(known));
    }
    let pieces = message.body.as_ref().map(|body| body.pieces(known)).unwrap_or_default();
    for (at, piece) in pieces.into_iter().enumerate() {
        if at > 0 {
            reply = reply.part(Part::Pause(APART));
        }
        reply = reply.body(piece);
    }
    for (name, value) in &case.trailers {
        reply = reply.trailer(name.bytes(known), value.bytes(known));
    }
    if message.words.iter().any(|word| word == "chunked") { reply.chunked() } else { reply }
}

/// The tunnel that a request travels in: the one of the case, or one to where the request would go.
fn tunnel(case: &Case, request: &Spelled, known: &Known, hosts: &[String]) -> Option<Tunnel> {
    let opened_with = known.token(&case.asker());
    let basic = format!("Basic {}", STANDARD.encode(format!("attache:{opened_with}")));
    let own = ("proxy-authorization".to_owned(), basic);
    let Some(message) = &case.tunnel else {
        if case.at == At::Proxy {
            return None;
        }
        let authority = String::from_utf8_lossy(request.authority.as_deref().unwrap_or_default()).to_lowercase();
        let named = authority.trim_end_matches(":443").to_owned();
        let host = if hosts.contains(&named) { named } else { HOST.to_owned() };
        let headers = vec![own];
        return Some(Tunnel { authority: format!("{host}:443"), headers, opened_with, sni: Some(host), said: None });
    };
    let authority = message.first.text(known);
    let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host).to_owned();
    let mut sni = Some(host);
    let mut headers = Vec::new();
    for (name, value) in &message.lines {
        let (name, value) = (name.text(known), value.text(known));
        if name == "sni" { sni = Some(value) } else { headers.push((name, value)) }
    }
    if message.absent.iter().any(|name| name == "sni") {
        sni = None;
    }
    let shows = |name: &str| ["proxy-authorization", "x-attache-session"].contains(&name);
    if !headers.iter().any(|(name, _)| shows(name)) && !message.absent.iter().any(|name| shows(name)) {
        headers.push(own);
    }
    let said = case.said.as_ref().map(|said| said.bytes(known));
    Some(Tunnel { authority, headers, opened_with, sni, said })
}
