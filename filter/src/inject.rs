//! Injecting: the verdict, what is stripped and set, and that it stands there alone.

use crate::host::{self, Map};
use crate::shared::Shared;
use attache_core::refusal::Reason;
use attache_core::request::Forward;
use attache_core::verdict::VERDICT_STATE;
use attache_core::worker::Grant;

impl Shared {
    /// Without a route guard, the route that stands now is the one that will be taken, unless one
    /// looks at what is injected (`doctor` refuses those, and the assertion behind the gate holds
    /// them; by Istio's extensions there is none): it must lead to the cluster decided on.
    pub fn check_cluster(&self, grant: &Grant) -> Result<(), Reason> {
        if self.guarded {
            return Ok(());
        }
        match host::property("xds\0cluster_name") {
            Ok(Some(cluster)) if cluster == grant.cluster.as_bytes() => Ok(()),
            _ => Err(Reason::DestinationMismatch),
        }
    }
}

/// Strips, sets, and makes sure that what was set stands there alone.
pub fn inject(forward: &Forward, grant: &Grant) -> Result<(), Reason> {
    let done = apply(forward, grant);
    #[cfg(feature = "trap")]
    let done = done.and_then(|()| crate::trap::tamper(grant));
    let done = done.is_ok_and(|()| stands_alone(forward, grant));
    if done {
        return Ok(());
    }
    // What was set goes nowhere, but neither should it stand in a header any longer.
    for (name, _) in grant.headers() {
        let _ = host::remove_header(name.as_bytes());
    }
    Err(Reason::Internal)
}

fn apply(forward: &Forward, grant: &Grant) -> host::Result<()> {
    // First the verdict: the header changes below make Envoy select the route again, and its
    // guard looks at it.
    host::set_property(VERDICT_STATE, grant.verdict.as_bytes())?;
    forward.remove().try_for_each(host::remove_header)?;
    forward.set().iter().try_for_each(|(name, value)| host::set_header(name, value))?;
    if let Some(target) = forward.target() {
        host::set_header(b":path", target)?;
    }
    forward.beside().try_for_each(|(name, value)| host::set_header(name.as_bytes(), value))?;
    // Exposed to become the header's value: this is the injection.
    grant.headers().try_for_each(|(name, value)| host::set_header(name.as_bytes(), value.expose().as_bytes()))
}

/// One value in each header: a second line would show as `first,second`. A credential in the query is one
/// of a target that was made for it.
fn stands_alone(forward: &Forward, grant: &Grant) -> bool {
    let stands = |name: &str, value: &[u8]| {
        let found = host::header(Map::Request, name).ok().flatten();
        found.as_deref() == Some(value)
    };
    let in_query = grant.parameters().next().is_some();
    // Exposed to be compared with what now stands in the request.
    grant.headers().all(|(name, value)| stands(name, value.expose().as_bytes()))
        && (!in_query || forward.target().is_some_and(|target| stands(":path", target)))
}
