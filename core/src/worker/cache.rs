//! Grants and refusals this worker knows of.
//!
//! Keys are exact: length-prefixed (destination, every kind of evidence), the evidence itself rather
//! than a hash of it, so no two askers can ever share an entry. Policy version and instance
//! need no place in the key: a worker serves one instance, and a new policy empties the cache.

use super::{Grant, Tunnel};
use crate::hashing::Table;
use crate::refusal::Reason;
use crate::time::Millis;
use crate::wire::Change;
use std::rc::Rc;

/// Most grants; about 2 KB each.
const CAPACITY: usize = 10_000;

/// Most refusals. Anybody can cause one, so they never push a grant out.
const REFUSALS: usize = 1_000;

/// How long a refusal by the broker is believed.
const REFUSAL_TTL: Millis = Millis(2_000);

/// How long one is believed that is no decision: the broker, its log or a source has failed.
const FAULT_TTL: Millis = Millis(250);

/// What is known of (evidence, destination).
#[derive(Clone)]
pub enum Entry {
    /// May pass, within the grant.
    Granted(Rc<Grant>),
    /// May enter, by this way.
    Tunnel(Rc<Tunnel>),
    /// May not, until then.
    Refused(Reason, Millis),
}

#[derive(Default)]
pub(super) struct Cache {
    grants: Table<Entry>,
    refusals: Table<Entry>,
}

impl Cache {
    /// What is known, if it still holds.
    pub fn find(&self, key: &[u8], now: Millis) -> Option<&Entry> {
        self.grants.get(key).or_else(|| self.refusals.get(key)).filter(|entry| entry.holds(now))
    }

    pub fn insert(&mut self, key: Vec<u8>, entry: Entry, now: Millis) {
        self.refusals.remove(&key);
        put(&mut self.grants, CAPACITY, key, entry, now);
    }

    pub fn refuse(&mut self, key: Vec<u8>, reason: Reason, now: Millis) {
        self.grants.remove(&key);
        let ttl = if reason.status() >= 500 { FAULT_TTL } else { REFUSAL_TTL };
        put(&mut self.refusals, REFUSALS, key, Entry::Refused(reason, now + ttl), now);
    }

    /// Drops what a change voids. A refusal may have been lifted by any change.
    pub fn void(&mut self, change: &Change) {
        self.refusals.clear();
        self.grants.retain(|_, entry| match entry {
            Entry::Granted(grant) => !grant.is_voided_by(change),
            Entry::Tunnel(tunnel) => !tunnel.is_voided_by(change),
            Entry::Refused(..) => false,
        });
    }

    pub fn clear(&mut self) {
        self.grants.clear();
        self.refusals.clear();
    }
}

fn put(entries: &mut Table<Entry>, capacity: usize, key: Vec<u8>, entry: Entry, now: Millis) {
    if entries.len() >= capacity && !entries.contains_key(&key) {
        entries.retain(|_, entry| entry.holds(now));
        if entries.len() >= capacity
            && let Some(any) = entries.keys().next().cloned()
        {
            entries.remove(&any);
        }
    }
    entries.insert(key, entry);
}

impl Entry {
    fn holds(&self, now: Millis) -> bool {
        match self {
            Entry::Granted(grant) => now < grant.expires,
            Entry::Tunnel(tunnel) => now < tunnel.expires,
            Entry::Refused(_, until) => now < *until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    fn refused(cache: &mut Cache, key: usize, now: Millis) {
        cache.refuse(key.to_le_bytes().to_vec(), Reason::PlaceholderUnknown, now);
    }

    fn known(cache: &Cache, now: Millis) -> usize {
        (0..2 * REFUSALS).filter(|key| cache.find(&key.to_le_bytes(), now).is_some()).count()
    }

    #[test]
    fn a_flood_of_askers_takes_bounded_room() {
        let mut cache = Cache::default();
        (0..REFUSALS + 500).for_each(|key| refused(&mut cache, key, Millis(0)));
        assert_eq!((cache.refusals.len(), known(&cache, Millis(0))), (REFUSALS, REFUSALS));
        assert!(cache.find(&(REFUSALS + 499).to_le_bytes(), Millis(0)).is_some(), "the newest is in");
        refused(&mut cache, REFUSALS + 499, Millis(1));
        assert_eq!(cache.refusals.len(), REFUSALS, "one that is known needs no room");
    }

    #[test]
    fn what_will_pass_by_itself_is_asked_about_sooner_than_what_was_decided() {
        let mut cache = Cache::default();
        for (reason, key, until) in [
            (Reason::PlaceholderUnknown, b"a", Millis(2_000)),
            (Reason::BrokerUnavailable, b"b", Millis(250)),
            (Reason::SourceUnavailable, b"c", Millis(250)),
        ] {
            cache.refuse(key.to_vec(), reason, Millis(0));
            assert!(cache.find(key, Millis(until.0 - 1)).is_some(), "{reason:?}");
            assert!(cache.find(key, until).is_none(), "{reason:?}");
        }
    }

    #[test]
    fn what_no_longer_holds_makes_room_first() {
        let mut cache = Cache::default();
        (0..REFUSALS - 1).for_each(|key| refused(&mut cache, key, Millis(0)));
        refused(&mut cache, REFUSALS, Millis(1_000));
        let later = Millis(2_000);
        refused(&mut cache, REFUSALS + 1, later);
        assert_eq!((cache.refusals.len(), known(&cache, later)), (2, 2));
    }
}
