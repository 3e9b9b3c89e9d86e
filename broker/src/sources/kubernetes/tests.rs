//! What an answer means, and that nothing of it shows. Against a stand-in that speaks TLS: tests/kubernetes.rs.

use super::answer::{Reply, reading};
use super::client::Client;
use super::error::KubernetesError;
use crate::config::Cluster;
use crate::config::handed::SecretAt;
use crate::sources::Trouble;
use crate::sources::stand_in::{StandIn, in_chunks, says};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

const SECRET: &str = "s3cret-in-an-answer";

fn reply(status: u16, body: &str) -> Reply {
    let body = Zeroizing::new(body.as_bytes().to_vec());
    Reply { status, body, namespace: "agents".into(), name: "github".into() }
}

fn object(data: &str) -> String {
    format!(r#"{{"kind":"Secret","apiVersion":"v1","metadata":{{"name":"github"}},"data":{data},"type":"Opaque"}}"#)
}

fn status(code: u16, reason: &str, kind: &str) -> String {
    format!(
        r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"{SECRET}","reason":"{reason}",
           "details":{{"name":"github","kind":"{kind}"}},"code":{code}}}"#
    )
}

#[test]
fn a_key_is_decoded_and_loses_one_line_break() {
    for (text, found) in [(SECRET, SECRET), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("\u{e9}", "\u{e9}")] {
        let body = object(&format!(r#"{{"token":"{}","other":"eA=="}}"#, STANDARD.encode(text)));
        assert_eq!(reading(&reply(200, &body), "token").ok().flatten().unwrap().expose(), found);
    }
}

#[test]
fn absent_and_each_error_are_told_apart_and_no_error_holds_a_byte_of_the_answer() {
    assert!(matches!(reading(&reply(404, &status(404, "NotFound", "secrets")), "token"), Ok(None)));
    let with = |bytes: &[u8]| object(&format!(r#"{{"token":"{}"}}"#, STANDARD.encode(bytes)));
    for (code, body, passes, words) in [
        (200, object(r#"{"other":"eA=="}"#), false, "no such key"),
        (200, object("null"), false, "no such key"),
        (200, r#"{"kind":"Secret"}"#.into(), false, "no such key"),
        (200, with(b"\n"), false, "is empty"),
        (200, with(b"\xff\xfe"), false, "no text"),
        (200, with(&[b's'; 65 * 1024]), false, "longer than 64 KiB"),
        (200, object(&format!(r#"{{"token":"{SECRET}!"}}"#)), false, "does not answer as Kubernetes"),
        (200, object(r#"{"token":5}"#), false, "does not answer as Kubernetes"),
        (200, object(r#"{"token":"eA==","token":"eQ=="}"#), false, "does not answer as Kubernetes"),
        (200, r#"{"kind":"SecretList","items":[]}"#.into(), false, "does not answer as Kubernetes"),
        (200, format!("<html>{SECRET}</html>"), false, "does not answer as Kubernetes"),
        (302, String::new(), false, "does not answer as Kubernetes"),
        (401, status(401, "Unauthorized", ""), false, "does not accept our token"),
        (403, status(403, "Forbidden", "secrets"), false, "may not `get` the Secret github in namespace agents"),
        (403, format!("<html>{SECRET}</html>"), false, "does not answer as Kubernetes"),
        (404, format!("<html>{SECRET}</html>"), false, "does not answer as Kubernetes"),
        (404, status(404, "NotFound", "namespaces"), false, "does not answer as Kubernetes"),
        (500, status(500, "InternalError", ""), true, "HTTP 500"),
        (503, SECRET.to_owned(), true, "HTTP 503"),
    ] {
        let error = reading(&reply(code, &body), "token").err().unwrap_or_else(|| panic!("{code} {words}"));
        let trouble = Trouble::from(error.clone());
        let shown = format!("{error} {error:?} {}", trouble.fix());
        assert!(error.to_string().contains(words) && !shown.contains(SECRET), "{code}: {shown}");
        assert_eq!(trouble.passes(), passes, "{words}");
        assert!(trouble.fix().len() > 10, "{words}");
    }
}

#[test]
fn who_may_not_read_a_secret_is_told_the_role_that_lets_him() {
    let error = KubernetesError::Forbidden { namespace: "agents".into(), name: "github".into() };
    let trouble = Trouble::from(error);
    let role = &trouble.fix()[trouble.fix().find('{').unwrap()..];
    let role: serde_json::Value = serde_saphyr::from_str(role).unwrap();
    assert_eq!(role["metadata"], serde_json::json!({"name": "attache-github", "namespace": "agents"}));
    let rule =
        serde_json::json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["github"], "verbs": ["get"]});
    assert_eq!(role["rules"], serde_json::json!([rule]));
}

#[tokio::test]
async fn a_kubeconfig_that_would_run_something_or_verify_nothing_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("kubeconfig");
    let good = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: k\n  cluster: {{server: 'https://127.0.0.1:1'CLUSTER}}\n\
         users:\n- name: u\n  user: {{token: {SECRET}USER}}\ncontexts:\n- name: c\n  context: {{cluster: k, user: u}}\n"
    );
    let ask = async |text: &str, context: Option<&str>| {
        std::fs::write(&file, text).unwrap();
        let cluster = Cluster {
            kubeconfig: Some((file.clone(), context.map(str::to_owned))),
            own: SecretAt::Shared(file.clone()),
            refresh: Duration::from_secs(60),
        };
        let error = Client::new(Arc::new(cluster)).get(None, "github").await.err().unwrap();
        assert!(!format!("{error} {error:?}").contains(SECRET));
        error.to_string()
    };
    let plain = good.replace("CLUSTER", "").replace("USER", "");
    assert_eq!(ask(&plain, None).await, "it cannot be reached");
    assert_eq!(ask(&plain, Some("c")).await, "it cannot be reached");
    assert!(ask(&plain, Some("other")).await.contains("no such context"));
    assert!(ask(&plain.replace("https", "http").replace("127.0.0.1", "k8s.test"), None).await.contains("no https://"));
    for (cluster, user, words) in [
        (", insecure-skip-tls-verify: true", "", "not verified"),
        (", proxy-url: 'http://127.0.0.1:9'", "", "by no proxy"),
        (", certificate-authority: none.pem", "", "not there"),
        (
            "",
            ", exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/false, interactiveMode: Never}",
            "runs none",
        ),
        ("", ", auth-provider: {name: gcp, config: {cmd-path: /bin/false}}", "runs none"),
    ] {
        let text = good.replace("CLUSTER", cluster).replace("USER", user);
        let said = ask(&text, None).await;
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(ask("{", None).await.contains("it is no kubeconfig"));
    std::fs::write(&file, &plain).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let cluster = Cluster {
        kubeconfig: Some((file.clone(), None)),
        own: SecretAt::Shared(file.clone()),
        refresh: Duration::from_secs(60),
    };
    let error = Client::new(Arc::new(cluster)).get(None, "github").await.err().unwrap();
    assert!(error.to_string().contains("no regular file"));
}

/// What is said of a kubeconfig at this place.
async fn said_of(file: &std::path::Path) -> String {
    let cluster = Cluster {
        kubeconfig: Some((file.to_owned(), None)),
        own: SecretAt::Shared(file.to_owned()),
        refresh: Duration::from_secs(60),
    };
    let error = Client::new(Arc::new(cluster)).get(None, "github").await.err().unwrap();
    assert!(!format!("{error} {error:?}").contains(SECRET));
    error.to_string()
}

fn chmod(path: &std::path::Path, mode: u32) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

/// A directory that is ours alone, and a kubeconfig in it whose user is this, of a cluster with this.
fn kubeconfig(user: &str, cluster: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: k\n  cluster: {{server: 'https://127.0.0.1:1'{cluster}}}\n\
         users:\n- name: u\n  user: {{{user}}}\ncontexts:\n- name: c\n  context: {{cluster: k, user: u}}\n"
    );
    std::fs::write(&file, text).unwrap();
    chmod(&file, 0o644);
    (temp, file)
}

#[tokio::test]
async fn a_kubeconfig_that_somebody_else_could_have_written_is_not_followed() {
    let (temp, file) = kubeconfig(&format!("token: {SECRET}"), "");
    assert_eq!(said_of(&file).await, "it cannot be reached", "others may read it");
    for mode in [0o620, 0o602, 0o664, 0o666] {
        chmod(&file, mode);
        assert!(said_of(&file).await.contains("others may write it: chmod go-w"), "{mode:o}");
    }
    chmod(&file, 0o600);
    for mode in [0o770, 0o707, 0o777, 0o1777] {
        chmod(temp.path(), mode);
        assert!(said_of(&file).await.contains("others may write its directory"), "{mode:o}");
    }
    chmod(temp.path(), 0o755);
    assert_eq!(said_of(&file).await, "it cannot be reached");
    let link = temp.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert!(said_of(&link).await.contains("it is a symbolic link"));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        temp.path().join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(said_of(&temp.path().join("fifo")).await.contains("no regular file"));
    // To give something away takes root.
    if rustix::process::geteuid().is_root() {
        for path in [&*file, temp.path()] {
            std::os::unix::fs::chown(path, Some(12_345), None).unwrap();
            assert!(said_of(&file).await.contains("belongs neither to root nor"), "{}", path.display());
            std::os::unix::fs::chown(path, Some(0), None).unwrap();
        }
    }
}

#[tokio::test]
async fn what_a_kubeconfig_names_lies_beside_it_and_nobody_else_may_write_it() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("stolen"), SECRET).unwrap();
    let stolen = outside.path().join("stolen").display().to_string();
    for member in ["tokenFile", "client-key", "client-certificate"] {
        for to in [stolen.clone(), "link".to_owned()] {
            let (temp, file) = kubeconfig(&format!("{member}: '{to}'"), "");
            std::os::unix::fs::symlink(&stolen, temp.path().join("link")).unwrap();
            let said = said_of(&file).await;
            assert!(said.contains(&format!("its {member} lies outside of its directory")), "{to}: {said}");
        }
    }
    let (temp, file) = kubeconfig("tokenFile: below/token", "");
    let below = temp.path().join("below");
    std::fs::create_dir(&below).unwrap();
    std::fs::write(below.join("token"), SECRET).unwrap();
    for path in [&below, &below.join("token")] {
        chmod(&below, 0o755);
        chmod(&below.join("token"), 0o640);
        assert_eq!(said_of(&file).await, "it cannot be reached");
        for mode in [0o770, 0o707, 0o1777] {
            chmod(path, mode);
            let said = said_of(&file).await;
            assert!(said.contains("its tokenFile is a file, or in a directory, that others may write"), "{said}");
        }
    }
    // An authority is no secret: it may lie elsewhere, and be nobody else's either.
    let ca = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap().cert.pem();
    std::fs::write(outside.path().join("ca"), ca).unwrap();
    let (_temp, file) = kubeconfig("token: x", &format!(", certificate-authority: '{}/ca'", outside.path().display()));
    assert_eq!(said_of(&file).await, "it cannot be reached");
    chmod(&outside.path().join("ca"), 0o664);
    assert!(said_of(&file).await.contains("its certificate-authority is a file, or in a directory, that others may"));
    chmod(&outside.path().join("ca"), 0o644);
    chmod(outside.path(), 0o777);
    assert!(said_of(&file).await.contains("its certificate-authority is a file, or in a directory, that others may"));
}

#[tokio::test]
async fn outside_of_a_cluster_it_says_so() {
    let own = SecretAt::Shared("/none".into());
    let cluster = Cluster { kubeconfig: None, own, refresh: Duration::from_secs(60) };
    let error = Client::new(Arc::new(cluster)).get(None, "github").await.err().unwrap();
    assert!(error.to_string().contains("runs in no cluster"), "{error}");
}

/// Where a stand-in is, without TLS, and the kubeconfig that says so.
fn cluster(there: &StandIn) -> (tempfile::TempDir, Client) {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: k\n  cluster: {{server: 'http://{}'}}\n\
         users:\n- name: u\n  user: {{token: t}}\ncontexts:\n- name: c\n  context: {{cluster: k, user: u}}\n",
        there.addr
    );
    std::fs::write(&file, text).unwrap();
    let own = SecretAt::Shared(file.clone());
    let cluster = Cluster { kubeconfig: Some((file, None)), own, refresh: Duration::from_secs(60) };
    (temp, Client::new(Arc::new(cluster)))
}

#[tokio::test]
async fn who_says_too_many_requests_is_left_alone_by_all_secrets() {
    for (head, longest) in [("retry-after: 40\r\n", 40), ("", 1)] {
        let busy = says("429 Too Many Requests", head, &status(429, "TooManyRequests", ""));
        let there = StandIn::start(vec![busy, says("200 OK", "", &object("{}"))]).await;
        let (_temp, client) = cluster(&there);
        for name in ["github", "other"] {
            let error = client.get(Some("agents"), name).await.err().unwrap();
            let trouble = Trouble::from(error.clone());
            assert!(error.to_string().contains("too many requests") && trouble.passes(), "{error}");
            assert!(trouble.fix() == "wait; a longer sources.kubernetes.refresh asks less often", "{}", trouble.fix());
            assert!(trouble.wait() > Duration::from_secs(longest) / 2 && trouble.wait().as_secs() <= longest);
        }
        assert_eq!(there.asked(), ["GET /api/v1/namespaces/agents/secrets/github"]);
    }
}

#[tokio::test]
async fn an_answer_is_never_in_a_buffer_that_grows() {
    let chunk = " ".repeat(60_000);
    let there = StandIn::start(vec![in_chunks("200 OK", &[&chunk, &chunk])]).await;
    let (_temp, client) = cluster(&there);
    let reply = client.get(None, "github").await.ok().unwrap();
    assert_eq!((reply.body.len(), reply.body.capacity()), (120_000, 4 << 20));
}
