//! git, against nginx and `git http-backend`. nginx asks for the real secret: a wrong one is 401.

use attache_core::refusal::Reason;
use attache_tests::stack::{GITHUB, Plan};

use crate::forge::Forge;
use crate::scene::{Scene, has, shown};

/// A commit on top of what was cloned into `r`.
const COMMIT: &str = "cd r && git config user.name a && git config user.email a@a && \
     echo four > four && git add . && git commit -q -m four";
/// A prompt would wait for ever; what is wrong is to be seen.
const QUIETLY: &str = "export GIT_TERMINAL_PROMPT=0 GIT_CONFIG_NOSYSTEM=1\n";

async fn start() -> Option<(Scene, Forge)> {
    if !has(&["git", "nginx", "fcgiwrap"]) {
        return None;
    }
    let forge = Forge::start(GITHUB, "").await;
    let scene = Scene::of(Plan::default()).await;
    scene.stack.upstream().lead("github.com", forge.addr);
    Some((scene, forge))
}

/// What the document shows, and then this.
fn git(script: &str) -> String {
    format!("{QUIETLY}{}\n{script}", shown("sh git"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_clones_and_fetches_and_is_told_why_it_may_not_push() {
    let Some((scene, forge)) = start().await else { return };
    let before = forge.tip("main").expect("a commit");
    let clone = "git clone -q https://github.com/o/r.git && cat r/three";
    assert_eq!(scene.shell("reader", &git(clone)).await.ok().out, "three");
    let shallow = "git clone -q --depth 1 https://github.com/o/r.git shallow && git -C shallow rev-list --count HEAD";
    assert_eq!(scene.shell("reader", &git(shallow)).await.ok().out, "1\n");
    let deepen = "git -C shallow fetch -q --unshallow && git -C shallow rev-list --count HEAD && git -C r fetch -q";
    assert_eq!(scene.shell("reader", &git(deepen)).await.ok().out, "3\n");
    let push = scene.shell("reader", &git(&format!("{COMMIT} && git push origin main"))).await;
    let push = push.refused(Reason::ReadOnly);
    let line = push.err.lines().find(|line| line.starts_with("remote: request refused by attache: "));
    assert!(line.is_some_and(|line| line.contains("(read_only, request ")), "{}", push.err);
    assert_eq!(forge.tip("main"), Some(before), "a push of a reader arrived");
    let writes = |path: String| path.contains("receive-pack");
    assert!(!scene.stack.upstream().requests().iter().any(|hit| writes(hit.path_text())));
    scene.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_clones_and_pushes() {
    let Some((scene, forge)) = start().await else { return };
    let script = format!("git clone -q https://github.com/o/r.git && {COMMIT} && git push -q origin main");
    let pushed = scene.shell("writer", &git(&format!("{script} && git rev-parse HEAD"))).await.ok();
    assert_eq!(forge.tip("main").as_deref(), Some(pushed.out.trim()));
    // Above `http.postBuffer` git sends in chunks, after a first request that only asks for the way.
    let large = "cd r && head -c 3000000 /dev/urandom > large && git add . && git commit -q -m large && \
                 git push -q origin main && git rev-parse HEAD";
    let pushed = scene.shell("writer", &git(large)).await.ok();
    assert_eq!(forge.tip("main").as_deref(), Some(pushed.out.trim()));
    scene.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_told_that_nobody_knows_it() {
    let Some((scene, _forge)) = start().await else { return };
    let nobody = "git ls-remote http://x:ghp_ATTACHEnobody0123456789abcdefghijklmn@127.0.0.1:3030/github.com/o/r.git";
    let said = scene.shell("reader", &format!("{QUIETLY}{nobody}")).await.refused(Reason::PlaceholderUnknown);
    assert!(said.err.contains("remote: "), "{}", said.err);
    assert!(scene.stack.upstream().requests().is_empty());
    scene.stack.reconcile().await;
}
