//! The harness itself: a real Envoy with a plain router carries bytes between its agents and its
//! upstream, and each of them keeps what it promises to keep.

use std::time::Duration;

use attache_tests::agent::{H1, Outcome, PATIENCE, RawH2, head};
use attache_tests::ca::client_trusting;
use attache_tests::envoy::Options;
use attache_tests::upstream::{Progress, Protocol, Recorded};
use attache_tests::{Agent, Ca, Envoy, Reply, Secrets, Unanswered, Upstream, util};
use serde_json::{Value, json};

const HOST: &str = "upstream.test";
const SOON: Duration = Duration::from_secs(10);

/// One listener that routes everything to the upstream over verified TLS.
fn plain_router(upstream: &Upstream, ca: &Ca, upstream_protocol: Value) -> Value {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_protocol_options": {"enable_trailers": true},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}}
        ]}]},
        "http_filters": [{"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
    });
    let tls = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": HOST,
        "common_tls_context": {"validation_context": {
            "trusted_ca": {"filename": ca.pem_path()},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": HOST}}],
        }},
    });
    let protocol = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": upstream_protocol,
    });
    json!({"static_resources": {
        "listeners": [{
            "name": "in",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        }],
        "clusters": [{
            "name": "upstream",
            "type": "STATIC",
            "load_assignment": {"cluster_name": "upstream", "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": upstream.endpoint()}}]}]},
            "transport_socket": {"name": "tls", "typed_config": tls},
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol},
        }],
    }})
}

fn http2() -> Value {
    json!({"http2_protocol_options": {}})
}

fn http1() -> Value {
    json!({"http_protocol_options": {"enable_trailers": true}})
}

struct Rig {
    upstream: Upstream,
    envoy: Envoy,
    agent: Agent,
    _ca: Ca,
}

impl Rig {
    async fn start(upstream_protocol: Value) -> Self {
        let ca = Ca::new();
        let secrets = Secrets::new([("github", "ghp_the-real-one-0123456789")]);
        let upstream = Upstream::tls(&ca, &[HOST]).secrets(&secrets).start().await;
        let envoy = Envoy::start(&plain_router(&upstream, &ca, upstream_protocol), Options::default()).await;
        Self { upstream, envoy, agent: Agent::new(), _ca: ca }
    }

    async fn h1(&self) -> H1 {
        self.agent.h1(self.envoy.addr("in").await).await
    }

    async fn raw_h2(&self) -> RawH2 {
        self.agent.raw_h2(self.envoy.addr("in").await).await
    }

    async fn only_request(&self) -> Recorded {
        let mut all = self.upstream.wait_for(1, SOON).await;
        assert_eq!(all.len(), 1, "{all:#?}");
        all.remove(0)
    }
}

#[tokio::test]
async fn envoy_resolves_ports_and_shows_stats_and_its_config() {
    let rig = Rig::start(http2()).await;
    let addr = rig.envoy.addr("in").await;
    assert_ne!(addr.port(), 0);
    assert_eq!(rig.agent.get(addr, HOST, "/", &[]).await.text(), "ok\n");
    rig.envoy.wait_stat("http.in.downstream_rq_2xx", |count| count == 1, SOON).await;
    assert_eq!(rig.envoy.stat("no.such.stat").await, None);
    assert!(rig.envoy.config_dump().await.contains(HOST));
    assert!(rig.envoy.alive());
    assert_eq!(rig.envoy.quit(SOON).await, Some(0));
    assert!(!rig.envoy.alive());
}

#[tokio::test]
async fn a_bootstrap_that_envoy_refuses_gives_its_log() {
    let refused = Envoy::try_start(&json!({"no_such_field": 1}), Options::default()).await;
    let log = refused.err().expect("Envoy exits");
    assert!(log.contains("no_such_field"), "{log}");
}

