//! The faults, as one table: what is done, and what must hold at each load. What is promised of them stands in
//! `docs/faults.md`.
//!
//! `make test-faults` goes through all of it and writes what it saw into `docs/faults.md`; `make test` runs what no
//! other test does, each once.

mod around;
mod cell;
mod felt;
mod kills;
pub mod page;
mod soak;
mod table;
mod traps;
mod world;

use std::time::Duration;

pub use cell::Cell;
pub use soak::{Soaked, soak};
pub use table::ROWS;

use crate::fake_broker::Behaviour;

/// What can go wrong.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The broker answers grants so. A stand-in.
    Answers(Behaviour),
    /// The broker behaves so at every door. A stand-in.
    Behaves(Behaviour),
    /// The broker's port is closed, and every connection to it. A stand-in.
    Refuses,
    /// The broker takes no records. A stand-in.
    TakesNoRecords,
    /// The broker is killed (-9), and started again.
    Killed,
    /// The broker is killed (-9) and started again, so often.
    Kills(u32),
    /// The broker is stopped (SIGSTOP), and continued.
    Stopped,
    /// The disk of the broker's state is full.
    DiskFull,
    /// It becomes read-only.
    DiskReadOnly,
    /// No sync of it succeeds.
    DiskFailsToSync,
    /// A credential's file is gone.
    SourceGone,
    /// The broker is killed (-9), half a record is in its log, and it starts again.
    TornLog,
    /// The broker starts with a certificate of an authority that Envoy does not know.
    StrangeCertificate,
    /// OpenBao is sealed when the broker starts.
    Sealed,
    /// OpenBao knows the broker's token no more.
    TokenRevoked,
    /// The upstream takes another secret from now on, which OpenBao has.
    SecretRejected,
    /// The wall clock of broker and Envoy jumps by so many seconds, and back.
    ClockJumps(i64),
    /// The filter's VM traps in this callback.
    Traps(&'static str),
    /// Agents leave: before the question, while it is asked, and after.
    AgentsLeave,
    /// So many connections on which nothing is asked.
    Idle(usize),
    /// The upstream breaks every connection.
    UpstreamResets,
    /// The upstream breaks its answers off.
    UpstreamCuts,
    /// The upstream answers after so many milliseconds.
    UpstreamSlow(u64),
    /// The upstream answers without an end, and nobody reads.
    UpstreamEndless,
    /// Envoy is stopped (SIGSTOP), and continued.
    EnvoyStopped,
    /// Envoy closes its listeners.
    EnvoyDrains,
}

impl Fault {
    /// Whether it is one of a real OpenBao.
    #[must_use]
    pub fn needs_openbao(self) -> bool {
        matches!(self, Self::Sealed | Self::TokenRevoked | Self::SecretRejected)
    }
}

/// A fault, and what must hold.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    pub fault: Fault,
    /// What a request may become while the fault lasts, beside being served: reasons, statuses of Envoy's own, `cut`,
    /// `not asked`.
    pub may: &'static [&'static str],
    /// Whether something must become so: else the fault was none. Of the others `felt.rs` says how it shows.
    pub bites: bool,
    /// How long an answer may take.
    pub answers: Duration,
    /// How long until all is served again, once the cause is gone; `None` where nothing comes back.
    pub back: Option<Duration>,
    /// Whether `make test` runs it: no other test does.
    pub short: bool,
    /// How many agents there are where the machine sets the rate.
    pub agents: usize,
}

/// How hard the system is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub name: &'static str,
    /// Requests a second; `None`: as many as the [agents](Row::agents) of a row get through.
    pub per_second: Option<u32>,
    /// How long is asked before the fault, during it and after it.
    pub phases: [Duration; 3],
}

/// One a second, a hundred a second, and as many as the machine sustains.
pub const LOADS: [Load; 3] = [
    Load { name: "1/s", per_second: Some(1), phases: ms([1_000, 2_100, 1_100]) },
    Load { name: "100/s", per_second: Some(100), phases: ms([600, 1_500, 1_000]) },
    Load { name: "max", per_second: None, phases: ms([500, 1_500, 800]) },
];
/// What `make test` has time for.
pub const BRIEF: Load = Load { name: "100/s", per_second: Some(100), phases: ms([300, 700, 300]) };

const fn ms(phases: [u64; 3]) -> [Duration; 3] {
    let [before, during, after] = phases;
    [Duration::from_millis(before), Duration::from_millis(during), Duration::from_millis(after)]
}

/// Runs one row at these loads, each on a whole Attaché that the one before has left.
pub async fn run(row: &'static Row, loads: &[Load]) -> Vec<Cell> {
    let mut cells = Vec::new();
    let mut world: Option<world::World> = None;
    for load in loads.iter().filter(|load| !matches!(row.fault, Fault::Kills(_)) || load.name == "100/s") {
        // Nothing comes back to an Envoy that has drained; and a source is asked once a minute for what is rejected.
        if row.back.is_none() || matches!(row.fault, Fault::SecretRejected) {
            world = None;
        }
        let own = match world.take() {
            Some(world) => world,
            None => world::World::of(row.fault).await,
        };
        cells.push(cell::run(row, load, &own, cells.len()).await);
        world = Some(own);
    }
    cells
}

/// Whether to cause a row again: what was late on a machine without time for it says nothing. What is no matter of time
/// has failed, whatever else was late.
#[must_use]
pub fn says_nothing(cells: &[Cell]) -> bool {
    let mut wrong = cells.iter().filter(|cell| cell.wrong().next().is_some()).peekable();
    wrong.peek().is_some() && wrong.all(Cell::is_void)
}
