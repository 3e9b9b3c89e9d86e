//! Certificates on demand: for whom there is one, for how long, and who signs it; on a real Envoy.

#[path = "mints/denies.rs"]
mod denies;
#[path = "mints/floods.rs"]
mod floods;
#[path = "mints/lapses.rs"]
mod lapses;
#[path = "mints/leaves.rs"]
mod leaves;
#[path = "mints/rotates.rs"]
mod rotates;
#[path = "mints/scene.rs"]
mod scene;
#[path = "mints/survives.rs"]
mod survives;
