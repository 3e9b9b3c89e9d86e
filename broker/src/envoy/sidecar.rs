//! A sidecar: a gateway beside one agent, whose gates say so. They call their listener by the name that one session
//! is bound to, so that session is shown by whoever comes in there, and by nobody who comes in elsewhere.

use super::LISTENER;
use crate::config::Config;
use attache_core::names::Name;
use std::net::SocketAddr;

/// Why a config has no sidecar for a session.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SidecarError {
    /// Others than the one agent would come in.
    #[error("listen.proxy is {0}, and a sidecar serves what is beside it alone: write 127.0.0.1:PORT")]
    Open(SocketAddr),
    /// Nobody of that name.
    #[error("sessions: there is no {0}; a sidecar's session is declared in the config")]
    NoSession(Name),
    /// It could come in anywhere.
    #[error("sessions.{0}.bind: a sidecar's session is bound to its listener: write `bind: {{listener: {0}}}`")]
    Unbound(Name),
    /// It could come in by the gateway.
    #[error("sessions.{0}.bind.listener: {LISTENER} is the gateway's own: write `bind: {{listener: {0}}}`")]
    Gateways(Name),
    /// A second one would be let in.
    #[error("sessions.{1}.bind.listener: {2} is that of {0}, too, and a sidecar is pinned to one session")]
    Shared(Name, Name, Name),
}

/// What the gates of a session's sidecar call their listener.
pub fn listener(config: &Config, session: &Name) -> Result<Name, SidecarError> {
    if !config.listen.proxy.ip().is_loopback() {
        return Err(SidecarError::Open(config.listen.proxy));
    }
    let declared = config.sessions.iter().find(|one| one.name == *session);
    let declared = declared.ok_or_else(|| SidecarError::NoSession(session.clone()))?;
    let listener = declared.bind.listener.clone().ok_or_else(|| SidecarError::Unbound(session.clone()))?;
    if listener.as_str() == LISTENER {
        return Err(SidecarError::Gateways(session.clone()));
    }
    let mut others = config.sessions.iter().filter(|one| one.name != *session);
    match others.find(|one| one.bind.listener.as_ref() == Some(&listener)) {
        Some(other) => Err(SidecarError::Shared(session.clone(), other.name.clone(), listener)),
        None => Ok(listener),
    }
}
