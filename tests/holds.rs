//! Until the verdict, headers, body and trailers all hold: nothing of a request reaches the
//! upstream, not even a connection, and after it everything arrives.

#[path = "holds/aborts.rs"]
mod aborts;
#[path = "holds/judge.rs"]
mod judge;
#[path = "holds/uploads.rs"]
mod uploads;

use attache_core::placeholder::Shape as Placeholder;
use attache_tests::agent::{H1, RawH2};
use attache_tests::fake_broker::{Endpoint, Grant};
use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::upstream::Progress;
use attache_tests::util::eventually;
use attache_tests::{FakeBroker, Latch, Recorded, Response, Stack};
use serde_json::{Value, json};

const HOST: &str = "api.github.com";

/// The ways in which a request can go on while its head is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// HTTP/1, no body.
    Bare,
    /// HTTP/1, the first byte of a body.
    FirstByte,
    /// HTTP/1, a chunked body, whole.
    Chunks,
    /// HTTP/1, a body after Envoy's own 100 Continue.
    Expect,
    /// HTTP/2, no body.
    Headers,
    /// HTTP/2, the first of two DATA frames.
    Data,
    /// HTTP/2, DATA and trailers, whole.
    Trailers,
    /// HTTP/2, trailers right after the head.
    TrailersAlone,
}

