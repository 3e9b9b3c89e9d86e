//! Every request leaves one record, in a chain that shows whatever is done to it, and no credential
//! leaves before the record that it may.

#[path = "audits/backlog.rs"]
mod backlog;
#[path = "audits/chain.rs"]
mod chain;
#[path = "audits/durable.rs"]
mod durable;
#[path = "audits/reconciles.rs"]
mod reconciles;
#[path = "audits/records.rs"]
mod records;
#[path = "audits/strict.rs"]
mod strict;
#[path = "audits/survives.rs"]
mod survives;
#[path = "audits/unaccounted.rs"]
mod unaccounted;
#[path = "audits/witness.rs"]
mod witness;

use std::collections::BTreeMap;
use std::path::PathBuf;

use attache_tests::oracle::{Audit, Record};
use attache_tests::stack::SOON;
use attache_tests::{Attache, Stack, util};

/// The audit log of a stack with the real broker.
fn log(stack: &Stack<Attache>) -> PathBuf {
    stack.dir().join("state/default/audit.jsonl")
}

/// Every record there is; the oracle's own reader finds nothing wrong with the chain.
fn records(stack: &Stack<Attache>) -> Vec<Record> {
    let (audit, violations) = Audit::read(Some(&log(stack)));
    assert!(violations.is_empty(), "{violations:?}");
    audit.records
}

/// Waits until there are so many records of requests (uses and refusals), and returns all records.
async fn with_requests(stack: &Stack<Attache>, n: usize) -> Vec<Record> {
    util::eventually_some(SOON, || Some(records(stack)).filter(|all| of_requests(all).count() >= n)).await
}

/// The records of requests.
fn of_requests(records: &[Record]) -> impl Iterator<Item = &Record> {
    records.iter().filter(|record| ["use", "deny"].contains(&record.text("kind").as_str()))
}

/// The numbers of each worker's records, in the order of the log.
fn numbers(records: &[Record]) -> BTreeMap<String, Vec<u64>> {
    let mut numbers = BTreeMap::<String, Vec<u64>>::new();
    for record in records {
        let seq = record.json["seq"].as_u64().expect("a number");
        numbers.entry(record.text("worker")).or_default().push(seq);
    }
    numbers
}

/// Each worker counts from 1, without a gap and without a repetition; the broker too.
fn assert_gapless(records: &[Record]) {
    for (worker, numbers) in numbers(records) {
        let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
        assert_eq!(numbers, expected, "records of {worker}");
    }
}
