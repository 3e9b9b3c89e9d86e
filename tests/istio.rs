//! In Istio: the manifests are what its schemas take and what the config says, and an Envoy that runs what they come
//! to injects, refuses, and forwards nothing that was not decided on.
//!
//! There is no Istio here. `istio/istiod.rs` is a simulation: it makes of the manifests what istiod, and Istio's agent
//! in a pod, are documented to make of them, and a real Envoy runs that. What only Istio's build of Envoy has
//! (`istio.stats`, `istio.alpn`, `peer_metadata`) is left out.

#[path = "istio/asks.rs"]
mod asks;
#[path = "istio/decides.rs"]
mod decides;
#[path = "istio/envoy_filter.rs"]
mod envoy_filter;
#[path = "istio/istiod.rs"]
mod istiod;
#[path = "istio/lacks.rs"]
mod lacks;
#[path = "istio/manifests.rs"]
mod manifests;
#[path = "istio/mesh.rs"]
mod mesh;
#[path = "istio/pilot_agent.rs"]
mod pilot_agent;
#[path = "istio/world.rs"]
mod world;
