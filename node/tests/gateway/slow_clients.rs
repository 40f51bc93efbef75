//! Clients that send or take a little now and then: each has a deadline, and what they held is let go.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use node::accept::Limits;
use serde_json::json;
use sim_vllm::Config;
use tokio::time::Instant;

use crate::client::{Connection, request};
use crate::world::{World, eventually, limits, replica, replica_with};

const CHAT: &str = "/llm/qwen/v1/chat/completions";
const CUT: &str = "tollgate_connections_cut_total";

fn head(world: &World, framing: &str) -> String {
    format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n{framing}\r\n\r\n", world.key)
}

/// Sends `piece` every so often until the server has had enough of it.
async fn drip(connection: &mut Connection, piece: &str, pause: Duration) {
    let began = Instant::now();
    while connection.try_send(piece.as_bytes()).await && !connection.closes_within(pause).await {
        assert!(began.elapsed() < Duration::from_secs(10), "the body lives for ever");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_byte_by_byte_has_a_deadline_and_so_has_a_large_one() {
    let (_replica, url) = replica(1).await;
    let slow = Limits { body_read_timeout: Duration::from_millis(300), ..limits() };
    let table = [
        // A byte now and then is no progress.
        (slow.clone(), "content-length: 10000", " ", 50, "too slow"),
        (slow.clone(), "transfer-encoding: chunked", "1\r\n \r\n", 50, "too slow"),
        (slow.clone(), "transfer-encoding: chunked", "1;x=y\r\n \r\n", 50, "too slow"),
        // Fast enough, and never at its end.
        (
            Limits { body_timeout: Duration::from_millis(600), body_rate_min: 1, ..slow.clone() },
            "content-length: 60000",
            "                    ",
            20,
            "all of it within 600ms",
        ),
    ];
    for (limits, framing, piece, pause, said) in table {
        let world = World::start_limited(std::slice::from_ref(&url), limits).await;
        let mut connection = world.connect().await;
        connection.send(head(&world, framing)).await;
        drip(&mut connection, piece, Duration::from_millis(pause)).await;
        let answer = String::from_utf8_lossy(connection.rest().await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains(said), "{framing}: {answer}");
        assert_eq!(world.counter_with(CUT, "reason=\"body\""), 1.0);
        assert_eq!(world.counter("tollgate_requests_in_flight"), 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_that_is_fast_enough_is_served() {
    let (_replica, url) = replica(2).await;
    let limits = Limits { body_read_timeout: Duration::from_millis(200), body_rate_min: 100, ..limits() };
    let world = World::start_limited(&[url], limits).await;
    let body = json!({"messages": [{"role": "user", "content": "x".repeat(1000)}], "max_tokens": 5}).to_string();
    let mut connection = world.connect().await;
    connection.send(head(&world, &format!("content-length: {}", body.len()))).await;
    for piece in body.as_bytes().chunks(20) {
        connection.send(piece).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(connection.answer().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_more_frame_than_body_is_refused() {
    let (_replica, url) = replica(3).await;
    let world = World::start_limited(&[url], limits()).await;
    let extension = format!("1;{}\r\n \r\n", "x".repeat(500));
    let table = [
        ("bytes as chunks", "1\r\n \r\n".repeat(20_000), "HTTP/1.1 400"),
        ("chunk extensions", extension.repeat(100), "HTTP/1.1 400"),
        ("trailers", format!("0\r\n{}\r\n", "x: y\r\n".repeat(10_000)), "HTTP/1.1 400"),
    ];
    for (name, body, expected) in table {
        let mut connection = world.connect().await;
        connection.send(head(&world, "transfer-encoding: chunked")).await;
        connection.try_send(body.as_bytes()).await;
        connection.read_until("\r\n").await;
        let answer = String::from_utf8_lossy(connection.rest().await).into_owned();
        assert!(answer.starts_with(expected), "{name}: {answer}");
    }
    let mut connection = world.connect().await;
    connection.send(format!("GET /healthz HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(200))).await;
    connection.read_until("HTTP/1.1 431").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_stream_that_nobody_reads_is_cut_and_lets_its_replica_go() {
    let (replica, url) = replica_with(Config { seed: 4, speed: 4.0, ..Config::default() }).await;
    let world = World::start_limited(&[url], Limits { write_timeout: Duration::from_millis(400), ..limits() }).await;
    let stream = std::net::TcpStream::connect(world.address).unwrap();
    stream.set_nonblocking(true).unwrap();
    let io = TokioIo::new(tokio::net::TcpStream::from_std(stream).unwrap());
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    // It takes what fits into the stream's window, answers every ping, and opens the window no further.
    builder.initial_stream_window_size(2_000).initial_connection_window_size(1 << 20);
    let (sender, connection) = builder.handshake(io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = |max_tokens: u32| {
        let body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": max_tokens, "ignore_eos": true, "stream": true});
        http::Request::post(format!("http://gateway{CHAT}"))
            .header("authorization", format!("Bearer {}", world.key))
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap()
    };
    let unread = sender.clone().send_request(request(4000)).await.unwrap();
    eventually("the call runs", || replica.stats().running == 1).await;

    // Another stream of the same connection is read, and goes on.
    let read = sender.clone().send_request(request(100)).await.unwrap().into_body().collect().await.unwrap();
    assert!(read.to_bytes().ends_with(b"data: [DONE]\n\n"));
    eventually("the replica is let go", || replica.stats().running == 0).await;
    eventually("no call is in progress", || world.counter("tollgate_requests_in_flight") == 0.0).await;
    assert_eq!(world.counter_with(CUT, "reason=\"stream\""), 1.0);
    let produced = replica.stats().requests.iter().map(|record| record.produced_tokens).max().unwrap();
    assert!((100..4000).contains(&produced), "it was cut in the middle: {produced}");
    assert!(world.charged().await.output > 100, "and what was produced is charged");
    tokio::time::timeout(Duration::from_secs(5), connection).await.expect("the connection goes, too").unwrap().ok();
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_stream_that_is_read_slowly_is_not_cut() {
    let (_replica, url) = replica(5).await;
    let world = World::start_limited(&[url], Limits { write_timeout: Duration::from_millis(500), ..limits() }).await;
    let stream = std::net::TcpStream::connect(world.address).unwrap();
    stream.set_nonblocking(true).unwrap();
    let io = TokioIo::new(tokio::net::TcpStream::from_std(stream).unwrap());
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.initial_stream_window_size(2_000).handshake(io).await.unwrap();
    tokio::spawn(connection);
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 60, "ignore_eos": true, "stream": true});
    let request = http::Request::post(format!("http://gateway{CHAT}"))
        .header("authorization", format!("Bearer {}", world.key))
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap();
    let mut answer = sender.send_request(request).await.unwrap().into_body();
    let mut last = Bytes::new();
    while let Some(frame) = answer.frame().await {
        let data = frame.unwrap().into_data().unwrap_or_default();
        last = if data.is_empty() { last } else { data };
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(last.ends_with(b"data: [DONE]\n\n"), "{last:?}");
    assert_eq!(world.counter_with(CUT, "reason=\"stream\""), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_and_never_reads_is_cut() {
    let (_replica, url) = replica(6).await;
    let world = World::start_limited(&[url], Limits { write_timeout: Duration::from_millis(300), ..limits() }).await;
    let mut connection = world.connect().await;
    let many = request("GET", "/healthz", &[], "").repeat(1_000);
    // Until the answers fill every buffer on the way, and requests are read no more.
    let writing = async { while connection.try_send(many.as_bytes()).await {} };
    tokio::time::timeout(Duration::from_secs(20), writing).await.expect("the connection is closed");
    assert_eq!(world.counter_with(CUT, "reason=\"write\""), 1.0);
}
