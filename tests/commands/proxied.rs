//! `attache up --shape forward-proxy`, and what its page tells an agent to do with what that prints.

use std::process::Command;

use attache_tests::stack::GITHUB;
use attache_tests::{Ca, Upstream, util};

use crate::up::{Up, attache};
use crate::{config, said};

/// The page.
const PAGE: &str = include_str!("../../docs/forward-proxy.md");

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_what_the_page_says_is_served() {
    let curl = Command::new(util::workspace_root().join("scripts/need")).arg("curl").status();
    if !curl.is_ok_and(|status| status.success()) {
        util::skipped("no curl here: on Debian, apt-get install curl");
        return;
    }
    let ca = Ca::new();
    let upstream = Upstream::tls(&ca, &["api.github.com"]).start().await;
    let dial = format!("{{address: '{}', ca_file: {}}}", upstream.addr(), ca.pem_path().display());
    let (dir, path) = config(&format!(
        "state_dir: state\nlisten: {{proxy: '127.0.0.1:0'}}\ncredentials:\n  github:\n    preset: github\n    \
         destinations: [{{host: api.github.com, upstream: {dial}}}]\n\
         sessions: [{{name: one, credentials: [github], access_mode: read-only}}]\n"
    ));

    let mut up = Up::start(&path, &["--shape", "forward-proxy", "--json"], &[("GITHUB_TOKEN", GITHUB)]);
    let ready = up.ready().await;
    let exported = ready["sessions"][0]["env"].as_object().expect("variables");
    let exported = exported.iter().map(|(name, value)| (name.as_str(), value.as_str().expect("text")));

    let (_, block) = PAGE.split_once("```sh forward-proxy\n").expect("the block of the page");
    let (block, _) = block.split_once("```").expect("its end");
    let bin = util::broker_bin();
    let bin = bin.parent().expect("a directory").display();
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", block]).current_dir(dir.path()).env_clear();
    shell.env("PATH", format!("{bin}:{}", std::env::var("PATH").unwrap_or_default())).env("ATTACHE_CONFIG", &path);
    let answer = tokio::task::block_in_place(|| shell.envs(exported).output()).expect("bash runs");
    let (out, err) = (String::from_utf8_lossy(&answer.stdout), String::from_utf8_lossy(&answer.stderr));
    assert!(answer.status.success(), "{out}{err}");
    assert!(!format!("{ready}{out}{err}{}", up.told()).contains(GITHUB), "the agent has seen the secret");
    let came = upstream.requests();
    assert_eq!((came.len(), came[0].header("authorization")), (1, Some(format!("Bearer {GITHUB}"))));

    // Another command says the same, without being told of the shape.
    let again = said(&mut attache(&["session", "env", "one", "--json"], &path)).json();
    assert_eq!(again["HTTPS_PROXY"], ready["sessions"][0]["env"]["HTTPS_PROXY"]);
    let gateway = said(&mut attache(&["session", "env", "one", "--shape", "gateway", "--json"], &path)).json();
    assert!(gateway["HTTPS_PROXY"].is_null() && gateway["GITHUB_TOKEN"].is_string(), "{gateway:#}");
    let hides = ["run", "--session", "one", "--hide", "/nowhere/at-all", "--", "true"];
    let typo = said(attache(&hides, &path).env("ATTACHE_CONFIG", &path));
    assert!(typo.code == 1 && typo.err.contains("--hide /nowhere/at-all: there is no such directory"), "{}", typo.err);

    // Doctor is content with the Envoy that runs.
    let examined = said(&mut attache(&["doctor"], &path));
    assert!(examined.code == 0 && examined.out.contains("envoy.sock"), "{}{}", examined.out, examined.err);
    let used = said(&mut attache(&["audit", "query", "--kind", "use", "--json"], &path)).json();
    assert_eq!((&used["destination"], &used["session"]), (&"api.github.com:443".into(), &"one".into()), "{used:#}");
    up.signal("TERM");
    assert!(up.ended().await.success(), "{}", up.told());
}

/// Envoy would share it, and each would get some of the other's agents.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_another_envoy_has_is_not_shared() {
    let (_dir, path) = config(crate::GOOD);
    let mut up = Up::start(&path, &["--json"], &[("LAB_KEY", GITHUB)]);
    let proxy = up.ready().await["proxy"].as_str().expect("an address").to_owned();
    let (_other, second) = config(&crate::GOOD.replace("127.0.0.1:0", &proxy));
    let mut late = Up::start(&second, &["--json"], &[("LAB_KEY", GITHUB)]);
    assert_eq!(late.ended().await.code(), Some(1), "{}", late.told());
    assert!(late.told().contains(&format!("{proxy} is in use")), "{}", late.told());

    // And what is no proxy runs no command.
    let run = said(attache(&["run", "--session", "one", "--", "true"], &path).env("ATTACHE_CONFIG", &path));
    assert!(run.code == 1 && run.err.contains("is a gateway"), "{}", run.err);
    up.signal("TERM");
    assert!(up.ended().await.success(), "{}", up.told());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_yet_is_said_when_all_is_ready() {
    let (_dir, path) = config(crate::GOOD);
    let mut up = Up::start(&path, &[], &[("LAB_KEY", "")]);
    util::eventually(std::time::Duration::from_secs(30), || up.told().contains("ready")).await;
    util::eventually(std::time::Duration::from_secs(5), || up.told().contains("lab cannot be used yet")).await;
    up.signal("TERM");
    assert!(up.ended().await.success(), "{}", up.told());
    // And of an authority that was made by asking for it.
    let shown = said(&mut attache(&["ca", "show", "--instance-id", "mistyped"], &path));
    assert!(shown.code == 0 && shown.err.contains("instance mistyped had no authority"), "{}", shown.err);
}

/// Keys of certificates would travel over it.
#[tokio::test(flavor = "multi_thread")]
async fn it_does_not_start_where_certificates_would_come_over_tcp() {
    let yaml = crate::GOOD.replace("'127.0.0.1:0'}", "'127.0.0.1:0', data_plane: '127.0.0.1:0'}");
    let (_dir, path) = config(&yaml);
    let mut up = Up::start(&path, &["--shape", "forward-proxy"], &[("LAB_KEY", GITHUB)]);
    assert_eq!(up.ended().await.code(), Some(1), "{}", up.told());
    let told = up.told();
    assert!(told.contains("certificate-transport") && told.contains("listen.data_plane"), "{told}");
}

/// A binary that says it is an Envoy of this version, and never more.
#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_is_too_old_is_not_started() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, path) = config(crate::GOOD);
    let envoy = dir.path().join("envoy");
    for (says, reason) in [
        ("envoy  version: 0123/1.36.4/Clean/RELEASE/BoringSSL", "Envoy 1.36 is too old: 1.37 is the oldest"),
        ("nothing of use", "does not name a version"),
    ] {
        std::fs::write(&envoy, format!("#!/bin/sh\necho '{says}'\n")).expect("a script");
        std::fs::set_permissions(&envoy, std::fs::Permissions::from_mode(0o755)).expect("a mode");
        let named = [("ATTACHE_ENVOY", envoy.to_str().expect("a path")), ("LAB_KEY", GITHUB)];
        let mut up = Up::start(&path, &["--shape", "forward-proxy"], &named);
        assert_eq!(up.ended().await.code(), Some(1), "{}", up.told());
        assert!(up.told().contains(reason), "{}", up.told());
    }
}
