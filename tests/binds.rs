//! What a session demands besides its placeholder: a peer, a network, a listener, a session token, a
//! JWT. Where a demand is not met, a placeholder is worth nothing.

#[path = "binds/connections.rs"]
mod connections;
#[path = "binds/mtls.rs"]
mod mtls;
#[path = "binds/oidc.rs"]
mod oidc;
#[path = "binds/provider.rs"]
mod provider;
#[path = "binds/scene.rs"]
mod scene;
#[path = "binds/socket.rs"]
mod socket;
