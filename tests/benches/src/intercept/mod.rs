//! What it costs to look into TLS: Attaché as a forward proxy against direct TLS, and against mitmproxy that does the
//! same job. How a tunnel begins, to a name that nobody has asked for and to one that somebody has; bodies that
//! stream; small requests.
//!
//! Either proxy has Envoy's core, one at a time; the client, the upstream and the broker have the other.

mod attache;
mod handshakes;
mod mitmproxy;
mod proof;
mod report;
mod site;
mod slices;
mod text;
mod trust;
mod upstream;
mod way;

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::runtime;

use crate::client::Client;
use crate::counters::Probe;
use crate::estimate::RULE;
use crate::machine::{self, Cores, Machine};
use crate::plan::is_quick;
use crate::variants::Absent;
use crate::{envoy, target_dir};
use report::Series;
use site::{KNOWN, OVER_HTTP2, Site, UNMASKED};
use slices::{Target, Work};
use trust::{HTTP1, HTTP2};
use way::{Door, Way};

/// As in the throughput series of `bench`.
const TUNNELS: usize = 16;
const SLICE: Duration = Duration::from_secs(1);

/// The budget of one run.
#[derive(Clone, Copy, Debug, Serialize)]
struct Plan {
    quick: bool,
    /// First handshakes of each way, the warm ones included. They are far below the pace at which new names that the
    /// policy does not name would be denied, and these are named.
    names: usize,
    handshakes_seconds: u64,
    /// A body.
    megabytes: u64,
    /// Rounds of one kind of body stop here.
    bodies_seconds: u64,
    requests_seconds: u64,
    /// Fewer clean slices than this, and a figure is marked as rough.
    enough: usize,
}

impl Plan {
    fn from_env() -> Self {
        let quick = is_quick();
        let (names, handshakes_seconds) =
            if quick { (60 + handshakes::WARM, 15) } else { (600 + handshakes::WARM, 90) };
        let (megabytes, bodies_seconds, requests_seconds) = if quick { (16, 4, 12) } else { (128, 45, 40) };
        Self { quick, names, handshakes_seconds, megabytes, bodies_seconds, requests_seconds, enough: 6 }
    }
}

