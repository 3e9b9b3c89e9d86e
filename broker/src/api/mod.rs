//! The broker's two doors: one for filters, one for operators. No door for agents.
//!
//! Handlers translate; what is decided is decided in the domain modules, which know nothing of HTTP.

mod answer;
pub mod control;
pub mod data_plane;
mod feed;
mod health;
pub mod server;
pub mod view;

pub use health::Health;
