//! Quota: what callers get of a limit, and what the ledger says afterwards.

use std::time::Duration;

use actors::quota::Amount;
use actors::{Permit, QuotaRefusal, Reservation};
use raft::resources::{Kind, LimitKind, LimitScope, Unit};
use raft::state::{Meter, MeterId, Subject};
use tokio::time::Instant;

use crate::support::{Node, amount, charge, charged};

/// Longer than it takes the refill to tell the ledger what it knows.
pub(crate) const SOON: Duration = Duration::from_millis(100);
/// Longer than unused tokens stay in the local allowance.
pub(crate) const LATER: Duration = Duration::from_secs(10);

pub(crate) async fn reserve(node: &Node, permit: &Permit, tokens: u64) -> Result<Reservation, QuotaRefusal> {
    node.actors.quota.reserve(permit, amount(tokens)).await
}

pub(crate) fn meter(node: &Node, window_seconds: u32) -> Meter {
    let id = MeterId {
        subscription: ("models-as-a-service".to_owned(), "dev".to_owned()),
        model: ("llm".to_owned(), "qwen".to_owned()),
        limit: LimitKind { window_seconds, unit: Unit::Total, scope: LimitScope::User },
        subject: Subject::User("ann".to_owned()),
    };
    node.cluster.view().meters.get(&id).map(|meter| Meter::clone(meter)).unwrap_or_default()
}

/// (settled, held by nodes) of the open window.
pub(crate) fn ledger(node: &Node, window_seconds: u32) -> (u64, u64) {
    let window = meter(node, window_seconds).window.unwrap();
    (window.settled, window.held())
}

/// (used, reserved, remaining, retry after) of a refusal by a limit.
fn refused(result: Result<Reservation, QuotaRefusal>) -> (u64, u64, u64, Duration) {
    match result.unwrap_err() {
        QuotaRefusal::Exhausted { standing, retry_after, .. } => {
            (standing.used, standing.reserved, standing.remaining, retry_after)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_reserved_is_held_and_what_is_settled_is_charged() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(1000, "1h")]).await;

    let reservation = reserve(&node, &permit, 100).await.unwrap();
    assert_eq!(reservation.need().total(), 100);
    assert_eq!(ledger(&node, 3600), (0, 100));

    reservation.settle(charge(60), Some(40));
    tokio::time::sleep(SOON).await;
    assert_eq!(ledger(&node, 3600), (60, 40));

    // What nobody uses goes back.
    tokio::time::sleep(LATER).await;
    assert_eq!(ledger(&node, 3600), (60, 0));
}

#[tokio::test(start_paused = true)]
async fn a_reservation_that_is_dropped_is_charged_what_was_observed() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(1000, "1h")]).await;

    let mut reservation = reserve(&node, &permit, 100).await.unwrap();
    reservation.observe(charge(10));
    reservation.observe(charge(30));
    drop(reservation);
    // One that never reached a replica costs nothing.
    drop(reserve(&node, &permit, 100).await.unwrap());

    tokio::time::sleep(LATER).await;
    assert_eq!(ledger(&node, 3600), (30, 0));
}

