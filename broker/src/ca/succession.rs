//! Who signs when: one authority signs, the next one waits, those before it are only trusted.
//!
//! Kept in `ca.key`, whole or not at all; `ca.pem` repeats the certificates for everybody to trust.

use super::authority::{Authority, LEAF_LIFETIME};
use crate::clock::millis;
use crate::private_file::{PrivateDir, PrivateError};
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
    /// Not what we wrote.
    #[error("{0} is damaged: restore it, or remove it for a new authority, which every client then has to trust")]
    Damaged(PathBuf),
}

/// An authority, and its place among the others.
pub struct Heir {
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
pub enum Stand {
    /// It signs.
    Signs,
    /// It will.
    Next,
    /// It did, and what it signed may still be in use.
    Retired,
}

/// All authorities of an instance, in the order in which they sign.
pub struct Succession(Vec<Heir>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    authorities: Vec<KeptHeir>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptHeir {
    certificate: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Zeroizing<String>>,
    signs_from_ms: u64,
    recorded: bool,
}

impl Succession {
    /// Begins with one authority.
    pub fn begin(authority: Authority, now_ms: u64) -> Self {
        Self(vec![Heir { authority, signs_from_ms: now_ms, recorded: false }])
    }

    /// What a state directory holds, if it does.
    pub fn open(dir: &PrivateDir) -> Result<Option<Self>, KeptError> {
        let Some(text) = dir.read(KEYS, LONGEST)? else { return Ok(None) };
        let damaged = || KeptError::Damaged(dir.path().join(KEYS));
        // The error's own text might quote a key.
        let kept: Kept = serde_json::from_slice(&text).map_err(|_| damaged())?;
        let heirs = kept.authorities.into_iter().map(|kept| {
            let authority = Authority::parse(&kept.certificate, kept.key.as_ref().map(|key| key.as_str()))?;
            Some(Heir { authority, signs_from_ms: kept.signs_from_ms, recorded: kept.recorded })
        });
        let heirs: Vec<_> = heirs.collect::<Option<_>>().ok_or_else(damaged)?;
        let in_order = heirs.is_sorted_by_key(|heir| heir.signs_from_ms);
        if !in_order || !heirs.iter().any(|heir| heir.authority.can_sign()) {
            return Err(damaged());
        }
        Ok(Some(Self(heirs)))
    }

    /// Keeps it.
    pub fn store(&self, dir: &PrivateDir) -> Result<(), KeptError> {
        let authorities = self.0.iter().map(|heir| KeptHeir {
            certificate: heir.authority.pem(),
            key: heir.authority.key_pem(),
            signs_from_ms: heir.signs_from_ms,
            recorded: heir.recorded,
        });
        let kept = Kept { authorities: authorities.collect() };
        // All its room at once: a buffer that grows leaves copies behind.
        let room = kept.authorities.iter().map(|kept| 2 * kept.certificate.len() + 1024).sum();
        let mut text = Zeroizing::new(Vec::with_capacity(room));
        // Texts and numbers cannot fail to serialise, nor memory to be written to.
        let _ = serde_json::to_writer(&mut *text, &kept);
        dir.replace(KEYS, &text)?;
        dir.replace(CERTIFICATES, self.pem().as_bytes())?;
        Ok(())
    }

    /// All of them.
    pub fn all(&self) -> &[Heir] {
        &self.0
    }

    /// All of them, to be changed.
    pub fn all_mut(&mut self) -> &mut [Heir] {
        &mut self.0
    }

    /// All certificates, PEM: what clients have to trust.
    pub fn pem(&self) -> String {
        self.0.iter().map(|heir| heir.authority.pem()).collect()
    }

    /// The one whose time it is; the first that still has a key, should a clock have gone back.
    fn current(&self, now_ms: u64) -> Option<usize> {
        let able = |heir: &Heir| heir.authority.can_sign();
        let begun = self.0.iter().rposition(|heir| able(heir) && heir.signs_from_ms <= now_ms);
        begun.or_else(|| self.0.iter().position(able))
    }

    /// Who signs for a name: whose time it is; or the next, for a name that only that one may sign for.
    pub fn signer(&self, name: &str, now_ms: u64) -> Option<&Heir> {
        let from = self.current(now_ms)?;
        self.0.iter().skip(from).find(|heir| heir.recorded && heir.authority.permits(name))
    }

    /// How one stands.
    pub fn stand(&self, index: usize, now_ms: u64) -> Stand {
        match self.current(now_ms).map(|current| index.cmp(&current)) {
            Some(std::cmp::Ordering::Equal) => Stand::Signs,
            Some(std::cmp::Ordering::Greater) => Stand::Next,
            Some(std::cmp::Ordering::Less) | None => Stand::Retired,
        }
    }

    /// The newest: the one that has to be fit for the config.
    pub fn newest(&self) -> Option<&Heir> {
        self.0.last()
    }

    /// Which one signs, as something to compare; changes with it.
    pub fn reign(&self, now_ms: u64) -> Option<u64> {
        self.current(now_ms).and_then(|current| self.0.get(current)).map(|heir| heir.signs_from_ms)
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
        self.0.push(Heir { authority, signs_from_ms, recorded: false });
        Ok(())
    }

    /// Forgets keys that sign no more, and authorities of which no leaf is left. Whether there was one.
    pub fn settle(&mut self, now_ms: u64) -> bool {
        let Some(current) = self.current(now_ms) else { return false };
        let since = self.0.get(current).map_or(now_ms, |heir| heir.signs_from_ms);
        if since > now_ms {
            return false;
        }
        let before = self.0.iter_mut().take(current);
        let mut changed = false;
        for heir in before.filter(|heir| heir.authority.can_sign()) {
            heir.authority.retire();
            changed = true;
        }
        if since.saturating_add(millis(LEAF_LIFETIME)) <= now_ms && current > 0 {
            self.0.drain(..current);
            changed = true;
        }
        changed
    }
}
