//! One credential: its sources in order, and the version that was last found.

use super::rejected::Pace;
use super::{LeaseError, Rung, Standing, bundle};
use crate::changes::Spread;
use crate::clock::{Now, millis};
use crate::config::{Credential, destination_id};
use crate::sources::{self, Environment, Found as Sourced, Mark, Source, Trouble};
use crate::state_dir::InstanceKey;
use attache_core::Secret;
use attache_core::injection::Rendered;
use attache_core::masking;
use attache_core::names::Name;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, OnceCell};
use zeroize::Zeroizing;

/// A file that changed less than this before it was read may change again without a new time
/// stamp (the kernel's clock for files ticks every few milliseconds): it is read once more.
const RACY_MS: u64 = 50;

/// How long grants go by what a look has found: with many of them, looking is most of what a grant would cost.
pub const FRESH: Duration = Duration::from_millis(10);

/// A credential and where it comes from.
pub struct Slot {
    credential: Credential,
    sources: Arc<[Box<dyn Source>]>,
    key: Arc<InstanceKey>,
    found: RwLock<Found>,
    /// Whether it has been looked for.
    loaded: OnceCell<()>,
    refreshing: Mutex<()>,
    born: Instant,
    /// When its sources were last looked at, in milliseconds from then.
    looked: AtomicU64,
    /// The last change that was told of it.
    told: AtomicU64,
    /// How soon its sources may be asked because a service has rejected what they gave.
    pub pace: Pace,
}

/// One version of a secret, rendered for all its destinations.
#[derive(Clone)]
pub struct Version {
    /// Which version it is.
    pub fingerprint: String,
    /// What enters a request, by the destination's id.
    pub rendered: Arc<BTreeMap<String, Vec<Rendered>>>,
    /// What must not come back, by the destination's id, where masking is on.
    pub masked: Arc<BTreeMap<String, Vec<Secret>>>,
    /// What agents may have of a bundle, by name.
    pub public: Arc<BTreeMap<String, String>>,
    place: String,
    since_ms: u64,
    /// When it ends, as far as anybody says, in Unix milliseconds.
    pub expires_ms: Option<u64>,
    /// When its source takes it back, or it ends by its own account.
    pub ends: Option<Now>,
    /// When it ends by its own account: then it is looked for anew.
    over: Option<Now>,
    rung: Rung,
}

impl Version {
    /// Whether it is over by its own account.
    fn is_over(&self) -> bool {
        self.over.is_some_and(|over| Now::read().until(over).is_zero())
    }
}

#[derive(Clone)]
struct Found {
    marks: Vec<Mark>,
    /// Whether the marks vouch for what was read.
    settled: bool,
    version: Result<Arc<Version>, Arc<LeaseError>>,
}

impl Slot {
    /// Nobody is asked yet: see [`Self::load`].
    pub fn new(credential: &Credential, sources: Arc<[Box<dyn Source>]>, key: Arc<InstanceKey>) -> Self {
        let version = Err(Arc::new(LeaseError::NotAsked));
        Self {
            credential: credential.clone(),
            sources,
            key,
            found: RwLock::new(Found { marks: Vec::new(), settled: false, version }),
            loaded: OnceCell::new(),
            refreshing: Mutex::default(),
            born: Instant::now(),
            looked: AtomicU64::default(),
            told: AtomicU64::default(),
            pace: Pace::default(),
        }
    }

    /// All sources of a credential that all sessions share.
    pub fn shared(credential: &Credential, environment: &Environment, key: Arc<InstanceKey>) -> Self {
        let sources = credential.lookup.iter().map(|lookup| sources::open(lookup, environment)).collect();
        Self::new(credential, sources, key)
    }

    /// Looks for the first time, once, however many wait for it. Answers whether that was now.
    pub async fn load(&self) -> bool {
        let mut now = false;
        let look = async || {
            now = true;
            let found = look(&self.credential, &self.sources, &self.key).await;
            if let Err(error) = &found.version {
                tracing::warn!(credential = %self.credential.name, %error, "the credential cannot be used");
            }
            *self.found.write().unwrap_or_else(PoisonError::into_inner) = found;
        };
        self.loaded.get_or_init(look).await;
        now
    }

    /// Whether it has been looked for.
    pub fn is_loaded(&self) -> bool {
        self.loaded.initialized()
    }

    /// The credential's name.
    pub fn name(&self) -> &Name {
        &self.credential.name
    }

    /// The service that it is for.
    pub fn service(&self) -> &str {
        &self.credential.service
    }

    /// Whether its secret is a document of several fields.
    pub fn is_bundle(&self) -> bool {
        self.credential.bundle.is_some()
    }

    /// The current version, or why there is none.
    pub fn current(&self) -> Result<Arc<Version>, Arc<LeaseError>> {
        self.found().version
    }

