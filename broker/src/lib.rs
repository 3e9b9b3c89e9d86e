//! Attaché's broker: it knows the secrets and who may use them, and tells Envoy's filter.
//!
//! A secret leaves it through one door, the answer to `POST /v1/grants`, after the record of it is
//! durable. It never logs one, never writes one to disk, and never speaks to an agent.
#![forbid(unsafe_code)]

pub mod audit;
pub mod changes;
pub mod cli;
pub mod clock;
pub mod config;
pub mod grants;
pub mod hygiene;
pub mod leases;
pub mod private_file;
pub mod random;
pub mod sessions;
pub mod sources;
pub mod state_dir;
pub mod store;
pub mod telemetry;
