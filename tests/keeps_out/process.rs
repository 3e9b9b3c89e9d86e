//! What the processes themselves give away: nothing in arguments, environment, logs or cores.

use attache_broker::envoy::admin::AdminUrl;
use attache_tests::stack::{CUSTOM, GITHUB, Plan, QUERY, SOON};
use attache_tests::{attache, util};

use crate::up::Up;
use crate::{assert_no_core, assert_private, of_process};

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_logs_no_secret_at_any_level_and_leaves_no_core() {
    let stack = Plan::default().env("ATTACHE_LOG", "trace").start().await;
    stack.site.oracle.log("the broker's log", stack.broker.log_path());
    assert_no_core(stack.broker.pid());
    for (credential, target) in [("github", "/api.github.com/user"), ("custom", "/api.custom.test/v1/x")] {
        let placeholder = stack.placeholder("writer", credential);
        assert_eq!(stack.get("127.0.0.1", target, &placeholder).await.status, 200);
    }
    stack.site.keep("custom_key", "not\u{1}printable-and-never-shown");
    util::eventually(SOON, || std::fs::read_to_string(stack.broker.log_path()).is_ok_and(|log| log.contains("WARN")))
        .await;
    stack.broker.json(&["session", "revoke", "writer"]);

    let log = std::fs::read_to_string(stack.broker.log_path()).expect("a log");
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "it says more than usual");
    let token = std::fs::read_to_string(stack.dir().join("state/default/data-plane.token")).expect("a token");
    let placeholder = stack.placeholder("reader", "github");
    for hidden in [GITHUB, CUSTOM, QUERY, &token, &placeholder, "never-shown"] {
        assert!(!log.contains(hidden), "{hidden}");
    }
    let arguments = of_process(stack.broker.pid(), "cmdline");
    assert!(arguments.contains("serve") && !arguments.contains(GITHUB) && !arguments.contains(QUERY));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_broker_on_the_same_state_is_refused() {
    let stack = Plan::default().start().await;
    for command in ["serve", "up"] {
        let second = attache::run(&stack.site.config_path(), &[command]);
        let text = String::from_utf8_lossy(&second.stderr).into_owned();
        assert_eq!(second.status.code(), Some(1), "{text}");
        assert!(text.contains(&format!("is in use by process {}", stack.broker.pid())), "{text}");
    }
    let placeholder = stack.placeholder("writer", "github");
    assert_eq!(stack.get("api.github.com", "/user", &placeholder).await.status, 200, "the first one is unharmed");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_envoy_that_up_starts_knows_no_secret_but_by_file() {
    let dir = util::temp_dir();
    let config = dir.path().join("attache.yaml");
    let yaml = "state_dir: state\nlisten: {proxy: '127.0.0.1:0'}\ncredentials:\n  \
                a: {source: {env: A_KEY}, inject: bearer, destinations: [{host: a.test, upstream: {address: '127.0.0.1:9'}}]}\n\
                sessions: [{name: one, credentials: [a]}]\n";
    std::fs::write(&config, yaml).expect("a config");
    let mut up = Up::start(&config, &["--json"], &[("A_KEY", GITHUB), ("UNRELATED", "someone-elses-secret")]);
    let ready = up.ready().await;
    let envoy = ready["envoy_pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("Envoy's process");
    let state = dir.path().join("state/default");
    let token = std::fs::read_to_string(state.join("data-plane.token")).expect("a token");

    let environment = of_process(envoy, "environ");
    assert_eq!(environment, "", "Envoy inherits nothing");
    let arguments = of_process(envoy, "cmdline");
    assert!(arguments.contains("--config-path"), "{arguments}");
    let bootstrap = std::fs::read_to_string(state.join("envoy.json")).expect("a bootstrap");
    let dump = AdminUrl::Unix(state.join("envoy.sock")).get("/config_dump").await.expect("a dump");
    let dump = String::from_utf8_lossy(&dump).into_owned();
    assert!(dump.contains("attache_data_plane"), "{dump}");
    for text in [&arguments, &bootstrap, &dump, &up.said(), &up.told()] {
        assert!(!text.contains(GITHUB) && !text.contains(&token), "{text}");
    }
    for pid in [up.pid(), envoy] {
        assert_no_core(pid);
    }
    assert_private(&dir.path().join("state"));
    up.signal("TERM");
    assert!(up.ended().await.success(), "{}", up.told());
}