#[tokio::test(start_paused = true)]
async fn of_200_calls_at_once_a_limit_that_fits_50_admits_50() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(5000, "1h")]).await;

    let calls = (0..200).map(|_| {
        let (quota, permit) = (node.actors.quota.clone(), permit.clone());
        tokio::spawn(async move { quota.reserve(&permit, amount(100)).await })
    });
    let mut admitted = Vec::new();
    let mut refusals = 0;
    for call in calls.collect::<Vec<_>>() {
        match call.await.unwrap() {
            Ok(reservation) => admitted.push(reservation),
            Err(QuotaRefusal::Exhausted { retry_after, .. }) => {
                // Held by calls in progress: worth another try soon.
                assert_eq!(retry_after, Duration::from_secs(1));
                refusals += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((admitted.len(), refusals), (50, 150));
    assert_eq!(ledger(&node, 3600), (0, 5000));

    // What they do not use is there for the next ones, to the last token.
    for reservation in admitted {
        reservation.settle(charge(90), None);
    }
    let rest = reserve(&node, &permit, 500).await.unwrap();
    assert_eq!(refused(reserve(&node, &permit, 1).await).0, 4500);
    rest.settle(charge(500), None);
    tokio::time::sleep(SOON).await;
    assert_eq!(ledger(&node, 3600), (5000, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_tokens_that_another_call_gives_back() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(100, "1h")]).await;

    let first = reserve(&node, &permit, 80).await.unwrap();
    let (quota, of_second) = (node.actors.quota.clone(), permit.clone());
    let second = tokio::spawn(async move { quota.reserve(&of_second, amount(50)).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!second.is_finished());

    first.settle(charge(50), None);
    assert_eq!(second.await.unwrap().unwrap().need().total(), 50);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_spent_refuses_at_once_and_costs_the_ledger_nothing() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(100, "1h")]).await;
    reserve(&node, &permit, 100).await.unwrap().settle(charge(100), None);
    tokio::time::sleep(LATER).await;

    let applied = node.cluster.standing().applied;
    let before = Instant::now();
    for _ in 0..1000 {
        let (used, reserved, remaining, retry_after) = refused(reserve(&node, &permit, 1).await);
        assert_eq!((used, reserved, remaining), (100, 0, 0));
        assert!(retry_after > Duration::from_secs(3580), "{retry_after:?}");
    }
    assert_eq!(Instant::now(), before);
    assert_eq!(node.cluster.standing().applied, applied);
}

#[tokio::test(start_paused = true)]
async fn a_window_that_ends_opens_again() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(100, "60s")]).await;
    for _ in 0..2 {
        reserve(&node, &permit, 100).await.unwrap().settle(charge(100), None);
        let (used, _, _, retry_after) = refused(reserve(&node, &permit, 100).await);
        assert_eq!(used, 100);
        // `Retry-After` is true: a moment earlier is too early, then it passes.
        tokio::time::sleep(retry_after - Duration::from_secs(1)).await;
        assert_eq!(refused(reserve(&node, &permit, 100).await).0, 100);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_outlives_its_window_is_charged_there_and_not_in_the_next() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(100, "60s")]).await;
    let old = reserve(&node, &permit, 80).await.unwrap();
    tokio::time::sleep(Duration::from_secs(61)).await;

    let new = reserve(&node, &permit, 100).await.unwrap();
    old.settle(charge(80), None);
    tokio::time::sleep(SOON).await;
    assert_eq!(ledger(&node, 60), (0, 100));
    new.settle(charge(100), None);
    tokio::time::sleep(SOON).await;
    assert_eq!(ledger(&node, 60), (100, 0));
}

#[tokio::test(start_paused = true)]
async fn of_two_limits_the_smaller_refuses_and_nothing_leaks_from_the_larger() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(300, "1h"), (100, "60s")]).await;

    reserve(&node, &permit, 100).await.unwrap().settle(charge(100), None);
    for _ in 0..10 {
        let (used, _, remaining, _) = refused(reserve(&node, &permit, 50).await);
        assert_eq!((used, remaining), (100, 0));
    }
    tokio::time::sleep(LATER).await;
    assert_eq!((ledger(&node, 60), ledger(&node, 3600)), ((100, 0), (100, 0)));

    // Each further window of the smaller one adds to the larger one, until that refuses.
    for window in 2..4 {
        tokio::time::sleep(Duration::from_secs(61)).await;
        reserve(&node, &permit, 100).await.unwrap().settle(charge(100), None);
        tokio::time::sleep(SOON).await;
        assert_eq!(ledger(&node, 3600).0, window * 100);
    }
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(refused(reserve(&node, &permit, 50).await).0, 300);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_alone_is_admitted_on_the_rest_of_a_limit_and_owes_what_it_uses_beyond() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(100, "60s"), (1000, "1h")]).await;
    for used in [30, 60] {
        // It needs all that there is, and more than is left.
        reserve(&node, &permit, 90).await.unwrap().settle(charge(used), None);
    }
    let last = reserve(&node, &permit, 90).await.unwrap();
    assert_eq!((ledger(&node, 60), ledger(&node, 3600)), ((90, 10), (90, 90)));
    // While it is in progress a second one would compete with it.
    let (used, reserved, remaining, retry_after) = refused(reserve(&node, &permit, 1).await);
    assert_eq!((used, reserved, remaining, retry_after), (90, 10, 0, Duration::from_secs(1)));
    last.settle(charge(270), None);
    tokio::time::sleep(SOON).await;
    assert_eq!((ledger(&node, 60), meter(&node, 60).debt), ((100, 0), 260));
    assert_eq!((ledger(&node, 3600).0, meter(&node, 3600).debt), (360, 0));

    // Two whole windows pay 200 of it, and the third one begins with 60.
    let refusal = reserve(&node, &permit, 1).await.unwrap_err();
    let text = refusal.to_string();
    assert!(text.ends_with("100 used, 260 owed, 0 reserved by calls in progress, 1 needed, 0 would fit now"), "{text}");
    let QuotaRefusal::Exhausted { retry_after, standing, .. } = refusal else { panic!("{refusal:?}") };
    assert_eq!((retry_after, standing.debt), (standing.resets_in + Duration::from_secs(120), 260));
    tokio::time::sleep(retry_after).await;
    let next = reserve(&node, &permit, 90).await.unwrap();
    assert_eq!((ledger(&node, 60), meter(&node, 60).debt), ((60, 40), 0));
    // It turns out to be smaller than the rest: what it does not use can be used.
    next.settle(charge(5), None);
    reserve(&node, &permit, 35).await.unwrap().settle(charge(35), None);
    tokio::time::sleep(LATER).await;
    assert_eq!((ledger(&node, 60), meter(&node, 60).debt), ((100, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn of_many_calls_at_once_each_is_held_as_a_whole_but_for_the_one_that_is_alone() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(300, "1h")]).await;
    let calls = (0..30).map(|_| {
        let (quota, permit) = (node.actors.quota.clone(), permit.clone());
        tokio::spawn(async move {
            // It needs 250 as far as anybody knows, and uses 68.
            let reservation = quota.reserve(&permit, amount(250)).await.ok()?;
            tokio::time::sleep(Duration::from_millis(300)).await;
            reservation.settle(charge(68), None);
            Some(())
        })
    });
    let mut admitted = 0;
    for call in calls.collect::<Vec<_>>() {
        admitted += u64::from(call.await.unwrap().is_some());
    }
    tokio::time::sleep(LATER).await;
    assert_eq!((admitted, ledger(&node, 3600), meter(&node, 3600).debt), (5, (300, 0), 5 * 68 - 300));
}

