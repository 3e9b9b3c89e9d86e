//! A secret is replaced while it is in use: nothing fails, nothing is lost, and what does not work is told.

#[path = "rotates/aside.rs"]
mod aside;
#[path = "rotates/fails.rs"]
mod fails;
#[path = "rotates/hooks.rs"]
mod hooks;
#[path = "rotates/killed.rs"]
mod killed;
#[path = "rotates/loaded.rs"]
mod loaded;
#[path = "rotates/masks.rs"]
mod masks;
#[path = "rotates/schedule.rs"]
mod schedule;
#[path = "rotates/service.rs"]
mod service;
