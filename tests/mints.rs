//! Certificates on demand: for whom there is one, for how long, and who signs it; on a real Envoy.

#[path = "mints/leaves.rs"]
mod leaves;
#[path = "mints/scene.rs"]
mod scene;