#[tokio::test(start_paused = true)]
async fn callers_who_are_refused_again_and_again_cost_the_ledger_little() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(100, "1h")]).await;
    let _in_progress = reserve(&node, &permit, 60).await.unwrap();
    tokio::time::sleep(SOON).await;
    let applied = node.cluster.standing().applied;
    let began = Instant::now();
    let calls = (0..200).map(|_| {
        let (quota, permit) = (node.actors.quota.clone(), permit.clone());
        tokio::spawn(async move { quota.reserve(&permit, amount(80)).await.map(drop) })
    });
    for call in calls.collect::<Vec<_>>() {
        refused_held(call.await.unwrap());
    }
    let batches = node.cluster.standing().applied - applied;
    assert!(batches <= 3, "{batches} batches for 200 refused calls in {:?}", began.elapsed());
}

fn refused_held(result: Result<(), QuotaRefusal>) {
    match result.unwrap_err() {
        QuotaRefusal::Exhausted { retry_after, .. } => assert_eq!(retry_after, Duration::from_secs(1)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_anew_knows_from_usage_what_calls_need() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(1_000_000, "1h")]).await;
    for _ in 0..10 {
        let used = charged(Amount::of_call(40, 10));
        reserve(&node, &permit, 10).await.unwrap().settle(used, Some(10));
    }
    tokio::time::sleep(LATER).await;
    assert!(node.actors.quota.output_estimate(&permit, None) < 100);
    let next = Node::start_on(node.disk.copy(1)).await;
    let (_, key) = next.key("ann", "dev").await;
    assert_eq!(next.actors.quota.output_estimate(&next.permit(&key, "qwen"), None), 20);
}

#[tokio::test(start_paused = true)]
async fn a_call_larger_than_the_whole_limit_takes_the_whole_limit_and_owes_the_rest() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(100, "60s")]).await;

    let reservation = reserve(&node, &permit, 5000).await.unwrap();
    assert_eq!(ledger(&node, 60), (0, 100));
    reservation.settle(charge(150), None);
    tokio::time::sleep(SOON).await;
    assert_eq!((ledger(&node, 60), meter(&node, 60).debt), ((100, 0), 50));

    // The next window starts with what is owed.
    tokio::time::sleep(Duration::from_secs(61)).await;
    let next = reserve(&node, &permit, 50).await.unwrap();
    assert_eq!(refused(reserve(&node, &permit, 51).await).0, 50);
    drop(next);
}

