//! Job control: where the child stops, so does `attache run`, and a shell has its prompt back.

use attache_tests::stack::{Plan, SOON};
use attache_tests::util;

use crate::terminals::at_a_terminal;
use crate::{Running, output, run, ways};

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_stops_stops_us_and_goes_on_with_us() {
    let stack = Plan::default().start().await;
    for way in ways() {
        let script = "echo ready; kill -STOP $$; echo on; exit 6";
        let mut running = Running::start(&stack, run(&stack, &["--session", "writer", "--isolate", way], script));
        running.says("ready").await;
        util::eventually(SOON, || util::stands(running.child.id())).await;
        running.signal("CONT");
        assert_eq!(running.ended().await.code(), Some(6), "{way}: {}", running.said());
        assert_eq!(running.said(), "ready\non\n", "{way}");
    }
    stack.reconcile().await;
}

/// Types and reads as a person does.
const TYPES: &str = r#"
until(b"ready")
type(b"\x03")
until(b"INT")
type(b"typed\n")
until(b"read typed")
_, status = os.waitpid(pid, 0)
try:
    while True: all += os.read(screen, 4096)
except OSError: pass
sys.stdout.write("%d %d" % (os.waitstatus_to_exitcode(status), all.count(b"INT")))
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_is_the_childs_and_ctrl_c_reaches_it_once() {
    let stack = Plan::default().start().await;
    for way in ways() {
        let child =
            "trap 'echo I''NT' INT; echo rea''dy; until read line; do :; done; echo \"read $line\"; sleep 0.2; exit 8";
        let inner = run(&stack, &["--session", "writer", "--isolate", way], child);
        let mut command = at_a_terminal(&inner, TYPES);
        command.env("ATTACHE_CONFIG", stack.site.config_path());
        let (_, out, err) = output(command);
        assert_eq!(out, "8 1", "{way}: the exit code, and how often Ctrl-C came: {err}");
    }
    stack.reconcile().await;
}