    /// [`Self::refresh`], unless somebody has looked just now.
    pub async fn refresh_if_due(&self) -> bool {
        let now = millis(self.born.elapsed());
        let due = |looked: u64| (looked.saturating_add(millis(FRESH)) <= now).then_some(now);
        let is_due = self.looked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due).is_ok();
        // Where somebody is asking a source that takes its time, what was found before may be what has changed.
        let is_asked = || self.refreshing.try_lock().is_err();
        (is_due || is_asked()) && self.refresh().await
    }

    /// Looks again if anything has moved. Answers whether grants made before are void.
    pub async fn refresh(&self) -> bool {
        if self.is_current() {
            return false;
        }
        let _one_at_a_time = self.refreshing.lock().await;
        if self.is_current() {
            return false;
        }
        self.look_again().await
    }

    /// Asks the sources themselves, whatever they remember. Answers whether grants made before are void.
    pub async fn renew(&self) -> bool {
        let _one_at_a_time = self.refreshing.lock().await;
        self.sources.iter().for_each(|source| source.forget());
        self.look_again().await
    }

    async fn look_again(&self) -> bool {
        let before = self.found();
        let mut found = look(&self.credential, &self.sources, &self.key).await;
        let changed = match (&before.version, &found.version) {
            (Ok(old), Ok(new)) if old.fingerprint == new.fingerprint && old.place == new.place => {
                // The same secret, which may have got another end.
                let ends = Version { since_ms: old.since_ms, ..(**new).clone() };
                found.version = Ok(Arc::new(ends));
                false
            }
            (Err(old), Err(new)) if old.to_string() == new.to_string() => false,
            (_, Err(error)) => {
                tracing::warn!(credential = %self.credential.name, %error, "the credential cannot be used");
                true
            }
            (_, Ok(_)) => true,
        };
        if changed {
            // Nobody has heard of it, until its change is published.
            self.told.store(u64::MAX, Ordering::Relaxed);
        }
        *self.found.write().unwrap_or_else(PoisonError::into_inner) = found;
        changed
    }

    /// Notes the change by which the workers hear of the current version.
    pub fn told(&self, cursor: u64) {
        self.told.store(cursor, Ordering::Relaxed);
    }

    /// That change; 0: it has not changed in this life of the broker.
    pub fn last_told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// How it stands, with where it is in force.
    pub fn standing(&self, workers: Spread) -> Standing {
        let version = self.current();
        let error = version.as_ref().err().map(ToString::to_string);
        let fix = version.as_ref().err().map(|error| error.fix().to_owned());
        let version = version.ok();
        let trouble = version.as_ref().and_then(|version| self.trouble(version));
        Standing {
            name: self.credential.name.clone(),
            service: self.credential.service.clone(),
            destinations: self.destinations(version.as_deref()),
            rung: version.as_ref().map(|version| version.rung),
            source: version.as_ref().map(|version| version.place.clone()),
            fingerprint: version.as_ref().map(|version| version.fingerprint.clone()),
            since_ms: version.as_ref().map(|version| version.since_ms),
            workers,
            expires_ms: version.as_ref().and_then(|version| version.expires_ms),
            next_ms: self.next().map(|next| Now::read().plus(next).wall_ms),
            sessions: None,
            error,
            fix: fix.or_else(|| trouble.as_ref().map(|(_, why)| why.fix().to_owned())),
            trouble: trouble.map(|(place, why)| format!("{place}: {why}")),
            rotation: None,
        }
    }

    /// Whether a secret could be one of its versions.
    pub fn check(&self, secret: &Secret) -> Result<(), LeaseError> {
        version(&self.credential, String::new(), &secret.clone().into(), &self.key, Now::read()).map(drop)
    }

    /// Which source of a version could not be asked, the last time, and why.
    pub fn trouble(&self, version: &Version) -> Option<(String, Trouble)> {
        let source = self.sources.iter().find(|source| source.place() == version.place)?;
        Some((source.place(), source.trouble()?))
    }

    /// In how long a source is asked anew.
    pub fn next(&self) -> Option<Duration> {
        self.sources.iter().filter_map(|source| source.next()).min()
    }

    /// Where it may go: a bundle may leave fewer than the config names.
    fn destinations(&self, version: Option<&Version>) -> Vec<String> {
        let all = self.credential.destinations.iter().map(destination_id);
        all.filter(|id| version.is_none_or(|version| version.rendered.contains_key(id))).collect()
    }

    /// Gives back what was leased.
    pub fn close(&self) -> impl Future<Output = ()> + Send + use<> {
        let sources = Arc::clone(&self.sources);
        async move {
            for source in sources.iter() {
                source.close().await;
            }
        }
    }

    fn is_current(&self) -> bool {
        let found = self.found.read().unwrap_or_else(PoisonError::into_inner);
        let marks = self.sources.iter().map(|source| source.mark());
        let is_over = found.version.as_ref().is_ok_and(|version| version.is_over());
        found.settled && !is_over && marks.eq(found.marks.iter().copied())
    }

    fn found(&self) -> Found {
        self.found.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn look(credential: &Credential, sources: &[Box<dyn Source>], key: &InstanceKey) -> Found {
    // Marks first: what changes while we read has another mark afterwards.
    let marks: Vec<_> = sources.iter().map(|source| source.mark()).collect();
    let now = Now::read();
    let settled = marks.iter().all(|mark| match mark {
        Mark::Fixed | Mark::File(None) | Mark::Answers(_) => true,
        Mark::File(Some(stamp)) => stamp.changed_ms().saturating_add(RACY_MS) < now.wall_ms,
    });
    let version = match first(sources).await {
        Ok((place, found)) => version(credential, place, &found, key, now),
        Err(error) => Err(error),
    };
    Found { marks, settled, version: version.map(Arc::new).map_err(Arc::new) }
}

/// The first source that has it; an error ends the search.
async fn first(sources: &[Box<dyn Source>]) -> Result<(String, Sourced), LeaseError> {
    for source in sources {
        if let Some(found) = source.read().await? {
            return Ok((source.place(), found));
        }
    }
    let places: Vec<_> = sources.iter().map(|source| source.place()).collect();
    Err(LeaseError::Absent(places.join(", ")))
}

/// Whether a secret could be a version of a credential, where no broker runs.
pub fn could_be(credential: &Credential, secret: &Secret) -> Result<(), LeaseError> {
    // Nobody sees its fingerprint.
    let key = InstanceKey::new([0; 32]);
    version(credential, String::new(), &secret.clone().into(), &key, Now::read()).map(drop)
}

fn version(
    credential: &Credential,
    place: String,
    Sourced { secret, ends }: &Sourced,
    key: &InstanceKey,
    now: Now,
) -> Result<Version, LeaseError> {
    let unpack = |bundle| bundle::unpack(bundle, secret, &credential.destinations, now);
    let unpacked = credential.bundle.as_ref().map(unpack).transpose()?;
    // What is injected where the credential stands.
    let injected = unpacked.as_ref().map_or(secret, |unpacked| &unpacked.secret);
    let mut rendered: BTreeMap<String, Vec<Rendered>> = BTreeMap::new();
    let mut masked: BTreeMap<String, Vec<Secret>> = BTreeMap::new();
    for destination in &credential.destinations {
        if unpacked.as_ref().is_some_and(|unpacked| !unpacked.reaches(destination)) {
            continue;
        }
        let id = destination_id(destination);
        let one = destination
            .injection
            .render(injected)
            .map_err(|why| LeaseError::NotInjectable { destination: id.clone(), why })?;
        if destination.mask {
            let check = masking::check(injected);
            check.map_err(|why| LeaseError::NotMaskable { destination: id.clone(), why })?;
            let beside = unpacked.as_ref().map(|unpacked| unpacked.masked()).transpose()?;
            masked.insert(id.clone(), [injected.clone()].into_iter().chain(beside.into_iter().flatten()).collect());
        }
        let beside = unpacked.as_ref().map(|unpacked| unpacked.headers()).transpose()?;
        let others = rendered.entry(id).or_default();
        // Two path groups of one host may share an injection.
        for one in [one].into_iter().chain(beside.into_iter().flatten()) {
            if !others.iter().any(|other| other.carrier == one.carrier) {
                others.push(one);
            }
        }
    }
    let over = unpacked.as_ref().and_then(|unpacked| unpacked.ends);
    let rung = if ends.is_some() { Rung::Dynamic } else { Rung::Static };
    let ends = [*ends, over].into_iter().flatten().min_by_key(|ends| now.until(*ends));
    // What the source says is the end; a JWT's own date is shown, too, where it is sooner.
    let expires_ms = [expiry(injected), ends.map(|ends| ends.wall_ms)].into_iter().flatten().min();
    let (fingerprint, since_ms) = (key.fingerprint(secret), now.wall_ms);
    let (rendered, masked) = (Arc::new(rendered), Arc::new(masked));
    let public = Arc::new(unpacked.map(|unpacked| unpacked.public).unwrap_or_default());
    Ok(Version { fingerprint, rendered, masked, public, place, since_ms, expires_ms, ends, over, rung })
}

/// When a secret ends, if it is a JWT that says so (RFC 7519, 4.1.4). Its signature is the service's matter.
fn expiry(secret: &Secret) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: f64,
    }
    // Exposed to read its own date, which is no secret.
    let mut parts = secret.expose().split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let claims = Zeroizing::new(URL_SAFE_NO_PAD.decode(claims).ok()?);
    let Claims { exp } = serde_json::from_slice(&claims).ok()?;
    (exp > 0.0 && exp < 1e12).then_some((exp * 1000.0) as u64)
}
