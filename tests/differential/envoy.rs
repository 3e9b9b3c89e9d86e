//! An Envoy with the settings that we ship, which does not forward: it tells what it would.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use attache_broker::cli::envoy_config::MachineArgs;
use attache_broker::config::{Config, Overrides};
use attache_broker::envoy::{self, LISTENER, Shape};
use attache_core::policy::Spec;
use attache_tests::envoy::{Options, binary};
use attache_tests::{Agent, Envoy, Fields, Unanswered, util};
use bytes::{Buf as _, BytesMut};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::cases::{HOSTS, Written};

const SOON: Duration = Duration::from_secs(20);
/// The listener that forwards, to the one that stands for all upstreams.
const SENDS: &str = "sends";
/// The cluster that leads there.
const UPSTREAM: &str = "upstream";
/// What the one behind it calls its only route.
pub const ARRIVED: &str = "arrived";
const ROUTE: &str = "x-told-route";
const AUTHORITY: &str = "x-told-authority";
const PATH: &str = "x-told-path";
const CASE: &str = "x-case";

/// What Envoy makes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Where it leads, and what a filter sees of it.
    Read { route: String, authority: Vec<u8>, path: Vec<u8> },
    /// It is refused: by an answer, or without one.
    Refused,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { route, authority, path } => {
                write!(f, "{route}: \"{}\" at \"{}\"", path.escape_ascii(), authority.escape_ascii())
            }
            Self::Refused => f.write_str("refused"),
        }
    }
}

/// The Envoy, and the policy whose routes it has.
pub struct World {
    pub spec: Spec,
    _envoy: Envoy,
    _dir: tempfile::TempDir,
    tells: SocketAddr,
    sends: SocketAddr,
}

