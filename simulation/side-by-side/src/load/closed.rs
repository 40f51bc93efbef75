//! Closed loop: every connection calls again as soon as it has its answer.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::Run;
use super::call::Chance;
use super::connection::Connection;

/// After a failure, so that a gateway that refuses everything is not flooded.
const PAUSE: Duration = Duration::from_millis(10);

/// Calls over `connections` connections until the run's end, and waits for the last answers.
pub(super) async fn drive(run: &Rc<Run>, connections: u32, ramp: Duration, seed: u64) {
    let mut loops = JoinSet::new();
    for index in 0..connections {
        let delay = ramp * index / connections;
        loops.spawn_local(call_again(Connection::new(run.clone()), run.clone(), delay, Chance::new(seed, index)));
    }
    while let Ok(Some(_)) = timeout_at(run.deadline, loops.join_next()).await {}
    run.tally.borrow_mut().unfinished = loops.len();
}

async fn call_again(mut connection: Connection, run: Rc<Run>, delay: Duration, mut chance: Chance) {
    sleep(delay).await;
    while Instant::now() < run.end {
        run.calls.write(&mut chance, &mut connection.request);
        if !connection.call().await {
            sleep(PAUSE).await;
        }
    }
}
