//! The API: one question a secret, by a token that may be swapped, and what each answer means.

use std::time::{Duration, Instant};

use attache_tests::{Attache, util};
use serde_json::Value;
use tempfile::TempDir;

use crate::server::Server;

const SECRET: &str = "the-secret-of-kubernetes-0123456789";
const OTHER: &str = "another-secret-of-kubernetes-9876543";
const TOKEN: &str = "a-token-of-the-service-account-0123";
const NEXT: &str = "the-next-token-of-the-account-4567";
const SOON: Duration = Duration::from_secs(30);

/// A broker whose one credential is in this cluster.
struct World {
    dir: TempDir,
    server: Server,
}

impl World {
    async fn new(names: &[&str], user: &str) -> Self {
        let world = Self { dir: util::temp_dir(), server: Server::start(names).await };
        world.write("token", TOKEN);
        world.write("kubeconfig", &world.server.kubeconfig(user));
        world.write(
            "attache.yaml",
            "state_dir: state\nsources: {kubernetes: {kubeconfig: kubeconfig, refresh: 1s}}\ncredentials:\n  it: {source: \
             {kubernetes: {secret: github, key: token}}, inject: bearer, destinations: [{host: a.test}]}\nsessions: [{name: s, \
             credentials: [it]}]\n",
        );
        world
    }

