//! kill -9 at every rename: whichever file was in place and whichever was not, what was kept is kept.

use crate::scene::Scene;

/// Killed at its Nth rename: `strace` sends the signal as the call begins.
fn killed(scene: &Scene, args: &[&str], at: usize) -> bool {
    let inject = format!("inject=renameat,rename,renameat2:signal=KILL:when={at}");
    let log = scene.path("trace").display().to_string();
    let under = ["strace", "-f", "-qq", "-o", &log, "-e", "trace=renameat,rename,renameat2", "-e", &inject];
    let said = scene.under(&under, args, &[], "");
    let trace = std::fs::read_to_string(&log).unwrap_or_default();
    assert!(trace.contains("rename") || said.good, "{}{trace}", said.text);
    !said.good
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_keys_that_is_killed_at_any_rename_goes_on_where_it_was() {
    let scene = Scene::new("");
    scene.write_plain();
    let kept = scene.life(&[]).await;
    let secrets = scene.plain_secrets();
    scene.key("one.key");
    scene.key("two.key");
    let sealed = scene.copy();
    sealed.seal("{file: one.key}");
    assert!(sealed.attache(&["state", "rekey"], &[], "").good);
    // The first sealing of all files, and another key with another data key.
    for (from, key) in [(&scene, "one.key"), (&sealed, "two.key")] {
        let mut at = 1;
        loop {
            let copy = from.copy();
            copy.seal(&format!("{{file: {key}}}"));
            let old = copy.path("one.key").display().to_string();
            let args = ["state", "rekey", "--data-key", "--old-key-file", &old];
            if !killed(&copy, &args, at) {
                break;
            }
            let again = copy.attache(&args, &[], "");
            assert!(again.good, "after a kill at rename {at}: {}", again.text);
            assert_eq!(copy.life(&[]).await, kept, "after a kill at rename {at}");
            assert_eq!(copy.exposes(&secrets), Vec::<String>::new(), "after a kill at rename {at}");
            assert_eq!(copy.show()["unfinished"], false);
            at += 1;
        }
        assert!(at > 5, "each file has its rename: {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_with_a_seal_that_is_killed_at_any_rename_loses_nothing() {
    let scene = Scene::new("");
    scene.write_plain();
    let kept = scene.life(&[]).await;
    scene.key("one.key");
    for at in 1..=4 {
        let copy = scene.copy();
        copy.seal("{file: one.key}");
        assert!(killed(&copy, &["serve"], at), "rename {at}");
        assert_eq!(copy.life(&[]).await, kept, "after a kill at rename {at}");
    }
}
