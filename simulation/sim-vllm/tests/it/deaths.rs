//! Clients that leave and servers that die, as recorded.

use std::time::Duration;

use serde_json::{Value, json};
use sim_vllm::{Config, FrontEnd, Outcome, Replica};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use crate::client::{Answer, chat, connect, get, post, send};

const CHAT: &str = "/v1/chat/completions";

/// A stream and a plain call of 1,000 tokens that are in the middle of it.
async fn two_calls(replica: &Replica) -> [tokio::task::JoinHandle<Answer>; 2] {
    let calls = [true, false].map(|stream| {
        let replica = replica.clone();
        let body = chat("go on", json!({"stream": stream, "max_tokens": 1000, "ignore_eos": true}));
        tokio::spawn(async move { send(&replica, &post(CHAT, &body)).await })
    });
    sleep(Duration::from_millis(600)).await;
    calls
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_seen_within_a_step() {
    for stream in [true, false] {
        for half_close in [true, false] {
            let replica = Replica::start(Config::default());
            let mut io = connect(&replica);
            let body = chat("go on", json!({"stream": stream, "max_tokens": 1000, "ignore_eos": true}));
            io.write_all(&post(CHAT, &body)).await.unwrap();
            sleep(Duration::from_millis(500)).await;
            assert_eq!(replica.stats().running, 1);

            // Closing only the write side aborts as well.
            if half_close {
                io.shutdown().await.unwrap();
            } else {
                drop(io);
            }
            sleep(Duration::from_millis(20)).await;
            let stats = replica.stats();
            assert_eq!((stats.running, stats.aborted()), (0, 1), "stream {stream}, half close {half_close}");
            let record = &stats.requests[0];
            assert_eq!(record.outcome, Outcome::Aborted);
            assert!(record.ended_seconds.unwrap() < 0.51 && record.produced_tokens > 50);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_during_a_long_prefill_leaves_with_the_step() {
    let replica = Replica::start(Config::default());
    let mut io = connect(&replica);
    io.write_all(&post(CHAT, &chat(&"word ".repeat(30_000), json!({"stream": true})))).await.unwrap();
    sleep(Duration::from_millis(150)).await;
    drop(io);
    sleep(Duration::from_millis(20)).await;
    assert_eq!(replica.stats().running, 1, "the scheduled chunk still runs");
    sleep(Duration::from_millis(300)).await;
    let stats = replica.stats();
    assert_eq!((stats.running, stats.prompt_tokens), (0, 0), "its prompt is not counted");
    send(&replica, &post(CHAT, &chat("hi", json!({"max_tokens": 1})))).await;
    assert_eq!(replica.stats().prompt_tokens, replica.stats().requests[1].prompt_tokens as u64);
}

#[tokio::test(start_paused = true)]
async fn a_hung_engine_is_silent_and_answers_every_probe() {
    let replica = Replica::start(Config::default());
    let calls = two_calls(&replica).await;
    replica.hang();
    sleep(Duration::from_secs(30)).await;
    assert!(calls.iter().all(|call| !call.is_finished()));
    for path in ["/health", "/v1/models", "/metrics"] {
        assert_eq!(send(&replica, &get(path)).await.status, 200, "{path}");
    }

    // A new stream gets its headers at once, and nothing more.
    let mut io = connect(&replica);
    io.write_all(&post(CHAT, &chat("hi", json!({"stream": true})))).await.unwrap();
    let mut buffer = [0; 4096];
    let count = io.read(&mut buffer).await.unwrap();
    assert!(buffer[..count].starts_with(b"HTTP/1.1 200"));
    assert!(timeout(Duration::from_secs(10), io.read(&mut buffer)).await.is_err());

    // Woken up, everything goes on where it was.
    replica.resume();
    for call in calls {
        let answer = call.await.unwrap();
        assert!(answer.complete && answer.status == 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_engine_behind_the_python_front_end_is_reported_and_then_gone() {
    let replica = Replica::start(Config::default());
    let [stream, plain] = two_calls(&replica).await;
    replica.kill();
    sleep(Duration::from_millis(200)).await;
    assert_eq!(send(&replica, &get("/health")).await.status, 503);
    let late = send(&replica, &post(CHAT, &chat("hi", json!({"stream": true})))).await;
    assert_eq!((late.status, &late.json()["error"]["type"]), (500, &json!("InternalServerError")));

    let stream = stream.await.unwrap();
    let events = stream.events();
    let error: Value = serde_json::from_str(&events[events.len() - 2].data).unwrap();
    assert_eq!((stream.status, stream.complete, &error["error"]["code"]), (200, true, &json!(500)));
    assert_eq!(events[events.len() - 1].data, "[DONE]");
    let plain = plain.await.unwrap();
    assert_eq!((plain.status, &plain.json()["error"]["code"]), (500, &json!(500)));

    sleep(Duration::from_millis(100)).await;
    assert_eq!(send(&replica, &get("/health")).await.status, 0, "the port is closed");
}

#[tokio::test(start_paused = true)]
async fn a_killed_engine_behind_the_rust_front_end_cuts_its_connections() {
    let replica = Replica::start(Config { front_end: FrontEnd::Rust, ..Config::default() });
    let [stream, plain] = two_calls(&replica).await;
    replica.kill();
    let (stream, plain) = (stream.await.unwrap(), plain.await.unwrap());
    assert_eq!((stream.status, stream.complete), (200, false));
    assert_eq!((plain.status, plain.complete), (0, false));
    assert_eq!(send(&replica, &get("/health")).await.status, 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_told_to_stop_ends_its_calls_with_what_they_have() {
    let replica = Replica::start(Config::default());
    let [stream, plain] = two_calls(&replica).await;
    replica.terminate(Duration::ZERO);
    let stream = stream.await.unwrap();
    let chunks = stream.chunks();
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "abort");
    assert_eq!((stream.complete, stream.events().last().unwrap().data.as_str()), (true, "[DONE]"));
    let plain = plain.await.unwrap();
    assert_eq!((plain.status, &plain.json()["choices"][0]["finish_reason"]), (200, &json!("abort")));
    assert_eq!(send(&replica, &get("/health")).await.status, 0);
}

#[tokio::test(start_paused = true)]
async fn a_draining_server_refuses_and_lets_its_calls_finish() {
    let replica = Replica::start(Config::default());
    let calls = two_calls(&replica).await;
    replica.terminate(Duration::from_secs(15));
    assert_eq!(send(&replica, &get("/health")).await.status, 0);
    for call in calls {
        let answer = call.await.unwrap();
        assert!(answer.complete && answer.text().contains("\"length\""));
    }
}
