//! GitHub's command line, against a recorded API: of github.com, and of an Enterprise host.
//!
//! It speaks `https://` to every host but `github.localhost`, and plain HTTP on a UNIX socket.

use attache_core::refusal::Reason;
use attache_tests::agent::Relay;
use attache_tests::stack::{GITHUB, Plan};
use serde_json::json;

use crate::recorded::{answer, whole};
use crate::scene::{Scene, has, shown};

const HOST: &str = "ghe.example.com";
const TOKEN: &str = "ghp_TheEnterpriseTokenOfTheUser012345678";
const ENTERPRISE: &str = "{source: {file: ghe}, inject: bearer, placeholder: {prefix: ghp_, length: 40}, \
     agent_env: {GH_ENTERPRISE_TOKEN: placeholder}, destinations: [{host: ghe.example.com, upstream: DIAL}]}";
const QUIETLY: &str = "export GH_NO_UPDATE_NOTIFIER=1 GH_PROMPT_DISABLED=1\n";

async fn start() -> Option<(Scene, Relay)> {
    if !has(&["gh"]) {
        return None;
    }
    let plan = Plan::default().proxy_socket().credential("ghe", TOKEN, ENTERPRISE);
    let plan = plan.session("{name: member, credentials: [ghe, github]}");
    let scene = Scene::of(plan.session("{name: guest, credentials: [ghe, github], access_mode: read-only}")).await;
    let socket = scene.stack.config.listen.proxy_socket.as_ref().expect("a socket");
    let socket = scene.stack.agent().socket(&scene.path("gateway.sock"), socket);
    answer(&scene.stack, |asked| match (asked.method.as_str(), asked.path.trim_start_matches("/api/v3")) {
        ("GET", "/user") => Some(whole(&json!({"login": "octocat"}))),
        ("POST", "/repos/o/r/issues") => Some(whole(&json!({"number": 7}))),
        _ => None,
    });
    Some((scene, socket))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_document_shows_works() {
    let Some((scene, _socket)) = start().await else { return };
    let settings = shown("sh gh").replace("/run/attache/gateway.sock", "$HOME/gateway.sock");
    let settings = format!("{QUIETLY}{settings}");
    for (host, path, token) in [("github.com", "/user", GITHUB), (HOST, "/api/v3/user", TOKEN)] {
        let before = scene.stack.upstream().requests().len();
        let script = |rest: &str| format!("{settings}export GH_HOST={host}\n{rest}");
        let said = scene.shell("guest", &script("gh api user --jq .login")).await.ok();
        assert_eq!(said.out, "octocat\n", "{host}");
        let hits = scene.stack.upstream().hits();
        let hit = &hits[before];
        assert_eq!(hit.path_text(), path);
        assert_eq!(hit.fields.all("authorization"), [format!("Bearer {token}").as_bytes()], "{host}");

        let create = script("gh api -X POST repos/o/r/issues -f title=x");
        let said = scene.shell("guest", &create).await.refused(Reason::ReadOnly);
        let line = format!("gh: request refused by attache: {}", Reason::ReadOnly.hint());
        assert!(said.err.starts_with(&line), "{}", said.err);
        assert_eq!(scene.stack.upstream().requests().len(), before + 1, "{host}: a write of a guest arrived");
        scene.shell("member", &create).await.ok();
        assert_eq!(scene.stack.upstream().requests().len(), before + 2, "{host}");
    }
    scene.reconcile().await;
}
