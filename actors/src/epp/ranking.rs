//! A ranking: the replicas of a pool in the order in which one call tries them.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::pool::Pool;
use super::route::Route;
use super::{CallShape, NoReplica};

/// The replicas that may get one call, best first, and after them those that may get it if no other takes calls.
pub struct Ranking<'a> {
    pool: Arc<Pool>,
    call: CallShape<'a>,
    /// Indexes of the pool's replicas, the best last.
    left: Vec<usize>,
    has_started: bool,
    has_retried: bool,
}

impl<'a> Ranking<'a> {
    /// `order` has the best first.
    pub(super) fn new(pool: Arc<Pool>, call: CallShape<'a>, mut order: Vec<usize>) -> Ranking<'a> {
        order.reverse();
        Ranking { pool, call, left: order, has_started: false, has_retried: false }
    }

    /// A route to the best replica that is left, with its in-flight count raised. A replica that has stopped taking calls since it
    /// was ranked is passed over.
    /// Errors: there was none, or the call has tried them all.
    pub fn next_route(&mut self) -> Result<Route, NoReplica> {
        let now = Instant::now();
        while let Some(index) = self.left.pop() {
            if let Some(route) = self.pool.start(index, &self.call, now) {
                if !std::mem::replace(&mut self.has_started, true) {
                    self.pool.count_call(now);
                }
                return Ok(route);
            }
        }
        Err(if self.has_started { NoReplica::Exhausted } else { NoReplica::Unhealthy })
    }

    /// A route for the call's one retry. `None`: it had its retry, the pool's retry budget is used up, or no replica is left.
    pub fn retry(&mut self) -> Option<Route> {
        if self.has_retried || self.left.is_empty() || !self.pool.take_retry(Instant::now()) {
            return None;
        }
        self.has_retried = true;
        let route = self.next_route().ok();
        if route.is_none() {
            self.pool.give_back_retry();
        }
        route
    }
}

impl fmt::Debug for Ranking<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ranking").field("pool", &self.pool).field("left", &self.left).finish_non_exhaustive()
    }
}
