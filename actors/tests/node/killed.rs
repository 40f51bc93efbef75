//! A node that is killed in the middle of calls, and what its next incarnation tells of them.

use std::future::poll_fn;

use actors::quota::Amount;
use raft::Timestamp;
use raft::state::UsageSum;
use raft::storage::Disk;

use crate::quota::{LATER, SOON, ledger, meter, reserve};
use crate::support::{Node, charge, charged};

/// All usage, in one sum.
fn used(node: &Node) -> UsageSum {
    let view = node.cluster.view();
    let mut all = UsageSum::default();
    view.usage.between(Timestamp(0), Timestamp(u64::MAX)).for_each(|(_, _, _, sum)| all.add(sum));
    all
}

/// A node that held 100 tokens and dies: 60 were used and told, 25 used and not told, 10 are held by a call in progress.
async fn dying() -> Node {
    let node = Node::start().await;
    let permit = node.permit_under(&[(100, "1h")]).await;
    reserve(&node, &permit, 100).await.unwrap().settle(charge(60), None);
    tokio::time::sleep(SOON).await;
    let ended = reserve(&node, &permit, 30).await.unwrap();
    let mut in_progress = reserve(&node, &permit, 10).await.unwrap();
    in_progress.noted().await.unwrap();
    node.disk.hang();
    let mut limits = ended.settle(charge(25), None);
    poll_fn(|cx| limits.poll_noted(cx)).await;
    // It dies with its process.
    std::mem::forget(in_progress);
    node
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_node_left_is_charged_once_and_what_nobody_used_comes_free() {
    let lost = async |node: &Node| {
        let disk = node.disk.copy(2);
        disk.replace_journal(Default::default()).await.unwrap();
        disk
    };
    let node = dying().await;
    let table = [
        ("killed", node.disk.copy(1), (95, 0), (3, 10)),
        ("its machine was started anew", node.disk.copy(2), (95, 5), (3, 10)),
        // The batch that was on its way had reached the log.
        ("its journal is gone", lost(&node).await, (85, 15), (2, 0)),
    ];
    for (what, disk, expected, (calls, estimated)) in table {
        let next = Node::start_on(disk).await;
        tokio::time::sleep(LATER).await;
        assert_eq!(ledger(&next, 3600), expected, "{what}: settled and held");
        let sum = used(&next);
        assert_eq!((sum.calls, sum.total(), sum.estimated), (calls, expected.0, estimated), "{what}");

        // It is killed again when all was told: nothing is told twice.
        let last = Node::start_on(next.disk.copy(2)).await;
        tokio::time::sleep(LATER).await;
        assert_eq!((ledger(&last, 3600), used(&last)), (expected, sum), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_never_sent_is_nothing_to_anybody() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(100, "1h")]).await;
    let call = node.actors.quota.reserve(&permit, Amount::of_call(40, 0)).await.unwrap();
    drop(call);
    tokio::time::sleep(LATER).await;
    assert_eq!((ledger(&node, 3600), used(&node).calls), ((0, 0), 0));
    // What never reached a replica is nothing to a next incarnation, either.
    let next = Node::start_on(node.disk.copy(1)).await;
    tokio::time::sleep(LATER).await;
    assert_eq!((ledger(&next, 3600), used(&next).calls), ((0, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_held_the_rest_of_a_limit_is_charged_that_rest_and_leaves_no_debt() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(100, "1h")]).await;
    reserve(&node, &permit, 100).await.unwrap().settle(charge(60), None);
    let mut call = node.actors.quota.reserve(&permit, Amount::of_call(30, 200)).await.unwrap();
    call.noted().await.unwrap();
    tokio::time::sleep(LATER).await;
    let next = Node::start_on(node.disk.copy(1)).await;
    tokio::time::sleep(LATER).await;
    assert_eq!((ledger(&next, 3600), meter(&next, 3600).debt), ((100, 0), 0));
    let sum = used(&next);
    assert_eq!((sum.total(), sum.input, sum.estimated), (100, 90, 40));
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_prompt_was_known_is_charged_what_it_held_then() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(1000, "1h")]).await;
    let mut call = node.actors.quota.reserve(&permit, Amount::of_call(400, 50)).await.unwrap();
    call.noted().await.unwrap();
    call.observe(charged(Amount::of_call(100, 3)));
    assert_eq!(call.know_input(100), 300);
    tokio::time::sleep(LATER).await;
    let next = Node::start_on(node.disk.copy(1)).await;
    tokio::time::sleep(LATER).await;
    assert_eq!((ledger(&next, 3600), used(&next).estimated), ((150, 0), 150));
}