/// Measures, prints tables and writes `bench-intercept.json`.
pub fn run() -> Result<()> {
    let plan = Plan::from_env();
    let cores = Cores::choose()?;
    let machine = Machine::describe(cores);
    // Everything started from here on serves or loads a proxy, and inherits this.
    machine::pin(cores.load)?;
    let (dir, target) = (tempfile::tempdir()?, target_dir()?);
    let client = runtime::Builder::new_current_thread().enable_all().build()?;
    let site = Site::start(dir.path(), plan.names)?;
    let attache = attache::Running::start(dir.path(), &target, cores.envoy, &site, &Client::new()?)?;
    let (mitmproxy, absent) = match mitmproxy::start(dir.path(), cores.envoy, &site) {
        Ok(running) => (Some(running), None),
        Err(absent) => (None, Some(absent)),
    };

    let direct = direct(&site, HTTP1)?;
    let ours = through_attache(&attache, &attache.writer, HTTP1)?;
    let theirs = mitmproxy.as_ref().map(|running| through_mitmproxy(running, &running.writer, HTTP1)).transpose()?;
    client.block_on(proof::prove_direct(&site, &direct))?;
    client.block_on(proof::prove(&site, &ours, &through_attache(&attache, &attache.reader, HTTP1)?))?;
    if let (Some(running), Some(writer)) = (&mitmproxy, &theirs) {
        client.block_on(proof::prove(&site, writer, &through_mitmproxy(running, &running.reader, HTTP1)?))?;
    }

    let proxies = [Some(attache.proxy()), mitmproxy.as_ref().map(mitmproxy::Running::proxy)];
    let on_envoy_core = proxies.into_iter().flatten().collect();
    let probe = Probe { cores, on_envoy_core, on_load_core: vec![attache.broker()] };
    let ways: Vec<&Way> = [Some(&direct), Some(&ours), theirs.as_ref()].into_iter().flatten().collect();
    eprintln!("{} ways; handshakes for at most {} s", ways.len(), plan.handshakes_seconds);
    let budget = Duration::from_secs(plan.handshakes_seconds);
    let tunnels = handshakes::measure((&ways, &site.unheard), &site.upstream, &probe, budget);
    let begun = client.block_on(tunnels)?.rows();

    let version = mitmproxy.as_ref().map_or("absent", |running| &running.version);
    let (line, envoy) = (machine.to_line(), envoy::version()?);
    println!("{line}\nEnvoy {envoy}, one worker; mitmproxy {version}\n\n{}", report::handshakes(&begun));

    let unmasked = Way { token: attache.writer.unmasked.clone(), ..ours.clone() };
    let over_http2 = [self::direct(&site, HTTP2)?, through_attache(&attache, &attache.writer, HTTP2)?];
    let theirs_http2 =
        mitmproxy.as_ref().map(|running| through_mitmproxy(running, &running.writer, HTTP2)).transpose()?;
    let [direct_http2, ours_http2] = &over_http2;
    let to = |name, way, host| Target { name, way, host };
    let plain = |unmasked| {
        let mut targets = vec![to("direct", &direct, KNOWN), to("attache", &ours, KNOWN)];
        targets.extend(Option::map(unmasked, |way| to("attache, mask: false", way, UNMASKED)));
        targets.extend(theirs.as_ref().map(|way| to("mitmproxy", way, KNOWN)));
        targets
    };
    let mut http2 = vec![to("direct", direct_http2, OVER_HTTP2), to("attache", ours_http2, OVER_HTTP2)];
    http2.extend(theirs_http2.as_ref().map(|way| to("mitmproxy", way, OVER_HTTP2)));

    let (bodies, requests) = (Duration::from_secs(plan.bodies_seconds), Duration::from_secs(plan.requests_seconds));
    let measure = |name, targets: &[Target<'_>], work, budget| {
        eprintln!("{name}: {} s", Duration::as_secs(&budget));
        let (rows, failed) = slices::measure(&client, targets, work, &probe, (budget, plan.enough))?;
        anyhow::Ok(Series { name, rows, failed })
    };
    let (down, up) = (Work::Down(plan.megabytes), Work::Up(plan.megabytes));
    let streams = [
        measure("download", &plain(Some(&unmasked)), down, bodies)?,
        measure("upload", &plain(None), up, bodies)?,
        measure("download, HTTP/2", &http2, down, bodies)?,
    ];
    let requests = measure("requests", &plain(Some(&unmasked)), Work::Requests(TUNNELS, SLICE), requests)?;

    let told = json!({
        "machine": machine,
        "load_average_after": fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
        "envoy": envoy,
        "mitmproxy": absent.as_ref().map_or(version.to_owned(), Absent::to_string),
        "method": method(&plan),
        "handshakes": begun.iter().map(handshakes::Row::to_json).collect::<Vec<_>>(),
        "streams": streams.iter().map(told).collect::<Vec<_>>(),
        "requests": self::told(&requests),
    });
    let path = target.join("bench-intercept.json");
    fs::write(&path, serde_json::to_vec_pretty(&told)?)?;
    println!("\n{}\n\n{}", report::streams(&streams), report::requests(&requests));
    let all: Vec<&Series> = streams.iter().chain([&requests]).collect();
    let are_rough = all.iter().flat_map(|series| &series.rows).any(slices::Row::is_rough);
    if begun.iter().any(handshakes::Row::is_rough) || are_rough {
        println!("\n~ rough: too few clean ones, all were used");
    }
    println!("\n{}", path.display());
    if let Some(absent) = absent {
        println!("mitmproxy is absent, {absent}");
        ensure!(matches!(absent, Absent::NotBuilt(_)), "mitmproxy is {absent}");
    }
    let failed: Vec<&str> = all.iter().flat_map(|series| &series.failed).map(String::as_str).collect();
    ensure!(failed.is_empty(), "{} slices failed: {}", failed.len(), failed.join("; "));
    Ok(())
}

fn method(plan: &Plan) -> Value {
    json!({
        "plan": plan,
        "handshakes": "each round every way to a name never asked for and to that of the round before, in random order",
        "slices": "direct, way, direct, way, …; ways in a new random order each round",
        "figures": "medians; ratios against direct in the same round, or against the two direct neighbours",
        "error": "half of the 95 % interval by order statistics",
        "rejected": {"rule": "the second or slice, or a direct neighbour, exceeds one of these shares", "limits": RULE},
        "direct": "handshakes to one kind of name against the other, slices against those before and after",
    })
}

fn told(series: &Series) -> Value {
    let rows: Vec<_> = series.rows.iter().map(slices::Row::to_json).collect();
    json!({"name": series.name, "rows": rows, "failed": series.failed})
}

fn direct(site: &Site, protocol: &str) -> Result<Way> {
    let upstream = if protocol == HTTP2 { &site.http2 } else { &site.upstream };
    Ok(Way {
        name: "direct",
        door: None,
        upstream: upstream.port,
        tls: trust::client(&site.pem, protocol)?,
        token: "nothing".to_owned(),
        proxy: None,
        service: None,
    })
}

fn through_attache(running: &attache::Running, session: &attache::Session, protocol: &str) -> Result<Way> {
    Ok(Way {
        name: "attache",
        door: Some(Door { port: running.port, token: session.token.clone() }),
        upstream: 0,
        tls: trust::client(&running.authority, protocol)?,
        token: session.masked.clone(),
        proxy: Some(running.proxy()),
        service: Some(running.broker()),
    })
}

fn through_mitmproxy(running: &mitmproxy::Running, session: &(String, String), protocol: &str) -> Result<Way> {
    let (token, placeholder) = session.clone();
    Ok(Way {
        name: "mitmproxy",
        door: Some(Door { port: running.port, token }),
        upstream: 0,
        tls: trust::client(&running.authority, protocol)?,
        token: placeholder,
        proxy: Some(running.proxy()),
        service: None,
    })
}
