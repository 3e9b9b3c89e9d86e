//! Things that wait for their counterpart, by key and in the order in which they came.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// Slots there are at most, emptied ones between others included: a busy hour's ten seconds.
const SLOTS: usize = 1 << 17;

/// Bounded: what comes when it is full pushes the oldest off.
pub struct Shelf<T> {
    most: usize,
    waiting: usize,
    /// In the order of arrival; `None` where the counterpart has come.
    slots: VecDeque<Option<Slot<T>>>,
    /// The number of the first slot.
    first: u64,
    /// The numbers of what waits under a key, oldest first: a key may come more than once.
    by_key: HashMap<u64, VecDeque<u64>>,
}

struct Slot<T> {
    key: u64,
    since: Instant,
    thing: T,
}

impl<T> Shelf<T> {
    /// An empty one, for so many things.
    pub fn new(most: usize) -> Self {
        Self { most, waiting: 0, slots: VecDeque::new(), first: 0, by_key: HashMap::new() }
    }

    /// How many things are there.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Puts a thing there; answers with what it pushed off.
    pub fn put(&mut self, key: u64, since: Instant, thing: T) -> Option<T> {
        let full = self.waiting >= self.most || self.slots.len() >= SLOTS;
        let pushed = if full { self.pop() } else { None };
        self.waiting += 1;
        let number = self.first.saturating_add(self.slots.len() as u64);
        self.by_key.entry(key).or_default().push_back(number);
        self.slots.push_back(Some(Slot { key, since, thing }));
        pushed
    }

    /// Takes the oldest thing with this key.
    pub fn take(&mut self, key: u64) -> Option<T> {
        let number = self.by_key.get_mut(&key)?.pop_front()?;
        self.by_key.get(&key).is_some_and(VecDeque::is_empty).then(|| self.by_key.remove(&key));
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let found = self.slots.get_mut(at)?.take();
        self.waiting -= usize::from(found.is_some());
        while self.slots.front().is_some_and(Option::is_none) {
            self.drop_first();
        }
        found.map(|slot| slot.thing)
    }

    /// Takes the oldest thing, if it has been there since `deadline` or longer.
    pub fn overdue(&mut self, deadline: Instant) -> Option<T> {
        // The first slot is never empty.
        let late = self.slots.front()?.as_ref().is_some_and(|slot| slot.since <= deadline);
        if late { self.pop() } else { None }
    }

    fn pop(&mut self) -> Option<T> {
        let key = self.slots.front()?.as_ref()?.key;
        self.take(key)
    }

    fn drop_first(&mut self) {
        self.slots.pop_front();
        self.first = self.first.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn things_are_found_by_key_the_oldest_first() {
        let (now, mut shelf) = (Instant::now(), Shelf::new(10));
        for (key, thing) in [(1, "a"), (2, "b"), (1, "c")] {
            assert_eq!(shelf.put(key, now, thing), None);
        }
        assert_eq!((shelf.take(2), shelf.take(2)), (Some("b"), None));
        assert_eq!((shelf.take(1), shelf.take(1), shelf.take(1)), (Some("a"), Some("c"), None));
        assert!(shelf.slots.is_empty() && shelf.by_key.is_empty(), "nothing is left behind");
        assert_eq!(shelf.put(1, now, "d"), None);
        assert_eq!(shelf.take(1), Some("d"));
    }

    #[test]
    fn what_waits_too_long_is_overdue_in_order() {
        let (now, mut shelf) = (Instant::now(), Shelf::new(10));
        let at = |s| now + Duration::from_secs(s);
        for second in 0..4 {
            shelf.put(second, at(second), second);
        }
        shelf.take(1);
        assert_eq!([shelf.overdue(at(2)), shelf.overdue(at(2)), shelf.overdue(at(2))], [Some(0), Some(2), None]);
    }

    #[test]
    fn it_is_bounded() {
        let (now, mut shelf) = (Instant::now(), Shelf::new(2));
        assert_eq!([shelf.put(1, now, 1), shelf.put(2, now, 2), shelf.put(3, now, 3)], [None, None, Some(1)]);
        assert_eq!((shelf.take(1), shelf.take(2), shelf.slots.len()), (None, Some(2), 1));
    }
}
