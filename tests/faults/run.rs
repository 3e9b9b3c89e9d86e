//! `make test-faults`: every fault at every load, and a soak; writes what it saw into `docs/faults.md`.
//!
//! With names (`$ROWS`, parts of them, separated by commas) only these: the others' lines stay. `$SOAK`: for how many seconds
//! (default 600; 0 for none). It dials nothing but loopback.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use attache_tests::disk::Disk;
use attache_tests::faults::{self, Cell, Fault, LOADS, ROWS, Row, page};
use attache_tests::openbao;

/// How long the soak lasts by default, in seconds.
const SOAK: u64 = 600;

#[tokio::main]
async fn main() -> ExitCode {
    let begun = Instant::now();
    let wanted = std::env::var("ROWS").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let time = std::env::var("SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(SOAK);
    let (mut seen, mut soak, mut failed) = (BTreeMap::new(), None, 0);
    print!("{}", page::HEAD);
    let is_wanted = |row: &&Row| wanted.is_empty() || wanted.iter().any(|name| row.name.contains(name));
    for row in ROWS.iter().filter(is_wanted) {
        if matches!(row.fault, Fault::DiskFull) && !Disk::may_be_mounted() {
            println!("SKIPPED: {}: only root can mount a small disk", row.name);
            continue;
        }
        if row.fault.needs_openbao() && openbao::program().is_none() {
            println!("SKIPPED: {}: scripts/openbao installs what it needs", row.name);
            continue;
        }
        let cells = caused(row).await;
        let lines = page::lines(row, &cells);
        print!("{lines}");
        for why in cells.iter().filter(|cell| !cell.is_void()).flat_map(Cell::wrong) {
            failed += 1;
            eprintln!("{}: {why}", row.name);
        }
        seen.insert(row.name, lines);
    }
    if time > 0 {
        let soaked = faults::soak(Duration::from_secs(time)).await;
        let sentence = page::sentence(&soaked);
        print!("\n{sentence}");
        soaked.failures.iter().for_each(|why| eprintln!("the soak: {why}"));
        failed += soaked.failures.len();
        soak = Some(sentence);
    }
    page::write(&seen, soak.as_deref());
    println!("\n{failed} things did not hold; it took {} s.", begun.elapsed().as_secs());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One row. Where the machine is too busy for what is tested, and nothing else is wrong, it is tried again.
async fn caused(row: &'static Row) -> Vec<Cell> {
    const TRIES: u32 = 3;
    let mut last = Vec::new();
    for _ in 0..TRIES {
        last = match tokio::spawn(faults::run(row, &LOADS)).await {
            Ok(cells) => cells,
            Err(why) => vec![Cell::failed("all", why.to_string())],
        };
        // Two hundred kills are long, and what they must show is no matter of time.
        if !faults::says_nothing(&last) || matches!(row.fault, Fault::Kills(_)) {
            break;
        }
        eprint!("too busy, so again: {}", page::lines(row, &last));
    }
    last
}
