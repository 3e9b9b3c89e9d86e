//! One deployment: the shipped files, a config and a secret beside them, and an upstream where GitHub would be.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use attache_tests::{Ca, util};
use serde_json::Value;

use crate::engine::{Engine, Said, stand_in};

/// For what comes by itself: a restart, a health check.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The user of broker and Envoy, unless somebody says otherwise.
const UID: u32 = 101;

/// The config says of the example's credential where it leads, and whom to trust there.
const AS_SHIPPED: &str = "  github: {preset: github} ";
const AS_TESTED: &str = "  github:
    preset: github
    agent_env: {API_URL: {gateway: {host: api.github.com}}, GITHUB_TOKEN: placeholder}
    destinations: [{host: api.github.com, private: true, upstream: {ca_file: /etc/attache/upstream-ca.pem}}] ";

/// One that is up.
pub struct Scene {
    pub engine: Arc<Engine>,
    pub profile: &'static str,
    /// The real one.
    pub secret: String,
    dir: PathBuf,
}

/// What an agent was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: String,
    pub body: String,
}

impl Scene {
    /// Brings it up, as its user does: one command, once the files are there.
    pub async fn up(engine: Arc<Engine>, profile: &'static str) -> Self {
        let dir = engine.dir().join(profile);
        let secret = format!("ghp_{:040}", util::wall_ms());
        let scene = Self { engine, profile, secret, dir };
        scene.write_files();
        scene.must(&["up", "--detach", "--no-deps", "upstream", "hostile"]).await;
        scene.must(&["up", "--detach", "--wait", "agent"]).await;
        scene
    }

    fn write_files(&self) {
        let at = |name: &str| self.dir.join(name);
        let shipped =
            |name: &str| std::fs::read_to_string(util::workspace_root().join(name)).expect("a file that ships");
        std::fs::create_dir_all(at("upstream")).expect("a directory of ours");
        std::fs::write(at("docker-compose.yaml"), shipped("envoy/docker-compose.yaml")).expect("a file");
        std::fs::write(at("overlay.yaml"), shipped("tests/compose/overlay.yaml")).expect("a file");
        let config = shipped("envoy/attache.compose.yaml");
        assert!(config.contains(AS_SHIPPED), "the example has another credential than the test knows");
        std::fs::write(at("attache.compose.yaml"), config.replace(AS_SHIPPED, AS_TESTED)).expect("a file");

        std::fs::create_dir(at("secrets")).expect("a directory");
        std::fs::write(at("secrets/github_token"), &self.secret).expect("a file");
        for (path, mode) in [("secrets", 0o700), ("secrets/github_token", 0o600)] {
            std::fs::set_permissions(at(path), std::fs::Permissions::from_mode(mode)).expect("a file of ours");
            chown(at(path), Some(UID), Some(UID)).expect("root may");
        }
        let ca = Ca::new();
        let leaf = ca.issue(&["api.github.com"]);
        let (chain, key) = leaf.pems();
        std::fs::write(at("upstream-ca.pem"), ca.pem()).expect("a file");
        std::fs::write(at("upstream/chain.pem"), chain).expect("a file");
        std::fs::write(at("upstream/key.pem"), key).expect("a file");
    }

    /// Runs `docker compose`.
    pub async fn compose(&self, arguments: &[&str]) -> Said {
        let file = |name: &str| self.dir.join(name).to_string_lossy().into_owned();
        let (shipped, overlay, project) = (file("docker-compose.yaml"), file("overlay.yaml"), self.project());
        let mut all =
            vec!["--ansi", "never", "--progress", "plain", "--project-name", &project, "--profile", self.profile];
        all.extend(["--file", &shipped, "--file", &overlay]);
        all.extend(arguments);
        // The agent's own command runs with its environment; what it says is in its log.
        let command = format!("{}; exec sleep infinity", self.request("GET", "/from-its-command"));
        self.engine.compose(&all, &[("STAND_IN", stand_in()), ("AGENT_COMMAND", &command)]).await
    }

    /// The same, which must succeed; what it printed.
    pub async fn must(&self, arguments: &[&str]) -> String {
        let said = self.compose(arguments).await;
        assert!(said.status.success(), "docker compose {arguments:?}: {}{}\n{}", said.out, said.err, self.logs().await);
        said.out
    }

