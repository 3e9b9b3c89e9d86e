//! A real Prometheus that scrapes one broker and one Envoy, every second.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use attache_tests::{Agent, util};
use serde_json::Value;
use tempfile::TempDir;

/// How long it may take to start, where the machine is busy.
const START: Duration = Duration::from_secs(60);

/// One of its programs; `None`: it is not here, which is told.
pub fn program(name: &str) -> Option<PathBuf> {
    let program = util::workspace_root().join(".tools/prometheus/usr/bin").join(name);
    if program.is_file() {
        return Some(program);
    }
    util::skipped(format_args!("{name} is not in .tools; scripts/prometheus installs it, where apt-get does"));
    None
}

/// A running Prometheus. Ends when dropped; its log is shown only by a failing test.
pub struct Prometheus {
    child: Child,
    dir: TempDir,
    at: SocketAddr,
}

impl Prometheus {
    /// Starts one; `None`: there is none to be had.
    pub async fn scraping(broker: SocketAddr, envoy: SocketAddr) -> Option<Self> {
        let program = program("prometheus")?;
        let dir = util::temp_dir();
        let at = SocketAddr::from(([127, 0, 0, 1], util::free_port()));
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n\
             \x20 - {{job_name: attache-broker, static_configs: [{{targets: ['{broker}']}}]}}\n\
             \x20 - job_name: attache-envoy\n    metrics_path: /stats/prometheus\n    static_configs: [{{targets: ['{envoy}']}}]\n"
        );
        std::fs::write(dir.path().join("prometheus.yaml"), config).expect("its config");
        let log = std::fs::File::create(dir.path().join("log")).expect("its log");
        let child = Command::new(program)
            .arg(format!("--config.file={}", dir.path().join("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={at}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("Prometheus runs");
        let prometheus = Self { child, dir, at };
        let end = Instant::now() + START;
        while tokio::net::TcpStream::connect(at).await.is_err() {
            assert!(Instant::now() < end, "Prometheus does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(prometheus)
    }

    /// What a query finds now: its series.
    ///
    /// # Errors
    /// What Prometheus says of a query that it cannot read.
    pub async fn ask(&self, query: &str) -> Result<Vec<Value>, String> {
        let body = format!("query={}", encoded(query));
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let agent = Agent::new();
        let answer = agent.request(self.at, "POST", "prometheus", "/api/v1/query", &headers, body.as_bytes()).await;
        let answer: Value =
            serde_json::from_str(&answer.text()).map_err(|_| format!("not ready: {}", answer.status))?;
        match answer["data"]["result"].as_array() {
            Some(series) if answer["status"] == "success" => Ok(series.clone()),
            _ => Err(answer["error"].to_string()),
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- Prometheus\n{}", std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
        }
    }
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
