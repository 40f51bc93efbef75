//! Calls that do not end well: callers that leave, replicas that die, lie or fall silent.

use std::time::Duration;

use node::gateway::UpstreamSettings;
use serde_json::json;
use sim_vllm::{Config, Fault, FaultKind, Lie};
use tokio::time::Instant;

use crate::client::request;
use crate::scripted::Script;
use crate::world::{PLENTY, World, eventually, replica, replica_with};

const CHAT: &str = "/llm/qwen/v1/chat/completions";

fn chat(stream: bool, max_tokens: u64) -> serde_json::Value {
    json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": max_tokens, "ignore_eos": true, "stream": stream})
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_frees_the_replica_at_once_and_pays_for_what_was_produced() {
    let (replica, url) = replica_with(Config { seed: 1, speed: 1.0, ..Config::default() }).await;
    let world = World::start(&[url], PLENTY).await;
    let mut connection = world.connect().await;
    let bearer = format!("Bearer {}", world.key);
    connection.send(request("POST", CHAT, &[("authorization", &bearer)], &chat(true, 2000).to_string())).await;
    connection.read_until("data: {").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let left = Instant::now();
    drop(connection);
    eventually("the replica sees the caller leave", || replica.stats().aborted() == 1).await;
    assert!(left.elapsed() < Duration::from_secs(1), "{:?}", left.elapsed());
    eventually("the call is settled", || world.counter("tollgate_usage_settlements_total") == 1.0).await;
    let produced = replica.stats().generation_tokens;
    let used = world.used().await;
    assert!(used > produced / 2 && used < produced + 200, "{used} charged, {produced} produced");
    assert_eq!(world.counter("tollgate_requests_in_flight"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_before_an_answer_frees_the_replica_too() {
    let (replica, url) = replica_with(Config { seed: 1, speed: 1.0, ..Config::default() }).await;
    let world = World::start(&[url], PLENTY).await;
    let mut connection = world.connect().await;
    let bearer = format!("Bearer {}", world.key);
    connection.send(request("POST", CHAT, &[("authorization", &bearer)], &chat(false, 2000).to_string())).await;
    eventually("the replica works", || replica.stats().running == 1).await;
    drop(connection);
    eventually("the replica sees the caller leave", || replica.stats().aborted() == 1).await;
    eventually("the call is settled", || world.counter("tollgate_usage_settlements_total") == 1.0).await;
    assert!(world.used().await > 0, "its prompt at least");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_ends_with_an_error_and_without_an_end_mark() {
    for (kind, message) in [
        (FaultKind::DieMidStream, "broke off"),
        (FaultKind::EngineErrorMidStream, "EngineCore"),
        (FaultKind::StallMidStream, "fell silent"),
    ] {
        let (replica, url) = replica(3).await;
        let upstream = UpstreamSettings { idle_timeout: Duration::from_millis(300), ..UpstreamSettings::default() };
        let world = World::start_with(&[url], PLENTY, upstream).await;
        replica.set_fault(Some(Fault::new(kind).after(5)));
        let answer = world.post(CHAT, &chat(true, 50)).await;
        assert_eq!(answer.status, 200, "{kind:?}: {answer:?}");
        let events = answer.events();
        let last = events.last().unwrap();
        assert!(last.starts_with("{\"error\":") && last.contains(message), "{kind:?}: {answer:?}");
        assert!(!answer.body.contains("[DONE]"), "{kind:?}: {answer:?}");
        let used = world.used().await;
        assert!(used > 4 && used < 100, "{kind:?}: the tokens so far are charged: {used}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_fails_before_its_first_byte_is_replaced() {
    for kind in [FaultKind::Refuse, FaultKind::Status(503), FaultKind::Status(502)] {
        let ((bad, first), (_good, second)) = (replica(4).await, replica(5).await);
        let world = World::start(&[first, second], PLENTY).await;
        bad.set_fault(Some(Fault::new(kind)));
        for stream in [true, false, true, false] {
            let answer = world.post(CHAT, &chat(stream, 5)).await;
            assert_eq!(answer.status, 200, "{kind:?}: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_replica_fails_the_caller_is_told_and_pays_nothing() {
    let (replica, url) = replica(6).await;
    let world = World::start(&[url], PLENTY).await;
    let table = [
        (FaultKind::Refuse, 502),
        (FaultKind::Status(503), 503),
        (FaultKind::Status(500), 500),
        (FaultKind::Garbage, 502),
    ];
    for (kind, status) in table {
        replica.set_fault(Some(Fault::new(kind)));
        let answer = world.post(CHAT, &chat(false, 5)).await;
        assert_eq!(answer.status, status, "{kind:?}: {answer:?}");
        assert!(answer.json()["error"]["message"].is_string());
    }
    assert_eq!(world.used().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_that_cannot_be_true_is_counted_or_estimated_instead() {
    let (replica, url) = replica(7).await;
    let world = World::start(&[url], PLENTY).await;
    for kind in [FaultKind::Usage(Lie::Huge), FaultKind::Usage(Lie::Negative), FaultKind::MissingUsage] {
        for stream in [true, false] {
            let before = world.used().await;
            replica.set_fault(Some(Fault::new(kind)));
            let answer = world.post(CHAT, &chat(stream, 30)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let charged = world.used().await - before;
            assert!((30..400).contains(&charged), "{kind:?} stream {stream}: {charged}");
        }
    }
    assert_eq!(world.counter("tollgate_usage_settlements_total{source=\"reported\"}"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_is_not_passed_off_as_success() {
    let script = Script::default();
    let world = World::start(&[script.serve().await], PLENTY).await;
    script.stream(
        &[
            b"data: {\"choices\":[{\"delta\":{\"content\":\"so far\"},\"finish_reason\":null}]}\n\n",
            b"data: {\"choices\":[{\"delta\":{\"content\":\"\"},\"finish_reason\":\"abort\"}]}\n\ndata: [DONE]\n\n",
        ],
        true,
    );
    let stream = world.post(CHAT, &chat(true, 5)).await;
    assert!(stream.body.contains("so far") && stream.events().last().unwrap().starts_with("{\"error\":"), "{stream:?}");
    assert!(!stream.body.contains("[DONE]"), "{stream:?}");
    script.stream(&[b"data: {\"choices\":[]}\n\ndata: {\"cho"], false);
    let cut = world.post(CHAT, &chat(true, 5)).await;
    assert!(
        cut.body.starts_with("data: {\"choices\":[]}\n\ndata: {\"error\":"),
        "half an event is not passed on: {cut:?}"
    );
    script.whole("200 OK", "<html>");
    assert_eq!(world.post(CHAT, &chat(false, 5)).await.status, 502);
}
