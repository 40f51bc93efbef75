//! Callers leave in the middle of what they are told: a thousand at once, and some of each kind of call.

use std::time::Duration;

use raft::state::UsageSum;
use serde_json::{Value, json};
use sim_vllm::{Config, Outcome, RequestRecord};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::request;
use crate::world::{PLENTY, World, eventually, replica_with};

const CALLERS: usize = 1000;

const CHAT: &str = "/llm/qwen/v1/chat/completions";

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_callers_who_leave_anywhere_pay_for_what_was_produced_and_leave_nothing_behind() {
    let config = |seed| Config { seed, speed: 1.0, ..Config::default() };
    let ((first, one), (second, two)) = (replica_with(config(1)).await, replica_with(config(2)).await);
    let world = World::start(&[one, two], 100 * PLENTY).await;
    let bearer = format!("Bearer {}", world.key);
    let mut readers = JoinSet::new();
    for caller in 0..CALLERS {
        let body = json!({
            "messages": [{"role": "user", "content": format!("caller {caller}")}],
            "max_tokens": 400, "ignore_eos": true, "stream": true,
        });
        let mut connection = world.connect().await;
        let path = "/llm/qwen/v1/chat/completions";
        connection.send(request("POST", path, &[("authorization", &bearer)], &body.to_string())).await;
        // From nothing at all to the middle of some event.
        readers.spawn(async move { connection.read_at_least(caller * 7919 % 20_000).await });
    }
    readers.join_all().await;

    let left = Instant::now();
    let open = || first.stats().running + first.stats().waiting + second.stats().running + second.stats().waiting;
    eventually("no replica works for nobody", || open() == 0).await;
    assert!(left.elapsed() < Duration::from_secs(1), "the last call was given up after {:?}", left.elapsed());
    eventually("no call is in progress", || world.counter("tollgate_requests_in_flight") == 0.0).await;
    let held = || world.context.actors.quota.holdings().iter().map(|holding| holding.in_calls).sum::<u64>();
    eventually("nothing is reserved", || held() == 0).await;
    assert!(left.elapsed() < Duration::from_secs(5), "reservations were left for {:?}", left.elapsed());

    // A replica goes on for some milliseconds after the last event that reached us; that is all the difference there may be.
    let charged = world.charged().await;
    let (stats, others) = (first.stats(), second.stats());
    let records: Vec<_> = stats.requests.iter().chain(&others.requests).collect();
    let produced: u64 = records.iter().map(|record| record.produced_tokens as u64).sum();
    let aborted = records.iter().filter(|record| record.outcome == Outcome::Aborted).count();
    println!(
        "{} calls reached a replica, {aborted} were aborted; {produced} tokens produced, {} charged",
        records.len(),
        charged.output
    );
    assert!(aborted > CALLERS / 2, "{aborted} calls were aborted");
    assert!(charged.output <= produced, "{} charged, {produced} produced", charged.output);
    assert!(charged.output * 100 >= produced * 90, "{} charged, {produced} produced", charged.output);
    assert!(
        charged.calls >= records.len() as u64,
        "{} calls charged, {} reached a replica",
        charged.calls,
        records.len()
    );
}

/// Callers of the calls that have no running usage of their own.
const FEW: usize = 120;

