//! The load: wrk, one thread, keep-alive, fixed headers.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::{fs, io};

use anyhow::{Context, Result, anyhow, bail, ensure};

use attache_core::wire::GRANTS_PATH;

use crate::rules::{HOST, LOAD_HEADERS, LOAD_PATH};

/// Sends what the environment says, and prints the counters that wrk's own report rounds.
const SCRIPT: &str = r#"
local post, agents, bodies = os.getenv("BENCH_POST"), os.getenv("BENCH_AGENTS"), os.getenv("BENCH_BODIES")
if post then
  wrk.method, wrk.body = "POST", post
  wrk.headers["content-type"] = "application/json"
end
if bodies then
  local requests, next = {}, 0
  function init()
    wrk.headers["content-type"] = "application/json"
    for body in io.lines(bodies) do
      requests[#requests + 1] = wrk.format("POST", nil, nil, body)
    end
  end
  function request()
    next = next % #requests + 1
    return requests[next]
  end
elseif agents then
  local requests, next = {}, 0
  function init()
    for placeholder in io.lines(agents) do
      wrk.headers["Authorization"] = "Bearer " .. placeholder
      requests[#requests + 1] = wrk.format()
    end
    math.randomseed(os.time())
    next = math.random(#requests)
  end
  function request()
    next = next % #requests + 1
    return requests[next]
  end
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("counted %d %d %d %d\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50)))
end
"#;

/// Where the script looks for a body, and for a file of placeholders.
const POST: &str = "BENCH_POST";
const AGENTS: &str = "BENCH_AGENTS";
/// And for a file of bodies.
const BODIES: &str = "BENCH_BODIES";

/// A load that nobody ends.
const LONGEST_SECONDS: u64 = 600;

/// wrk, found and given its script.
#[derive(Debug)]
pub struct Wrk {
    script: PathBuf,
}

/// What is asked for, over and over.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Whom it is for.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Who asks.
    pub agents: Agents,
    /// A body of JSON; then it is a POST.
    pub post: Option<String>,
}

/// Whose placeholders are sent.
#[derive(Clone, Debug)]
pub enum Agents {
    /// Always this one.
    One(String),
    /// Those of a file in turn, one a line; the first is any of them.
    All(PathBuf),
}

/// What one run of wrk counted.
#[derive(Clone, Copy, Debug)]
pub struct Count {
    /// Answered requests.
    pub requests: u64,
    /// Requests a second.
    pub rps: f64,
    /// The median latency in µs.
    pub p50_us: f64,
}

impl Wrk {
    /// Looks for wrk.
    pub fn find(dir: &Path) -> Result<Self> {
        match Command::new("wrk").arg("--version").output() {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("wrk makes the load and is not installed: apt-get install wrk")
            }
            Err(error) => return Err(error).context("running wrk"),
        }
        let script = dir.join("load.lua");
        fs::write(&script, SCRIPT)?;
        Ok(Self { script })
    }

    /// Loads a listener on the loopback. Anything but a 2xx or 3xx for every
    /// request is an error: a refusal is cheap and would look fast.
    pub fn run(&self, port: u16, ask: &Ask, connections: u32, seconds: u64) -> Result<Count> {
        let mut wrk = self.command(port, ask, connections, seconds);
        let (count, failures) = count(&wrk.output().context("running wrk")?)?;
        ensure!(failures == 0, "{failures} of {} requests failed", count.requests);
        Ok(count)
    }

    /// Asks a broker for the grants of a file, one body a line, in turn from the first, with its token.
    pub fn post_each(
        &self,
        port: u16,
        (token, bodies): (&str, &Path),
        connections: u32,
        seconds: u64,
    ) -> Result<Count> {
        let mut wrk = Command::new("wrk");
        wrk.args(["--threads", "1", "--timeout", "5s", "--connections", &connections.to_string()])
            .args(["--duration", &format!("{seconds}s"), "--script"])
            .arg(&self.script)
            .args(["--header", &format!("Authorization: Bearer {token}")])
            .arg(format!("http://127.0.0.1:{port}{GRANTS_PATH}"));
        wrk.env_remove(POST).env_remove(AGENTS).env(BODIES, bodies);
        let (count, failures) = count(&wrk.output().context("running wrk")?)?;
        ensure!(failures == 0, "{failures} of {} requests failed", count.requests);
        Ok(count)
    }

    /// Loads a listener until it is told to end.
    pub fn begin(&self, port: u16, ask: &Ask, connections: u32) -> Result<Loading> {
        let mut wrk = self.command(port, ask, connections, LONGEST_SECONDS);
        let wrk = wrk.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("running wrk")?;
        Ok(Loading(Some(wrk)))
    }

    fn command(&self, port: u16, ask: &Ask, connections: u32, seconds: u64) -> Command {
        let mut wrk = Command::new("wrk");
        wrk.args(["--threads", "1", "--timeout", "5s", "--connections", &connections.to_string()])
            .args(["--duration", &format!("{seconds}s"), "--script"])
            .arg(&self.script)
            .args(["--header", &format!("Host: {}", ask.host)]);
        wrk.env_remove(POST).env_remove(AGENTS).env_remove(BODIES);
        match &ask.agents {
            Agents::One(placeholder) => wrk.args(["--header", &format!("Authorization: Bearer {placeholder}")]),
            Agents::All(file) => wrk.env(AGENTS, file),
        };
        if let Some(body) = &ask.post {
            wrk.env(POST, body);
        }
        for (name, value) in LOAD_HEADERS {
            wrk.args(["--header", &format!("{name}: {value}")]);
        }
        wrk.arg(format!("http://127.0.0.1:{port}{}", ask.path));
        wrk
    }
}

impl Ask {
    /// The measured request of one agent.
    pub fn of(placeholder: &str) -> Self {
        let agents = Agents::One(placeholder.to_owned());
        Self { host: HOST.to_owned(), path: LOAD_PATH.to_owned(), agents, post: None }
    }
}

/// A load that goes on; killed when dropped.
#[derive(Debug)]
pub struct Loading(Option<Child>);

impl Loading {
    /// Ends it; what it counted, and how many of those failed.
    pub fn end(mut self) -> Result<(Count, u64)> {
        let wrk = self.0.take().context("a load ends once")?;
        let pid = nix::unistd::Pid::from_raw(i32::try_from(wrk.id())?);
        // wrk reports what it has counted so far.
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
        count(&wrk.wait_with_output()?)
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        if let Some(mut wrk) = self.0.take() {
            // Already gone is as good.
            let _ = wrk.kill();
            let _ = wrk.wait();
        }
    }
}

fn count(output: &Output) -> Result<(Count, u64)> {
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text).ok_or_else(|| anyhow!("wrk counted nothing:\n{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// The count and the number of failures.
fn parse(text: &str) -> Option<(Count, u64)> {
    let line = text.lines().find_map(|line| line.strip_prefix("counted "))?;
    let numbers: Vec<u64> = line.split(' ').map_while(|number| number.parse().ok()).collect();
    let [requests, micros, failures, p50] = numbers[..] else {
        return None;
    };
    let rps = requests as f64 / (micros as f64 / 1e6);
    (requests > 0 && micros > 0).then_some((Count { requests, rps, p50_us: p50 as f64 }, failures))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_and_nothing_is_not_a_count() {
        let (count, failures) = parse("Running 1s test\ncounted 5000 1000000 3 250\n").unwrap();
        assert_eq!((count.requests, count.p50_us, failures), (5000, 250.0, 3));
        assert!((count.rps - 5000.0).abs() < 1e-9);
        assert!(parse("counted 0 1000000 0 0").is_none());
        assert!(parse("unable to connect").is_none());
    }
}
