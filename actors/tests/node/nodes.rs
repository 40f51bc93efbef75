//! Several nodes: the last token of a limit can be used from any of them, and no more than that.

use std::time::Duration;

use actors::{Permit, QuotaRefusal, Reservation};
use raft::NodeId;
use tokio::time::Instant;

use crate::support::{Node, amount, charge};

async fn reserve(node: &Node, permit: &Permit, tokens: u64) -> Result<Reservation, QuotaRefusal> {
    node.actors.quota.reserve(permit, amount(tokens)).await
}

/// Two nodes, and user `ann`'s permit at each.
async fn two_nodes(limit: u64) -> (Vec<Node>, Vec<Permit>) {
    let nodes = Node::start_several(2).await;
    nodes[0].prepare(&[(limit, "1h")]).await;
    let (_, key) = nodes[0].key("ann", "dev").await;
    let mut permits = Vec::new();
    for node in &nodes {
        node.cluster.read_barrier().await.unwrap();
        permits.push(node.permit(&key, "qwen"));
    }
    (nodes, permits)
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_tokens_of_one_node_serve_a_call_at_another() {
    let (nodes, permits) = two_nodes(1000).await;
    // Node 0 holds 400 that nobody uses.
    reserve(&nodes[0], &permits[0], 500).await.unwrap().settle(charge(100), None);

    let before = Instant::now();
    let reservation = reserve(&nodes[1], &permits[1], 900).await.unwrap();
    let waited = before.elapsed();
    assert!(waited < Duration::from_secs(5), "{waited:?}");
    reservation.settle(charge(900), None);
    let refusal = reserve(&nodes[0], &permits[0], 1).await.unwrap_err();
    assert!(matches!(refusal, QuotaRefusal::Exhausted { .. }), "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_at_both_nodes_together_use_the_limit_and_no_more() {
    let (nodes, permits) = two_nodes(3000).await;
    let callers = (0..8_usize).map(|caller| {
        let (quota, permit) = (nodes[caller % 2].actors.quota.clone(), permits[caller % 2].clone());
        tokio::spawn(async move {
            let mut spent = 0;
            loop {
                match quota.reserve(&permit, amount(30)).await {
                    Ok(reservation) => {
                        tokio::time::sleep(Duration::from_millis(3)).await;
                        reservation.settle(charge(25), None);
                        spent += 25;
                    }
                    Err(refusal) => return (spent, refusal),
                }
            }
        })
    });
    let mut spent = 0;
    let mut refusals = Vec::new();
    for caller in callers.collect::<Vec<_>>() {
        let (by_caller, refusal) = caller.await.unwrap();
        spent += by_caller;
        refusals.push(refusal);
    }
    // The last of them was alone, and got what was left.
    assert!((3000..3025).contains(&spent), "{spent}: {refusals:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_for_what_a_dead_node_holds_is_told_which_node_that_is() {
    let nodes = Node::start_several(3).await;
    nodes[0].prepare(&[(1000, "1h")]).await;
    let (_, key) = nodes[0].key("ann", "dev").await;
    for node in &nodes {
        node.cluster.read_barrier().await.unwrap();
    }
    let _in_progress = reserve(&nodes[2], &nodes[2].permit(&key, "qwen"), 900).await.unwrap();
    // It dies with its call, and nobody starts it again.
    nodes[2].cluster.shutdown().await;
    let refusal = reserve(&nodes[0], &nodes[0].permit(&key, "qwen"), 200).await.unwrap_err();
    let text = refusal.to_string();
    assert!(text.ends_with("100 would fit now; node 3 holds some of it and does not answer"), "{text}");
    assert!(matches!(refusal, QuotaRefusal::Exhausted { silent, .. } if silent == [NodeId(3)]));
}
