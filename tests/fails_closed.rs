//! Never open: whatever fails, a request is refused within its bound, nothing goes upstream
//! undecided, and the next good request passes without anybody's help.

#[path = "fails_closed/again.rs"]
mod again;
#[path = "fails_closed/asserts.rs"]
mod asserts;
#[path = "fails_closed/broker.rs"]
mod broker;
#[path = "fails_closed/cluster.rs"]
mod cluster;
#[path = "fails_closed/guard.rs"]
mod guard;
#[path = "fails_closed/policy.rs"]
mod policy;
#[path = "fails_closed/reroute.rs"]
mod reroute;
#[path = "fails_closed/scene.rs"]
mod scene;
#[path = "fails_closed/source.rs"]
mod source;
#[path = "fails_closed/springs.rs"]
mod springs;
#[path = "fails_closed/traps.rs"]
mod traps;