#[tokio::test]
async fn http1_arrives_with_every_line_and_byte() {
    let rig = Rig::start(http1()).await;
    let mut agent = rig.h1().await;
    let sent = b"PUT /a/%2e?q=1 HTTP/1.1\r\nHost: upstream.test\r\nX-Raw: a\xff\xfeb\r\nX-Two: 1\r\nX-Two: 2\r\n\
        Transfer-Encoding: chunked\r\nTrailer: x-end\r\n\r\n";
    agent.send(sent).await.expect("sent");
    agent.send_chunk(b"first,").await.expect("sent");
    agent.send("6\r\nsecond\r\n0\r\nX-End: last\r\n\r\n").await.expect("sent");
    let answer = agent.response(SOON).await.expect("an answer");
    assert_eq!((answer.status, answer.complete), (200, true));
    assert!(answer.raw.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.raw.ends_with(b"ok\n"));

    let seen = rig.only_request().await;
    assert_eq!(
        (&seen.method[..], &seen.path[..], &seen.authority[..]),
        (&b"PUT"[..], &b"/a/%2e?q=1"[..], HOST.as_bytes())
    );
    assert_eq!(seen.fields.first("x-raw"), Some(&b"a\xff\xfeb"[..]));
    assert_eq!(seen.fields.all("x-two"), [b"1", b"2"]);
    assert_eq!((&seen.body[..], seen.body_len), (&b"first,second"[..], 12));
    assert_eq!(seen.trailers.first("x-end"), Some(&b"last"[..]));
    assert_eq!((seen.progress, seen.protocol), (Progress::Complete, Protocol::Http1));
    assert_eq!(seen.sni.as_deref(), Some(HOST));
    assert!(seen.request_id().is_some());

    let next = agent.request("GET", HOST, "/status/404", &[], b"").await.expect("kept alive");
    assert_eq!((next.status, next.text().as_str()), (404, "status\n"));
}

#[tokio::test]
async fn http2_arrives_with_body_and_trailers_and_answers_with_both() {
    let rig = Rig::start(http2()).await;
    rig.upstream.answer_with(|asked| Reply::new(200).body(asked.body.clone()).trailer("x-end", "of answer"));
    let mut agent = rig.agent.h2(rig.envoy.addr("in").await).await;
    let mut exchange = agent.start(head("POST", HOST, "/upload", &[("te", "trailers")]), false).await.expect("begun");
    exchange.data(b"piece one, ", false).await.expect("sent");
    exchange.data(b"piece two", false).await.expect("sent");
    let trailers = [("x-sum".parse().expect("a name"), "42".parse().expect("a value"))];
    exchange.trailers(trailers.into_iter().collect()).expect("sent");
    let answer = exchange.response(SOON).await.expect("an answer");
    assert_eq!((answer.status, answer.complete), (200, true));
    assert_eq!(answer.text(), "piece one, piece two");
    assert_eq!(answer.trailers.first("x-end"), Some(&b"of answer"[..]));

    let seen = rig.only_request().await;
    assert_eq!((seen.protocol, &seen.body[..]), (Protocol::Http2, &b"piece one, piece two"[..]));
    assert_eq!(seen.trailers.first("x-sum"), Some(&b"42"[..]));
    assert!(agent.transcript().decoded()[0].body.ends_with(b"piece two"));
}

#[tokio::test]
async fn hand_made_frames_reach_the_upstream_even_when_its_library_refuses_them() {
    let rig = Rig::start(http2()).await;
    let mut agent = rig.raw_h2().await;
    let fields: [(&[u8], &[u8]); 5] = [
        (b":method", b"get"),
        (b":scheme", b"http"),
        (b":path", b"/\xff\xfe"),
        (b":authority", HOST.as_bytes()),
        (b"x-raw", b"\xff\xfe"),
    ];
    let stream = agent.headers(&fields, true).await;
    let answer = agent.response(stream, SOON).await;
    assert!(answer.is_ok_and(|answer| answer.status >= 400), "the upstream's library refuses such a path");
    let seen = rig.only_request().await;
    assert_eq!((&seen.method[..], &seen.path[..]), (&b"get"[..], &b"/\xff\xfe"[..]));
    assert_eq!(seen.fields.first("x-raw"), Some(&b"\xff\xfe"[..]));
}