impl World {
    pub async fn start() -> Self {
        let dir = util::temp_dir();
        let file = dir.path().join("attache.yaml");
        let destination = |name: &&str| match name.strip_suffix(":8443") {
            Some(host) => format!("{{host: '{host}', port: 8443}}"),
            None => format!("{{host: '{name}'}}"),
        };
        let destinations: Vec<String> = HOSTS.iter().map(destination).collect();
        let text = format!(
            "listen: {{proxy: '127.0.0.1:0'}}\ncredentials:\n  any: {{source: {{env: ANY}}, inject: bearer, \
             missing_placeholder: pass, destinations: [{}]}}\n",
            destinations.join(", ")
        );
        std::fs::write(&file, text).expect("a directory of ours");
        let overrides = Overrides { state_dir: Some(dir.path().to_owned()), ..Overrides::default() };
        let config = Config::load(Some(&file), &overrides, &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
        let spec = config.policy();
        let machine = MachineArgs {
            filter: Some("/filter.wasm".into()),
            filter_sha256: None,
            system_roots: Some("/roots.pem".into()),
            admin: Some("127.0.0.1:0".parse().expect("an address")),
        };
        let version = envoy::process::version(&binary()).expect("an Envoy");
        let machine = machine.on_this_machine(&config, version).expect("all is named");
        let shipped = envoy::bootstrap(Shape::Gateway, &config, &spec, &machine);
        let pipe = dir.path().join("upstream.sock");
        let bootstrap = telling(&shipped, &pipe.display().to_string());
        let envoy = Envoy::start(&bootstrap, Options { concurrency: 2, ..Options::default() }).await;
        let (tells, sends) = (envoy.addr(LISTENER).await, envoy.addr(SENDS).await);
        Self { spec, _envoy: envoy, _dir: dir, tells, sends }
    }

    /// What Envoy makes of each of these. It dials nobody for it.
    pub async fn ask(&self, cases: &Arc<Vec<Written>>) -> Vec<Said> {
        ask(self.tells, cases).await
    }

    /// What arrives upstream of each of these.
    pub async fn send(&self, cases: &Arc<Vec<Written>>) -> Vec<Said> {
        ask(self.sends, cases).await
    }
}

/// The shipped bootstrap, with a listener whose routes answer what they would forward, one that forwards
/// to a socket, and what listens there. No name is resolved, and no address dialled but that socket.
fn telling(shipped: &Value, pipe: &str) -> Value {
    let mut tells = shipped["static_resources"]["listeners"][0].clone();
    let manager = &mut tells["filter_chains"][0]["filters"][0]["typed_config"];
    manager["http_filters"] = json!([{
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }]);
    for unneeded in ["access_log", "local_reply_config"] {
        manager.as_object_mut().expect("an object").remove(unneeded);
    }
    // Where a request is bad, its neighbours on the connection are not.
    manager["http2_protocol_options"]["override_stream_error_on_invalid_http_message"] = json!(true);
    let mut sends = tells.clone();
    sends["name"] = json!(SENDS);
    routes(&mut tells, &|route| {
        let name = route["name"].as_str().expect("our routes have names").to_owned();
        answers(route, &name);
    });
    routes(&mut sends, &|route| match route.get_mut("route") {
        Some(action) => action["cluster"] = json!(UPSTREAM),
        None => answers(route, "refused"),
    });
    json!({
        "overload_manager": shipped["overload_manager"],
        "static_resources": {
            "listeners": [tells, sends, upstream(pipe)],
            "clusters": [{
                "name": UPSTREAM,
                "type": "STATIC",
                "load_assignment": {
                    "cluster_name": UPSTREAM,
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": pipe}}}}]}],
                },
            }],
        },
    })
}

/// Changes each route below `part`, which then asks for no verdict: there is no filter.
fn routes(part: &mut Value, change: &impl Fn(&mut Value)) {
    let is_route = part.get("match").is_some() && part.get("name").is_some();
    match part {
        Value::Object(_) if is_route => {
            part.as_object_mut().expect("an object").remove("typed_per_filter_config");
            part["match"].as_object_mut().expect("an object").remove("filter_state");
            change(part);
        }
        Value::Object(members) => members.values_mut().for_each(|part| routes(part, change)),
        Value::Array(parts) => parts.iter_mut().for_each(|part| routes(part, change)),
        _ => {}
    }
}

/// A route that tells, and goes nowhere.
fn answers(route: &mut Value, name: &str) {
    let told = [(ROUTE, name), (AUTHORITY, "%REQ(:AUTHORITY)%"), (PATH, "%REQ(:PATH)%"), (CASE, "%REQ(X-CASE)%")];
    let told = told.map(|(key, value)| json!({"header": {"key": key, "value": value}}));
    *route = json!({
        "name": name,
        "match": route["match"],
        "direct_response": {"status": 200},
        "response_headers_to_add": told,
    });
}

/// What stands for all upstreams: it reads what it gets as it is.
fn upstream(pipe: &str) -> Value {
    let mut route = json!({"match": {"prefix": ""}});
    answers(&mut route, ARRIVED);
    json!({
        "name": UPSTREAM,
        "address": {"pipe": {"path": pipe}},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": UPSTREAM,
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }],
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            },
        }]}],
    })
}

/// Asks over so many connections at once.
const AT_ONCE: usize = 16;

async fn ask(addr: SocketAddr, cases: &Arc<Vec<Written>>) -> Vec<Said> {
    let mut asking = JoinSet::new();
    for first in 0..AT_ONCE {
        let cases = Arc::clone(cases);
        asking.spawn(async move {
            let mine = (first..cases.len()).step_by(AT_ONCE);
            let (h1, h2): (Vec<_>, Vec<_>) = mine.partition(|at| matches!(cases[*at], Written::H1 { .. }));
            let mut said = over_h1(addr, &cases, &h1).await;
            said.extend(over_h2(addr, &cases, &h2).await);
            said
        });
    }
    let mut all: Vec<_> = asking.join_all().await.into_iter().flatten().collect();
    all.sort_unstable_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, said)| said).collect()
}

