//! The instance's certificate authority, and certificates made on demand.
//!
//! There is none until something asks for it. Its key never leaves the state directory; keys of leaves are
//! never written anywhere. What is made is on record before it signs.

mod authority;
mod bundle;
mod names;
mod succession;

pub use authority::{BACKDATED, Facts, LEAF_LIFETIME, Leaf, SignError};
pub use bundle::{BundleError, bundle};
pub use names::{Mintable, Minted, NO_NAME};
pub use succession::{AuthorityState, KeptError};

use crate::audit::{AuditLog, Decision, Kind, Record, Unavailable};
use crate::clock::{Now, rfc3339};
use crate::config::Config;
use crate::state_dir::StateDir;
use attache_core::names::Name;
use attache_core::policy::Spec;
use authority::Authority;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use succession::{Generation, Succession};
use tokio::sync::{Mutex, watch};

/// How long a rotation lasts unless it is said: a day, as leaves do.
pub const OVERLAP: Duration = Duration::from_secs(86_400);
/// The longest that one may last.
pub const LONGEST_OVERLAP: Duration = Duration::from_secs(30 * 86_400);

/// Why the authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Its files.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// A certificate could not be made.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// No authority may sign for this name.
    #[error("no authority may sign for this name: `attache ca rotate` makes one that may")]
    NotPermitted,
    /// The authority was made for another config.
    #[error(
        "the certificate authority was made for other hosts than the config names ({0}): `attache ca rotate` makes \
         the next, which clients have to trust then"
    )]
    NeedsRotation(Misfit),
    /// A rotation is under way.
    #[error("a rotation is under way: the next authority signs from {0} on; `--overlap 0s` makes one that signs now")]
    UnderWay(String),
    /// Longer than it may be.
    #[error("an overlap is a length of time up to 30 days")]
    Overlap,
    /// It is not on record.
    #[error(transparent)]
    Audit(#[from] Unavailable),
}

/// In what an authority differs from the config.
#[derive(Debug, thiserror::Error)]
pub enum Misfit {
    /// It is constrained.
    #[error("it may sign for some alone")]
    Constrained,
    /// It is not.
    #[error("it may sign for any")]
    Unconstrained,
    /// It lacks this host.
    #[error("it may not sign for {0}")]
    Lacks(String),
}

/// An authority, as operators see it. No key.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuthorityView {
    /// Its name.
    pub subject: String,
    /// The SHA-256 of the certificate, in hex.
    pub fingerprint: String,
    /// From when it is valid, in Unix milliseconds.
    pub not_before_ms: u64,
    /// Until when, in Unix milliseconds.
    pub not_after_ms: u64,
    /// The only names, and names below them, that it may sign for; `null` for any.
    pub permitted: Option<Vec<String>>,
    /// Whether it signs.
    pub state: AuthorityState,
    /// From when on it signs, in Unix milliseconds.
    pub signs_from_ms: u64,
    /// The certificate, PEM.
    pub certificate: String,
}

/// The certificate authority of one instance.
pub struct Ca {
    state_dir: Arc<StateDir>,
    instance: Name,
    /// The names that it has to permit, if it is to be constrained.
    constrained: Option<Vec<String>>,
    /// Where new authorities are recorded. Without it they sign nothing.
    audit: Option<Arc<AuditLog>>,
    succession: Mutex<Option<Succession>>,
    changed: watch::Sender<()>,
}

impl Ca {
    /// The authority that a state directory holds, or will.
    pub fn open(
        state_dir: Arc<StateDir>,
        config: &Config,
        policy: &Spec,
        audit: Option<Arc<AuditLog>>,
    ) -> Result<Self, CaError> {
        let succession = Mutex::new(Succession::open(state_dir.safe())?);
        let constrained = config.ca.constrained.then(|| Mintable::of(policy).named());
        let instance = config.instance.clone();
        Ok(Self { state_dir, instance, constrained, audit, succession, changed: watch::Sender::new(()) })
    }