const SHAPES: [Shape; 8] = [
    Shape::Bare,
    Shape::FirstByte,
    Shape::Chunks,
    Shape::Expect,
    Shape::Headers,
    Shape::Data,
    Shape::Trailers,
    Shape::TrailersAlone,
];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_upstream_before_the_grant_and_everything_after_it() {
    let stack = start(plan()).await;
    for (n, shape) in (0..).zip(SHAPES) {
        let latch = Latch::default();
        stack.broker.answer_grants(latch.before(move |_| bearer().answer()));
        let request = Request::begin(shape, &stack, n).await;
        let before = stack.upstream().connections().len();
        fence(&stack).await;
        assert_eq!(stack.upstream().requests().len(), usize::from(n), "{shape:?}: a request before its grant");
        assert_eq!(stack.upstream().connections().len(), before, "{shape:?}: a connection before the grant");

        let released = latch.release();
        let answer = request.finish().await;
        assert_eq!(answer.status, 200, "{shape:?}: {}", answer.text());
        let hit = stack.upstream().wait_for(usize::from(n) + 1, SOON).await.pop().expect("a request");
        assert!(hit.at >= released, "{shape:?}");
        let connections = stack.upstream().connections();
        assert!(connections.len() == before + 1 && connections[before].at >= released, "{shape:?}");
        intact(shape, &hit, &placeholder(n));
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_ever_goes_upstream_after_a_denial() {
    let stack = start(plan()).await;
    for (n, shape) in (0..).zip(SHAPES) {
        let latch = Latch::default();
        stack.broker.answer_grants(latch.before(|_| json!({"denied": {"reason": "credential_not_granted"}})));
        let request = Request::begin(shape, &stack, n).await;
        fence(&stack).await;
        latch.release();
        let answer = request.finish().await;
        let reason = answer.header("x-attache-reason");
        assert_eq!((answer.status, reason.as_deref()), (403, Some("credential_not_granted")), "{shape:?}");
    }
    // Whatever was let go would have overtaken this.
    stack.broker.grant(bearer());
    assert_eq!(stack.get(HOST, "/last", &placeholder(100)).await.status, 200);
    fence(&stack).await;
    let paths: Vec<_> = stack.upstream().requests().iter().map(Recorded::path_text).collect();
    assert_eq!((paths, stack.upstream().connections().len()), (vec!["/last".to_owned()], 1));
    stack.reconcile().await;
}

/// Starts everything, and waits until both VMs (a worker's, the main thread's) know the broker: a
/// grant that was asked for before is asked for again.
async fn start(plan: Plan) -> Stack<FakeBroker> {
    let stack = plan.start_with_fake().await;
    stack.broker.in_touch(2, SOON).await;
    stack
}

/// Each upstream request takes a connection of its own: then connections tell as much as requests.
fn plan() -> Plan {
    Plan::default().limit("callout_timeout: 10s").edit(one_request_a_connection)
}

fn one_request_a_connection(bootstrap: &mut Value) {
    const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let clusters = bootstrap["static_resources"]["clusters"].as_array_mut().expect("clusters");
    let leads_out =
        |cluster: &&mut Value| cluster["name"].as_str().is_some_and(|name| name.starts_with("attache_dst_"));
    for cluster in clusters.iter_mut().filter(leads_out) {
        let options = &mut cluster["typed_extension_protocol_options"][OPTIONS];
        options["common_http_protocol_options"]["max_requests_per_connection"] = 1.into();
    }
}

fn bearer() -> Grant {
    Grant::header("github", "authorization", &format!("Bearer {GITHUB}"))
}

/// Different for each `n`: nothing cached for one answers for another.
fn placeholder(n: u8) -> String {
    Placeholder::new("ghp_", 40).mint(&[n; 32], "writer", "github")
}

/// The one worker has done everything that was sent to it before: what came in first is read first.
async fn fence(stack: &Stack<FakeBroker>) {
    for _ in 0..2 {
        let answer = stack.agent().get(stack.proxy, "nowhere.test", "/", &[]).await;
        assert_eq!(answer.header("x-attache-reason").as_deref(), Some("host_not_allowed"));
    }
}

/// Everything that was sent has arrived, and the credential in the placeholder's place.
fn intact(shape: Shape, hit: &Recorded, placeholder: &str) {
    let sent: &[u8] = match shape {
        Shape::Bare | Shape::Headers | Shape::TrailersAlone => b"",
        Shape::FirstByte | Shape::Chunks | Shape::Expect | Shape::Data | Shape::Trailers => b"first,second",
    };
    assert_eq!((&hit.body[..], hit.progress), (sent, Progress::Complete), "{shape:?}");
    let trailers = matches!(shape, Shape::Trailers | Shape::TrailersAlone);
    assert_eq!(hit.trailers.text("x-end").as_deref(), trailers.then_some("last"), "{shape:?}");
    assert_eq!(hit.fields.all("authorization"), [format!("Bearer {GITHUB}").as_bytes()], "{shape:?}");
    assert!(memchr::memmem::find(&hit.fields.to_lines(), placeholder.as_bytes()).is_none(), "{shape:?}");
    assert_eq!(hit.path_text(), "/held");
}

/// A request, sent as far as its shape says.
enum Request {
    Http1 { connection: H1, rest: &'static [u8] },
    Http2 { connection: RawH2, stream: u32, rest: &'static [u8] },
}

impl Request {
    async fn begin(shape: Shape, stack: &Stack<FakeBroker>, n: u8) -> Self {
        let (method, framing) = match shape {
            Shape::Bare => ("GET", ""),
            Shape::FirstByte => ("POST", "Content-Length: 12\r\n"),
            Shape::Chunks => ("POST", "Transfer-Encoding: chunked\r\n"),
            Shape::Expect => ("POST", "Content-Length: 12\r\nExpect: 100-continue\r\n"),
            _ => return Self::begin_http2(shape, stack, n).await,
        };
        let mut connection = stack.agent().h1(stack.proxy).await;
        let bearer = format!("Authorization: Bearer {}\r\n", placeholder(n));
        let head = format!("{method} /held HTTP/1.1\r\nHost: {HOST}\r\n{bearer}{framing}\r\n");
        connection.send(head).await.expect("sent");
        asked(stack, n).await;
        let mut rest: &[u8] = b"";
        match shape {
            Shape::FirstByte => {
                connection.send(b"f").await.expect("sent");
                rest = b"irst,second";
            }
            Shape::Chunks => {
                for chunk in [&b"first,"[..], b"sec", b"ond", b""] {
                    connection.send_chunk(chunk).await.expect("sent");
                }
            }
            Shape::Expect => connection.send(b"first,second").await.expect("sent"),
            _ => {}
        }
        Self::Http1 { connection, rest }
    }

    async fn begin_http2(shape: Shape, stack: &Stack<FakeBroker>, n: u8) -> Self {
        let mut connection = stack.agent().raw_h2(stack.proxy).await;
        let method = if shape == Shape::Headers { "GET" } else { "POST" };
        let bearer = format!("Bearer {}", placeholder(n));
        let fields = [
            (":method", method),
            (":scheme", "http"),
            (":path", "/held"),
            (":authority", HOST),
            ("authorization", &bearer),
            ("te", "trailers"),
        ];
        let stream = connection.headers(&fields, shape == Shape::Headers).await;
        asked(stack, n).await;
        let mut rest: &[u8] = b"";
        if shape == Shape::Data {
            connection.data(stream, b"first,", false).await.expect("sent");
            rest = b"second";
        } else if shape != Shape::Headers {
            if shape == Shape::Trailers {
                connection.data(stream, b"first,", false).await.expect("sent");
                connection.data(stream, b"second", false).await.expect("sent");
            }
            connection.trailers(stream, &[("x-end", "last")]).await.expect("sent");
        }
        Self::Http2 { connection, stream, rest }
    }

    /// Sends what is left, if the proxy still wants it, and reads the answer.
    async fn finish(self) -> Response {
        match self {
            Self::Http1 { mut connection, rest } => {
                connection.send(rest).await.ok();
                connection.response(SOON).await
            }
            Self::Http2 { mut connection, stream, rest } => {
                if !rest.is_empty() {
                    connection.data(stream, rest, true).await.ok();
                }
                connection.response(stream, SOON).await
            }
        }
        .expect("an answer")
    }
}

/// The callout of the `n`th request is under way: body and trailers come while the head is held.
async fn asked(stack: &Stack<FakeBroker>, n: u8) {
    eventually(SOON, || stack.broker.calls(Endpoint::Grants) == usize::from(n) + 1).await;
}
