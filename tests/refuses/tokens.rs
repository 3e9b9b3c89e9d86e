//! What the agents of two sessions have in their environment.

use attache_core::refusal::Reason;
use attache_tests::table::Promise;
use attache_tests::{Attache, Spelled, Stack};

/// The placeholders and the token of one session.
pub struct Session {
    pub github: String,
    pub custom: String,
    pub query: String,
    pub token: String,
}

/// Both sessions of the standard config.
pub struct Tokens {
    /// Read-write.
    pub writer: Session,
    /// Read-only.
    pub reader: Session,
}

impl Tokens {
    pub fn of(stack: &Stack<Attache>) -> Self {
        let session = |name: &str| Session {
            github: stack.placeholder(name, "github"),
            custom: stack.placeholder(name, "custom"),
            query: stack.placeholder(name, "query"),
            token: stack.broker.exported(name, "ATTACHE_SESSION_TOKEN"),
        };
        Self { writer: session("writer"), reader: session("reader") }
    }

    /// A good request of the writer, but to this authority.
    pub fn to(&self, authority: impl AsRef<[u8]>) -> Spelled {
        Spelled::get(authority, "/user").bearer(&self.writer.github)
    }

    /// A good request of the writer to the custom credential's host, but for this target.
    pub fn custom(&self, target: impl AsRef<[u8]>) -> Spelled {
        Spelled::get("api.custom.test", target).line("x-custom-key", &self.writer.custom)
    }
}

/// The filter's refusal for this reason.
pub const fn refused(reason: Reason) -> Promise {
    Promise::Refused(reason)
}