    /// Runs a script in a container.
    pub async fn inside(&self, service: &str, script: &str) -> Said {
        self.engine.docker(&["exec", &self.container(service), "bash", "-c", script]).await
    }

    /// Runs the operator's command where the broker is.
    pub async fn attache(&self, arguments: &[&str]) -> String {
        let said = self.engine.docker(&[&["exec", &self.container("broker"), "attache"], arguments].concat()).await;
        assert!(said.status.success(), "attache {arguments:?}: {said:?}\n{}", self.logs().await);
        said.out
    }

    fn container(&self, service: &str) -> String {
        format!("{}-{service}-1", self.project())
    }

    /// An agent asks; what it was answered.
    pub async fn ask(&self, method: &str, path: &str) -> Answer {
        let script = format!(". /run/attache/agent/env.sh; {}", self.request(method, path));
        let said = self.inside("agent", &script).await;
        assert!(!said.out.contains(&self.secret) && !said.err.contains(&self.secret), "the agent has the real one");
        let (body, status) = said.out.rsplit_once('\n').unwrap_or((&said.err, "none"));
        Answer { status: status.to_owned(), body: body.to_owned() }
    }

    /// An agent asks until the upstream has answered.
    pub async fn asks_in_the_end(&self, path: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let answer = self.ask("GET", path).await;
            if answer.status == "200" {
                return self.has_arrived("GET", path).await;
            }
            let over = tokio::time::Instant::now() > deadline;
            assert!(!over, "{path} is not served after {PATIENCE:?}: {answer:?}\n{}", self.logs().await);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What an agent's shell runs.
    fn request(&self, method: &str, path: &str) -> String {
        let base = if self.profile == "gateway" { "$API_URL" } else { "https://api.github.com" };
        format!(
            "curl -sS -m 10 -X {method} -w '\\n%{{http_code}}' -H \"Authorization: Bearer $GITHUB_TOKEN\" \"{base}{path}\""
        )
    }

    /// What the upstream was asked for.
    pub async fn arrived(&self) -> Vec<Value> {
        let log = self.engine.docker(&["logs", &self.container("upstream")]).await.out;
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The upstream was asked for this, with the real credential.
    pub async fn has_arrived(&self, method: &str, path: &str) {
        let arrived = self.arrives(method, path).await;
        let wanted = format!("Bearer {}", self.secret);
        let with_it =
            |seen: &Value| seen["method"] == method && seen["path"] == path && seen["authorization"] == wanted;
        assert!(arrived.iter().any(with_it), "{method} {path}: {arrived:?}");
    }

    /// Waits until this is with the upstream; all that is.
    pub async fn arrives(&self, method: &str, path: &str) -> Vec<Value> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let arrived = self.arrived().await;
            if arrived.iter().any(|seen| seen["method"] == method && seen["path"] == path) {
                return arrived;
            }
            let over = tokio::time::Instant::now() > deadline;
            assert!(!over, "{method} {path}: {arrived:?}\n{}", self.logs().await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What the engine knows of a service's container.
    pub async fn inspect(&self, service: &str) -> Value {
        let said = self.engine.docker(&["inspect", &self.container(service)]).await;
        let mut all: Vec<Value> = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        all.pop().unwrap_or_else(|| panic!("{service} has no container"))
    }

    /// Its address in a network of the deployment.
    pub async fn address(&self, service: &str, network: &str) -> String {
        let network = format!("{}_{network}", self.project());
        let found = self.inspect(service).await["NetworkSettings"]["Networks"][&network]["IPAddress"].clone();
        found.as_str().filter(|text| !text.is_empty()).unwrap_or_else(|| panic!("{service} is not in {network}")).into()
    }

    pub fn project(&self) -> String {
        format!("attache-{}", self.profile)
    }

    pub async fn logs(&self) -> String {
        let said = self.compose(&["logs", "--no-color", "--tail", "60"]).await;
        let states = self.compose(&["ps", "--all"]).await;
        format!("{}\n{}\n{}", states.out, said.out, said.err)
    }

    /// Takes it away, state included; nothing is left of it.
    pub async fn down(&self) {
        self.must(&["down", "--volumes", "--timeout", "5"]).await;
        for kind in [&["ps", "--all"][..], &["volume", "ls"], &["network", "ls"]] {
            let listed = self.engine.docker(kind).await.out;
            assert!(!listed.contains(&self.project()), "{listed}");
        }
    }
}
