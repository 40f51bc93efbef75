//! A thousand callers leave in the middle of what they are told.

use std::time::Duration;

use serde_json::json;
use sim_vllm::{Config, Outcome};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::request;
use crate::world::{PLENTY, World, eventually, replica_with};

const CALLERS: usize = 1000;

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
