//! Quota and a ledger that is slow or gone, how often it is told, and what a failure of the quota actor costs.

use std::time::Duration;

use actors::{Permit, QuotaRefusal, Reservation};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::quota::{LATER, SOON, ledger, meter, reserve};
use crate::support::{Node, amount, charge};

/// How long calls wait by default for what calls in progress hold, and for the ledger.
const HELD_WAIT: Duration = Duration::from_secs(2);
const LEDGER_WAIT: Duration = Duration::from_secs(10);
/// No time, but for timers that are a bit late.
const AT_ONCE: Duration = Duration::from_millis(10);

/// What a call got, and how long it waited.
type Waited = (Result<Reservation, QuotaRefusal>, Duration);

/// A call that waits on its own, and has begun to.
async fn waiting(node: &Node, permit: &Permit, tokens: u64) -> JoinHandle<Waited> {
    let (quota, permit, before) = (node.actors.quota.clone(), permit.clone(), Instant::now());
    let call = tokio::spawn(async move { (quota.reserve(&permit, amount(tokens)).await, before.elapsed()) });
    tokio::time::sleep(AT_ONCE).await;
    call
}

/// Asserts that a limit refused the call after `expected`: with calls in progress in the way, not for the rest of the window.
fn assert_held((result, waited): Waited, expected: Duration) {
    let Err(QuotaRefusal::Exhausted { retry_after, .. }) = result else { panic!("{result:?}") };
    assert_eq!(retry_after, Duration::from_secs(1));
    assert!(waited >= expected && waited < expected + 2 * AT_ONCE, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_slow_ledger_longer_than_for_calls_in_progress() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(1000, "1h")]).await;
    node.disk.hang();
    let call = waiting(&node, &permit, 100).await;
    tokio::time::sleep(2 * HELD_WAIT).await;
    assert!(!call.is_finished());
    node.disk.go_on();
    assert_eq!(call.await.unwrap().0.unwrap().need().total(), 100);
}

#[tokio::test(start_paused = true)]
async fn without_a_ledger_a_call_is_refused_when_it_has_waited_long_enough_for_one() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(1000, "1h")]).await;
    node.disk.hang();
    let (result, waited) = waiting(&node, &permit, 100).await.await.unwrap();
    assert_eq!(result.unwrap_err(), QuotaRefusal::Unavailable);
    assert!(waited >= LEDGER_WAIT && waited < LEDGER_WAIT + AT_ONCE, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn what_calls_in_progress_hold_is_not_waited_for_as_long_as_the_ledger() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(100, "1h")]).await;
    let _in_progress = reserve(&node, &permit, 60).await.unwrap();

    // The acquire of a caller who left is on its way for ever; what the next one wants is held.
    node.disk.hang();
    let gone = waiting(&node, &permit, 30).await;
    gone.abort();
    let held = waiting(&node, &permit, 50).await;
    assert_held(held.await.unwrap(), HELD_WAIT);
    node.disk.go_on();
    tokio::time::sleep(LATER).await;

    // One that waits behind another is refused as soon as the other has its late answer.
    node.disk.hang();
    let served = waiting(&node, &permit, 40).await;
    let behind = waiting(&node, &permit, 50).await;
    tokio::time::sleep(2 * HELD_WAIT).await;
    assert!(!behind.is_finished());
    node.disk.go_on();
    let _in_progress_too = served.await.unwrap().0.unwrap();
    assert_held(behind.await.unwrap(), 2 * HELD_WAIT + AT_ONCE);
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_back_to_the_ledger_is_not_taken_for_amount() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(100, "1h")]).await;
    drop(reserve(&node, &permit, 100).await.unwrap());
    tokio::time::sleep(SOON).await;
    node.disk.hang();
    // Nobody uses it, so it goes back; it has not arrived when a call wants it.
    tokio::time::sleep(LATER).await;
    let call = waiting(&node, &permit, 100).await;
    tokio::time::sleep(HELD_WAIT / 2).await;
    node.disk.go_on();
    assert_eq!(call.await.unwrap().0.unwrap().need().total(), 100);
}

#[tokio::test(start_paused = true)]
async fn settlements_travel_in_twenty_batches_a_second_and_a_call_that_waits_does_not_wait_for_them() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(10_000, "1h")]).await;
    // All that they need is acquired before: from now on they only settle.
    drop(reserve(&node, &permit, 500).await.unwrap());
    let mut reservations = Vec::new();
    for _ in 0..500 {
        reservations.push(reserve(&node, &permit, 1).await.unwrap());
    }
    tokio::time::sleep(SOON).await;

    let applied = node.cluster.standing().applied;
    for reservation in reservations {
        tokio::time::sleep(Duration::from_millis(2)).await;
        reservation.settle(charge(1), None);
    }
    let batches = node.cluster.standing().applied - applied;
    assert!((15..=21).contains(&batches), "{batches} batches in a second");

    // A call that needs an acquire comes 10 ms after a batch; by now nothing is acquired ahead any more.
    let small = reserve(&node, &permit, 1).await.unwrap();
    tokio::time::sleep(LATER).await;
    let before = ledger(&node, 3600);
    small.settle(charge(1), None);
    tokio::time::sleep(AT_ONCE).await;
    assert_eq!((before, ledger(&node, 3600)), ((500, 1), (501, 0)));
    let asked = Instant::now();
    let _acquired = reserve(&node, &permit, 700).await.unwrap();
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    assert_eq!(ledger(&node, 3600), (501, 700));
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_quota_actor_loses_nothing_and_counts_nothing_twice() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(1000, "1h")]).await;
    let (first, second) = (reserve(&node, &permit, 100).await.unwrap(), reserve(&node, &permit, 50).await.unwrap());

    // A batch with a settlement and an acquire is on its way, and will arrive, when the actor fails.
    node.disk.hang();
    first.settle(charge(60), None);
    let call = waiting(&node, &permit, 200).await;
    node.clock.break_once();
    second.settle(charge(20), None);
    assert_eq!(call.await.unwrap().0.unwrap_err(), QuotaRefusal::Unavailable);
    assert!(!node.clock.is_broken());
    node.disk.go_on();

    tokio::time::sleep(SOON).await;
    reserve(&node, &permit, 300).await.unwrap().settle(charge(300), None);
    tokio::time::sleep(LATER).await;
    assert_eq!((ledger(&node, 3600), meter(&node, 3600).debt), ((380, 0), 0));
}
