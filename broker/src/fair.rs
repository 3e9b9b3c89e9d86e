//! A bounded queue that several owners share: when it is full, whoever has most in it loses his newest. So nobody
//! who fills it pushes off what is another's.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

/// What waits, by owner.
#[derive(Debug)]
pub struct Fair<T> {
    most: usize,
    waiting: usize,
    /// No owner here has nothing.
    by_owner: BTreeMap<String, VecDeque<T>>,
    /// Whose turn it was.
    last: String,
}

impl<T> Fair<T> {
    /// An empty one, for so many things.
    pub fn new(most: usize) -> Self {
        Self { most, waiting: 0, by_owner: BTreeMap::new(), last: String::new() }
    }

    /// How many things are there.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Puts a thing there; answers with what had no room: another's, or this.
    pub fn push(&mut self, owner: &str, thing: T) -> Option<T> {
        let mut lost = None;
        if self.waiting >= self.most {
            let own = self.by_owner.get(owner).map_or(0, VecDeque::len);
            let greediest = self.by_owner.iter().max_by_key(|(_, things)| things.len());
            match greediest.filter(|(_, things)| things.len() > own + 1).map(|(name, _)| name.clone()) {
                Some(greediest) => lost = self.take_newest(&greediest),
                None => return Some(thing),
            }
        }
        self.waiting += 1;
        match self.by_owner.get_mut(owner) {
            Some(things) => things.push_back(thing),
            None => drop(self.by_owner.insert(owner.to_owned(), VecDeque::from([thing]))),
        }
        lost
    }

    /// Takes the oldest thing of the owner whose turn it is: each has his in turn.
    pub fn pop(&mut self) -> Option<T> {
        let later = (Bound::Excluded(self.last.as_str()), Bound::Unbounded);
        let next = self.by_owner.range::<str, _>(later).next().or_else(|| self.by_owner.iter().next());
        self.last = next?.0.clone();
        let owner = self.last.clone();
        self.remove(&owner, |_| true)
    }

    /// Takes an owner's oldest thing of which this holds.
    pub fn remove(&mut self, owner: &str, is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let things = self.by_owner.get_mut(owner)?;
        let taken = things.iter().position(is_it).and_then(|at| things.remove(at));
        self.left(owner, taken)
    }

    fn take_newest(&mut self, owner: &str) -> Option<T> {
        let taken = self.by_owner.get_mut(owner).and_then(VecDeque::pop_back);
        self.left(owner, taken)
    }

    fn left(&mut self, owner: &str, taken: Option<T>) -> Option<T> {
        self.waiting -= usize::from(taken.is_some());
        if self.by_owner.get(owner).is_some_and(VecDeque::is_empty) {
            self.by_owner.remove(owner);
        }
        taken
    }
}

impl<T> Iterator for Fair<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.pop()
    }
}

/// How many each may have at most, so that all together have no more than `most`: who has less, keeps what he has.
pub fn share(counts: impl IntoIterator<Item = usize>, most: usize) -> usize {
    let mut counts: Vec<usize> = counts.into_iter().collect();
    counts.sort_unstable();
    let (mut left, mut owners) = (most, counts.len());
    for count in counts {
        let each = left / owners.max(1);
        if count > each {
            return each;
        }
        left -= count;
        owners -= 1;
    }
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fills_it_loses_his_own_and_nobody_elses() {
        let mut queue = Fair::new(4);
        assert!((1..=4).all(|n| queue.push("greedy", n).is_none()));
        assert_eq!(queue.push("greedy", 5), Some(5));
        assert_eq!((queue.push("modest", 10), queue.push("modest", 11)), (Some(4), Some(3)));
        assert_eq!(queue.push("modest", 12), Some(12), "as many as the other by now");
        assert_eq!((queue.len(), queue.by_ref().collect::<Vec<_>>()), (4, vec![1, 10, 2, 11]));
        assert!(queue.is_empty() && queue.by_owner.is_empty());
    }

    #[test]
    fn things_are_taken_in_turn_and_by_what_they_are() {
        let mut queue = Fair::new(10);
        for (owner, thing) in [("b", 1), ("b", 2), ("b", 3), ("a", 4)] {
            queue.push(owner, thing);
        }
        assert_eq!(
            (queue.remove("b", |n| *n == 2), queue.remove("b", |n| *n == 2), queue.remove("c", |_| true)),
            (Some(2), None, None)
        );
        assert_eq!(queue.collect::<Vec<_>>(), [4, 1, 3]);
    }

    #[test]
    fn a_share_is_no_less_than_what_is_left_by_those_who_need_less() {
        assert_eq!(share([1, 2, 100], 10), 7);
        assert_eq!(share([6, 6], 10), 5);
        assert_eq!((share([3, 4], 10), share([], 10)), (usize::MAX, usize::MAX));
    }
}
