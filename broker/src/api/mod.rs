//! The broker's doors: one for filters, one for operators, and one for probes where the config asks for it. No
//! door for agents.
//!
//! Handlers translate; what is decided is decided in the domain modules, which know nothing of HTTP.

mod answer;
mod authority;
mod bodies;
pub mod control;
pub mod data_plane;
pub mod entrance;
mod feed;
mod health;
mod metrics;
pub mod openapi;
pub mod probes;
mod process;
mod rotation;
mod run;
pub mod server;
mod strangers;
pub mod view;
pub mod withheld;

pub use health::{Condition, Dependency, Health, Readiness};
pub use metrics::{Counted, Metrics, Watched};
