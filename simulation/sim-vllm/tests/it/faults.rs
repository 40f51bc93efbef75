//! Every fault of the table in `sim_vllm::fault`, by request header and for the whole replica.

use std::time::Duration;

use serde_json::json;
use sim_vllm::{Config, Fault, FaultKind, Replica};
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Answer, chat, get, post, post_with, send};

const CHAT: &str = "/v1/chat/completions";

async fn struck(replica: &Replica, fault: &str, stream: bool) -> Option<Answer> {
    let options = if stream { json!({"include_usage": true}) } else { json!(null) };
    let body =
        chat("hello", json!({"stream": stream, "stream_options": options, "max_tokens": 20, "ignore_eos": true}));
    let request = post_with(CHAT, &format!("x-sim-fault: {fault}\r\n"), &body);
    timeout(Duration::from_secs(60), send(replica, &request)).await.ok()
}

/// What came back, in short.
fn outline(answer: Option<&Answer>) -> String {
    let Some(answer) = answer else { return "silence".to_owned() };
    let end = if answer.complete { "whole" } else { "cut" };
    let events = answer.events();
    let last = events.last().map_or("", |event| event.data.as_str());
    let errors = answer.text().matches("\"error\"").count();
    let broken = events
        .iter()
        .filter(|e| e.data != "[DONE]" && serde_json::from_str::<serde_json::Value>(&e.data).is_err())
        .count();
    match answer.header("content-type") {
        Some(kind) if kind.starts_with("text/event-stream") => {
            let done = if last == "[DONE]" { " done" } else { "" };
            format!("{} {end} events={} errors={errors} broken={broken}{done}", answer.status, events.len())
        }
        _ => format!("{} {end} errors={errors}", answer.status),
    }
}

#[tokio::test(start_paused = true)]
async fn each_fault_does_what_its_table_says() {
    // fault, streamed?, outcome. 20 tokens make 20 events, the role, usage and [DONE].
    let cases = [
        ("refuse", true, "0 cut errors=0"),
        ("status=503", true, "503 whole errors=1"),
        ("status=429", false, "429 whole errors=1"),
        ("hang-before-headers", false, "silence"),
        ("stall-mid-stream;after=5", true, "silence"),
        ("stall-mid-stream", false, "silence"),
        ("die-mid-stream;after=5", true, "200 cut events=5 errors=0 broken=0"),
        ("die-mid-stream;after=0", true, "200 cut events=0 errors=0 broken=0"),
        ("die-mid-stream", false, "200 cut errors=0"),
        ("engine-error-mid-stream;after=3", true, "200 whole events=5 errors=1 broken=0 done"),
        ("engine-error-mid-stream", false, "500 whole errors=1"),
        ("dead-core", true, "500 whole errors=1"),
        ("dead-core", false, "500 whole errors=1"),
        ("garbage", true, "0 cut errors=0"),
        ("garbage-json;after=3", true, "200 whole events=24 errors=0 broken=1 done"),
        ("missing-usage", true, "200 whole events=22 errors=0 broken=0 done"),
        ("usage=huge", true, "200 whole events=23 errors=0 broken=0 done"),
        ("nonsense", true, "400 whole errors=1"),
    ];
    let replica = Replica::start(Config::default());
    for (fault, stream, expected) in cases {
        let answer = struck(&replica, fault, stream).await;
        assert_eq!(outline(answer.as_ref()), expected, "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_stream_has_delivered_what_came_before() {
    let replica = Replica::start(Config::default());
    let body = chat("hello", json!({"stream": true}));
    let request = post_with(CHAT, "x-sim-fault: stall-mid-stream;after=4\r\n", &body);
    let mut io = crate::client::connect(&replica);
    tokio::io::AsyncWriteExt::write_all(&mut io, &request).await.unwrap();
    sleep(Duration::from_secs(20)).await;
    let mut seen = vec![0; 64 << 10];
    let count = tokio::io::AsyncReadExt::read(&mut io, &mut seen).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&seen[..count]).matches("data: ").count(), 4);
}

#[tokio::test(start_paused = true)]
async fn usage_lies_and_omissions() {
    let replica = Replica::start(Config::default());
    for (fault, holds) in [
        ("usage=negative", (|n| n < 0) as fn(i64) -> bool),
        ("usage=huge", |n| n > 1_000_000_000),
        ("usage=wrong", |n| n > 20 && n < 100),
    ] {
        for stream in [true, false] {
            let answer = struck(&replica, fault, stream).await.unwrap();
            let json = if stream { answer.chunks().pop().unwrap() } else { answer.json() };
            assert!(holds(json["usage"]["completion_tokens"].as_i64().unwrap()), "{fault} {json}");
        }
    }
    let plain = struck(&replica, "missing-usage", false).await.unwrap().json();
    assert!(plain.get("usage").is_none());
}

