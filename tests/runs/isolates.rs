//! From inside a child that is isolated: what it tries, and what it gets.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use attache_tests::stack::{Plan, SOON};
use attache_tests::{Attache, Stack};

use crate::{ALWAYS, has_cells, output, run, run_as, run_under};

/// What a script in there says; it must succeed.
fn said(stack: &Stack<Attache>, env: &[(&str, &str)], script: &str) -> String {
    let mut command = run(stack, &ALWAYS, script);
    command.envs(env.iter().copied());
    let (code, out, err) = output(command);
    assert_eq!(code, Some(0), "{script}: {out}{err}");
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn state_directory_and_control_socket_are_out_of_reach() {
    if !has_cells() {
        return;
    }
    let stack = Plan::default().start().await;
    let state = stack.dir().join("state");
    let env = [("STATE", state.to_str().expect("text"))];
    assert_eq!(said(&stack, &env, "find \"$STATE\""), format!("{}\n", state.display()));
    let tries = "cat $STATE/default/data-plane.token || cat $STATE/default/instance.key || cat $STATE/default/secrets/github_token \
                 || touch $STATE/x || umount $STATE || curl -sS --unix-socket $STATE/default/control.sock http://a/v1/sessions \
                 || unshare -Urm umount $STATE || unshare -Urm umount -l $STATE || mount -t tmpfs x /mnt || echo nothing";
    assert_eq!(said(&stack, &env, tries), "nothing\n");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_and_its_environment_are_out_of_reach() {
    if !has_cells() {
        return;
    }
    let stack = Plan::default().start().await;
    let processes =
        said(&stack, &[], "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; echo; ls -d /proc/[0-9]* | wc -l; ls /proc/1/fd");
    assert!(!processes.contains("serve"), "{processes}");
    let secrets =
        said(&stack, &[], "cat /proc/*/environ /proc/*/task/*/environ 2>/dev/null | tr '\\0' '\\n' | grep QUERY_KEY=");
    assert_eq!(secrets.lines().collect::<std::collections::BTreeSet<_>>().len(), 1, "its own placeholder: {secrets}");
    let broker = stack.broker.pid().to_string();
    assert_eq!(said(&stack, &[("BROKER", &broker)], "kill -0 $BROKER 2>/dev/null || echo gone"), "gone\n");
    // The first process is ours, and has what it is made of closed.
    assert_eq!(said(&stack, &[], "cat /proc/1/environ 2>/dev/null || echo closed"), "closed\n");
    stack.site.oracle.text("what a child saw", secrets);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_is_the_only_way_out() {
    if !has_cells() {
        return;
    }
    let stack = Plan::default().start().await;
    let beside = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = beside.local_addr().expect("an address").port().to_string();
    let named = stack.dir().join("engine.sock");
    let engine = UnixListener::bind(&named).expect("a socket");
    let env = [("PORT", port.as_str()), ("ENGINE", named.to_str().expect("text"))];
    let tries = "curl -sS --noproxy '*' --max-time 3 http://127.0.0.1:$PORT/ && echo reached; \
                 curl -sS --max-time 3 --unix-socket $ENGINE http://x/ && echo reached; \
                 curl -sS --noproxy '*' --max-time 3 http://192.0.2.1/ && echo reached; \
                 getent hosts example.com && echo reached; sed -n 's/^ *\\([a-z0-9]*\\):.*/\\1/p' /proc/net/dev; echo end";
    assert_eq!(said(&stack, &env, tries), "lo\nend\n");
    for listener in [
        beside.set_nonblocking(true).map(|()| beside.accept().is_ok()),
        engine.set_nonblocking(true).map(|()| engine.accept().is_ok()),
    ] {
        assert!(!listener.expect("a socket"), "nobody came");
    }

    stack.broker.exported("writer", "GITHUB_TOKEN");
    // The port that the proxy's variables name, asked as the gateway that listens there.
    let through = "curl -sS -o /dev/null -w '%{http_code}' --noproxy '*' -H \"Authorization: Bearer $GITHUB_TOKEN\" \
                   http://${HTTP_PROXY##*@}/api.github.com/user";
    // By a port that leads there and is watched.
    let port = stack.agent().port(stack.proxy).await;
    let (code, out, err) = output(run_as(&stack, port.addr, &[], &ALWAYS, through));
    assert_eq!((code, out.as_str()), (Some(0), "200"), "through the proxy: {err}");
    stack.upstream().wait_for(1, SOON).await;
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_are_given_up_for_ever() {
    if !has_cells() {
        return;
    }
    let stack = Plan::default().start().await;
    let status = said(&stack, &[], "grep -E '^(Cap...|NoNewPrivs):' /proc/self/status");
    for line in status.lines() {
        let (name, value) = line.split_once(":\t").expect("a line");
        let expected = if name == "NoNewPrivs" { "1" } else { "0000000000000000" };
        assert_eq!(value, expected, "{line}");
    }
    assert_eq!(status.lines().count(), 6, "{status}");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn home_and_working_directory_are_the_childs_to_use() {
    if !has_cells() {
        return;
    }
    let stack = Plan::default().start().await;
    let home = stack.dir().join("home");
    std::fs::create_dir(&home).expect("a directory");
    let mut command = run(&stack, &ALWAYS, "echo kept > ~/file && echo more > here && id -u");
    command.env("HOME", &home).current_dir(&home);
    let (code, _, err) = output(command);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(std::fs::read_to_string(home.join("file")).expect("a file"), "kept\n");
    assert!(home.join("here").exists());

    // What is hidden by wish, and what cannot be: it would hide the child's own place.
    std::fs::create_dir(home.join("keys")).expect("a directory");
    std::fs::File::create(home.join("keys/key")).and_then(|mut key| key.write_all(b"key")).expect("a file");
    let keys = home.join("keys").display().to_string();
    let mut command = run(&stack, &[&ALWAYS[..], &["--hide", &keys]].concat(), "ls ~/keys");
    command.env("HOME", &home);
    assert_eq!(output(command).1, "");
    let mut command = run(&stack, &ALWAYS, "echo ran");
    command.env("HOME", &home).current_dir(stack.dir().join("state"));
    let (code, out, err) = output(command);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("the working directory must be elsewhere"), "{err}");
    stack.reconcile().await;
}

/// A kernel that gives no namespaces, as far as those beneath this one are concerned.
const NONE_GIVEN: [&str; 6] =
    ["unshare", "-Ur", "sh", "-c", "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"", "sh"];

#[tokio::test(flavor = "multi_thread")]
async fn where_there_are_no_namespaces_auto_warns_and_always_refuses() {
    if !has_cells() {
        return;
    }
    let stack = Plan::default().start().await;
    let ran = |flags: &[&str]| {
        output(run_under(&stack, &NONE_GIVEN, &[&["--session", "writer"], flags].concat(), "echo ran; exit 3"))
    };
    let (code, out, err) = ran(&["--isolate", "always"]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("the kernel gives no user, mount, process, network and IPC namespaces"), "{err}");
    let (code, out, err) = ran(&[]);
    assert_eq!((code, out.as_str()), (Some(3), "ran\n"), "{err}");
    assert!(err.contains("warning: the command is not isolated: the kernel gives no user"), "{err}");
    stack.reconcile().await;
}
