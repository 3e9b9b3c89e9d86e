//! Things that wait for their counterpart, by key and in the order in which they came. Each Envoy has a shelf of its
//! own, and all of them one room: who fills it pushes off what is his.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// Slots there are at most, emptied ones between others included: a busy hour's ten seconds.
const SLOTS: usize = 1 << 17;

/// The shelves of all owners. What comes when they are full pushes off the oldest of whoever has most.
pub struct Shelves<T> {
    most: usize,
    waiting: usize,
    slots: usize,
    by_owner: HashMap<String, Shelf<T>>,
}

/// One owner's.
struct Shelf<T> {
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

impl<T> Shelves<T> {
    /// Empty ones, for so many things together.
    pub fn new(most: usize) -> Self {
        Self { most, waiting: 0, slots: 0, by_owner: HashMap::new() }
    }

    /// How many things are there.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Puts a thing on its owner's shelf; answers with what was pushed off one.
    pub fn put(&mut self, owner: &str, key: u64, since: Instant, thing: T) -> Option<T> {
        let pushed = if self.waiting >= self.most {
            self.push_off(|shelf| shelf.waiting)
        } else if self.slots >= SLOTS {
            self.push_off(Shelf::slots)
        } else {
            None
        };
        match self.by_owner.get_mut(owner) {
            Some(shelf) => shelf.put(key, since, thing),
            None => {
                let mut shelf = Shelf::new();
                shelf.put(key, since, thing);
                self.by_owner.insert(owner.to_owned(), shelf);
            }
        }
        (self.waiting, self.slots) = (self.waiting + 1, self.slots + 1);
        pushed
    }

    /// Takes the oldest thing with this key off its owner's shelf.
    pub fn take(&mut self, owner: &str, key: u64) -> Option<T> {
        self.at(owner, |shelf| shelf.take(key))
    }

    /// Takes a thing that has been there since `deadline` or longer, the oldest of its owner.
    pub fn overdue(&mut self, deadline: Instant) -> Option<T> {
        let owner = self.by_owner.iter().find(|(_, shelf)| shelf.is_overdue(deadline))?.0.clone();
        self.at(&owner, Shelf::pop)
    }

    fn push_off(&mut self, size: impl Fn(&Shelf<T>) -> usize) -> Option<T> {
        let greediest = self.by_owner.iter().max_by_key(|(_, shelf)| size(shelf))?.0.clone();
        self.at(&greediest, Shelf::pop)
    }

    fn at(&mut self, owner: &str, take: impl FnOnce(&mut Shelf<T>) -> Option<T>) -> Option<T> {
        let shelf = self.by_owner.get_mut(owner)?;
        let before = shelf.slots();
        let taken = take(shelf);
        self.slots -= before - shelf.slots();
        self.waiting -= usize::from(taken.is_some());
        if shelf.slots() == 0 {
            self.by_owner.remove(owner);
        }
        taken
    }
}

impl<T> Shelf<T> {
    fn new() -> Self {
        Self { waiting: 0, slots: VecDeque::new(), first: 0, by_key: HashMap::new() }
    }

    /// How many slots are taken up.
    fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Puts a thing there.
    fn put(&mut self, key: u64, since: Instant, thing: T) {
        self.waiting += 1;
        let number = self.first.saturating_add(self.slots.len() as u64);
        self.by_key.entry(key).or_default().push_back(number);
        self.slots.push_back(Some(Slot { key, since, thing }));
    }

    /// Takes the oldest thing with this key.
    fn take(&mut self, key: u64) -> Option<T> {
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

    /// Whether the oldest thing has been there since `deadline` or longer.
    fn is_overdue(&self, deadline: Instant) -> bool {
        // The first slot is never empty.
        self.slots.front().and_then(Option::as_ref).is_some_and(|slot| slot.since <= deadline)
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
        let (now, mut shelves) = (Instant::now(), Shelves::new(10));
        for (key, thing) in [(1, "a"), (2, "b"), (1, "c")] {
            assert_eq!(shelves.put("", key, now, thing), None);
        }
        assert_eq!(shelves.take("another", 2), None);
        assert_eq!((shelves.take("", 2), shelves.take("", 2)), (Some("b"), None));
        assert_eq!((shelves.take("", 1), shelves.take("", 1), shelves.take("", 1)), (Some("a"), Some("c"), None));
        assert!(shelves.by_owner.is_empty() && shelves.slots == 0, "nothing is left behind");
        assert_eq!(shelves.put("", 1, now, "d"), None);
        assert_eq!(shelves.take("", 1), Some("d"));
    }

    #[test]
    fn what_waits_too_long_is_overdue_in_order() {
        let (now, mut shelves) = (Instant::now(), Shelves::new(10));
        let at = |s| now + Duration::from_secs(s);
        for second in 0..4 {
            shelves.put("", second, at(second), second);
        }
        shelves.take("", 1);
        assert_eq!([shelves.overdue(at(2)), shelves.overdue(at(2)), shelves.overdue(at(2))], [Some(0), Some(2), None]);
    }

    #[test]
    fn they_are_bounded_and_who_fills_them_pushes_off_his_own() {
        let (now, mut shelves) = (Instant::now(), Shelves::new(3));
        assert_eq!(shelves.put("modest", 9, now, 9), None);
        assert_eq!([1, 2, 3, 4].map(|n| shelves.put("greedy", n, now, n)), [None, None, Some(1), Some(2)]);
        assert_eq!((shelves.take("modest", 9), shelves.take("greedy", 3), shelves.waiting()), (Some(9), Some(3), 1));
    }
}
