//! Who signs when: one authority signs, the next one waits, those before it are only trusted.
//!
//! Kept in `ca.key`, whole or not at all; `ca.pem` repeats the certificates for everybody to trust.

use super::authority::{Authority, LEAF_LIFETIME};
use crate::clock::millis;
use crate::private_file::PrivateError;
use crate::seal::{Safe, SealError};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;
use zeroize::Zeroizing;

/// The authorities with their keys.
const KEYS: &str = "ca.key";
/// Their certificates, PEM.
const CERTIFICATES: &str = "ca.pem";
/// Longest file, in bytes: an authority with its key has about 1 kB, and 40 for each name it may sign for.
const LONGEST: usize = 4 << 20;

/// Why there are no authorities.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// The files are not ours alone, or cannot be read or written.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// They are sealed, and are not opened.
    #[error(transparent)]
    Seal(SealError),
    /// Not what we wrote.
    #[error(
        "{0} is damaged: restore it, or remove it and ca.pem for a new authority, which every client then has to trust"
    )]
    Damaged(PathBuf),
    /// They were there, and are not.
    #[error(
        "{0} is not there, and {CERTIFICATES} is: restore it from a backup of the same instance; or, for a new authority, \
         which every client then has to trust, move {CERTIFICATES} aside"
    )]
    Missing(PathBuf),
}

impl From<SealError> for KeptError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Private(error) => Self::Private(error),
            error => Self::Seal(error),
        }
    }
}

/// An authority, and its place among the others.
pub struct Generation {
    /// The authority.
    pub authority: Authority,
    /// From when on it signs, in Unix milliseconds.
    pub signs_from_ms: u64,
    /// Whether the audit log has it. It signs nothing before.
    pub recorded: bool,
}

/// How an authority stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthorityState {
    /// It signs.
    Signs,
    /// It will.
    Next,
    /// It did, and what it signed may still be in use.
    Retired,
}

