//! From inside a child that is isolated: what it does to get at what is hidden, now or in the next run.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use attache_tests::stack::Plan;
use attache_tests::{attache, util};

use crate::{ALWAYS, Running, has_cells, nobody, output, run, run_under};

/// Says whether something could be done, which nobody may.
const TRY: &str = "try() { if \"$@\" 2>/dev/null; then echo \"could: $*\"; fi; }; ";

/// Moves away what is above the state directory, in every way that there is, and looks into it from where it stands.
const MOVES: &str = "try mv \"$BASE\" \"$BASE.gone\"; try mv \"../$NAME\" ../gone; \
                     try mv \"$BASE/..\" \"$BASE/../../gone\"; try mv state gone; try rmdir state; \
                     try unshare -Urm mv \"$BASE\" \"$BASE.gone\"; \
                     try unshare -Urm sh -c 'mount --rbind \"$BASE/..\" /mnt && mv \"/mnt/$NAME\" /mnt/gone'; \
                     try unshare -Urm mount --bind \"$BASE\" /mnt; try unshare -Urm umount -l \"$BASE\"; \
                     ls -A state; ls -A \"$BASE/state\"; \
                     cd .. && ls -A \"$NAME/state\"; ls -A \"$BASE/../$NAME/state\"; ls -d \"$BASE\"";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_above_a_hidden_directory_stays_where_it_is() {
    if !has_cells() {
        return;
    }
    let stack = Plan::default().start().await;
    let base = stack.dir().canonicalize().expect("a directory");
    let mut command = run(&stack, &ALWAYS, &format!("{TRY}{MOVES}"));
    command.current_dir(&base).env("BASE", &base).env("NAME", base.file_name().expect("a name"));
    let (code, out, err) = output(command);
    assert_eq!((code, out), (Some(0), format!("{}\n", base.display())), "{err}");

    // What lies beside it is the child's to move.
    std::fs::write(base.join("beside"), "").expect("a file");
    let mut command =
        run(&stack, &ALWAYS, "mv beside moved && mv \"$BASE/moved\" once-more && mkdir d && mv once-more d/");
    command.current_dir(&base).env("BASE", &base);
    assert_eq!(output(command), (Some(0), String::new(), root_is_warned()));
    stack.reconcile().await;
}

