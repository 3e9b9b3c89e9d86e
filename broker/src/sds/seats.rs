//! What one stream of Envoy's has been given: names and versions, no certificate and no key.

use crate::ca::Minted;
use std::collections::HashMap;
use std::time::Instant;

/// One certificate that Envoy has.
#[derive(Clone, Debug)]
pub(super) struct Seat {
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
pub(super) struct Seats {
    all: HashMap<Vec<u8>, Seat>,
    /// How many do not stay.
    others: usize,
    came: u64,
}

impl Seats {
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
        let seat = Seat { minted, stays, version, not_after_ms, told, order: self.came };
        self.all.insert(spelled.to_vec(), seat);
    }

    /// Envoy no longer has this one.
    pub fn leave(&mut self, spelled: &[u8]) {
        if let Some(left) = self.all.remove(spelled) {
            self.others -= usize::from(!left.stays);
        }
    }

    /// The oldest of those that do not stay leaves; its name.
    pub fn make_room(&mut self) -> Option<Vec<u8>> {
        let others = self.all.iter().filter(|(_, seat)| !seat.stays);
        let oldest = others.min_by_key(|(_, seat)| seat.order).map(|(spelled, _)| spelled.clone())?;
        self.leave(&oldest);
        Some(oldest)
    }

    /// Those of which `wanted` holds.
    pub fn select(&self, wanted: impl Fn(&Seat) -> bool) -> Vec<(Vec<u8>, Seat)> {
        let found = self.all.iter().filter(|(_, seat)| wanted(seat));
        found.map(|(spelled, seat)| (spelled.clone(), seat.clone())).collect()
    }

    /// Envoy has heard of it again.
    pub fn told(&mut self, spelled: &[u8], now: Instant) {
        if let Some(seat) = self.all.get_mut(spelled) {
            seat.told = now;
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

    fn take(seats: &mut Seats, spelled: &str, is_named: bool) {
        let minted = Minted { name: spelled.to_ascii_lowercase(), is_named };
        seats.take(spelled.as_bytes(), minted, String::new(), 0, Instant::now());
    }

    #[test]
    fn the_oldest_other_makes_room() {
        let mut seats = Seats::default();
        take(&mut seats, "named.example", true);
        for other in ["Named.example", "b.example", "c.example"] {
            take(&mut seats, other, other.starts_with('N'));
        }
        assert_eq!(seats.others(), 3);
        take(&mut seats, "b.example", false);
        assert_eq!(seats.others(), 3, "the same again is no other");
        let left: Vec<_> = std::iter::from_fn(|| seats.make_room()).collect();
        assert_eq!(left, [&b"Named.example"[..], b"c.example", b"b.example"]);
        assert!(seats.has(b"named.example") && seats.others() == 0);
        seats.leave(b"named.example");
        assert!(seats.is_empty());
    }
}