/// All authorities of an instance, in the order in which they sign.
pub struct Succession(Vec<Generation>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    authorities: Vec<KeptGeneration>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptGeneration {
    certificate: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Zeroizing<String>>,
    signs_from_ms: u64,
    recorded: bool,
}

impl Succession {
    /// Begins with one authority.
    pub fn begin(authority: Authority, now_ms: u64) -> Self {
        Self(vec![Generation { authority, signs_from_ms: now_ms, recorded: false }])
    }

    /// What a state directory holds, if it does.
    pub fn open(safe: &Safe) -> Result<Option<Self>, KeptError> {
        let Some(text) = safe.read(KEYS, LONGEST)? else {
            // The certificates come after the keys.
            let has_been = safe.dir().path().join(CERTIFICATES).symlink_metadata().is_ok();
            return if has_been { Err(KeptError::Missing(safe.dir().path().join(KEYS))) } else { Ok(None) };
        };
        let damaged = || KeptError::Damaged(safe.dir().path().join(KEYS));
        // The error's own text might quote a key.
        let kept: Kept = serde_json::from_slice(&text).map_err(|_| damaged())?;
        let generations = kept.authorities.into_iter().map(|kept| {
            let authority = Authority::parse(&kept.certificate, kept.key.as_ref().map(|key| key.as_str()))?;
            Some(Generation { authority, signs_from_ms: kept.signs_from_ms, recorded: kept.recorded })
        });
        let generations: Vec<_> = generations.collect::<Option<_>>().ok_or_else(damaged)?;
        let in_order = generations.is_sorted_by_key(|generation| generation.signs_from_ms);
        if !in_order || !generations.iter().any(|generation| generation.authority.can_sign()) {
            return Err(damaged());
        }
        Ok(Some(Self(generations)))
    }

    /// Keeps it.
    pub fn store(&self, safe: &Safe) -> Result<(), KeptError> {
        let authorities = self.0.iter().map(|generation| KeptGeneration {
            certificate: generation.authority.pem(),
            key: generation.authority.key_pem(),
            signs_from_ms: generation.signs_from_ms,
            recorded: generation.recorded,
        });
        let kept = Kept { authorities: authorities.collect() };
        // All its room at once: a buffer that grows leaves copies behind.
        let room = kept.authorities.iter().map(|kept| 2 * kept.certificate.len() + 1024).sum();
        let mut text = Zeroizing::new(Vec::with_capacity(room));
        // Texts and numbers cannot fail to serialise, nor memory to be written to.
        let _ = serde_json::to_writer(&mut *text, &kept);
        safe.replace(KEYS, &text)?;
        safe.dir().replace(CERTIFICATES, self.pem().as_bytes())?;
        Ok(())
    }

    /// All of them.
    pub fn all(&self) -> &[Generation] {
        &self.0
    }

    /// All of them, to be changed.
    pub fn all_mut(&mut self) -> &mut [Generation] {
        &mut self.0
    }

    /// All certificates, PEM: what clients have to trust.
    pub fn pem(&self) -> String {
        self.0.iter().map(|generation| generation.authority.pem()).collect()
    }

    /// The one whose time it is and that is on record; the first that has a key, should a clock have gone back
    /// or nothing be on record.
    fn current_index(&self, now_ms: u64) -> Option<usize> {
        let able = |generation: &Generation| generation.authority.can_sign();
        let recorded = |generation: &Generation| able(generation) && generation.recorded;
        let begun = self.0.iter().rposition(|generation| recorded(generation) && generation.signs_from_ms <= now_ms);
        begun.or_else(|| self.0.iter().position(recorded)).or_else(|| self.0.iter().position(able))
    }

    /// Who signs for a name: whose time it is; or the next, for a name that only that one may sign for.
    pub fn signer(&self, name: &str, now_ms: u64) -> Option<&Generation> {
        let from = self.current_index(now_ms)?;
        self.0.iter().skip(from).find(|generation| generation.recorded && generation.authority.permits(name))
    }

    /// How one stands.
    pub fn state(&self, index: usize, now_ms: u64) -> AuthorityState {
        match self.current_index(now_ms).map(|current| index.cmp(&current)) {
            Some(std::cmp::Ordering::Equal) => AuthorityState::Signs,
            Some(std::cmp::Ordering::Greater) => AuthorityState::Next,
            Some(std::cmp::Ordering::Less) | None => AuthorityState::Retired,
        }
    }

    /// The newest: the one that has to be fit for the config.
    pub fn newest(&self) -> Option<&Generation> {
        self.0.last()
    }

    /// Which one signs, as something to compare; changes with it.
    pub fn current(&self, now_ms: u64) -> Option<u64> {
        self.current_index(now_ms).and_then(|current| self.0.get(current)).map(|generation| generation.signs_from_ms)
    }

    /// Lets another follow after `overlap`. `Err` with when the next one signs, if that is no later.
    pub fn follow(&mut self, authority: Authority, now_ms: u64, overlap: Duration) -> Result<(), u64> {
        let signs_from_ms = now_ms.saturating_add(millis(overlap));
        if let Some(next) = self.0.last().filter(|last| last.signs_from_ms > now_ms) {
            if next.signs_from_ms <= signs_from_ms {
                return Err(next.signs_from_ms);
            }
            // It has signed nothing but for names that the one before it may not, and makes way.
            self.0.pop();
        }
        self.0.push(Generation { authority, signs_from_ms, recorded: false });
        Ok(())
    }

    /// Forgets keys that sign no more, and authorities of which no leaf is left. Whether there was one.
    pub fn settle(&mut self, now_ms: u64) -> bool {
        let Some(current) = self.current_index(now_ms) else { return false };
        let since = self.0.get(current).map_or(now_ms, |generation| generation.signs_from_ms);
        if since > now_ms {
            return false;
        }
        let before = self.0.iter_mut().take(current);
        let mut changed = false;
        for generation in before.filter(|generation| generation.authority.can_sign()) {
            generation.authority.retire();
            changed = true;
        }
        if since.saturating_add(millis(LEAF_LIFETIME)) <= now_ms && current > 0 {
            self.0.drain(..current);
            changed = true;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use attache_core::names::Name;
    use std::path::Path;

    const DAY: u64 = 86_400_000;
    const NOW: u64 = 1_800_000_000_000;

    fn authority(permitted: Option<&[&str]>) -> Authority {
        let permitted = permitted.map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        Authority::make(&Name::parse("i").unwrap(), permitted.as_deref(), NOW).unwrap()
    }

    fn rotated() -> (Succession, [String; 2]) {
        let mut succession = Succession::begin(authority(None), NOW);
        succession.follow(authority(None), NOW, LEAF_LIFETIME).unwrap();
        succession.all_mut().iter_mut().for_each(|generation| generation.recorded = true);
        let names = [0, 1].map(|at: usize| succession.all()[at].authority.fingerprint());
        (succession, names)
    }

    fn signer(succession: &Succession, name: &str, now_ms: u64) -> Option<String> {
        succession.signer(name, now_ms).map(|generation| generation.authority.fingerprint())
    }

    fn dir(temp: &Path) -> Safe {
        Safe::plain(crate::private_file::PrivateDir::open_or_create(&temp.join("i")).unwrap())
    }

    #[test]
    fn the_old_one_signs_until_the_overlap_is_over_and_is_trusted_until_its_last_leaf_is() {
        let (mut succession, [old, new]) = rotated();
        assert_eq!(signer(&succession, "a.test", NOW + DAY - 1), Some(old));
        assert!(!succession.settle(NOW + DAY - 1));
        assert_eq!(signer(&succession, "a.test", NOW + DAY), Some(new.clone()));
        assert!(succession.settle(NOW + DAY), "its key is forgotten");
        assert_eq!(
            (succession.state(0, NOW + DAY), succession.state(1, NOW + DAY)),
            (AuthorityState::Retired, AuthorityState::Signs)
        );
        assert!(!succession.all()[0].authority.can_sign());
        assert!(!succession.settle(NOW + 2 * DAY - 1) && succession.all().len() == 2);
        assert!(succession.settle(NOW + 2 * DAY), "and then it is");
        assert_eq!(succession.all().len(), 1);
        assert_eq!(signer(&succession, "a.test", NOW), Some(new), "a clock that goes back finds who has a key");
    }

    #[test]
    fn only_one_waits() {
        let (mut succession, [old, _]) = rotated();
        assert_eq!(succession.follow(authority(None), NOW + 1, LEAF_LIFETIME), Err(NOW + DAY));
        succession.follow(authority(None), NOW + 1, Duration::ZERO).unwrap();
        assert_eq!(succession.all().len(), 2, "the one that waited longer makes way");
        assert_eq!(signer(&succession, "a.test", NOW + 1), Some(old), "what is not on record signs nothing");
        succession.all_mut().iter_mut().for_each(|generation| generation.recorded = true);
        assert_eq!(
            signer(&succession, "a.test", NOW + 1),
            succession.newest().map(|generation| generation.authority.fingerprint())
        );
    }

    #[test]
    fn a_name_that_only_the_next_one_may_sign_for_does_not_wait() {
        let mut succession = Succession::begin(authority(Some(&["a.test"])), NOW);
        succession.follow(authority(Some(&["a.test", "b.test"])), NOW, LEAF_LIFETIME).unwrap();
        succession.all_mut().iter_mut().for_each(|generation| generation.recorded = true);
        let [old, new] = [0, 1].map(|at: usize| succession.all()[at].authority.fingerprint());
        assert_eq!(signer(&succession, "a.test", NOW), Some(old.clone()));
        assert_eq!(signer(&succession, "x.a.test", NOW), Some(old));
        assert_eq!(signer(&succession, "b.test", NOW), Some(new));
        assert_eq!(signer(&succession, "xa.test", NOW), None);
    }

    #[test]
    fn what_is_kept_is_found_again_and_damage_is_seen() {
        let temp = tempfile::tempdir().unwrap();
        let dir = dir(temp.path());
        assert!(Succession::open(&dir).unwrap().is_none());
        let (mut succession, [old, new]) = rotated();
        succession.settle(NOW + DAY);
        succession.store(&dir).unwrap();
        let again = Succession::open(&dir).unwrap().unwrap();
        assert_eq!([0, 1].map(|at: usize| again.all()[at].authority.fingerprint()), [old, new.clone()]);
        assert_eq!(signer(&again, "a.test", NOW + DAY), Some(new));
        assert_eq!(std::fs::read_to_string(dir.dir().path().join(CERTIFICATES)).unwrap(), again.pem());

        let path = dir.dir().path().join(KEYS);
        let good = std::fs::read_to_string(&path).unwrap();
        let (other, other_temp) = (rotated().0, tempfile::tempdir().unwrap());
        let other_dir = self::dir(other_temp.path());
        other.store(&other_dir).unwrap();
        let other = std::fs::read_to_string(other_dir.dir().path().join(KEYS)).unwrap();
        let key = |text: &str| {
            let from = text.find("-----BEGIN PRIVATE").unwrap();
            text[from..from + text[from..].find("-----END PRIVATE").unwrap()].to_owned()
        };
        let swapped = good.replace(&key(&good), &key(&other));
        for bad in ["", "{}", "{\"authorities\":[]}", &good[..good.len() / 2], &swapped] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(Succession::open(&dir), Err(KeptError::Damaged(_))), "{bad}");
        }
        std::fs::remove_file(&path).unwrap();
        let error = Succession::open(&dir).err().unwrap().to_string();
        assert!(error.contains("ca.key is not there, and ca.pem is: restore it"), "{error}");
        std::fs::remove_file(dir.dir().path().join(CERTIFICATES)).unwrap();
        assert!(Succession::open(&dir).unwrap().is_none(), "who took both away wants a new one");
    }

    #[test]
    fn an_authority_signs_nothing_when_its_time_is_over() {
        let authority = authority(None);
        let end = authority.facts.not_after_ms;
        let late = authority.sign("a.test", end - 1000).unwrap();
        assert_eq!(late.not_after_ms, end, "a leaf ends with it");
        assert!(matches!(authority.sign("a.test", end), Err(super::super::SignError::Expired)));
    }
}
