//! Secrets that are in Infisical, and in 1Password behind a Connect server: what is there is injected, and what changes
//! there is, too. Both are stand-ins, which say what they follow.

#[path = "vaults/connect.rs"]
mod connect;
#[path = "vaults/infisical.rs"]
mod infisical;
#[path = "vaults/injects.rs"]
mod injects;
