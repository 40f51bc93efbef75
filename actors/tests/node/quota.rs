//! Quota: what callers get of a limit, and what the ledger says afterwards.

use std::time::Duration;

use actors::{Permit, QuotaRefusal, Reservation};
use raft::resources::Kind;
use raft::state::{Meter, MeterId};

use crate::support::Node;

async fn reserve(node: &Node, permit: &Permit, tokens: u64) -> Result<Reservation, QuotaRefusal> {
    node.actors.quota.reserve(permit, tokens).await
}

fn meter(node: &Node, window_seconds: u32) -> Meter {
    let id = MeterId {
        subscription: ("models-as-a-service".to_owned(), "dev".to_owned()),
        model: ("llm".to_owned(), "qwen".to_owned()),
        window_seconds,
        user: "ann".to_owned(),
    };
    node.cluster.view().meters.get(&id).map(|meter| Meter::clone(meter)).unwrap_or_default()
}

/// (settled, held by nodes) of the open window.
fn ledger(node: &Node, window_seconds: u32) -> (u64, u64) {
    let window = meter(node, window_seconds).window.unwrap();
    (window.settled, window.held())
}

#[tokio::test(start_paused = true)]
async fn what_is_reserved_is_held_and_what_is_settled_is_charged() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(1000, "1h")]).await;

    let reservation = reserve(&node, &permit, 100).await.unwrap();
    assert_eq!(reservation.tokens(), 100);
    assert_eq!(ledger(&node, 3600), (0, 100));

    reservation.settle(60, Some(40));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(ledger(&node, 3600), (60, 40));

    // What nobody uses goes back.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(ledger(&node, 3600), (60, 0));
}
