//! Shares: of what a node has for all users at once, one user has a part at most, so that nobody takes it from the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much there is. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Shares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    what: &'static str,
    max: usize,
    per_user_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    /// Users that have none are not in it.
    by_user: BTreeMap<String, usize>,
}

/// One of them. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Share {
    shares: Shares,
    user: String,
}

/// There is none left.
#[derive(PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum NoShare {
    /// For this user.
    #[error("you have {0} {1} at this node, which is the most for one user: end one and try again")]
    OfUser(usize, &'static str),
    /// For anybody.
    #[error("this node has {0} {1}, which is the most for all users: try again in a moment, or at another node")]
    InAll(usize, &'static str),
}

impl Shares {
    /// `max` of `what` (in the plural) for all, of which one user has at most `per_user_max`.
    pub(super) fn new(what: &'static str, max: usize, per_user_max: usize) -> Shares {
        Shares(Arc::new(Inner { what, max, per_user_max, taken: Mutex::default() }))
    }

    /// Takes one for `user`.
    pub(super) fn take(&self, user: &str) -> Result<Share, NoShare> {
        let Inner { what, max, per_user_max, .. } = *self.0;
        let mut taken = self.taken();
        let of_user = taken.by_user.get(user).copied().unwrap_or(0);
        if of_user >= per_user_max {
            return Err(NoShare::OfUser(per_user_max, what));
        }
        if taken.in_all >= max {
            return Err(NoShare::InAll(max, what));
        }
        taken.in_all += 1;
        taken.by_user.insert(user.to_owned(), of_user + 1);
        drop(taken);
        Ok(Share { shares: self.clone(), user: user.to_owned() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken();
        taken.in_all -= 1;
        match taken.by_user.get_mut(&self.user) {
            Some(of_user) if *of_user > 1 => *of_user -= 1,
            _ => drop(taken.by_user.remove(&self.user)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_part_of_them_and_what_is_dropped_comes_back() {
        let shares = Shares::new("watches", 3, 2);
        let (first, second) = (shares.take("ann").unwrap(), shares.take("ann").unwrap());
        assert_eq!(shares.take("ann").unwrap_err(), NoShare::OfUser(2, "watches"));
        let third = shares.take("bob").unwrap();
        assert_eq!(shares.take("eve").unwrap_err(), NoShare::InAll(3, "watches"));
        drop(first);
        let fourth = shares.take("eve").unwrap();
        drop((second, third, fourth));
        assert!(shares.taken().by_user.is_empty(), "who has none is forgotten");
        assert_eq!(shares.taken().in_all, 0);
    }
}
