//! Encryption at rest, with the real command: what is secret is nowhere to be read, a change of keys loses nothing
//! however it ends, and without the key nothing starts.

#[path = "seals/keeps.rs"]
mod keeps;
#[path = "seals/killed.rs"]
mod killed;
#[path = "seals/refuses.rs"]
mod refuses;
#[path = "seals/scene.rs"]
mod scene;