#[tokio::test]
async fn hand_made_frames_carry_long_fields_bodies_and_trailers() {
    let rig = Rig::start(http2()).await;
    let mut agent = rig.raw_h2().await;
    let long = "M".repeat(5_000);
    let fields = [(":method", long.as_str()), (":scheme", "http"), (":path", "/echo"), (":authority", HOST)];
    let stream = agent.headers(&fields, false).await;
    agent.data(stream, b"body", false).await.expect("sent");
    agent.trailers(stream, &[("x-end", "yes")]).await.expect("sent");
    let answer = agent.response(stream, SOON).await.expect("an answer");
    assert_eq!(answer.status, 200);
    assert!(answer.text().ends_with("\nbody"));
    let seen = rig.only_request().await;
    assert_eq!((seen.method.len(), seen.trailers.text("x-end").as_deref()), (5_000, Some("yes")));
}

#[tokio::test]
async fn the_upstream_knows_a_secret_wherever_it_shows() {
    let rig = Rig::start(http2()).await;
    let addr = rig.envoy.addr("in").await;
    let secret = "ghp_the-real-one-0123456789";
    let basic = "Basic eC1hY2Nlc3MtdG9rZW46Z2hwX3RoZS1yZWFsLW9uZS0wMTIzNDU2Nzg5";
    rig.agent.get(addr, HOST, "/", &[("authorization", &format!("Bearer {secret}"))]).await;
    rig.agent.get(addr, HOST, "/", &[("authorization", basic)]).await;
    rig.agent.get(addr, HOST, &format!("/?key={secret}"), &[]).await;
    rig.agent.request(addr, "POST", HOST, "/", &[], format!("key={secret}").as_bytes()).await;
    rig.agent.get(addr, HOST, "/", &[("authorization", "Bearer ghp_ATTACHE0123456789")]).await;
    let all = rig.upstream.wait_for(5, SOON).await;
    let carried: Vec<bool> = all.iter().map(|request| request.secrets.contains("github")).collect();
    assert_eq!(carried, [true, true, true, true, false]);
    assert_eq!(rig.upstream.hits().len(), 4);
}