/// What callers were charged who left in the middle of a stream at `path`, and what the replica says of their calls.
async fn leave(path: &str, body: &Value) -> (UsageSum, Vec<RequestRecord>) {
    let (replica, url) = replica_with(Config { seed: 3, speed: 0.5, ..Config::default() }).await;
    let world = World::start(&[url], 100 * PLENTY).await;
    let bearer = format!("Bearer {}", world.key);
    let mut readers = JoinSet::new();
    for caller in 0..FEW {
        let mut connection = world.connect().await;
        connection.send(request("POST", path, &[("authorization", &bearer)], &body.to_string())).await;
        // From the first tokens to the middle of the answer.
        readers.spawn(async move { connection.read_at_least(1_500 + caller * 7919 % 20_000).await });
    }
    readers.join_all().await;
    eventually("no call is in progress", || world.counter("tollgate_requests_in_flight") == 0.0).await;
    eventually("the replica works for nobody", || replica.stats().running + replica.stats().waiting == 0).await;
    (world.charged().await, replica.stats().requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_every_kind_cost_what_was_produced_until_their_callers_left() {
    let hello = json!([{"role": "user", "content": "hello there, what is the time"}]);
    let table = [
        ("/llm/qwen/v1/responses", json!({"input": "hello there, what is the time", "max_output_tokens": 400}), 1),
        ("/llm/qwen/v1/messages", json!({"messages": hello, "max_tokens": 400}), 1),
        ("/llm/qwen/v1/chat/completions", json!({"messages": hello, "max_tokens": 400, "n": 2, "seed": 1}), 2),
        ("/llm/qwen/v1/completions", json!({"prompt": ["once upon", "a time"], "max_tokens": 400}), 1),
    ];
    for (path, mut body, choices) in table {
        (body["stream"], body["ignore_eos"]) = (true.into(), true.into());
        let (charged, records) = leave(path, &body).await;
        let produced: u64 = records.iter().map(|record| record.produced_tokens as u64).sum();
        let read = records.iter().map(|record| record.prompt_tokens as u64).sum::<u64>() / choices;
        println!("{path}: {charged:?}; {produced} produced, {read} read");
        let aborted = records.iter().filter(|record| record.outcome == Outcome::Aborted).count();
        assert!(aborted > FEW / 2, "{path}: {aborted} were aborted");
        assert!(charged.output <= produced, "{path}: {} charged, {produced} produced", charged.output);
        assert!(charged.output * 10 >= produced * 9, "{path}: {} charged, {produced} produced", charged.output);
        assert_eq!(charged.estimated_calls, 0, "{path}");
        // What says how large its prompt is, is charged just that.
        if !path.ends_with("responses") {
            assert_eq!(charged.input, read, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_not_streamed_costs_the_time_that_its_caller_waited() {
    let (replica, url) = replica_with(Config { seed: 4, speed: 1.0, ..Config::default() }).await;
    let chat = |stream: bool, max_tokens: u64| {
        json!({"messages": [{"role": "user", "content": "hello"}],
        "max_tokens": max_tokens, "ignore_eos": true, "stream": stream})
    };
    // Nothing is known of the replica, or its pace.
    for knows in [false, true] {
        let world = World::start(std::slice::from_ref(&url), PLENTY).await;
        if knows {
            assert_eq!(world.post(CHAT, &chat(true, 100)).await.status, 200);
        }
        let (before, made) = (world.charged().await, replica.stats().generation_tokens);
        let mut connection = world.connect().await;
        let bearer = format!("Bearer {}", world.key);
        connection.send(request("POST", CHAT, &[("authorization", &bearer)], &chat(false, 2_000).to_string())).await;
        eventually("the replica is in the middle of it", || replica.stats().generation_tokens > made + 300).await;
        drop(connection);
        eventually("it is settled", || world.counter("tollgate_requests_in_flight") == 0.0).await;
        eventually("the replica works for nobody", || replica.stats().running == 0).await;
        let (charged, produced) = (world.charged().await, replica.stats().generation_tokens - made);
        let output = charged.output - before.output;
        println!("{output} charged, {produced} produced");
        assert_eq!(charged.estimated_calls, 1, "{charged:?}");
        // In percent. The first call of all is charged at the pace of the engine, as its metrics show it.
        let tolerance = if knows { 25 } else { 50 };
        assert!(output.abs_diff(produced) * 100 <= produced * tolerance, "{output} charged, {produced} produced");
        assert_eq!(world.counter("tollgate_usage_settlements_total{source=\"estimated\"}"), 1.0);
    }
}