    fn write(&self, name: &str, text: &str) {
        let beside = self.dir.path().join(format!("{name}.new"));
        std::fs::write(&beside, text).expect("a file");
        std::fs::set_permissions(&beside, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("private");
        std::fs::rename(beside, self.dir.path().join(name)).expect("in place");
    }

    /// Starts the broker, at the loudest, with a proxy that nobody is: who asks it gets no answer.
    async fn serve(&self) -> Attache {
        let env =
            [("ATTACHE_LOG", "trace"), ("HTTPS_PROXY", "http://127.0.0.1:9"), ("HTTP_PROXY", "http://127.0.0.1:9")];
        Attache::serve(&self.dir.path().join("attache.yaml"), &env).await
    }

    /// Whatever anybody could read of the broker holds none of these.
    fn says_nothing(&self, broker: &Attache) {
        let mut all = std::fs::read(broker.log_path()).expect("the log");
        all.extend(std::fs::read(self.dir.path().join("state/default/audit.jsonl")).expect("the audit log"));
        for args in [&["credential", "list", "--json"][..], &["credential", "list"], &["credential", "test", "it"]] {
            let output = broker.cli(args);
            all.extend(output.stdout);
            all.extend(output.stderr);
        }
        let all = String::from_utf8_lossy(&all);
        for secret in [SECRET, OTHER, TOKEN, NEXT] {
            assert!(!all.contains(secret), "{secret} shows");
        }
    }
}

/// Waits until the credential stands like this.
#[track_caller]
fn until(broker: &Attache, what: impl Fn(&Value) -> bool) -> impl Future<Output = Value> {
    let caller = std::panic::Location::caller();
    async move {
        let end = Instant::now() + SOON;
        loop {
            let now = broker.json(&["credential", "list"])[0].clone();
            if what(&now) {
                return now;
            }
            assert!(Instant::now() < end, "at {caller}, it stands: {now:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn says(now: &Value) -> String {
    let text = |name: &str| now[name].as_str().unwrap_or_default().to_owned();
    format!("{}{}; {}", text("error"), text("trouble"), text("fix"))
}

fn is_well(now: &Value) -> bool {
    now["fingerprint"].is_string() && now["error"].is_null() && now["trouble"].is_null()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_secret_is_got_by_its_name_and_nothing_else_is_asked() {
    let world = World::new(&["127.0.0.1"], "{tokenFile: token}").await;
    world.server.allow(TOKEN, &["agents/github"]);
    world.server.put("agents/github", "token", format!("{SECRET}\n").as_bytes());
    let broker = world.serve().await;
    let first = until(&broker, is_well).await;
    assert_eq!(first["source"], "kubernetes github#token");
    // Read anew at `refresh`.
    world.server.put("agents/github", "token", OTHER.as_bytes());
    until(&broker, |now| is_well(now) && now["fingerprint"] != first["fingerprint"]).await;
    let asked = world.server.told().asked.clone();
    assert!(
        asked.len() >= 2 && asked.iter().all(|one| one == "GET /api/v1/namespaces/agents/secrets/github"),
        "{asked:?}"
    );
    world.says_nothing(&broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_of_the_api_means_what_it_says() {
    let world = World::new(&["127.0.0.1"], "{tokenFile: token}").await;
    world.server.allow(TOKEN, &[]);
    let broker = world.serve().await;
    let denied = until(&broker, |now| says(now).contains("may not `get` the Secret github in namespace agents")).await;
    let fix = denied["fix"].as_str().expect("a fix");
    assert!(fix.contains("kind: Role") && fix.contains("resourceNames: [github], verbs: [get]"), "{fix}");
    world.server.allow(TOKEN, &["agents/github"]);
    until(&broker, |now| says(now).contains("no source has it: kubernetes github#token")).await;
    world.server.put("agents/github", "other", b"x");
    until(&broker, |now| says(now).contains("the Secret has no such key")).await;
    world.server.put("agents/github", "token", b"\xff\xfe");
    until(&broker, |now| says(now).contains("the key holds no text")).await;
    world.server.put("agents/github", "token", SECRET.as_bytes());
    until(&broker, is_well).await;
    // What says nothing about the secret leaves it in use.
    world.server.told().failing = Some(503);
    let held = until(&broker, |now| says(now).contains("it fails (HTTP 503)")).await;
    assert!(held["fingerprint"].is_string() && held["error"].is_null(), "{held:#}");
    world.server.told().failing = None;
    until(&broker, is_well).await;
    world.server.told().secrets.clear();
    until(&broker, |now| says(now).contains("no source has it")).await;
    world.says_nothing(&broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_over_is_read_again_from_its_file() {
    let world = World::new(&["127.0.0.1"], "{tokenFile: token}").await;
    world.server.allow(TOKEN, &["agents/github"]);
    world.server.put("agents/github", "token", SECRET.as_bytes());
    let broker = world.serve().await;
    let first = until(&broker, is_well).await["fingerprint"].clone();
    // A kubelet has put another in its place, before the old one ended.
    world.write("token", NEXT);
    {
        let mut told = world.server.told();
        told.roles.clear();
        told.roles.insert(NEXT.to_owned(), vec!["agents/github".to_owned()]);
    }
    world.server.put("agents/github", "token", OTHER.as_bytes());
    until(&broker, |now| is_well(now) && now["fingerprint"] != first).await;
    // And when there is none that is accepted, it says so.
    world.server.told().roles.clear();
    until(&broker, |now| says(now).contains("does not accept our token")).await;
    world.says_nothing(&broker);
}

/// What a kubelet projects into a pod, at its own place: in a mount namespace of the broker's own, which takes root.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_pod_the_service_account_is_all_that_it_needs() {
    let whole =
        std::process::Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "none", "/var/run"]).status();
    if !whole.is_ok_and(|status| status.success()) {
        util::skipped("no mount namespace here: that takes root");
        return;
    }
    let world = World::new(&["127.0.0.1"], "{tokenFile: token}").await;
    let config = std::fs::read_to_string(world.dir.path().join("attache.yaml")).expect("the config");
    world.write("attache.yaml", &config.replace("kubeconfig: kubeconfig, ", ""));
    world.write("namespace", "agents");
    world.write("ca.crt", world.server.ca.pem());
    world.server.allow(TOKEN, &["agents/github"]);
    world.server.put("agents/github", "token", SECRET.as_bytes());
    let script = format!(
        "mount -t tmpfs none /var/run && at=/var/run/secrets/kubernetes.io/serviceaccount && mkdir -p $at && cd {} && \
         cp token namespace ca.crt $at && exec \"$@\"",
        world.dir.path().display()
    );
    let under = ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned);
    let port = world.server.address.port().to_string();
    let env = [
        ("ATTACHE_LOG", "trace"),
        ("KUBERNETES_SERVICE_HOST", "127.0.0.1"),
        ("KUBERNETES_SERVICE_PORT", &port),
        ("HTTPS_PROXY", "http://127.0.0.1:9"),
    ];
    let broker = Attache::serve_under(&under, &world.dir.path().join("attache.yaml"), &env).await;
    let now = until(&broker, is_well).await;
    assert_eq!(now["source"], "kubernetes github#token");
    assert_eq!(world.server.told().asked[0], "GET /api/v1/namespaces/agents/secrets/github");
    world.says_nothing(&broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_another_or_away_is_told_apart() {
    let world = World::new(&["other.test"], "{token: a-token-of-the-service-account-0123}").await;
    world.server.allow(TOKEN, &["agents/github"]);
    world.server.put("agents/github", "token", SECRET.as_bytes());
    let broker = world.serve().await;
    until(&broker, |now| says(now).contains("its certificate is of another name")).await;
    // Another authority.
    let other = attache_tests::Ca::new();
    let kubeconfig = world.server.kubeconfig("{token: a-token-of-the-service-account-0123}");
    let ours = world.server.ca.pem_path().display().to_string();
    world.write("kubeconfig", &kubeconfig.replace(&ours, &other.pem_path().display().to_string()));
    until(&broker, |now| says(now).contains("not signed by an authority")).await;
    // The name that the certificate has.
    world.write(
        "kubeconfig",
        &kubeconfig.replace("certificate-authority", "tls-server-name: other.test, certificate-authority"),
    );
    until(&broker, is_well).await;
    assert!(world.server.told().asked.iter().all(|one| one.starts_with("GET ")), "nothing was sent before");
    world.write("kubeconfig", &kubeconfig.replace(&world.server.address.port().to_string(), "1"));
    let held = until(&broker, |now| says(now).contains("it cannot be reached")).await;
    assert!(held["fingerprint"].is_string(), "what was found stays in use: {held:#}");
    world.says_nothing(&broker);
}
