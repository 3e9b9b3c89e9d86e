//! WebSocket behind the door: in a tunnel over HTTP/1 and HTTP/2, and to what is reached without TLS.

use attache_tests::fake_broker::Grant;
use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::util::eventually;
use attache_tests::websocket::{BOTH, Opened, WebSocket, frame};
use attache_tests::{FakeBroker, Reply, Response, Stack, Unanswered};
use serde_json::json;

use super::{HOST, Tunnel, basic, reason, token};

const CHAT: &str = "chat.extra.test";
const SECRET: &str = "chat-token-0123456789-abcdefghij";

async fn start() -> Stack<FakeBroker> {
    let yaml = format!(
        "{{source: {{file: chat}}, inject: bearer, destinations: [{{host: {CHAT}, websocket: true, upstream: DIAL}}], \
         agent_env: {{CHAT: placeholder}}}}"
    );
    let stack = super::start(Plan::default().credential("chat", SECRET, &yaml)).await;
    stack.broker.answer_grants(|asked| {
        let (credential, secret) =
            if asked["destination"] == "chat.extra.test:443" { ("chat", SECRET) } else { ("github", GITHUB) };
        let grant = Grant::header(credential, "authorization", &format!("Bearer {secret}"));
        Grant { mask: vec![secret.into()], ..grant }.answer()
    });
    stack
}

async fn open(stack: &Stack<FakeBroker>, how: Opened, host: &str) -> Result<(WebSocket, Response), Unanswered> {
    let (mine, authority) = (token("mine"), format!("{host}:443"));
    let bearer = format!("Bearer {}", stack.placeholder());
    let headers = [("authorization", bearer.as_str())];
    match how {
        Opened::ByGet => {
            let tunnel = Tunnel::open(stack, &mine, &authority, host).await.expect("a tunnel");
            WebSocket::get(tunnel.client, host, "/live", &headers).await
        }
        Opened::ByConnect => {
            let inside = super::h2_inside(stack, &mine, &authority, host).await;
            WebSocket::connect(inside, host, "/live", &headers).await
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_opens_in_a_tunnel_masked_and_is_cut_with_its_session() {
    let stack = start().await;
    let stars = "*".repeat(SECRET.len());
    stack.site.oracle.excuse("CONNECT http://chat.extra.test/live");
    stack.upstream().answer_with(|_| Reply::upgrade("websocket").body(frame(0x81, SECRET)));
    for how in BOTH {
        let (mut socket, answer) = open(&stack, how, CHAT).await.expect("an answer");
        assert_eq!(answer.status, if how == Opened::ByGet { 101 } else { 200 }, "{how:?}: {answer:?}");
        assert_eq!(socket.receive(stars.len() + 2).await.expect("a greeting"), frame(0x81, &stars));
        socket.send(&frame(0x82, [1, 2])).await.expect("sent");
        assert_eq!(socket.receive(4).await.expect("returned"), frame(0x82, [1, 2]), "{how:?}");
        stack.broker.change(json!({"session_id": "session-1", "left": "reads"}));
        assert_eq!(socket.end(SOON).await, b"", "{how:?}");
    }
    let uses = || stack.broker.records().iter().filter(|record| record["kind"] == "use").count();
    eventually(SOON, || uses() == 2).await;
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn elsewhere_clients_are_told_to_fall_back() {
    let stack = start().await;
    for how in BOTH {
        let (_, answer) = open(&stack, how, HOST).await.expect("an answer");
        assert_eq!((answer.status, &*reason(&answer)), (426, "upgrade_refused"), "{how:?}");
    }
    // The door takes none for itself.
    let client = stack.agent().h1(stack.proxy).await;
    let mine = basic(&token("mine"));
    let target = format!("http://{HOST}/live");
    let answer = WebSocket::get(client, HOST, &target, &[("proxy-authorization", &mine)]).await;
    assert_eq!(answer.expect("an answer").1.status, 426);
    assert_eq!(stack.upstream().requests().len(), 0);
    stack.reconcile().await;
}
