//! Two instances side by side share nothing.

use crate::world::{NONCE, World, mode, send, until};
use attache_broker::Running;
use attache_broker::config::{Config, Overrides};
use attache_broker::sources::Environment;
use attache_core::digest::Digest;
use attache_core::names::Name;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tokio::net::{TcpStream, UnixStream};

struct Instance {
    config: Config,
    running: Running,
}

impl Instance {
    /// An instance of the same config file.
    async fn start(world: &World, name: &str) -> Self {
        let overrides = Overrides { instance: Some(Name::parse(name).unwrap()), ..Overrides::default() };
        let file = world.temp.path().join("attache.yaml");
        let config = Config::load(Some(&file), &overrides, &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
        let running = attache_broker::start(config.clone(), &Environment::default()).await.unwrap();
        let secrets = config.sources.file_dir.join("github");
        attache_broker::private_file::replace_private(&secrets, format!("secret-of-{name}").as_bytes()).unwrap();
        let instance = Self { config, running };
        until("the secret is found", async || instance.operate("/v1/credentials").await[0]["error"].is_null()).await;
        instance
    }

    async fn operate(&self, path: &str) -> Value {
        let stream = UnixStream::connect(&self.config.listen.control).await.unwrap();
        send(stream, "GET", path, &[], b"").await.json()
    }

    fn token(&self) -> String {
        std::fs::read_to_string(self.config.state_dir.join("data-plane.token")).unwrap()
    }

    async fn ask(&self, token: &str, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let stream = TcpStream::connect(self.running.data_plane_address.unwrap()).await.unwrap();
        let bearer = format!("Bearer {token}");
        let answer = send(stream, method, path, &[("authorization", &bearer)], body).await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    async fn placeholder(&self) -> String {
        let env = self.operate("/v1/sessions/reviewer/env").await;
        let found = env.as_array().unwrap().iter().find(|variable| variable["name"] == "GITHUB_TOKEN").unwrap();
        found["value"].as_str().unwrap().to_owned()
    }

    async fn grant(&self, placeholder: &str) -> Value {
        let body = json!({
            "nonce": NONCE, "worker": "0000000a", "destination": "api.a.test:443",
            "evidence": {"placeholder": Digest::of(placeholder.as_bytes()).to_hex()},
        });
        let (status, answer) = self.ask(&self.token(), "POST", "/v1/grants", body.to_string().as_bytes()).await;
        assert_eq!(status, 200);
        answer
    }
}

/// Everything beneath a directory.
fn beneath(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { [vec![path.clone()], beneath(&path)].concat() } else { vec![path] })
        .collect()
}

#[tokio::test]
async fn two_instances_side_by_side_share_no_file_no_session_and_no_worker() {
    let world = World::stopped();
    let (a, b) = (Instance::start(&world, "a").await, Instance::start(&world, "b").await);

    // Files: each has its own of everything, beneath its own directory, private and unlinked.
    let names = |instance: &Instance| {
        let all = beneath(&instance.config.state_dir).into_iter();
        all.map(|path| path.strip_prefix(&instance.config.state_dir).unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    for name in
        ["attache.db", "audit.jsonl", "cache", "control.sock", "instance.key", "lock", "runtime.json", "secrets"]
    {
        assert!(names(&a).contains(Path::new(name)) && names(&b).contains(Path::new(name)), "{name}");
    }
    let inodes = |instance: &Instance| {
        let all = beneath(&instance.config.state_dir).into_iter();
        all.map(|path| {
            assert_eq!(mode(&path) & 0o077, 0, "{path:?}");
            let found = std::fs::symlink_metadata(&path).unwrap();
            assert!(found.is_dir() || found.nlink() == 1, "{path:?}");
            found.ino()
        })
        .collect::<BTreeSet<_>>()
    };
    assert!(inodes(&a).is_disjoint(&inodes(&b)));
    for name in ["instance.key", "data-plane.token"] {
        let read = |instance: &Instance| std::fs::read(instance.config.state_dir.join(name)).unwrap();
        assert_ne!(read(&a), read(&b), "{name}");
    }
    assert_eq!((a.running.runtime.instance.as_str(), b.running.runtime.instance.as_str()), ("a", "b"));
    assert!(a.running.runtime.url.starts_with("http://127.0.0.1:") && a.running.runtime.url != b.running.runtime.url);

    // Sessions of one name are two sessions, each known at home alone.
    let (of_a, of_b) = (a.placeholder().await, b.placeholder().await);
    assert_ne!(of_a, of_b);
    assert_eq!(a.grant(&of_a).await["granted"]["injections"][0]["value"], "Bearer secret-of-a");
    assert_eq!(b.grant(&of_b).await["granted"]["injections"][0]["value"], "Bearer secret-of-b");
    assert_eq!(b.grant(&of_a).await["denied"]["reason"], "placeholder_unknown");
    assert_eq!(a.grant(&of_b).await["denied"]["reason"], "placeholder_unknown");

    // Filters: a token opens one door, and a worker is known behind it alone.
    let poll = "/v1/changes?worker=0000000a&epoch=&after=0&wait_ms=0";
    assert_eq!(b.ask(&a.token(), "GET", poll, b"").await.0, 401);
    assert_eq!(a.ask(&a.token(), "GET", poll, b"").await.0, 200);
    let workers = async |instance: &Instance| instance.operate("/v1/workers").await.as_array().unwrap().len();
    assert_eq!((workers(&a).await, workers(&b).await), (1, 0));

    // What ends in one goes on in the other.
    let log = |instance: &Instance| std::fs::read_to_string(&instance.config.audit.path).unwrap();
    assert!(log(&a).contains("\"instance\":\"a\"") && !log(&a).contains("\"instance\":\"b\""));
    a.running.shutdown(attache_broker::Workers::MayLive).await;
    assert!(b.grant(&of_b).await["granted"].is_object());
    b.running.shutdown(attache_broker::Workers::MayLive).await;
}