#[tokio::test]
async fn magic_paths_answer_as_named() {
    let rig = Rig::start(http1()).await;
    let addr = rig.envoy.addr("in").await;
    let get = |path: &'static str| rig.agent.get(addr, HOST, path, &[("te", "trailers"), ("x-mine", "shown")]);
    assert_eq!(get("/status/503").await.status, 503);
    assert_eq!(get("/bytes/200001").await.body.len(), 200_001);
    assert_eq!(get("/chunked?n=2").await.text(), "piece 0\npiece 1\n");
    assert_eq!(get("/sse?n=2").await.header("content-type").as_deref(), Some("text/event-stream"));
    let echo = get("/echo?trailers").await;
    assert_eq!(echo.header("x-echo-x-mine").as_deref(), Some("shown"));
    assert!(echo.text().contains("x-mine: shown"));
    assert!(!get("/truncated").await.complete);
    assert_eq!(get("/reset").await.status, 503);
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_is_recorded() {
    let rig = Rig::start(http1()).await;
    let mut agent = rig.h1().await;
    let upgrade = "GET /upgrade HTTP/1.1\r\nHost: upstream.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    agent.send(upgrade).await.expect("sent");
    assert_eq!(agent.head(SOON).await.expect("an answer").status, 101);
    agent.send(b"through the tunnel").await.expect("sent");
    let echoed = agent.piece(SOON).await.expect("in time").expect("bytes");
    assert_eq!(&echoed[..], b"through the tunnel");
    let seen = rig.only_request().await;
    assert_eq!(&seen.body[..], b"through the tunnel");
}

#[tokio::test]
async fn a_connect_tunnel_carries_tls_for_http1_and_http2() {
    let ca = Ca::new();
    let upstream = Upstream::tls(&ca, &[HOST]).start().await;
    let mut bootstrap = plain_router(&upstream, &ca, http1());
    let cluster = &mut bootstrap["static_resources"]["clusters"][0];
    cluster.as_object_mut().expect("a cluster").remove("transport_socket");
    let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    let manager = bootstrap.pointer_mut(manager).expect("the manager");
    manager["upgrade_configs"] = json!([{"upgrade_type": "CONNECT"}]);
    manager["route_config"]["virtual_hosts"][0]["routes"] = json!([{
        "match": {"connect_matcher": {}},
        "route": {"cluster": "upstream", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]},
    }]);
    let envoy = Envoy::start(&bootstrap, Options::default()).await;
    let (agent, proxy) = (Agent::new(), envoy.addr("in").await);
    let tunnel = async |alpn: &[&str]| {
        let mut tunnel = agent.h1(proxy).await;
        let answer = tunnel.connect(&format!("{HOST}:443"), &[]).await.expect("an answer");
        assert_eq!(answer.status, 200);
        tunnel.into_tls(HOST, ca.client(alpn)).await.expect("a TLS handshake")
    };
    let mut h1 = agent.h1_over(tunnel(&["http/1.1"]).await, "inside a tunnel");
    assert_eq!(h1.request("GET", HOST, "/one", &[], b"").await.expect("an answer").status, 200);
    let mut h2 = agent.h2_over(tunnel(&["h2"]).await, "inside a tunnel").await;
    assert_eq!(h2.request("GET", HOST, "/two", &[], b"").await.expect("an answer").status, 200);
    let seen: Vec<_> =
        upstream.wait_for(2, SOON).await.into_iter().map(|seen| (seen.path_text(), seen.protocol)).collect();
    assert_eq!(seen, [("/one".to_owned(), Protocol::Http1), ("/two".to_owned(), Protocol::Http2)]);
}

#[tokio::test]
async fn an_unanswered_request_and_an_aborted_one_are_told_apart() {
    let rig = Rig::start(http2()).await;
    let mut patient = rig.h1().await;
    patient.send("GET /hang HTTP/1.1\r\nHost: upstream.test\r\n\r\n").await.expect("sent");
    let short = Duration::from_millis(200);
    assert_eq!(patient.response(short).await, Err(Unanswered::TimedOut(short)));
    let mut aborting = rig.h1().await;
    aborting.send("POST / HTTP/1.1\r\nHost: upstream.test\r\nContent-Length: 10\r\n\r\nhalf").await.expect("sent");
    rig.envoy.wait_stat("http.in.downstream_cx_total", |count| count == 2, SOON).await;
    aborting.abort();
    let outcomes = rig.agent.ledger().transcripts().into_iter().flat_map(|transcript| transcript.exchanges());
    let outcomes: Vec<Outcome> = outcomes.map(|exchange| exchange.outcome).collect();
    assert!(matches!(&outcomes[..], [Outcome::Lost(_), Outcome::Aborted]), "{outcomes:?}");
}

#[tokio::test]
async fn large_bodies_pass_both_ways_under_flow_control() {
    const SIZE: usize = 3 << 20;
    let rig = Rig::start(http2()).await;
    let mut agent = rig.agent.h2(rig.envoy.addr("in").await).await;
    let answer = agent.request("POST", HOST, "/bytes/3145728", &[], &vec![b'u'; SIZE]).await.expect("an answer");
    assert_eq!((answer.body.len(), answer.complete), (SIZE, true));
    assert_eq!(rig.only_request().await.body_len, 3 << 20);
    let mut raw = rig.raw_h2().await;
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/bytes/3145728"), (":authority", HOST)];
    let stream = raw.headers(&fields, true).await;
    assert_eq!(raw.response(stream, PATIENCE).await.expect("an answer").body.len(), SIZE);
}