#[tokio::test(start_paused = true)]
async fn what_a_call_uses_beyond_its_reservation_is_taken_from_what_is_free() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(1000, "1h")]).await;
    let other = reserve(&node, &permit, 100).await.unwrap();
    reserve(&node, &permit, 100).await.unwrap().settle(charge(350), None);
    other.settle(charge(20), None);
    tokio::time::sleep(LATER).await;
    assert_eq!((ledger(&node, 3600), meter(&node, 3600).debt), ((370, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_caller_is_told_adds_up() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(1000, "1h"), (300, "5m")]).await;
    reserve(&node, &permit, 50).await.unwrap().settle(charge(50), None);
    let _other = reserve(&node, &permit, 100).await.unwrap();
    let own = reserve(&node, &permit, 30).await.unwrap();

    let standings = own.standing();
    let told: Vec<_> = standings
        .iter()
        .map(|standing| (standing.window.as_str(), standing.used, standing.reserved, standing.remaining))
        .collect();
    assert_eq!(told, [("5m", 80, 100, 120), ("1h", 80, 100, 820)]);
    let shorter = &standings[0];
    assert_eq!((shorter.limit, shorter.window_seconds), (300, 300));
    assert!(shorter.resets_in > Duration::from_secs(299) && shorter.resets_in <= Duration::from_secs(300));
}

#[tokio::test(start_paused = true)]
async fn steady_calls_do_not_wait_and_do_not_flood_the_ledger() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(100_000_000, "1h")]).await;
    let mut waits = 0;
    let applied = node.cluster.standing().applied;
    let start = Instant::now();
    for call in 0..2000 {
        let before = node.cluster.standing().applied;
        let reservation = reserve(&node, &permit, 200).await.unwrap();
        // After a few calls the refill knows the rate.
        if call >= 200 && node.cluster.standing().applied != before {
            waits += 1;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        reservation.settle(charge(150), None);
    }
    let batches = node.cluster.standing().applied - applied;
    assert_eq!(waits, 0);
    let seconds = (Instant::now() - start).as_secs();
    assert!(batches <= 52 * (seconds + 1), "{batches} batches in {seconds} s");
    tokio::time::sleep(LATER).await;
    assert_eq!(ledger(&node, 3600), (300_000, 0));
}

#[tokio::test(start_paused = true)]
async fn limits_that_change_count_at_once() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(100, "1h")]).await;
    let held = reserve(&node, &permit, 100).await.unwrap();

    // A permit under the old limits is told to come again; one under the new ones finds more room.
    node.subscribe("dev", "qwen", &[(300, "1h"), (150, "60s")]).await;
    assert_eq!(reserve(&node, &permit, 10).await.unwrap_err(), QuotaRefusal::Changed);
    let (_, key) = node.key("ann", "dev").await;
    let permit = node.permit(&key, "qwen");
    let more = reserve(&node, &permit, 150).await.unwrap();
    assert_eq!((ledger(&node, 3600), ledger(&node, 60)), ((0, 250), (0, 150)));

    // What was reserved before is charged to the limit it was reserved under.
    held.settle(charge(100), None);
    more.settle(charge(10), None);
    tokio::time::sleep(LATER).await;
    assert_eq!((ledger(&node, 3600), ledger(&node, 60)), ((110, 0), (10, 0)));

    node.delete(Kind::Subscription, "models-as-a-service", "dev").await;
    assert_eq!(reserve(&node, &permit, 10).await.unwrap_err(), QuotaRefusal::Changed);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_lowered_admits_no_more_than_what_is_left_of_it() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(1000, "1h")]).await;
    // 400 are held, 300 lie in the local allowance.
    drop(reserve(&node, &permit, 700).await.unwrap());
    let held = reserve(&node, &permit, 400).await.unwrap();
    tokio::time::sleep(SOON).await;
    assert_eq!(ledger(&node, 3600), (0, 700));

    node.subscribe("dev", "qwen", &[(500, "1h")]).await;
    let (_, key) = node.key("ann", "dev").await;
    let permit = node.permit(&key, "qwen");
    let calls = (0..8).map(|_| {
        let (quota, permit) = (node.actors.quota.clone(), permit.clone());
        tokio::spawn(async move { quota.reserve(&permit, amount(40)).await })
    });
    let mut admitted = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        admitted.extend(call.await.unwrap());
    }
    // What was granted under the higher limit and not in use went back at once.
    assert_eq!((admitted.len(), ledger(&node, 3600)), (2, (0, 480)));

    // What is held may come back before the window ends: worth another try soon.
    assert_eq!(refused(reserve(&node, &permit, 200).await).3, Duration::from_secs(1));

    // What was held before the change is charged, and what of it was not used can be used.
    held.settle(charge(350), None);
    admitted.into_iter().for_each(|reservation| drop(reservation.settle(charge(40), None)));
    tokio::time::sleep(SOON).await;
    assert_eq!(ledger(&node, 3600).0, 430);
    reserve(&node, &permit, 70).await.unwrap().settle(charge(70), None);
    assert_eq!(refused(reserve(&node, &permit, 1).await).0, 500);
    tokio::time::sleep(LATER).await;
    assert_eq!((ledger(&node, 3600), meter(&node, 3600).debt), ((500, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn tokens_of_a_limit_that_is_gone_go_back_to_it() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(1000, "1h")]).await;
    let held = reserve(&node, &permit, 400).await.unwrap();
    node.subscribe("dev", "qwen", &[(1000, "60s")]).await;
    held.settle(charge(100), None);
    tokio::time::sleep(LATER).await;

    // The old limit comes back within its window: it knows what was spent, and nobody holds anything of it.
    node.subscribe("dev", "qwen", &[(1000, "1h")]).await;
    assert_eq!(ledger(&node, 3600), (100, 0));
}

