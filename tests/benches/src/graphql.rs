//! What judging a GraphQL document costs: the same POST of 2 KB by a read-only session, whose
//! documents are read, and by a read-write one, whose are not, against bare.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::counters::{Meter, Probe};
use crate::estimate::{CPU_US, Figure, Held, P50_US, RPS, Samples};
use crate::instance::{ATTACHE, BARE, Ground, Instance, SECRET, credential};
use crate::load::{Ask, Wrk};
use crate::plan::Plan;
use crate::proof::Prover;
use crate::rules::{HOST, PROOF_PATH};
use crate::slices::{Runner, Target};
use crate::upstream::Upstream;

const PATH: &str = "/v1/graphql";
const READER: &str = "reader";
const WRITER: &str = "writer";

/// Aliases, fragments, variables, a directive, and the mutation of the same client that does not run.
const DOCUMENT: &str = include_str!("graphql.graphql");

/// What was found.
#[derive(Debug)]
pub struct Graphql {
    bytes: usize,
    rows: [(&'static str, Row); 2],
    /// What judging alone takes: CPU of Envoy in µs.
    judging: Option<Figure>,
}

#[derive(Debug)]
struct Row {
    cpu_over: Option<Figure>,
    rps: Option<Figure>,
    p50_over: Option<Figure>,
    counts: (usize, usize),
}

/// Starts a broker and an Envoy of its own beside what is there, has them show what they do, and measures.
pub fn measure(ground: &Ground<'_>, beside: &Probe, upstream: &Upstream, wrk: &Wrk, plan: &Plan) -> Result<Graphql> {
    let instance = start(ground)?;
    let (reader, writer) = (instance.served.placeholder(READER)?, instance.served.placeholder(WRITER)?);
    let (read, write) = (call("Board"), call("Close"));
    let port = instance.envoy.port(ATTACHE)?;
    let prover = Prover { client: ground.client, upstream, port, host: HOST, prefix: "" };
    prove(&prover, (&reader, &writer), (&read, &write)).context("GraphQL is not judged")?;

    let target = |name, port, placeholder: &str| Target {
        name,
        port,
        ask: Ask { path: PATH.to_owned(), post: Some(read.clone()), ..Ask::of(placeholder) },
        envoy: Meter::Process(instance.envoy.pid()),
        service: None,
    };
    let bare = target("bare", instance.envoy.port(BARE)?, &reader);
    let targets = [bare, target("read-only", port, &reader), target("read-write", port, &writer)];
    let probe = beside.with(Meter::Process(instance.envoy.pid()), instance.served.meter());
    let runner = Runner { wrk, probe: &probe, targets: &targets, seconds: plan.slice_seconds };
    runner.warm(plan.connections)?;
    let slices = runner.rounds(plan.connections, Duration::from_secs(plan.graphql_seconds))?;
    let [judged, unjudged] = [1, 2].map(|target| Samples::of(&slices, target, plan.enough));
    let row = |samples: &Samples| Row {
        cpu_over: samples.figure(CPU_US, Held::Over),
        rps: samples.figure(RPS, Held::Ratio),
        p50_over: samples.figure(P50_US, Held::Over),
        counts: samples.counts(),
    };
    let judging = judged.against(&unjudged, CPU_US, Held::Over, |a, b| a - b);
    let rows = [("read-only", row(&judged)), ("read-write", row(&unjudged))];
    Ok(Graphql { bytes: read.len(), rows, judging })
}

fn start(ground: &Ground<'_>) -> Result<Instance> {
    let destination = json!({
        "host": HOST, "port": 80, "plaintext": true,
        "upstream": {"address": format!("127.0.0.1:{}", ground.upstream_port)},
        // The upstream remembers what reached it on the path of the proof alone.
        "access": {"graphql": {"paths": [PATH, PROOF_PATH]}},
    });
    let session = |name: &str, mode: &str| json!({"name": name, "credentials": ["bench"], "access_mode": mode});
    let sessions = json!([session(READER, "read-only"), session(WRITER, "read-write")]);
    Instance::start(ground, "graphql", json!({"bench": credential(json!([destination]))}), sessions)
}

/// A query is let through for both, a mutation of the same document for the writer alone.
fn prove(prover: &Prover<'_>, (reader, writer): (&str, &str), (read, write): (&str, &str)) -> Result<()> {
    let [reader, writer, expected] = [reader, writer, SECRET].map(|token| format!("Bearer {token}"));
    prover.posted(&reader, read, &expected)?;
    prover.posted(&writer, read, &expected)?;
    prover.posted(&writer, write, &expected)?;
    prover.not_posted(&reader, write)
}

/// The body of a request that runs this operation of the document.
fn call(operation: &str) -> String {
    let variables =
        json!({"owner": "example", "name": "widgets", "first": 20, "labels": ["bug", "agents"], "wide": true});
    json!({"query": DOCUMENT, "operationName": operation, "variables": variables}).to_string()
}

impl Graphql {
    /// The table for people.
    pub fn to_text(&self) -> String {
        let head = format!(
            "\nGraphQL, a POST of {} bytes\n{:<20} {:>17} {:>15} {:>15} {:>9}",
            self.bytes, "session", "CPU µs over bare", "rps vs bare", "p50 µs over", "clean"
        );
        let row = |(name, row): &(&str, Row)| {
            let (clean, total) = row.counts;
            let [cpu, p50] = [row.cpu_over, row.p50_over].map(|figure| show(figure, 1));
            format!("{name:<20} {cpu:>17} {:>15} {p50:>15} {:>9}", show(row.rps, 2), format!("{clean}/{total}"))
        };
        let judging = format!("{:<20} {:>17}", "judging alone", show(self.judging, 1));
        [head, row(&self.rows[0]), row(&self.rows[1]), judging].join("\n")
    }

    /// The same for machines.
    pub fn to_json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "cpu_us_over_bare": figure(row.cpu_over), "rps_vs_bare": figure(row.rps),
                "p50_us_over_bare": figure(row.p50_over),
                "slices_clean": row.counts.0, "slices_total": row.counts.1,
            })
        };
        let [(_, judged), (_, unjudged)] = &self.rows;
        json!({
            "bytes": self.bytes, "read_only": row(judged), "read_write": row(unjudged),
            "cpu_us_of_judging": figure(self.judging),
        })
    }
}

fn figure(figure: Option<Figure>) -> Value {
    json!(figure.map(Figure::to_json))
}

fn show(figure: Option<Figure>, decimals: usize) -> String {
    figure.map_or("-".to_owned(), |figure| figure.to_text(decimals))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_two_kilobytes() {
        assert!((1_950..=2_100).contains(&call("Board").len()), "{}", call("Board").len());
    }
}
