//! How many bytes of bodies a node keeps in memory at once. What a call reads is counted before it is read, and given back when
//! a replica has answered. A body that finds no room waits a moment, and then its call is refused: the caller can come back, a
//! node without memory cannot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::gateway::refusal::Refusal;

/// A smaller body is not counted: there are as many of them as connections, and none ever waits behind large ones.
const FREE: usize = 64 * 1024;
/// How long a body waits for room.
const WAIT: Duration = Duration::from_secs(5);
/// Users are forgotten when there are so many.
const USERS_MAX: usize = 1024;

/// The room for bodies. Cloning shares it.
#[derive(Clone)]
pub(in crate::gateway) struct BodyBudget(Arc<Inner>);

struct Inner {
    node: Arc<Semaphore>,
    /// What one user may have of it, so that the others find room.
    user_max: usize,
    users: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// What one call keeps of the room. Dropping it gives it back.
#[derive(Debug)]
pub(in crate::gateway) struct BodyHold {
    node: Arc<Semaphore>,
    user: Arc<Semaphore>,
    held: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl BodyBudget {
    /// Room for `bytes`, of which one user has at most half.
    pub(in crate::gateway) fn new(bytes: usize) -> BodyBudget {
        let node = Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)));
        BodyBudget(Arc::new(Inner { node, user_max: bytes / 2, users: Mutex::default() }))
    }

    /// A hold of nothing yet, for a call of `user`.
    pub(in crate::gateway) fn open(&self, user: &str) -> BodyHold {
        let mut users = self.0.users.lock().unwrap_or_else(PoisonError::into_inner);
        let known = users.get(user).and_then(Weak::upgrade);
        let user = known.unwrap_or_else(|| {
            if users.len() >= USERS_MAX {
                users.retain(|_, user| user.strong_count() > 0);
            }
            let fresh = Arc::new(Semaphore::new(self.0.user_max.min(Semaphore::MAX_PERMITS)));
            users.insert(user.to_owned(), Arc::downgrade(&fresh));
            fresh
        });
        BodyHold { node: self.0.node.clone(), user, held: None }
    }
}

impl BodyHold {
    /// Holds `bytes` in all, and waits for them if need be. Errors: there is no room.
    pub(in crate::gateway) async fn grow_to(&mut self, bytes: usize) -> Result<(), Refusal> {
        if bytes <= FREE {
            return Ok(());
        }
        let more = bytes.saturating_sub(self.bytes());
        let Ok(more) = u32::try_from(more) else { return Err(Refusal::NoRoom) };
        if more == 0 {
            return Ok(());
        }
        // The user's first: who waits for that keeps nothing of what others need.
        let wait = async {
            let user = self.user.clone().acquire_many_owned(more).await;
            let node = self.node.clone().acquire_many_owned(more).await;
            user.ok().zip(node.ok())
        };
        let found = timeout(WAIT, wait).await.ok().flatten().ok_or(Refusal::NoRoom)?;
        match &mut self.held {
            Some((user, node)) => {
                user.merge(found.0);
                node.merge(found.1);
            }
            held => *held = Some(found),
        }
        Ok(())
    }

    /// Gives back all but `bytes`.
    pub(in crate::gateway) fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes().saturating_sub(bytes);
        if let Some((user, node)) = &mut self.held {
            drop((user.split(less), node.split(less)));
        }
    }

    fn bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |(user, _)| user.num_permits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[tokio::test(start_paused = true)]
    async fn a_body_waits_for_room_and_is_refused_if_there_is_none() {
        let budget = BodyBudget::new(8 * MIB);
        let (mut ann, mut bob, mut eve) = (budget.open("ann"), budget.open("bob"), budget.open("eve"));
        ann.grow_to(4 * MIB).await.unwrap();
        let mut again = budget.open("ann");
        assert!(matches!(again.grow_to(MIB).await, Err(Refusal::NoRoom)), "one user has half of it at most");
        again.grow_to(FREE).await.unwrap();
        bob.grow_to(3 * MIB).await.unwrap();
        assert!(matches!(eve.grow_to(2 * MIB).await, Err(Refusal::NoRoom)));
        // What is given back is found by who waits.
        let waiting = tokio::spawn(async move { eve.grow_to(4 * MIB).await.map(|()| eve) });
        tokio::time::sleep(Duration::from_secs(1)).await;
        ann.shrink_to(MIB);
        let eve = waiting.await.unwrap().unwrap();
        assert_eq!((ann.bytes(), eve.bytes()), (MIB, 4 * MIB));
        drop((ann, bob, eve));
        assert_eq!(budget.0.node.available_permits(), 8 * MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_grows_and_users_are_forgotten() {
        let budget = BodyBudget::new(8 * MIB);
        let mut hold = budget.open("ann");
        for bytes in [FREE, 2 * FREE, MIB, MIB, 4 * MIB] {
            hold.grow_to(bytes).await.unwrap();
        }
        assert_eq!(budget.0.node.available_permits(), 4 * MIB);
        for number in 0..2 * USERS_MAX {
            budget.open(&format!("user {number}"));
        }
        assert!(budget.0.users.lock().unwrap().len() <= USERS_MAX);
        assert!(budget.open("ann").user.available_permits() == 0, "who holds something is not");
    }
}
