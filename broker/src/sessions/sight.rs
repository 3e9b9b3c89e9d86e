//! Which sessions whoever asks the broker may hear of. A session out of sight is one that nobody knows.

use attache_core::names::Name;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The sessions that somebody may ask for, by name.
#[derive(Clone, Debug)]
pub enum Sight {
    /// All: whoever showed the token, and peers that serve every session.
    All,
    /// These alone.
    These(Arc<BTreeSet<Name>>),
}

impl Sight {
    /// Whether a session of this name is in sight.
    pub fn has(&self, name: &Name) -> bool {
        match self {
            Sight::All => true,
            Sight::These(names) => names.contains(name),
        }
    }

    /// Whether some are not.
    pub fn is_narrow(&self) -> bool {
        matches!(self, Sight::These(_))
    }
}
