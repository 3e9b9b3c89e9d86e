//! What one stream of Envoy's has been given: names and versions, no certificate and no key.

use crate::ca::Minted;
use std::collections::HashMap;
use std::time::Instant;

/// One certificate that Envoy has.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    /// The name it is for.
    pub minted: Minted,
    /// Whether it stays for as long as Envoy asks: the policy names it, and it is spelled as there.
    pub stays: bool,
    /// Which version Envoy has.
    pub version: String,
    /// When the certificate is over, in Unix milliseconds.
    pub not_after_ms: u64,
    /// When Envoy last heard of it.
    pub told: Instant,
    /// In which order they came.
    order: u64,
}

/// All of them, by the name as it was spelled.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    all: HashMap<Vec<u8>, Subscription>,
    /// How many do not stay.
    others: usize,
    came: u64,
}

impl Subscriptions {
    /// Whether Envoy has this one.
    pub fn has(&self, spelled: &[u8]) -> bool {
        self.all.contains_key(spelled)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many do not stay.
    pub fn others(&self) -> usize {
        self.others
    }

    /// Envoy has this one, from now on.
    pub fn take(&mut self, spelled: &[u8], minted: Minted, version: String, not_after_ms: u64, told: Instant) {
        self.leave(spelled);
        let stays = stays(spelled, &minted);
        self.others += usize::from(!stays);
        self.came += 1;
        let subscription = Subscription { minted, stays, version, not_after_ms, told, order: self.came };
        self.all.insert(spelled.to_vec(), subscription);
    }

    /// Envoy no longer has this one.
    pub fn leave(&mut self, spelled: &[u8]) {
        if let Some(left) = self.all.remove(spelled) {
            self.others -= usize::from(!left.stays);
        }
    }

    /// The oldest of those that do not stay leaves; its name.
    pub fn make_room(&mut self) -> Option<Vec<u8>> {
        let others = self.all.iter().filter(|(_, subscription)| !subscription.stays);
        let oldest = others.min_by_key(|(_, subscription)| subscription.order).map(|(spelled, _)| spelled.clone())?;
        self.leave(&oldest);
        Some(oldest)
    }

    /// Those of which `wanted` holds.
    pub fn select(&self, wanted: impl Fn(&Subscription) -> bool) -> Vec<(Vec<u8>, Subscription)> {
        let found = self.all.iter().filter(|(_, subscription)| wanted(subscription));
        found.map(|(spelled, subscription)| (spelled.clone(), subscription.clone())).collect()
    }

    /// Envoy has heard of it again.
    pub fn told(&mut self, spelled: &[u8], now: Instant) {
        if let Some(subscription) = self.all.get_mut(spelled) {
            subscription.told = now;
        }
    }
}

/// Whether a name stays. There are as many as the policy names; other spellings of them are without number.
pub(super) fn stays(spelled: &[u8], minted: &Minted) -> bool {
    minted.is_named && minted.name.as_bytes() == spelled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(subscriptions: &mut Subscriptions, spelled: &str, is_named: bool) {
        let minted = Minted { name: spelled.to_ascii_lowercase(), is_named };
        subscriptions.take(spelled.as_bytes(), minted, String::new(), 0, Instant::now());
    }

    #[test]
    fn the_oldest_other_makes_room() {
        let mut subscriptions = Subscriptions::default();
        take(&mut subscriptions, "named.example", true);
        for other in ["Named.example", "b.example", "c.example"] {
            take(&mut subscriptions, other, other.starts_with('N'));
        }
        assert_eq!(subscriptions.others(), 3);
        take(&mut subscriptions, "b.example", false);
        assert_eq!(subscriptions.others(), 3, "the same again is no other");
        let left: Vec<_> = std::iter::from_fn(|| subscriptions.make_room()).collect();
        assert_eq!(left, [&b"Named.example"[..], b"c.example", b"b.example"]);
        assert!(subscriptions.has(b"named.example") && subscriptions.others() == 0);
        subscriptions.leave(b"named.example");
        assert!(subscriptions.is_empty());
    }
}
