//! A name leads to the one address that the broker has vetted, or nowhere: with the real broker, whose
//! DNS server the test is. Envoy itself asks nobody.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use attache_tests::agent::H1;
use attache_tests::stack::{Plan, SOON};
use attache_tests::{Attache, Dns, Response, Stack, util};
use tokio::net::TcpListener;

use super::{basic, ca, reason, with_certificate};

/// Public, and never dialled: each answer that holds it holds one more that refuses it.
const PUBLIC: &str = "93.184.215.14";

/// Counts who comes, and sends them away.
struct Listener {
    address: SocketAddr,
    came: Arc<AtomicUsize>,
}

impl Listener {
    async fn at(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let came = Arc::<AtomicUsize>::default();
        let count = came.clone();
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Ok(Self { address, came })
    }

    fn came(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }
}

/// Two listeners on one port, at two addresses of loopback.
async fn two() -> [Listener; 2] {
    loop {
        let one = Listener::at(util::any_port()).await.expect("loopback accepts a bind");
        let second = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 2).into(), one.address.port());
        if let Ok(other) = Listener::at(second).await {
            return [one, other];
        }
    }
}

async fn start(dns: &Dns, port: u16) -> (Stack<Attache>, String) {
    let extra = format!(
        "unmatched: pass\ndns: {{servers: ['{}']}}\nhosts:\n\
         \x20 - {{host: lan.test, port: {port}, tls: passthrough, private: true}}\n\
         \x20 - {{host: wan.test, port: {port}, tls: passthrough}}\n",
        dns.address()
    );
    let stack = Plan::default().forward_proxy().edit(with_certificate).extra(&extra).start().await;
    let token = stack.broker.exported("writer", "ATTACHE_SESSION_TOKEN");
    (stack, token)
}

async fn connect(stack: &Stack<Attache>, authority: &str, token: &str) -> (H1, Response) {
    let mut client = stack.agent().h1(stack.proxy).await;
    let basic = basic(token);
    let answer = client.connect(authority, &[("proxy-authorization", &basic)]).await;
    (client, answer.unwrap_or_else(|why| panic!("CONNECT {authority}: {why}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_vetted_is_what_is_dialled_wherever_the_name_moves() {
    let dns = Dns::start().await;
    let [vetted, moved] = two().await;
    let port = vetted.address.port();
    let (stack, token) = start(&dns, port).await;
    // The second is for whoever asks once more.
    dns.set_in_turn("lan.test", &[&["127.0.0.1"], &["127.0.0.2"]]);
    let (client, answer) = connect(&stack, &format!("lan.test:{port}"), &token).await;
    assert_eq!(answer.status, 200);
    // These say nothing: it is enough that the start of the handshake gets there.
    let shaking = tokio::spawn(client.into_tls("lan.test", ca().client(&["http/1.1"])));
    util::eventually(SOON, || vetted.came() + moved.came() > 0).await;
    shaking.abort();
    assert_eq!((vetted.came(), moved.came(), dns.times("lan.test")), (1, 0, 1));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_public_opens_no_tunnel_and_nothing_is_dialled() {
    let dns = Dns::start().await;
    let [one, other] = two().await;
    let port = one.address.port();
    let (stack, token) = start(&dns, port).await;
    for (n, addresses) in (0..).zip([
        &["127.0.0.1"][..],
        &[PUBLIC, "127.0.0.1"],
        &["127.0.0.1", PUBLIC],
        &["::1"],
        &["::ffff:127.0.0.1"],
        &["64:ff9b::127.0.0.1"],
        &["169.254.169.254"],
        &["10.0.0.1"],
        &["0.0.0.0"],
    ]) {
        // A name of its own: a refusal is remembered for a while.
        let unmatched = format!("n{n}.test");
        dns.set(&unmatched, addresses);
        let (_, answer) = connect(&stack, &format!("{unmatched}:443"), &token).await;
        assert_eq!((answer.status, reason(&answer).as_str()), (403, "address_not_allowed"), "{addresses:?}");
        let mut client = stack.agent().h1(stack.proxy).await;
        let basic = basic(&token);
        let target = format!("http://{unmatched}/latest/meta-data/");
        let answer = client.request("GET", &unmatched, &target, &[("proxy-authorization", &basic)], b"").await;
        assert_eq!(reason(&answer.expect("an answer")), "address_not_allowed", "http:// {addresses:?}");
    }
    dns.set("wan.test", &["127.0.0.1"]);
    let (_, answer) = connect(&stack, &format!("wan.test:{port}"), &token).await;
    assert_eq!(reason(&answer), "address_not_allowed", "passed through");
    let (_, answer) = connect(&stack, "localhost:443", &token).await;
    assert_eq!(reason(&answer), "address_not_allowed");
    let (_, answer) = connect(&stack, "unknown.test:443", &token).await;
    assert_eq!((answer.status, reason(&answer).as_str()), (502, "host_unresolved"));
    assert_eq!((one.came(), other.came()), (0, 0));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_an_address_gets_as_far_as_a_question() {
    let dns = Dns::start().await;
    let (stack, token) = start(&dns, 1).await;
    for host in ["0177.0.0.1", "2130706433", "0x7f.1", "127.1", "0x7f000001", "017700000001", "lan.test."] {
        let (_, answer) = connect(&stack, &format!("{host}:443"), &token).await;
        assert_eq!(reason(&answer), "authority_malformed", "{host}");
    }
    for host in ["127.0.0.1", "[::1]", "169.254.169.254", "[::ffff:7f00:1]", "93.184.215.14"] {
        let (_, answer) = connect(&stack, &format!("{host}:443"), &token).await;
        assert_ne!(answer.status, 200, "{host}");
    }
    assert_eq!(dns.asked(), <[String; 0]>::default());
    stack.reconcile().await;
}
