//! What limits count, whom they count together, and how strictly.

use actors::quota::Amount;
use actors::{Permit, QuotaRefusal};
use raft::resources::{LimitScope, Unit};
use raft::state::Meter;
use serde_json::json;

use crate::support::{Node, charge, charged};

#[tokio::test]
async fn limits_count_what_and_whom_they_say() {
    let node = Node::start().await;
    node.prepare(&[(1, "1h")]).await;
    let limits = json!([
        {"limit": 1000, "window": "1h"},
        {"limit": 100, "window": "1h", "unit": "output"},
        {"limit": 2, "window": "1h", "unit": "requests", "scope": "key"},
        {"limit": 1500, "window": "1h", "unit": "input", "scope": "subscription"},
    ]);
    node.subscribe_under("dev", "qwen", limits).await;
    let mut permits = Vec::new();
    for user in ["ann", "ann", "bob"] {
        let (_, key) = node.key(user, "dev").await;
        permits.push(node.permit(&key, "qwen"));
    }
    let [first, second, of_bob] = &permits[..] else { unreachable!() };
    let quota = &node.actors.quota;
    let refusing = async |permit: &Permit, need: Amount| match quota.reserve(permit, need).await.unwrap_err() {
        QuotaRefusal::Exhausted { standing, .. } => (standing.unit, standing.scope, standing.used, standing.limit),
        other => panic!("{other:?}"),
    };

    for (input, output) in [(500, 60), (100, 40)] {
        let reservation = quota.reserve(first, Amount::of_call(300, 20)).await.unwrap();
        reservation.settle(charged(Amount::of_call(input, output)), Some(output));
    }
    // One key has made its calls, another key of the same user has not; the user's answers are used up, for both.
    assert_eq!(refusing(first, Amount::of_call(1, 0)).await, (Unit::Requests, LimitScope::Key, 2, 2));
    assert_eq!(refusing(second, Amount::of_call(1, 1)).await, (Unit::Output, LimitScope::User, 100, 100));
    quota.reserve(second, Amount::of_call(200, 0)).await.unwrap().settle(charge(200), None);

    // Bob's own limits are fresh, but all share the prompts of the subscription: 800 of 1500 are gone.
    quota.reserve(of_bob, Amount::of_call(700, 5)).await.unwrap().settle(charged(Amount::of_call(700, 5)), None);
    assert_eq!(refusing(of_bob, Amount::of_call(1, 0)).await, (Unit::Input, LimitScope::Subscription, 1500, 1500));

    // Who was refused by one limit holds nothing of the others, and the ledger has each in its own unit.
    node.actors.drain().await;
    let settled = |meter: &Meter| meter.window.as_ref().map(|window| (window.settled, window.held()));
    let view = node.cluster.view();
    let mut meters: Vec<_> =
        view.meters.iter().map(|(id, meter)| ((id.limit.unit, id.limit.scope), settled(meter).unwrap())).collect();
    meters.sort_unstable();
    let expected = [
        ((Unit::Total, LimitScope::User), (705, 0)),
        ((Unit::Total, LimitScope::User), (900, 0)),
        ((Unit::Input, LimitScope::Subscription), (1500, 0)),
        ((Unit::Output, LimitScope::User), (5, 0)),
        ((Unit::Output, LimitScope::User), (100, 0)),
        ((Unit::Requests, LimitScope::Key), (1, 0)),
        ((Unit::Requests, LimitScope::Key), (1, 0)),
        ((Unit::Requests, LimitScope::Key), (2, 0)),
    ];
    assert_eq!(meters, expected);
}

#[tokio::test]
async fn under_a_hard_limit_no_report_is_believed_beyond_what_is_held() {
    // A call holds 100 + 20 tokens; its replica says 300 + 70.
    let table = [
        ("total", "hard", (100, 20, true)),
        ("total", "reserve", (300, 70, false)),
        ("input", "hard", (100, 70, true)),
        ("output", "hard", (300, 20, true)),
        ("requests", "hard", (300, 70, false)),
    ];
    for (unit, enforcement, expected) in table {
        let node = Node::start().await;
        node.prepare(&[(1, "1h")]).await;
        let limits = json!([{"limit": 1000, "window": "1h", "unit": unit, "enforcement": enforcement}]);
        node.subscribe_under("dev", "qwen", limits).await;
        let (_, key) = node.key("ann", "dev").await;
        let mut reservation =
            node.actors.quota.reserve(&node.permit(&key, "qwen"), Amount::of_call(100, 20)).await.unwrap();
        reservation.observe(charged(Amount::of_call(300, 70)));
        let charge = reservation.charge();
        let believed = (charge.amount.input, charge.amount.output, charge.is_absurd);
        assert_eq!(believed, expected, "{unit}, {enforcement}");
    }
}
