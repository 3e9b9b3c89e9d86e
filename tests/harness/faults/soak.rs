//! A long time under load, without a fault: memory stays as it is.

use std::time::{Duration, Instant};

use super::world::{Broker, World};
use super::{Fault, cell};
use crate::load::{Class, Load, Rate};
use crate::util;

/// Requests a second.
const RATE: u32 = 100;
/// What a process may have grown by between the first part of the time and the last, in bytes.
const FLAT: u64 = 16 << 20;

/// What a soak saw.
#[derive(Clone, Debug, Default)]
pub struct Soaked {
    pub lasted: Duration,
    pub requests: usize,
    pub served: usize,
    /// Envoy and broker: what each had in memory at most in the second quarter of the time, and in the last, in bytes.
    pub memory: [(u64, u64); 2],
    pub failures: Vec<String>,
}

/// Asks for so long.
pub async fn soak(time: Duration) -> Soaked {
    let world = World::of(Fault::Killed).await;
    let Broker::Real { stack, .. } = &world.broker else { unreachable!("a real broker") };
    let pids = [stack.envoy.pid(), stack.broker.pid()];
    let traffic = Load::begin(stack.agent(), stack.proxy, Rate::PerSecond(RATE), world.asking(Fault::Killed));
    let (begun, mut seen) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        tokio::time::sleep(Duration::from_millis(500)).await;
        seen.push(pids.map(util::resident));
    }
    let made = traffic.stop().await;
    let mut soaked = Soaked { lasted: begun.elapsed(), requests: made.len(), ..Soaked::default() };
    soaked.served = made.iter().filter(|one| one.class == Class::Served).count();
    let quarter = seen.len() / 4;
    for (at, name) in ["Envoy", "the broker"].into_iter().enumerate() {
        let most = |part: &[[u64; 2]]| part.iter().map(|memory| memory[at]).max().unwrap_or_default();
        let (early, late) = (most(&seen[quarter..2 * quarter]), most(&seen[3 * quarter..]));
        soaked.memory[at] = (early, late);
        if late > early + FLAT {
            soaked.failures.push(format!("{name} has grown from {} MB to {} MB", early >> 20, late >> 20));
        }
    }
    if soaked.served != soaked.requests {
        let other = made.iter().find(|one| one.class != Class::Served).map(|one| &one.class);
        soaked.failures.push(format!("{} were not served: {other:?}", soaked.requests - soaked.served));
    }
    soaked.failures.extend(cell::account(&world).await);
    soaked
}
