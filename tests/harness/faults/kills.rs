//! A broker that is killed again and again, under load.

use std::time::Duration;

use tokio::time::sleep;

use super::world::{Broker, World};
use super::{Fault, cell};

/// Kills it so often, each time a moment after all goes on again; how long that has taken at most from the start of its
/// process, which is longer than from when it serves.
pub(super) async fn run(world: &World, times: u32) -> Duration {
    let Broker::Real { stack, .. } = &world.broker else { unreachable!("the real broker is killed") };
    let mut longest = Duration::ZERO;
    for n in 0..times {
        stack.broker.begin_again();
        longest = longest.max(cell::recovered(world, Fault::Kills(times)).await);
        // At any moment of a delivery, which comes ten times a second.
        sleep(Duration::from_millis(u64::from(n) * 37 % 110)).await;
    }
    longest
}