#[tokio::test]
async fn an_upstream_with_a_certificate_for_another_name_gets_no_request() {
    let ca = Ca::new();
    let upstream = Upstream::tls(&ca, &["other.test"]).start().await;
    let envoy = Envoy::start(&plain_router(&upstream, &ca, http2()), Options::default()).await;
    let agent = Agent::new();
    assert_eq!(agent.get(envoy.addr("in").await, HOST, "/", &[]).await.status, 503);
    assert!(upstream.requests().is_empty());
}

/// Clients that are not ours are as watched as agents: by a port, over both protocols.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_shows_what_clients_ask_and_get() {
    let upstream = Upstream::plain().start().await;
    let (watching, client) = (Agent::new(), Agent::new());
    let port = watching.port(upstream.addr()).await;
    for target in ["/bytes/100000", "/status/403", "/chunked"] {
        client.get(port.addr, HOST, target, &[("x-request-id", "r-1")]).await;
        let answer = client.h2(port.addr).await.request("HEAD", HOST, target, &[("x-request-id", "r-2")], b"").await;
        answer.expect("an answer");
    }
    let mut hanging = client.h1(port.addr).await;
    hanging.send("GET /hang HTTP/1.1\r\nhost: h\r\n\r\n").await.expect("the port reads");
    upstream.wait_for(6, SOON).await;
    util::eventually(SOON, || upstream.requests().len() == 7).await;
    hanging.abort();
    client.h1(port.addr).await.request("GET", HOST, "/truncated", &[], b"").await.ok();
    client.h1(port.addr).await.request("GET", HOST, "/reset", &[], b"").await.ok();

    let exchanges = || {
        let transcripts = watching.ledger().transcripts();
        transcripts.iter().flat_map(|transcript| transcript.exchanges()).collect::<Vec<_>>()
    };
    util::eventually(SOON, || exchanges().iter().all(|one| one.outcome != Outcome::Pending)).await;
    let told = exchanges().into_iter().map(|one| (one.what, one.outcome, one.recorded_as));
    let [first, second] = ["r-1", "r-2"].map(|id| Some(id.to_owned()));
    let lost = Outcome::Lost("the proxy closed the connection".to_owned());
    let expected = [
        ("GET /bytes/100000", Outcome::Answered(200), first.clone()),
        ("HEAD /bytes/100000", Outcome::Answered(200), second.clone()),
        ("GET /status/403", Outcome::Answered(403), first.clone()),
        ("HEAD /status/403", Outcome::Answered(403), second.clone()),
        ("GET /chunked", Outcome::Answered(200), first),
        ("HEAD /chunked", Outcome::Answered(200), second),
        ("GET /hang", Outcome::Aborted, None),
        ("GET /truncated", Outcome::Cut(200), None),
        ("GET /reset", lost, None),
    ];
    let expected = expected.map(|(what, outcome, recorded)| (what.to_owned(), outcome, recorded));
    assert_eq!(told.collect::<Vec<_>>(), expected);
    let bodies = watching.ledger().transcripts().iter().flat_map(|transcript| transcript.decoded()).collect::<Vec<_>>();
    assert!(bodies.iter().any(|answer| answer.body.len() == 100_000), "a body is not whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_leads_to_a_real_server_and_keeps_its_records() {
    let ca = Ca::new();
    let server = Upstream::plain().handler(|_| Reply::new(200).body("of the server")).start().await;
    let upstream = Upstream::tls(&ca, &[HOST]).start().await;
    upstream.lead("", server.addr());
    let tls = client_trusting(&ca.pem_path(), &["h2", "http/1.1"]);
    let answer = Agent::new().h1_tls(upstream.addr(), HOST, tls).await.request("POST", HOST, "/x", &[], b"asked").await;
    assert_eq!(answer.expect("an answer").text(), "of the server");
    let recorded = &upstream.wait_for(1, SOON).await[0];
    assert_eq!((&recorded.body[..], recorded.sni.as_deref()), (&b"asked"[..], Some(HOST)));
    assert_eq!(server.requests().len(), 1);
}
