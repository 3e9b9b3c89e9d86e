//! `make demo` tells its whole story; and a promise that is not kept ends it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use attache_tests::util;
use tokio::process::Command;

/// A dozen seconds on a quiet machine. Each step has a deadline of its own.
const LONGEST: Duration = Duration::from_secs(180);

async fn shown_by(demo: &Path) -> Output {
    let mut command = Command::new(demo);
    command.stdin(Stdio::null()).kill_on_drop(true);
    util::within(LONGEST, command.output()).await.expect("the demo runs")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_and_checks_every_step() {
    let output = shown_by(Path::new(env!("CARGO_BIN_EXE_demo"))).await;
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for promise in [
        "it got the credential, once, and no placeholder",
        "refused with 403, and the reason placeholder_misplaced",
        "refused with 403, and the reason read_only",
        "applied on every worker of Envoy",
        "one record a request: 3 uses, 2 refusals",
        "the hash chain holds",
        "no secret in any of them; every use is accounted for",
        "All checked, in ",
    ] {
        assert!(text.contains(promise), "{promise}: {text}");
    }
}

/// The demo runs the `attache` beside it. This one lies about one fingerprint, so what arrives upstream
/// is not what was to arrive.
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_is_not_the_expected_one_ends_it() {
    let dir = util::temp_dir();
    let (demo, attache) = (dir.path().join("demo"), dir.path().join("attache"));
    std::fs::copy(env!("CARGO_BIN_EXE_demo"), &demo).expect("a copy");
    let script = format!(
        r#"#!/bin/sh
case "$1 $2" in
  "credential list") '{0}' "$@" | sed 's/"fingerprint": *"[0-9a-f]*"/"fingerprint":"0000000000000000"/' ;;
  *) exec '{0}' "$@" ;;
esac
"#,
        util::broker_bin().display()
    );
    std::fs::write(&attache, script).expect("ours");
    std::fs::set_permissions(&attache, std::fs::Permissions::from_mode(0o755)).expect("ours");
    let output = shown_by(&demo).await;
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("Step 3 failed: it got the credential, once"), "{text}");
    assert!(!text.contains("All checked"), "{text}");
}