/// What a cell of root's says; nothing, where we are not root.
fn root_is_warned() -> String {
    let root = std::fs::metadata("/proc/self").is_ok_and(|us| us.uid() == 0);
    let warning = "attache: warning: the command is root as you are: in its cell, too, it may write what the system runs \
                   (units, crontabs, programs). Run attache as another user to keep it from that\n";
    if root { warning.to_owned() } else { String::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_that_has_been_replaced_is_refused() {
    if !has_cells() {
        return;
    }
    let stack = Plan::default().start().await;
    let (state, gone) = (stack.dir().join("state"), stack.dir().join("gone"));
    std::fs::rename(&state, &gone).expect("ours");
    std::fs::create_dir_all(state.join("default")).expect("a directory");
    symlink(gone.join("default/control.sock"), state.join("default/control.sock")).expect("a link");
    // Nor does it run without a cell: that would be what somebody has done it for.
    for way in ["always", "auto"] {
        let (code, out, err) = output(run(&stack, &["--session", "writer", "--isolate", way], "echo ran"));
        assert_eq!((code, out.as_str()), (Some(1), ""), "{way}: {err}");
        assert!(err.contains("is not the directory that the broker started with"), "{way}: {err}");
    }
    std::fs::remove_dir_all(&state).expect("ours");
    std::fs::rename(&gone, &state).expect("ours");
    assert_eq!(output(run(&stack, &ALWAYS, "echo ran")).1, "ran\n");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_behind_a_link_that_it_could_replace_is_refused() {
    if !has_cells() {
        return;
    }
    let stack = Plan::default().start().await;
    let (keys, link) = (stack.dir().join("keys"), stack.dir().join("link"));
    std::fs::create_dir(&keys).expect("a directory");
    symlink(&keys, &link).expect("a link");
    let (code, out, err) =
        output(run(&stack, &[&ALWAYS[..], &["--hide", link.to_str().expect("text")]].concat(), "echo ran"));
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("which the command could replace"), "{err}");
    stack.reconcile().await;
}

/// Mounts a directory in a second place, and a file out of it in a third.
const MOUNTED_AGAIN: [&str; 6] = [
    "unshare",
    "-rm",
    "sh",
    "-c",
    "mount --bind \"$STATE/..\" \"$STATE/../again\" && mount --bind \"$STATE/default/secrets/github_token\" \"$STATE/../file\" && \
     exec \"$@\"",
    "sh",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_mounted_in_more_than_one_place_is_hidden_in_each() {
    if !has_cells() {
        return;
    }
    let stack = Plan::default().start().await;
    std::fs::create_dir(stack.dir().join("again")).expect("a directory");
    std::fs::write(stack.dir().join("file"), "").expect("a file");
    let look = "ls -A \"$STATE\" \"$STATE/../again/state\" | grep -v :; cat \"$STATE/../file\"; echo end";
    let mut command = run_under(&stack, &MOUNTED_AGAIN, &ALWAYS, look);
    command.env("STATE", stack.dir().join("state"));
    let (code, out, err) = output(command);
    assert_eq!((code, out.trim_start()), (Some(0), "end\n"), "{err}");
    stack.reconcile().await;
}

/// Listens where it is told, and answers every question with an outfit that would load a library.
const FALSE_BROKER: &str = r#"
import json, os, socket
outfit = {"proxy": "127.0.0.1:9", "session_token": "x", "logins": [], "hidden_directories": [], "hidden_variables": [],
    "placeholders": [{"name": "LD_PRELOAD", "value": "/evil.so"}]}
listener = socket.socket(socket.AF_UNIX)
listener.bind(os.environ["FALSE"])
listener.listen()
print("ready", flush=True)
while True:
    asked, _ = listener.accept()
    line = asked.recv(65536).split(b"\r\n")[0]
    if not line: continue
    print("asked", flush=True)
    kind, body = ("text/plain", b"") if b"/ca/" in line else ("application/json", json.dumps(outfit).encode())
    asked.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (kind.encode(), len(body)) + body)
    asked.close()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn no_command_believes_a_broker_in_a_cell() {
    if !has_cells() {
        return;
    }
    let stack = Plan::default().start().await;
    let socket = stack.dir().join("false.sock");
    let mut command = run(&stack, &ALWAYS, "exec python3 -c \"$BROKER\"");
    command.env("FALSE", &socket).env("BROKER", FALSE_BROKER);
    let running = Running::start(&stack, command);
    running.says("ready").await;
    let runtime = format!("unix:{}", socket.display());
    for way in ["never", "always"] {
        let flags = ["--session", "writer", "--isolate", way, "--runtime", &runtime];
        let (code, out, err) = output(run(&stack, &flags, "echo ran"));
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains("runs in a process namespace of its own"), "{err}");
    }
    let listed = attache::run(&stack.site.config_path(), &["--runtime", &runtime, "session", "list"]);
    assert!(!listed.status.success(), "{}", String::from_utf8_lossy(&listed.stdout));
    assert_eq!(running.said(), "ready\n", "nothing was asked of it");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outfit_that_commands_a_program_is_not_worn() {
    let stack = Plan::default().start().await;
    let socket = stack.dir().join("false.sock");
    let mut command = Command::new("python3");
    command.args(["-c", FALSE_BROKER]).env("FALSE", &socket);
    let running = Running::start(&stack, command);
    running.says("ready").await;
    for way in crate::ways() {
        let flags = ["--session", "writer", "--isolate", way, "--runtime", &format!("unix:{}", socket.display())];
        let (code, out, err) = output(run(&stack, &flags, "echo ran"));
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains("LD_PRELOAD, which tells programs what to load"), "{err}");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_child_wears_is_worn_by_nobody_on_the_way_to_it() {
    let stack = Plan::default().start().await;
    for way in crate::ways() {
        // What a loader says whoever obeys it.
        let said = stack.dir().join(format!("loader-{way}"));
        std::fs::create_dir(&said).expect("a directory");
        let mut command = run(&stack, &["--session", "writer", "--isolate", way], "echo $LD_DEBUG_OUTPUT");
        command.env("LD_DEBUG", "files").env("LD_DEBUG_OUTPUT", said.join("of"));
        let (code, out, err) = output(command);
        assert_eq!((code, out), (Some(0), format!("{}\n", said.join("of").display())), "{way}: {err}");
        let logs = std::fs::read_dir(&said).expect("a directory").flatten();
        let logs = logs.filter_map(|entry| std::fs::read_to_string(entry.path()).ok()).collect::<String>();
        let programs: Vec<&str> = logs.lines().filter(|line| line.contains("initialize program:")).collect();
        let ours = programs.iter().filter(|line| line.ends_with("/attache")).count();
        assert_eq!(ours, 1, "{way}: `attache run` alone, as it was started: {programs:?}");
        assert!(programs.iter().any(|line| line.ends_with("sh")), "{way}: the command obeys: {programs:?}");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernels_switches_are_there_to_be_read() {
    if !has_cells() {
        return;
    }
    let stack = Plan::default().start().await;
    // Each is written as it is: whoever could has changed nothing.
    let tries = "again() { now=$(cat \"$1\") && echo \"$now\" > \"$1\"; }; for file in /proc/sys/kernel/core_pattern \
                 /proc/sys/kernel/hostname /proc/sys/vm/overcommit_memory /sys/module/kernel/parameters/panic \
                 /sys/kernel/mm/ksm/sleep_millisecs /sys/fs/cgroup/*/release_agent; do test ! -e $file || try again $file; done; \
                 try eval 'echo h > /proc/sysrq-trigger'; \
                 for group in $(sed -n 's/^[^ ]* [^ ]* [^ ]* [^ ]* \\([^ ]*\\) .* - cgroup2* .*/\\1/p' /proc/self/mountinfo); do \
                 try sh -c \"echo 0 > $group/cgroup.procs\"; done; \
                 if test $(id -u) = 0; then \
                 try unshare -Urmpf --mount-proc sh -c 'cat /proc/sys/kernel/ostype'; fi; \
                 cat /proc/sys/kernel/ostype; echo 0 > /proc/self/oom_score_adj && echo own";
    let (code, out, err) = output(run(&stack, &ALWAYS, &format!("{TRY}{tries}")));
    assert_eq!((code, out.as_str()), (Some(0), "Linux\nown\n"), "{err}");
    stack.reconcile().await;
}

/// A key in a session's keyring, and who looks for it.
const KEYS: &str = r#"
import ctypes, os, sys
call = ctypes.CDLL(None, use_errno=True).syscall
ADD, CONTROL, SESSION = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine] + (ctypes.c_int(-3),)
if sys.argv[1] == "put":
    if call(CONTROL, 1, b"attache-test") < 0 or call(ADD, b"user", b"attache:test", b"secret", 6, SESSION) < 0:
        sys.exit(77)
    os.execvp(sys.argv[2], sys.argv[2:])
print("found" if call(CONTROL, 10, SESSION, b"user", b"attache:test", 0) > 0 else "nothing")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_sessions_keys_are_not_the_childs() {
    if !has_cells() {
        return;
    }
    let stack = Plan::default().start().await;
    for (way, expected) in [("never", "found\n"), ("always", "nothing\n")] {
        let flags = ["--session", "writer", "--isolate", way];
        let mut command = run_under(&stack, &["python3", "-c", KEYS, "put"], &flags, "python3 -c \"$KEYS\" look");
        command.env("KEYS", KEYS);
        let (code, out, err) = output(command);
        if code == Some(77) {
            util::skipped("keyrings: this kernel, or what keeps this process, gives none");
            break;
        }
        assert_eq!((code, out.as_str()), (Some(0), expected), "{way}: {err}");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificates_of_a_cell_are_nobodys_to_change() {
    if !has_cells() {
        return;
    }
    let stack = Plan::default().start().await;
    let script = "f=$SSL_CERT_FILE; try sh -c \"chmod 600 $f && echo evil > $f\"; try rm -f $f; try mv ${f%/*} ${f%/*}.gone; \
                  wc -c < $f; echo at $f; while [ ! -e \"$GO\" ]; do sleep 0.02; done; wc -c < $f";
    let go = stack.dir().join("go");
    let mut command = run(&stack, &ALWAYS, &format!("{TRY}{script}"));
    command.env("GO", &go);
    let mut running = Running::start(&stack, command);
    running.says("at ").await;
    let said = running.said();
    let (before, at) = said.split_once("\nat ").expect("both");
    // As another cell of this user's does.
    let file = Path::new(at.trim());
    std::fs::set_permissions(file, Permissions::from_mode(0o600)).expect("our own");
    std::fs::write(file, "evil").expect("our own");
    std::fs::write(&go, "").expect("a file");
    assert_eq!(running.ended().await.code(), Some(0));
    assert_eq!(running.said(), format!("{before}\nat {}\n{before}\n", file.display()));
    assert!(!file.parent().expect("a directory").exists(), "nothing is left");
    stack.reconcile().await;
}

/// What its owner has shut, its owner opens: it is not out of anybody's reach.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "becomes another user: only root can (make test as root runs it)"]
async fn what_an_ordinary_user_hides_stays_hidden_too() {
    if !has_cells() {
        return;
    }
    let stack = Plan::default().start().await;
    let _broker = nobody::owns(&stack).await;
    let ran = |more: &[&str], script: &str| {
        let mut command = run_under(&stack, &nobody::BECOME, &[&ALWAYS[..], more].concat(), script);
        let base = stack.dir().canonicalize().expect("a directory");
        command.env("NAME", base.file_name().expect("a name")).env("BASE", &base).env("HOME", "/").current_dir(&base);
        output(command)
    };
    let base = format!("{}\n", stack.dir().canonicalize().expect("a directory").display());
    let (code, out, err) = ran(&[], &format!("{TRY}{MOVES}"));
    assert_eq!((code, out, err), (Some(0), base, String::new()));

    let shut = stack.dir().join("shut");
    std::fs::create_dir_all(shut.join("keys")).expect("a directory");
    nobody::is_given(&shut);
    std::fs::set_permissions(&shut, Permissions::from_mode(0o000)).expect("root");
    let (code, out, err) = ran(&["--hide", shut.join("keys").to_str().expect("text")], "echo ran");
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("your user has shut a directory above it"), "{err}");
}
