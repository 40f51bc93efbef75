//! Open loop: calls start on a schedule, whatever became of those before.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{interval, timeout_at};

use super::Run;
use super::call::Chance;
use super::connection::Connection;

/// Starts `rate` calls a second until the run's end, and waits for the last answers.
///
/// A call may start up to a millisecond late, the precision of the timer; its latency counts from when it did start, and
/// no call waits for another, so nothing is hidden by that.
pub(super) async fn drive(run: &Rc<Run>, rate: f64, seed: u64) {
    let mut chance = Chance::new(seed, 0);
    let mut schedule = interval(Duration::from_secs_f64(1.0 / rate));
    let idle: Rc<RefCell<Vec<Connection>>> = Rc::default();
    let mut calls = JoinSet::new();
    while schedule.tick().await < run.end {
        let mut connection = idle.borrow_mut().pop().unwrap_or_else(|| Connection::new(run.clone()));
        run.calls.write(&mut chance, &mut connection.request);
        let idle = idle.clone();
        calls.spawn_local(async move {
            connection.call().await;
            idle.borrow_mut().push(connection);
        });
        while calls.try_join_next().is_some() {}
    }
    while let Ok(Some(_)) = timeout_at(run.deadline, calls.join_next()).await {}
    run.tally.borrow_mut().unfinished = calls.len();
}
