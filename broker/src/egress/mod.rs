//! Where hosts lead, for a forward proxy: to one address each time, resolved and vetted, or nowhere.
//!
//! What is vetted is what is dialled: Envoy resolves nothing by itself where the answer counts. So a name
//! that has another address a moment later gains nothing by it.

mod guard;
mod hosts_file;
mod resolver;

pub use guard::OwnListeners;
pub use resolver::ResolverError;

use crate::config::{Config, Upstream, destination_id};
use attache_core::matching::host::{Authority, Host};
use attache_core::refusal::Reason;
use resolver::{Found, Resolver};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The ways out of one instance.
pub struct Egress {
    /// What the config says of hosts that it names, by `host:port`.
    named: HashMap<String, Named>,
    resolver: Resolver,
    own: OwnListeners,
    /// How many addresses were chosen: where a host has several, the next one comes next.
    turn: AtomicUsize,
}

/// What the config says of where a host is.
#[derive(Clone, Debug, Default)]
struct Named {
    /// Whether it may be at an address that is not public.
    private: bool,
    /// Where Envoy dials instead.
    dials: Option<Authority>,
}

/// Where a host leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The one address.
    pub address: SocketAddr,
    /// How long that may be believed.
    pub ttl: Duration,
}

impl Egress {
    /// The ways out that a config allows.
    pub fn new(config: &Config, own: OwnListeners) -> Result<Self, ResolverError> {
        let mut named: HashMap<String, Named> = HashMap::new();
        for destination in config.credentials.iter().flat_map(|credential| &credential.destinations) {
            let dials = destination.upstream.as_ref().and_then(dialled);
            named.insert(destination_id(destination), Named { private: destination.private, dials });
        }
        named.extend(config.hosts.iter().map(|host| (host.id(), Named { private: host.private, dials: None })));
        let resolver = Resolver::new(&config.dns_servers, config.limits.callout_timeout)?;
        Ok(Self { named, resolver, own, turn: AtomicUsize::new(0) })
    }

    /// Where a host leads that the policy lets through.
    pub async fn way(&self, host: &Host, port: u16) -> Result<Way, Reason> {
        let known = self.named.get(&format!("{host}:{port}"));
        // What the config names is where the operator wants it: an address, or a name that Envoy dials.
        let dials = known.and_then(|named| named.dials.as_ref());
        let (host, port) = dials.map_or((host, port), |to| (&to.host, to.port.unwrap_or(port)));
        let found = match host {
            Host::V4(address) => Found::written(IpAddr::V4(*address)),
            Host::V6(address) => Found::written(IpAddr::V6(*address)),
            Host::Name(name) => self.resolver.addresses(name, known.is_some()).await.map_err(|error| {
                tracing::info!(host = %name, %error, "no address");
                Reason::HostUnresolved
            })?,
        };
        // Who writes an address says where the host is.
        let is_written = dials.is_some() || !matches!(host, Host::Name(_));
        let may_be_private = known.is_some_and(|named| named.private || is_written);
        let refused = |why: guard::Refused| {
            tracing::info!(%host, port, %why, "refused");
            Reason::AddressNotAllowed
        };
        let vetted = guard::vet(&found.addresses, port, may_be_private, &self.own).map_err(refused)?;
        let address = guard::choose(&vetted, self.turn.fetch_add(1, Ordering::Relaxed));
        Ok(Way { address: address.ok_or(Reason::HostUnresolved)?, ttl: found.ttl })
    }
}

/// The authority in `upstream.address`, which the config has parsed already.
fn dialled(upstream: &Upstream) -> Option<Authority> {
    upstream.address.as_ref().and_then(|address| Authority::parse(address.as_bytes()).ok())
}

#[cfg(test)]
mod tests;
