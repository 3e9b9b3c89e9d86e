//! The broker over mutual TLS, and who is who in a mesh: SPIFFE IDs in real certificates, at a real Envoy and at
//! the broker; tokens of Kubernetes' form. What is not listed, not in time or not its own gets nothing.

#[path = "mesh_identity/door.rs"]
mod door;
#[allow(dead_code, reason = "shared with another file of tests")]
#[path = "github_app/keys.rs"]
mod keys;
#[allow(dead_code, reason = "shared with another file of tests")]
#[path = "binds/scene.rs"]
mod listeners;
#[path = "mesh_identity/rotates.rs"]
mod rotates;
#[path = "mesh_identity/scene.rs"]
mod scene;
#[path = "mesh_identity/sidecars.rs"]
mod sidecars;
#[path = "mesh_identity/strangers.rs"]
mod strangers;
#[path = "mesh_identity/tokens.rs"]
mod tokens;
#[path = "mesh_identity/workloads.rs"]
mod workloads;

use attache_tests::pki;