#[tokio::test(start_paused = true)]
async fn the_whole_replica_can_be_struck_and_healed_by_admin_calls() {
    let replica = Replica::start(Config::default());
    let body = post(CHAT, &chat("hi", json!({"max_tokens": 2})));
    let set = send(&replica, &post("/sim/fault", &json!({"fault": "status=503"}))).await;
    assert!(set.json()["fault"].as_str().unwrap().starts_with("status=503"));
    assert_eq!(send(&replica, &body).await.status, 503);
    assert_eq!(send(&replica, &get("/metrics")).await.status, 200, "probes are not struck");
    send(&replica, &post("/sim/fault", &json!({"fault": "status=500;on=all"}))).await;
    assert_eq!(send(&replica, &get("/metrics")).await.status, 500);
    assert_eq!(send(&replica, &post("/sim/fault", &json!({"fault": "wat"}))).await.status, 400);
    send(&replica, &post("/sim/fault", &json!({"fault": null}))).await;
    assert_eq!(send(&replica, &body).await.status, 200);
    assert_eq!(send(&replica, &get("/sim/stats")).await.json()["generation_tokens"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_rate_strikes_that_share_of_requests() {
    let replica = Replica::start(Config { speed: 100.0, ..Config::default() });
    replica.set_fault(Some("status=503;rate=0.25".parse().unwrap()));
    let mut failed = 0;
    for _ in 0..200 {
        failed += i32::from(send(&replica, &post(CHAT, &chat("hi", json!({"max_tokens": 1})))).await.status == 503);
    }
    assert!((30..70).contains(&failed), "{failed} of 200");
}

#[tokio::test(start_paused = true)]
async fn slow_start_and_startup_close_connections_until_they_are_over() {
    let replica = Replica::start(Config { startup: Duration::from_secs(30), ..Config::default() });
    assert_eq!(send(&replica, &get("/health")).await.status, 0);
    sleep(Duration::from_secs(31)).await;
    assert_eq!(send(&replica, &get("/health")).await.status, 200);
    replica.set_fault(Some("slow-start;for=10s".parse().unwrap()));
    assert_eq!(send(&replica, &get("/health")).await.status, 0);
    sleep(Duration::from_secs(11)).await;
    assert_eq!(send(&replica, &get("/health")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn oscillating_health_comes_and_goes_while_calls_are_served() {
    let replica = Replica::start(Config::default());
    replica.set_fault(Some(Fault::new(FaultKind::OscillatingHealth)));
    sleep(Duration::from_millis(100)).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(send(&replica, &get("/health")).await.status);
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(seen, [200, 503, 200, 503]);
    assert_eq!(send(&replica, &post(CHAT, &chat("hi", json!({"max_tokens": 1})))).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_as_long_as_it_says() {
    let replica = Replica::start(Config::default());
    let begin = Instant::now();
    struck(&replica, "delay;for=3s", false).await.unwrap();
    assert!((3.0..3.5).contains(&begin.elapsed().as_secs_f64()));
}

#[tokio::test(start_paused = true)]
async fn a_hung_core_answers_probes_with_what_it_said_last_and_goes_on_when_it_is_woken() {
    let replica = Replica::start(Config::default());
    let body = post(CHAT, &chat("hi", json!({"max_tokens": 500, "ignore_eos": true})));
    let mut leaves = crate::client::connect(&replica);
    tokio::io::AsyncWriteExt::write_all(&mut leaves, &body).await.unwrap();
    let stays = tokio::spawn({
        let (replica, body) = (replica.clone(), body.clone());
        async move { send(&replica, &body).await }
    });
    sleep(Duration::from_millis(500)).await;
    replica.set_fault(Some(Fault::new(FaultKind::HungCore)));
    let engine = async || {
        let page = send(&replica, &get("/metrics")).await.text();
        page.lines().filter(|line| line.starts_with("vllm:")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = engine().await;
    drop(leaves);
    assert!(timeout(Duration::from_secs(20), send(&replica, &body)).await.is_err(), "a new call hangs");
    assert_eq!(send(&replica, &get("/health")).await.status, 200);
    assert_eq!(engine().await, before, "not even the caller who left is seen to leave");
    assert!(!stays.is_finished());
    replica.set_fault(None);
    assert_eq!(stays.await.unwrap().status, 200);
    assert_ne!(engine().await, before);
}
