//! That a fault was there, where no request is refused for it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::Fault;
use super::world::{Broker, World};
use crate::Agent;
use crate::fake_broker::Behaviour;
use crate::oracle::Audit;
use crate::stack::SOON;
use crate::util;

/// Connections that agents broke while Envoy owed them an answer.
const LEFT: &str = "http.attache.downstream_cx_destroy_remote_active_rq";
/// Handshakes that failed because Envoy did not believe the broker's certificate.
const UNVERIFIED: &str = "cluster.attache_broker.ssl.fail_verify_error";
const DAY: i64 = 24 * 60 * 60;
/// What a clock that is read back may be off by, in seconds: some time passes between two looks.
const READING: i64 = 60;

/// What is counted before the fault begins.
pub(super) struct Before {
    left: u64,
    unverified: u64,
    /// Records that tell of a torn one, and of a secret that was asked for as an upstream had rejected it.
    told: [usize; 2],
    tokens: BTreeSet<String>,
}

impl Before {
    pub(super) async fn of(world: &World) -> Self {
        let tokens = match &world.around.vault {
            Some(vault) => vault.accessors().await,
            None => BTreeSet::new(),
        };
        Self {
            left: world.envoy().stat(LEFT).await.unwrap_or_default(),
            unverified: world.envoy().stat(UNVERIFIED).await.unwrap_or_default(),
            told: told_of(world),
            tokens,
        }
    }
}

/// How many records there are of what [`Before::told`] names.
fn told_of(world: &World) -> [usize; 2] {
    let Broker::Real { stack, .. } = &world.broker else { return [0; 2] };
    let (audit, _) = Audit::read(Some(&stack.dir().join("state/default/audit.jsonl")));
    let of = |kind: &str, words: &str| audit.of_kind(kind).filter(|one| one.text("reason").contains(words)).count();
    [of("gap", "torn records"), of("renew", "answered 401")]
}

/// Looks once more before the cause is taken away: what of it is not there.
pub(super) async fn missing(world: &World, fault: Fault, before: &Before) -> Option<String> {
    let end = Instant::now() + SOON;
    match (&world.broker, fault) {
        (Broker::Real { stack, .. }, Fault::SourceGone) => {
            stack.dir().join("state/default/secrets/pay").exists().then(|| "the file was there".into())
        }
        (Broker::Real { stack, .. }, Fault::ClockJumps(seconds)) => {
            let log = stack.dir().join("state/default/audit.jsonl");
            let clocks = [("the broker", recorded(&log)), ("Envoy", told(world).await)];
            let is_off = |clock: Option<i64>| clock.is_some_and(|clock| apart(clock, now() + seconds) <= READING);
            let (whose, _) = clocks.into_iter().find(|(_, clock)| !is_off(*clock))?;
            Some(format!("the clock of {whose} was not {seconds} s off"))
        }
        (_, Fault::TornLog) => {
            while told_of(world)[0] == before.told[0] && is_early(end).await {}
            let torn = told_of(world)[0] - before.told[0];
            (torn != 1).then(|| format!("{torn} records tell of a torn one"))
        }
        (_, Fault::SecretRejected) => {
            while told_of(world)[1] == before.told[1] && is_early(end).await {}
            let asked = told_of(world)[1] - before.told[1];
            (asked != 1).then(|| format!("the source was asked {asked} times"))
        }
        (_, Fault::StrangeCertificate) => {
            while world.envoy().stat(UNVERIFIED).await.unwrap_or_default() == before.unverified {
                if !is_early(end).await {
                    return Some("Envoy has rejected no certificate".into());
                }
            }
            None
        }
        (_, Fault::Sealed) => {
            let vault = world.around.vault.as_ref()?;
            (!vault.is_sealed().await).then(|| "OpenBao was not sealed".into())
        }
        (_, Fault::TokenRevoked) => {
            let vault = world.around.vault.as_ref()?;
            // Root's is of before; the broker's was.
            while vault.accessors().await.is_subset(&before.tokens) && is_early(end).await {}
            let logins = vault.accessors().await.difference(&before.tokens).count();
            (logins != 1).then(|| format!("the broker logged in {logins} times"))
        }
        (_, Fault::AgentsLeave) => {
            let left = world.envoy().stat(LEFT).await.unwrap_or_default();
            (left <= before.left).then(|| "no agent broke a connection that was owed an answer".into())
        }
        (_, Fault::EnvoyStopped) => (!util::stands(world.envoy().pid())).then(|| "Envoy ran".into()),
        // A moment after Envoy has said that it will.
        (_, Fault::EnvoyDrains) => {
            while TcpStream::connect(world.proxy()).await.is_ok() {
                if !is_early(end).await {
                    return Some("Envoy took connections".into());
                }
            }
            None
        }
        _ => None,
    }
}

/// Waits a moment; whether there is time yet.
async fn is_early(end: Instant) -> bool {
    tokio::time::sleep(Duration::from_millis(20)).await;
    Instant::now() < end
}

/// How long the answer to whoever asks while this lasts takes at least.
pub(super) fn at_least(fault: Fault) -> Option<Duration> {
    match fault {
        Fault::UpstreamSlow(ms) => Some(Duration::from_millis(ms)),
        Fault::Answers(Behaviour::Delay(time)) => Some(time),
        _ => None,
    }
}

/// Now, in seconds since the epoch.
fn now() -> i64 {
    i64::try_from(util::wall_ms() / 1_000).unwrap_or(i64::MAX)
}

/// The time of the newest record.
fn recorded(log: &Path) -> Option<i64> {
    let (audit, _) = Audit::read(Some(log));
    i64::try_from(audit.records.last()?.at_ms()? / 1_000).ok()
}

/// The time of day in an answer of Envoy's own (`date`, RFC 9110, 5.6.7), in seconds.
async fn told(world: &World) -> Option<i64> {
    let answer = Agent::new().get(world.envoy().admin(), "admin", "/ready", &[]).await;
    let date = answer.header("date")?;
    let numbers = date.split(' ').nth(4)?.split(':').map(|number| number.parse::<i64>().ok());
    numbers.collect::<Option<Vec<_>>>().map(|numbers| numbers.into_iter().fold(0, |time, number| time * 60 + number))
}

/// How far two times of day are apart, in seconds.
fn apart(one: i64, other: i64) -> i64 {
    let ahead = (one - other).rem_euclid(DAY);
    ahead.min(DAY - ahead)
}
