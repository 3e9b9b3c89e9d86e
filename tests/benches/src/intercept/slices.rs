//! Slices through tunnels: a large body down or up, or small requests one after another. Each way is held against
//! direct slices around its own, as in the rest of the bench.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Either};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::report::figure;
use super::text::Text;
use super::way::{Way, nothing, whole};
use crate::counters::{Interval, Probe};
use crate::estimate::{CPU_US, Figure, Held, LOAD_CORE, P50_US, RPS, SERVICE_US, Samples};
use crate::load::Count;
use crate::rules::{BODY_OF, LOAD_PATH};
use crate::slices::{BARE, Slice, interleaved};
use crate::stats::quantile;

/// Where uploads go.
const UPLOAD_PATH: &str = "/v1/uploads";
const MB: u64 = 1_000_000;

/// What a slice is made of.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// So many MB from the upstream.
    Down(u64),
    /// So many MB to it.
    Up(u64),
    /// So many tunnels, in each one small request after another for so long.
    Requests(usize, Duration),
}

/// Who is measured.
#[derive(Debug)]
pub struct Target<'a> {
    /// In the table.
    pub name: &'static str,
    /// The way.
    pub way: &'a Way,
    /// To whom.
    pub host: &'static str,
}

/// One target's figures. A unit is a MB, or a request.
#[derive(Debug)]
pub struct Row {
    /// The target.
    pub name: &'static str,
    /// Units a second.
    pub rate: Option<Figure>,
    /// The same over that of direct.
    pub ratio: Option<Figure>,
    /// The proxy's CPU in µs a unit.
    pub cpu: Option<Figure>,
    /// Its service's.
    pub service: Option<Figure>,
    /// The median latency in µs; of requests alone.
    pub p50: Option<Figure>,
    /// The share of the time in which the core of client and upstream was busy.
    pub load_core: Option<Figure>,
    /// How many slices were clean, and how many there were.
    pub counts: (usize, usize),
}

/// How often one slice is begun anew after a failure, which ends the run when all is measured.
const MOST_TRIES: usize = 4;

/// Whole rounds for as long as another one fits in `budget`, after a warm one. The first target is direct. With what
/// failed meanwhile.
pub fn measure(
    client: &Runtime,
    targets: &[Target<'_>],
    work: Work,
    probe: &Probe,
    (budget, enough): (Duration, usize),
) -> Result<(Vec<Row>, Vec<String>)> {
    let text = Text::new();
    let mut failed = Vec::new();
    let mut slice = |target: usize, round| {
        let Target { name, way, host } = &targets[target];
        let mut tries = 0;
        let (count, mut interval) = loop {
            match client.block_on(work.run(way, host, &text, probe)) {
                Ok(measured) => break measured,
                Err(error) => failed.push(format!("measuring {name}: {error:#}")),
            }
            tries += 1;
            ensure!(tries < MOST_TRIES, "{}", failed.join("; "));
        };
        if way.proxy.is_none() {
            // No proxy spends, and none has that core.
            interval = Interval { envoy: Duration::ZERO, envoy_core_foreign: Duration::ZERO, ..interval };
        }
        Ok(Slice { target, round, count, interval })
    };
    for target in 0..targets.len() {
        slice(target, 0)?;
    }
    let slices = interleaved(targets.len(), budget, &mut slice)?;
    let row = |(index, target): (usize, &Target<'_>)| {
        let samples = Samples::of(&slices, index, enough);
        let alone = |quantity| samples.figure(quantity, Held::Alone);
        Row {
            name: target.name,
            rate: alone(RPS),
            ratio: samples.figure(RPS, Held::Ratio),
            cpu: alone(CPU_US).filter(|_| index != BARE),
            service: alone(SERVICE_US).filter(|_| target.way.service.is_some()),
            p50: alone(P50_US).filter(|_| matches!(work, Work::Requests(..))),
            load_core: alone(LOAD_CORE),
            counts: samples.counts(),
        }
    };
    Ok((targets.iter().enumerate().map(row).collect(), failed))
}

impl Work {
    /// One slice; opening tunnels is no part of it.
    async fn run(self, way: &Way, host: &str, text: &Text, probe: &Probe) -> Result<(Count, Interval)> {
        let mut tunnels = Vec::new();
        let wanted = if let Self::Requests(tunnels, _) = self { tunnels } else { 1 };
        for _ in 0..wanted {
            let mut tunnel = way.open(host).await?;
            // The first request brings the upstream's connection, and the grant.
            let (status, _) = tunnel.get(LOAD_PATH).await?;
            ensure!(status == StatusCode::OK, "answered {status}");
            tunnels.push(tunnel);
        }
        let meter = way.meter();
        let before = probe.read(&meter, way.service.as_ref())?;
        let began = Instant::now();
        let mut latencies = Vec::new();
        let units = match self {
            Self::Requests(_, lasting) => {
                let mut clients = JoinSet::new();
                for mut tunnel in tunnels {
                    clients.spawn(async move {
                        let mut took = Vec::new();
                        while began.elapsed() < lasting {
                            let asked = Instant::now();
                            let (status, _) = tunnel.get(LOAD_PATH).await?;
                            ensure!(status == StatusCode::OK, "answered {status}");
                            took.push(asked.elapsed().as_secs_f64() * 1e6);
                        }
                        Ok(took)
                    });
                }
                while let Some(client) = clients.join_next().await {
                    latencies.extend(client??);
                }
                latencies.len() as u64
            }
            Self::Down(megabytes) => {
                let tunnel = tunnels.first_mut().context("no tunnel")?;
                let answer = tunnel.send(Method::GET, &format!("/v1/x{BODY_OF}{}", megabytes * MB), nothing()).await?;
                ensure!(answer.status() == StatusCode::OK, "answered {}", answer.status());
                let (mut body, mut came) = (answer.into_body(), 0);
                while let Some(frame) = body.frame().await {
                    let frame = frame.with_context(|| format!("after {came} bytes"))?;
                    came += frame.data_ref().map_or(0, |data| data.len() as u64);
                }
                ensure!(came == megabytes * MB, "{came} bytes came");
                megabytes
            }
            Self::Up(megabytes) => {
                let tunnel = tunnels.first_mut().context("no tunnel")?;
                let body = Either::Right(text.of(megabytes * MB));
                let (status, told) = whole(tunnel.send(Method::POST, UPLOAD_PATH, body).await?).await?;
                ensure!(status == StatusCode::OK, "answered {status}");
                ensure!(told == (megabytes * MB).to_string(), "{} bytes arrived", told.escape_ascii());
                megabytes
            }
        };
        let took = began.elapsed().as_secs_f64();
        let interval = before.until(&probe.read(&meter, way.service.as_ref())?);
        let p50_us = quantile(&latencies, 0.5).unwrap_or_default();
        Ok((Count { requests: units, rps: units as f64 / took, p50_us }, interval))
    }
}

impl Row {
    /// Too few slices were clean: all were used.
    pub fn is_rough(&self) -> bool {
        self.ratio.is_some_and(|ratio| ratio.rough)
    }

    /// The row for machines.
    pub fn to_json(&self) -> Value {
        json!({
            "way": self.name, "a_second": figure(self.rate), "vs_direct": figure(self.ratio),
            "proxy_cpu_us": figure(self.cpu), "service_cpu_us": figure(self.service), "p50_us": figure(self.p50),
            "load_core_busy": figure(self.load_core),
            "slices_clean": self.counts.0, "slices_total": self.counts.1,
        })
    }
}
