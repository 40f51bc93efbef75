//! One overload, two rules: `cargo bench -p tollgate-actors --bench overload`.
//!
//! 500 calls at once, of 50 to 250 tokens each, which nobody knows before they end, against a limit of 10,000 tokens. The naive rule is that of
//! most gateways: admit while the counter is below the limit, count when the call has ended (here even with one counter for everybody).

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on fails")]

#[expect(dead_code, reason = "shared with the tests")]
#[path = "../tests/node/support.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actors::quota::{Amount, Charge, Source};
use support::Node;
use tokio::task::JoinSet;

const LIMIT: u64 = 10_000;
const CALLS: u64 = 500;
const MOST: u64 = 250;

#[tokio::main]
async fn main() {
    let nodes = Node::start_several(3).await;
    nodes[0].prepare(&[(LIMIT, "1h")]).await;
    let (_, key) = nodes[0].key("ann", "dev").await;
    tokio::time::sleep(Duration::from_millis(500)).await;

    let counter = Arc::new(AtomicU64::new(0));
    let (naive, tollgate) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut calls = JoinSet::new();
    for call in 0..CALLS {
        let (counter, naive, tollgate) = (counter.clone(), naive.clone(), tollgate.clone());
        let node = &nodes[(call % 3) as usize];
        let (quota, permit) = (node.actors.quota.clone(), node.permit(&key, "qwen"));
        let tokens = 50 + call * 7919 % 201;
        calls.spawn(async move {
            if counter.load(Ordering::SeqCst) < LIMIT {
                tokio::time::sleep(Duration::from_millis(20)).await;
                counter.fetch_add(tokens, Ordering::SeqCst);
                naive.fetch_add(1, Ordering::SeqCst);
            }
            if let Ok(reservation) = quota.reserve(&permit, Amount::of_call(0, MOST)).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let amount = Amount::of_call(0, tokens);
                reservation.settle(Charge { amount, source: Source::Reported, ..Charge::default() }, Some(tokens));
                tollgate.fetch_add(tokens, Ordering::SeqCst);
            }
        });
    }
    while calls.join_next().await.transpose().unwrap().is_some() {}

    let (naively, exactly) = (counter.load(Ordering::SeqCst), tollgate.load(Ordering::SeqCst));
    println!("limit {LIMIT} tokens, {CALLS} calls at once");
    println!("check, then count: {naively} tokens used, {} calls admitted", naive.load(Ordering::SeqCst));
    let (left, owed) = (LIMIT.saturating_sub(exactly), exactly.saturating_sub(LIMIT));
    println!("Tollgate:          {exactly} tokens used, {left} left, {owed} owed");
    // What the last call used beyond the rest that it was admitted on is owed.
    assert!(exactly < LIMIT + MOST && LIMIT < exactly + MOST, "the limit is used up, and passed by less than one call");
}
