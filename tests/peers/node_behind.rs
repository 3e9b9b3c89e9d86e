//! Node's `fetch` behind the forward proxy. Before 22.21 and 24.5 Node itself takes no proxy from its environment:
//! undici's `EnvHttpProxyAgent` does. And a gRPC client, which finds proxy and authorities by itself.

use attache_core::refusal::Reason;
use attache_tests::stack::{GITHUB, Plan};
use attache_tests::{Reply, upstream::Asked};

use crate::behind::Client;
use crate::recorded::{answer, whole};
use crate::scene::{Scene, has, is_installed};

const FETCH: &str = r"
const { EnvHttpProxyAgent, setGlobalDispatcher, fetch } = require('undici');
setGlobalDispatcher(new EnvHttpProxyAgent());
const headers = { authorization: `Bearer ${process.env.GITHUB_TOKEN}` };
(async () => {
  const read = await fetch('https://api.github.com/user', { headers });
  console.log(read.status, (await read.json()).login);
  const write = await fetch('https://api.github.com/user/repos', { method: 'POST', headers, body: '{}' });
  console.log(write.status, (await write.json()).hint);
})();
";

/// One message that says `letter`, to a method of a service that needs no generated code.
const CALL: &str = r"
const grpc = require('@grpc/grpc-js');
const target = 'grpc.extra.test:443';
const client = new grpc.Client(target, grpc.credentials.createSsl());
const meta = new grpc.Metadata();
meta.set('authorization', `Bearer ${process.env.GRPC_KEY}`);
const as = bytes => bytes;
client.makeUnaryRequest('/letters.Letters/Read', as, as, Buffer.from('a'), meta, (error, answer) => {
  console.log(error ? `${error.code} ${error.details}` : answer.toString());
  client.close();
});
";

const CREDENTIAL: &str = "{source: {file: grpc_key}, inject: bearer, agent_env: {GRPC_KEY: placeholder}, destinations: [{host: grpc.extra.test, upstream: DIAL}]}";

fn node(scene: &Scene, file: &str, script: &str) -> String {
    std::fs::write(scene.path(file), script).expect("a file");
    format!("NODE_PATH={} node {file}", modules())
}

/// Prints the version of a module.
fn version(module: &str) -> String {
    format!("node -p 'require(\"{}/{module}/package.json\").version'", modules())
}

fn modules() -> String {
    attache_tests::util::workspace_root().join(".tools/node-clients/node_modules").display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn fetch_takes_the_proxy_by_undicis_agent() {
    if !(has(&["node"]) && is_installed("node-clients-")) {
        return;
    }
    let scene = Scene::of(Plan::default().forward_proxy()).await;
    answer(&scene.stack, |asked| (asked.path == "/user").then(|| whole(&serde_json::json!({"login": "octocat"}))));
    let fetch = node(&scene, "fetch.js", FETCH);
    let said = scene.run_by("reader", "NODE_EXTRA_CA_CERTS", &fetch).await.ok().shows(Reason::ReadOnly);
    assert!(said.out.starts_with("200 octocat\n403 "), "{}", said.out);
    let hits = scene.stack.upstream().hits();
    let [hit] = &hits[..] else { panic!("one request, not {hits:?}") };
    assert_eq!(hit.fields.all("authorization"), [format!("Bearer {GITHUB}").as_bytes()]);
    let client = Client {
        name: "Node fetch, undici's EnvHttpProxyAgent",
        host: "api.github.com",
        version: &format!("echo \"$({}), Node $(node --version)\"", version("undici")),
        ca: "NODE_EXTRA_CA_CERTS",
        tested: "a read; a refusal",
    };
    scene.row("reader", &client).await;
    scene.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_client_calls_through_a_tunnel() {
    if !(has(&["node"]) && is_installed("node-clients-")) {
        return;
    }
    const SECRET: &str = "the-real-key-of-the-letters";
    let plan = Plan::default().credential("grpc_key", SECRET, CREDENTIAL);
    let scene = Scene::of(plan.session("{name: caller, credentials: [grpc_key]}").forward_proxy()).await;
    answer(&scene.stack, |asked: &Asked| {
        let framed = b"\0\0\0\0\x06letter".to_vec();
        let reply = Reply::new(200).field("content-type", "application/grpc").body(framed);
        (asked.path == "/letters.Letters/Read").then(|| reply.trailer("grpc-status", "0"))
    });
    let call = node(&scene, "call.js", CALL);
    let said = scene.run_by("caller", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", &call).await.ok();
    assert_eq!(said.out, "letter\n", "{}", said.err);
    let hits = scene.stack.upstream().hits();
    let [hit] = &hits[..] else { panic!("one call, not {hits:?}") };
    assert_eq!(hit.fields.all("authorization"), [format!("Bearer {SECRET}").as_bytes()]);
    let client = Client {
        name: "gRPC (@grpc/grpc-js)",
        host: "grpc.extra.test",
        version: &version("@grpc/grpc-js"),
        ca: "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        tested: "a call, HTTP/2 in the tunnel, trailers",
    };
    scene.row("caller", &client).await;
    scene.reconcile().await;
}
