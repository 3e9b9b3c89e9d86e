//! git behind the forward proxy, against nginx and `git http-backend`. nginx asks for the real secret: a wrong one is 401.

use attache_core::refusal::Reason;
use attache_tests::stack::{GITHUB, Plan};

use crate::behind::Client;
use crate::forge::Forge;
use crate::scene::{Scene, has};

/// A commit on top of what was cloned into `r`.
const COMMIT: &str = "cd r && git config user.name a && git config user.email a@a && \
     echo four > four && git add . && git commit -q -m four";
/// A prompt would wait for ever; what is wrong is to be seen.
const QUIETLY: &str = "export GIT_TERMINAL_PROMPT=0 GIT_CONFIG_NOSYSTEM=1\n";
const CA: &str = "GIT_SSL_CAINFO";
const URL: &str = "https://github.com/o/r.git";

async fn start() -> Option<(Scene, Forge)> {
    if !has(&["git", "nginx", "fcgiwrap"]) {
        return None;
    }
    let forge = Forge::start(GITHUB, "").await;
    let scene = Scene::of(Plan::default().forward_proxy()).await;
    scene.stack.upstream().lead("github.com", forge.addr);
    Some((scene, forge))
}

fn git(script: &str) -> String {
    format!("{QUIETLY}{script}")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_clones_and_pushes_and_a_reader_is_told_why_it_may_not() {
    let Some((scene, forge)) = start().await else { return };
    let before = forge.tip("main").expect("a commit");
    let clone = format!("git clone -q {URL} && cat r/three && git clone -q --depth 1 {URL} shallow");
    assert_eq!(scene.run_by("reader", CA, &git(&clone)).await.ok().out, "three");
    let push = scene.run_by("reader", CA, &git(&format!("{COMMIT} && git push origin main"))).await;
    let push = push.refused(Reason::ReadOnly);
    let line = push.err.lines().find(|line| line.starts_with("remote: request refused by attache: "));
    assert!(line.is_some_and(|line| line.contains("(read_only, request ")), "{}", push.err);
    assert_eq!(forge.tip("main"), Some(before), "a push of a reader arrived");
    let writes = |path: String| path.contains("receive-pack");
    assert!(!scene.stack.upstream().requests().iter().any(|hit| writes(hit.path_text())));
    // Above `http.postBuffer` git sends in chunks, after a first request that only asks for the way.
    let large = "cd r && head -c 3000000 /dev/urandom > large && git add . && git commit -q -m large && \
                 git push -q origin main && git rev-parse HEAD";
    let pushed = scene.run_by("writer", CA, &git(large)).await.ok();
    assert_eq!(forge.tip("main").as_deref(), Some(pushed.out.trim()));
    let tested = "clone, shallow clone, push (in chunks, too); a reader's push is refused";
    let version = "git --version | cut -d' ' -f3";
    scene.row("reader", &Client { name: "git", version, ca: CA, host: "github.com", tested }).await;
    scene.reconcile().await;
}

/// Without the settings that `attache run` gives it, git waits to be challenged: by the proxy and by the server.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_proxy_in_its_environment_alone_it_tells_who_it_is_when_asked() {
    let Some((scene, forge)) = start().await else { return };
    let bare = "unset ${!GIT_CONFIG_*}; export GIT_CONFIG_NOSYSTEM=1\n";
    let list = format!("{bare}git ls-remote https://x:$GITHUB_TOKEN@github.com/o/r.git main | cut -f1");
    let said = scene.run_by("reader", CA, &git(&list)).await.ok();
    assert_eq!(Some(said.out.trim()), forge.tip("main").as_deref());
    let name = "git without `attache run`'s settings";
    let version = "git --version | cut -d' ' -f3";
    scene.row("reader", &Client { name, version, ca: CA, host: "github.com", tested: "ls-remote" }).await;
    scene.reconcile().await;
}