    /// Records what was made while no broker ran, and says whether the newest authority is one for this
    /// config. There may be none yet: it will be.
    pub async fn check(&self) -> Result<(), CaError> {
        let mut kept = self.succession.lock().await;
        if kept.is_none() {
            return Ok(());
        }
        let succession = self.settled(&mut kept, Now::read().wall_ms).await?;
        let Some(newest) = succession.newest() else { return Ok(()) };
        match (&self.constrained, &newest.authority.facts.permitted) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(CaError::NeedsRotation(Misfit::Constrained)),
            (Some(_), None) => Err(CaError::NeedsRotation(Misfit::Unconstrained)),
            (Some(names), Some(_)) => match names.iter().find(|name| !newest.authority.permits(name)) {
                Some(name) => Err(CaError::NeedsRotation(Misfit::Lacks(name.clone()))),
                None => Ok(()),
            },
        }
    }

    /// All authorities; the first one is made.
    pub async fn show(&self) -> Result<Vec<AuthorityView>, CaError> {
        let (mut kept, now_ms) = (self.succession.lock().await, Now::read().wall_ms);
        Ok(views(self.settled(&mut kept, now_ms).await?, now_ms))
    }

    /// All certificates that clients have to trust, PEM; the first authority is made.
    pub async fn export(&self) -> Result<String, CaError> {
        let mut kept = self.succession.lock().await;
        Ok(self.settled(&mut kept, Now::read().wall_ms).await?.pem())
    }

    /// A leaf for a name that [`Mintable`] has found.
    pub async fn mint(&self, name: &str) -> Result<Leaf, CaError> {
        let (mut kept, now_ms) = (self.succession.lock().await, Now::read().wall_ms);
        let succession = self.settled(&mut kept, now_ms).await?;
        let signer = succession.signer(name, now_ms).ok_or(CaError::NotPermitted)?;
        Ok(signer.authority.sign(name, now_ms)?)
    }

    /// Makes the next authority: both are trusted from now on, and it signs when the overlap is over.
    pub async fn rotate(&self, overlap: Duration) -> Result<Vec<AuthorityView>, CaError> {
        if overlap > LONGEST_OVERLAP {
            return Err(CaError::Overlap);
        }
        let (mut kept, now_ms) = (self.succession.lock().await, Now::read().wall_ms);
        let succession = self.settled(&mut kept, now_ms).await?;
        let next = Authority::make(&self.instance, self.constrained.as_deref(), now_ms)?;
        succession.follow(next, now_ms, overlap).map_err(|from_ms| CaError::UnderWay(rfc3339(from_ms)))?;
        if let Err(error) = succession.store(self.state_dir.safe()) {
            // What is not kept is not trusted by anybody.
            *kept = Succession::open(self.state_dir.safe())?;
            return Err(error.into());
        }
        let views = views(self.settled(&mut kept, now_ms).await?, now_ms);
        self.changed.send_replace(());
        Ok(views)
    }

    /// Tells of rotations.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// When the authority that signs now ends, in Unix milliseconds; `None` while there is none, or while another one is
    /// being made.
    pub fn ends_ms(&self) -> Option<u64> {
        let (kept, now_ms) = (self.succession.try_lock().ok()?, Now::read().wall_ms);
        let succession = kept.as_ref()?;
        let signs = |index: &usize| succession.state(*index, now_ms) == AuthorityState::Signs;
        let current = (0..succession.all().len()).find(signs)?;
        succession.all().get(current).map(|generation| generation.authority.facts.not_after_ms)
    }

    /// Which authority signs now, as something to compare.
    pub async fn current(&self) -> Option<u64> {
        self.succession.lock().await.as_ref().and_then(|succession| succession.current(Now::read().wall_ms))
    }

    /// The authorities as they stand now, kept and on record. The first one is made.
    async fn settled<'a>(&self, kept: &'a mut Option<Succession>, now_ms: u64) -> Result<&'a mut Succession, CaError> {
        let known = match kept.take() {
            Some(known) => known,
            None => {
                let first = Authority::make(&self.instance, self.constrained.as_deref(), now_ms)?;
                let first = Succession::begin(first, now_ms);
                first.store(self.state_dir.safe())?;
                first
            }
        };
        let succession = kept.insert(known);
        if succession.settle(now_ms)
            && let Err(error) = succession.store(self.state_dir.safe())
        {
            // It is settled again when it is read again.
            tracing::warn!(%error, "an authority that signs no more is still kept");
        }
        self.record(succession, now_ms).await?;
        Ok(succession)
    }

    /// Records what is not on record yet.
    async fn record(&self, succession: &mut Succession, now_ms: u64) -> Result<(), CaError> {
        let Some(audit) = &self.audit else { return Ok(()) };
        let mut new = false;
        for (index, generation) in
            succession.all_mut().iter_mut().enumerate().filter(|(_, generation)| !generation.recorded)
        {
            let decision = if index == 0 { Decision::Create } else { Decision::Rotate };
            audit
                .append(Record {
                    decision: Some(decision.as_str().to_owned()),
                    fingerprint: Some(generation.authority.fingerprint()),
                    reason: Some(format!("signs from {}", rfc3339(generation.signs_from_ms))),
                    ..Record::new(Kind::Ca, now_ms)
                })
                .await?;
            (generation.recorded, new) = (true, true);
        }
        if new {
            succession.store(self.state_dir.safe())?;
        }
        Ok(())
    }
}

fn views(succession: &Succession, now_ms: u64) -> Vec<AuthorityView> {
    let view = |(index, generation): (usize, &Generation)| AuthorityView {
        subject: generation.authority.facts.subject.clone(),
        fingerprint: generation.authority.fingerprint(),
        not_before_ms: generation.authority.facts.not_before_ms,
        not_after_ms: generation.authority.facts.not_after_ms,
        permitted: generation.authority.facts.permitted.as_ref().map(|all| all.iter().cloned().collect()),
        state: succession.state(index, now_ms),
        signs_from_ms: generation.signs_from_ms,
        certificate: generation.authority.pem(),
    };
    succession.all().iter().enumerate().map(view).collect()
}
