//! What limits count, whom they count together, and how strictly.

use std::sync::Arc;

use actors::quota::Amount;
use actors::{Permit, QuotaRefusal};
use raft::resources::{Kind, LimitScope, ObjectKey, Unit};
use raft::state::{Meter, MeterId};
use raft::{Timestamp, View};
use serde_json::json;

use crate::quota::{ledger, meter};
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

#[tokio::test(start_paused = true)]
async fn a_call_in_progress_has_its_place_until_it_ends() {
    let node = Node::start().await;
    node.prepare(&[(1, "1h")]).await;
    let windows = json!([{"limit": 1_000_000, "window": "1h"}]);
    let reference = json!({"tokenRateLimits": windows, "concurrency": {"user": 2, "subscription": 3}});
    node.subscribe_to("dev", "qwen", reference).await;
    let mut permits = Vec::new();
    for user in ["ann", "bob"] {
        let (_, key) = node.key(user, "dev").await;
        permits.push(node.permit(&key, "qwen"));
    }
    let [ann, bob] = &permits[..] else { unreachable!() };
    let begin = async |permit: &Permit| node.actors.quota.reserve(permit, Amount::of_call(10, 10)).await;
    let refused = async |permit: &Permit| match begin(permit).await.unwrap_err() {
        QuotaRefusal::Exhausted { standing, retry_after, .. } => {
            assert!(retry_after.as_secs() <= 1, "a place may come free at any time: {retry_after:?}");
            (standing.unit, standing.scope, standing.reserved, standing.limit)
        }
        other => panic!("{other:?}"),
    };

    let mut of_ann = vec![begin(ann).await.unwrap(), begin(ann).await.unwrap()];
    assert_eq!(refused(ann).await, (Unit::InProgress, LimitScope::User, 2, 2));
    let of_bob = begin(bob).await.unwrap();
    assert_eq!(refused(bob).await, (Unit::InProgress, LimitScope::Subscription, 3, 3));

    // A place is free as soon as a call has ended, however it did, and whatever it cost.
    of_ann.pop().unwrap().settle(charged(Amount::of_call(10, 500)), Some(500));
    drop(of_bob);
    let (again, of_bob) = (begin(ann).await.unwrap(), begin(bob).await.unwrap());
    assert_eq!(refused(ann).await, (Unit::InProgress, LimitScope::User, 2, 2));

    // The ledger knows of no place that nobody has.
    drop((of_ann, again, of_bob));
    node.actors.drain().await;
    let is_open = |(id, _): &(&MeterId, &Arc<Meter>)| id.is_in_progress();
    assert_eq!(node.cluster.view().meters.iter().filter(is_open).count(), 0);
}

#[tokio::test]
async fn a_budget_is_spent_at_the_price_of_prompts_and_answers() {
    let node = Node::start().await;
    node.prepare(&[(1, "1h")]).await;
    let reference = |enforcement: &str| {
        json!({
            "tokenRateLimits": [{"limit": 1_000_000, "window": "1h"}],
            "billingRate": {"perInputToken": "0.001", "perOutputToken": "0.01"},
            "budget": {"limit": "2.50", "enforcement": enforcement},
        })
    };
    node.subscribe_to("dev", "qwen", reference("hard")).await;
    let mut permits = Vec::new();
    for user in ["ann", "bob"] {
        let (_, key) = node.key(user, "dev").await;
        permits.push(node.permit(&key, "qwen"));
    }
    let [ann, bob] = &permits[..] else { unreachable!() };
    let quota = &node.actors.quota;
    // 500 tokens of prompt and 150 of answer are 2.00; all share what is left.
    let whole = Amount::of_call(500, 150);
    quota.reserve(ann, whole).await.unwrap().settle(charged(whole), None);
    let refusal = quota.reserve(bob, Amount::of_call(500, 1)).await.unwrap_err();
    let expected = "budget of 2.50 per month of subscription `dev` used up: 2.00 used, 0.00 reserved by calls in progress, 0.51 needed, 0.50 would fit now";
    assert_eq!(refusal.to_string(), expected);

    // A replica that produces more than it was told to is not believed.
    let mut reservation = quota.reserve(bob, Amount::of_call(300, 20)).await.unwrap();
    reservation.observe(charged(Amount::of_call(300, 90)));
    assert_eq!(reservation.charge().amount, Amount::of_call(300, 20));
    drop(reservation);
    assert_eq!(quota.reserve(ann, Amount::of_call(1, 0)).await.unwrap_err().to_string().split(':').count(), 2);

    // Unless it is to be: then the rest is owed.
    node.subscribe_to("dev", "qwen", reference("reserve")).await;
    node.actors.drain().await;
    let status = |view: &View| {
        let key = ObjectKey::new(Kind::Subscription, "models-as-a-service", "dev");
        let status = raft::resources::status(view.object(&key).unwrap(), view, &node.actors.pools);
        let alert = status.conditions.iter().find(|condition| condition.kind == "BudgetAlert").cloned().unwrap();
        (alert.status, alert.message)
    };
    let message = "llm/qwen: 2.50 used of 2.50 per month for all users together (100 %)";
    assert_eq!(status(&node.cluster.view()), ("True", message.to_owned()));
}

#[tokio::test]
async fn what_is_held_beyond_a_prompts_tokens_is_free_once_these_are_known() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(1000, "1h")]).await;
    let quota = &node.actors.quota;
    let mut first = quota.reserve(&permit, Amount::of_call(900, 50)).await.unwrap();
    assert!(quota.reserve(&permit, Amount::of_call(500, 0)).await.is_err());
    // A replica says that it has read 100. Saying more later changes nothing.
    first.observe(charged(Amount::of_call(100, 0)));
    assert_eq!((first.know_input(100), first.know_input(700)), (800, 0));
    let second = quota.reserve(&permit, Amount::of_call(500, 0)).await.unwrap();
    first.settle(charged(Amount::of_call(100, 50)), None);
    second.settle(charged(Amount::of_call(500, 0)), None);
    node.actors.drain().await;
    assert_eq!(ledger(&node, 3600), (650, 0));
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
        // Usage says what was reported.
        let told = (charge.amount.input + charge.beyond.input, charge.amount.output + charge.beyond.output);
        assert_eq!(told, (300, 70), "{unit}, {enforcement}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_report_is_charged_beyond_what_the_call_can_have_used() {
    let node = Node::start().await;
    let permit = node.permit_under(&[(1000, "1h")]).await;
    let mut reservation = node.actors.quota.reserve(&permit, Amount::of_call(100, 20)).await.unwrap();
    reservation.cannot_exceed(Amount::of_call(100, 50));
    reservation.settle(charged(Amount::of_call(12, 9_999_999)), Some(9_999_999));
    node.actors.drain().await;
    assert_eq!((ledger(&node, 3600), meter(&node, 3600).debt), ((62, 0), 0));
    let view = node.cluster.view();
    let sums: Vec<_> = view.usage.between(Timestamp(0), Timestamp(u64::MAX)).map(|(_, _, _, sum)| *sum).collect();
    assert_eq!((sums.len(), sums[0].input, sums[0].output, sums[0].absurd_calls), (1, 12, 9_999_999, 1));
    // Nothing is learnt from it.
    assert_eq!(node.actors.quota.output_estimate(&permit, None), 1024);
}
