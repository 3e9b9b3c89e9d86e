//! The test harness: a real Envoy, an upstream that records everything, agents that keep every
//! byte they receive, and an oracle that reconciles the three with the audit log.
//!
//! It never mocks the proxy, never sleeps for luck, never dials anything but loopback, and never
//! shows a captured log unless a test is failing. It may panic: its errors are for people.

pub mod agent;
pub mod attache;
pub mod ca;
pub mod clock;
pub mod disk;
pub mod dns;
pub mod envoy;
pub mod failing_disk;
pub mod fake_broker;
pub mod faults;
pub mod fields;
pub mod latch;
pub mod load;
pub mod matrix;
pub mod openbao;
pub mod oracle;
pub mod pki;
pub mod preloaded;
pub mod refusal;
pub mod rotated;
pub mod secrets;
pub mod spelled;
pub mod stack;
pub mod table;
pub mod upstream;
pub mod util;
pub mod websocket;
pub mod wire;

pub use agent::{Agent, Response, Unanswered};
pub use attache::Attache;
pub use ca::Ca;
pub use dns::Dns;
pub use envoy::Envoy;
pub use fake_broker::FakeBroker;
pub use fields::Fields;
pub use latch::Latch;
pub use oracle::Oracle;
pub use secrets::Secrets;
pub use spelled::Spelled;
pub use stack::{Plan, Stack};
pub use upstream::{Recorded, Reply, Upstream};