/// One after the other, on one connection as long as Envoy keeps it.
async fn over_h1(addr: SocketAddr, cases: &[Written], some: &[usize]) -> Vec<(usize, Said)> {
    let (mut connection, mut said) = (None, Vec::new());
    for at in some {
        let Written::H1 { hosts, target } = &cases[*at] else { unreachable!("only HTTP/1 is here") };
        let mut bytes = [b"GET ", &target[..], b" HTTP/1.1\r\n"].concat();
        hosts.iter().for_each(|host| bytes.extend([b"Host: ", &host[..], b"\r\n"].concat()));
        bytes.extend(format!("{CASE}: {at}\r\n\r\n").into_bytes());
        let mut stream = match connection.take() {
            Some(stream) => stream,
            None => TcpStream::connect(addr).await.expect("Envoy listens"),
        };
        stream.write_all(&bytes).await.expect("a connection that stands");
        let mut buffer = BytesMut::with_capacity(4 << 10);
        let answer = loop {
            if let Some(answer) = take_answer(&mut buffer) {
                break Some(answer);
            }
            match util::within(SOON, stream.read_buf(&mut buffer)).await {
                Ok(size) if size > 0 => {}
                _ => break None,
            }
        };
        said.push((*at, answer.as_ref().map_or(Said::Refused, |(status, fields)| reading(*status, fields, *at))));
        // Envoy waits for us to close what it has given up.
        connection = answer.is_some_and(|(_, fields)| !fields.has("connection")).then_some(stream);
    }
    said
}

/// One answer of HTTP/1 with its body, off the front.
fn take_answer(buffer: &mut BytesMut) -> Option<(u16, Fields)> {
    let end = memchr::memmem::find(buffer, b"\r\n\r\n")?;
    let mut lines = buffer[..end].split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let status = lines.next().and_then(|line| std::str::from_utf8(line.get(9..12)?).ok()?.parse().ok());
    let split = |line: &[u8]| {
        let colon = memchr::memchr(b':', line).expect("a header line");
        (line[..colon].to_vec(), line[colon + 1..].trim_ascii().to_vec())
    };
    let fields: Fields = lines.map(split).collect();
    let length: usize = fields.text("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    if buffer.len() < end + 4 + length {
        return None;
    }
    buffer.advance(end + 4 + length);
    Some((status.expect("a status line"), fields))
}

/// Many at once, and then their answers.
async fn over_h2(addr: SocketAddr, cases: &[Written], some: &[usize]) -> Vec<(usize, Said)> {
    let (mut client, mut said) = (Agent::new().raw_h2(addr).await, Vec::new());
    for some in some.chunks(64) {
        let mut streams = Vec::new();
        for at in some {
            let Written::H2 { authority, hosts, path } = &cases[*at] else { unreachable!("only HTTP/2 is here") };
            let number = at.to_string().into_bytes();
            let mut fields: Vec<(&str, &[u8])> = vec![(":method", b"GET"), (":scheme", b"http"), (":path", path)];
            fields.extend(authority.iter().map(|authority| (":authority", &authority[..])));
            fields.extend(hosts.iter().map(|host| ("host", &host[..])));
            fields.push((CASE, &number));
            streams.push(client.headers(&fields, true).await);
        }
        for (at, stream) in some.iter().zip(streams) {
            let answer = match client.response(stream, SOON).await {
                Ok(answer) => reading(answer.status, &answer.fields, *at),
                Err(Unanswered::Reset(_)) => Said::Refused,
                Err(why) => panic!("HTTP/2, request {at}, {:?}: {why:?}", cases[*at]),
            };
            said.push((*at, answer));
        }
    }
    said
}

fn reading(status: u16, fields: &Fields, at: usize) -> Said {
    let Some(route) = fields.text(ROUTE) else {
        assert!((400..500).contains(&status), "request {at} got {status}: {fields:?}");
        return Said::Refused;
    };
    assert_eq!(fields.text(CASE), Some(at.to_string()), "an answer is for another request");
    let bytes = |name: &str| fields.all(name).concat();
    Said::Read { route, authority: bytes(AUTHORITY), path: bytes(PATH) }
}