#[tokio::test(start_paused = true)]
async fn draining_gives_everything_back() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(100_000, "1h")]).await;
    // Fast enough that the refill has acquired ahead.
    for _ in 0..500 {
        let reservation = reserve(&node, &permit, 10).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        reservation.settle(charge(10), None);
    }
    assert!(ledger(&node, 3600).1 > 0);
    node.actors.drain().await;
    assert_eq!(ledger(&node, 3600), (5000, 0));
    assert_eq!(reserve(&node, &permit, 10).await.unwrap_err(), QuotaRefusal::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn users_do_not_share_a_limit() {
    let node = Node::start().await;
    let ann = node.permit_under(&[(100, "1h")]).await;
    let (_, key) = node.key("bob", "dev").await;
    let bob = node.permit(&key, "qwen");
    let (_of_ann, _of_bob) = (reserve(&node, &ann, 100).await.unwrap(), reserve(&node, &bob, 100).await.unwrap());
    assert_eq!(refused(reserve(&node, &ann, 1).await).2, 0);
}

#[tokio::test(start_paused = true)]
async fn outputs_teach_what_calls_need() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(1_000_000, "1h")]).await;
    let quota = &node.actors.quota;
    assert_eq!(quota.output_estimate(&permit, None), 1024);
    assert_eq!(quota.output_estimate(&permit, Some(2000)), 2000);
    assert_eq!(quota.output_estimate(&permit, Some(128_000)), 4096);
    for _ in 0..1000 {
        reserve(&node, &permit, 10).await.unwrap().settle(charge(10), Some(100));
    }
    assert_eq!(quota.output_estimate(&permit, None), 101);
    assert_eq!(quota.output_estimate(&permit, Some(2000)), 2000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_on_many_threads_never_spend_more_than_the_limit() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(20_000, "1h"), (50_000, "2h")]).await;
    let callers = (0..16_u64).map(|caller| {
        let (quota, permit) = (node.actors.quota.clone(), permit.clone());
        tokio::spawn(async move {
            let mut spent = 0;
            let mut call = 0;
            loop {
                let tokens = 20 + (caller * 7 + call) % 40;
                let Ok(reservation) = quota.reserve(&permit, amount(tokens)).await else { return spent };
                call += 1;
                match call % 3 {
                    0 => drop(reservation),
                    _ => {
                        let used = tokens - call % 20;
                        spent += used;
                        reservation.settle(charge(used), None);
                    }
                }
            }
        })
    });
    let mut spent = 0;
    for caller in callers.collect::<Vec<_>>() {
        spent += caller.await.unwrap();
    }
    node.actors.drain().await;
    assert_eq!(ledger(&node, 7200), (spent, 0));
    // Nobody was refused while anything was left, and of all calls only the last one was held in part.
    let debt = meter(&node, 3600).debt;
    assert_eq!((ledger(&node, 3600), debt), ((20_000, 0), spent - 20_000));
    assert!(debt < 60, "{debt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_caller_is_told_was_used_never_becomes_less() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(100_000_000, "1h")]).await;
    let limits = reserve(&node, &permit, 10).await.unwrap().settle(charge(10), None);
    let callers = (0..4_u64).map(|_| {
        let (quota, permit) = (node.actors.quota.clone(), permit.clone());
        tokio::spawn(async move {
            for _ in 0..2000 {
                quota.reserve(&permit, amount(20)).await.unwrap().settle(charge(10), None);
                tokio::task::yield_now().await;
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    let mut told = 0;
    while !callers.iter().all(tokio::task::JoinHandle::is_finished) {
        let used = limits.standing()[0].used;
        assert!(used >= told, "{used} after {told}");
        told = used;
        tokio::task::yield_now().await;
    }
    assert_eq!(limits.standing()[0].used, 10 + 4 * 2000 * 10);
}
