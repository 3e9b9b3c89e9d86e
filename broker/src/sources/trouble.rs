//! Why a place could not be asked, in words of ours: nothing that it said is repeated.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

/// Why a source that asks somebody has no answer. Holds no byte of what was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    what: Cow<'static, str>,
    fix: Cow<'static, str>,
    passes: bool,
    wait: Duration,
}

impl Trouble {
    /// One that says something about the secret, or that nobody but an operator ends: what was found
    /// before is not believed any longer.
    pub fn lasting(what: impl Into<Cow<'static, str>>, fix: impl Into<Cow<'static, str>>) -> Self {
        Self { what: what.into(), fix: fix.into(), passes: false, wait: Duration::ZERO }
    }

    /// One that may go by itself, and says nothing about the secret: nobody was reached, or had time.
    pub fn passing(what: impl Into<Cow<'static, str>>, fix: impl Into<Cow<'static, str>>) -> Self {
        Self { what: what.into(), fix: fix.into(), passes: true, wait: Duration::ZERO }
    }

    /// Nobody is asked again for so long, whatever the pace is: it was said, or is counted.
    pub fn not_before(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// For how long nobody is asked again, at least.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// Whether it may go by itself.
    pub fn passes(&self) -> bool {
        self.passes
    }

    /// What an operator does about it.
    pub fn fix(&self) -> &str {
        &self.fix
    }
}

impl Display for Trouble {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Trouble {}
