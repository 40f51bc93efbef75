//! Limits of calls in progress and of money, as callers and operators see them.

use std::time::Duration;

use serde_json::json;
use sim_vllm::Config;

use crate::client::{Answer, request};
use crate::world::{PLENTY, World, eventually, replica_with};

const CHAT: &str = "/llm/qwen/v1/chat/completions";

fn chat(stream: bool, max_tokens: u64) -> String {
    let messages = json!([{"role": "user", "content": "hello"}]);
    json!({"messages": messages, "max_tokens": max_tokens, "ignore_eos": true, "stream": stream}).to_string()
}

async fn call(world: &World, key: &str, body: &str) -> Answer {
    world.connect().await.post(CHAT, &[("authorization", &format!("Bearer {key}"))], body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_beyond_those_in_progress_is_told_so_and_passes_when_one_has_ended() {
    let (_replica, url) = replica_with(Config { seed: 1, speed: 1.0, ..Config::default() }).await;
    let world = World::start(&[url], PLENTY).await;
    let windows = json!([{"limit": PLENTY, "window": "1h"}]);
    world.subscribe_to("narrow", json!({"tokenRateLimits": windows, "concurrency": {"user": 1}})).await;
    let key = world.add_key("ann", "narrow", Duration::from_secs(3600)).await;
    let mut first = world.connect().await;
    let bearer = format!("Bearer {key}");
    first.send(request("POST", CHAT, &[("authorization", &bearer)], &chat(true, 2000))).await;
    first.read_until("data: {").await;

    let refused = call(&world, &key, &chat(false, 2)).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"), "{refused:?}");
    let error = &refused.json()["error"];
    assert_eq!(
        error["message"],
        "limit of 1 calls in progress of subscription `narrow` reached: try again when one has ended"
    );
    assert_eq!(error["quota"]["unit"], "in_progress");
    assert_eq!(refused.header("ratelimit"), r#""in-progress";r=0;maas-unit="calls-in-progress""#);

    drop(first);
    eventually("the call has ended", || world.counter("tollgate_requests_in_flight") == 0.0).await;
    let answer = call(&world, &key, &chat(false, 2)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_is_spent_told_of_and_refuses_and_calls_are_counted_as_opentelemetry_wants() {
    let (_replica, url) = replica_with(Config { seed: 2, speed: 50.0, ..Config::default() }).await;
    let world = World::start(&[url], PLENTY).await;
    let reference = json!({
        "tokenRateLimits": [{"limit": PLENTY, "window": "1h"}],
        "billingRate": {"perInputToken": "0.001", "perOutputToken": "0.01"},
        "budget": {"limit": "0.50"},
    });
    world.subscribe_to("paid", reference).await;
    let key = world.add_key("ann", "paid", Duration::from_secs(3600)).await;
    let answer = call(&world, &key, &chat(true, 50)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let refused = call(&world, &key, &chat(false, 90)).await;
    assert_eq!(refused.status, 429, "{refused:?}");
    let quota = &refused.json()["error"]["quota"];
    // What the last call cost beyond it is owed.
    let used = quota["used"].as_f64().unwrap() + quota["debt"].as_f64().unwrap();
    assert_eq!((&quota["unit"], &quota["limit"], &quota["used"]), (&json!("cost"), &json!(0.5), &json!(0.5)));

    let sum = world.charged().await;
    let cost = (sum.input + 10 * sum.output) as f64 / 1000.0;
    assert!((used - cost).abs() < 1e-9 && sum.output == 50, "{used} told of, {sum:?}");
    eventually("the ledger has it", || (world.counter("tollgate_budget_used_ratio") - 1.0).abs() < 1e-9).await;

    // One call, with its tokens of both kinds, and a stream.
    assert_eq!(world.counter("gen_ai_client_token_usage_sum"), sum.total() as f64);
    assert_eq!(world.counter("gen_ai_client_inference_usage_output_tokens_total"), 50.0);
    for histogram in ["request_duration", "time_to_first_token", "time_per_output_token"] {
        assert_eq!(world.counter(&format!("gen_ai_server_{histogram}_seconds_count")), 1.0, "{histogram}");
    }
    assert_eq!(world.counter("tollgate_quota_overshoot_tokens_total"), 0.0);
}
