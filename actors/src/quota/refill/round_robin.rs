//! Round robin: who has something to tell is heard in turn, however many there are and however soon those who were heard have something again.

use std::collections::BTreeSet;

/// Ids that wait for their turn.
#[derive(Default)]
pub(super) struct RoundRobin {
    waiting: BTreeSet<u64>,
    /// Who comes next, or the first one after that.
    next: u64,
}

impl RoundRobin {
    pub(super) fn insert(&mut self, id: u64) {
        self.waiting.insert(id);
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.waiting.remove(&id);
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.waiting.contains(&id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes out whose turn it is.
    pub(super) fn next(&mut self) -> Option<u64> {
        let id = *self.waiting.range(self.next..).next().or_else(|| self.waiting.first())?;
        self.waiting.remove(&id);
        self.next = id + 1;
        Some(id)
    }
}

impl Extend<u64> for RoundRobin {
    fn extend<I: IntoIterator<Item = u64>>(&mut self, ids: I) {
        self.waiting.extend(ids);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_turn_though_some_always_have_something_to_tell() {
        let mut round_robin = RoundRobin::default();
        round_robin.extend(0..10);
        let mut heard = Vec::new();
        for _ in 0..4 {
            // A batch takes four of them, which have something to tell again before the next.
            let told: Vec<u64> = (0..4).filter_map(|_| round_robin.next()).collect();
            round_robin.extend(told.iter().copied());
            heard.push(told);
        }
        assert_eq!(heard, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1], [2, 3, 4, 5]]);
    }

    #[test]
    fn who_has_nothing_to_tell_has_no_turn() {
        let mut round_robin = RoundRobin::default();
        assert_eq!((round_robin.next(), round_robin.is_empty()), (None, true));
        round_robin.extend([7, 3, 5]);
        round_robin.remove(5);
        assert!(round_robin.contains(7) && !round_robin.contains(5));
        assert_eq!([round_robin.next(), round_robin.next(), round_robin.next()], [Some(3), Some(7), None]);
        round_robin.insert(1);
        assert_eq!(round_robin.next(), Some(1), "round to the beginning");
    }
}
