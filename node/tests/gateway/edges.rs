//! The port itself: clients that are too slow, and the end of the node.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use sim_vllm::Config;
use tokio::time::Instant;

use crate::client::request;
use crate::world::{PLENTY, World, replica, replica_with};

const CHAT: &str = "/llm/qwen/v1/chat/completions";

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_silent_connections_are_gone_after_the_timeout() {
    let (_replica, url) = replica(1).await;
    let world = World::start(&[url], PLENTY).await;
    let mut connections = Vec::new();
    for start in ["", "P", "PRI * HTTP/2.0\r\n", "POST / HTTP/1.1\r\nhost: a\r\nx: "] {
        for _ in 0..10 {
            let mut connection = world.connect().await;
            connection.send(start).await;
            connections.push(connection);
        }
    }
    let began = Instant::now();
    for connection in &mut connections {
        assert!(connection.closes_within(Duration::from_secs(2)).await);
    }
    assert!(began.elapsed() > Duration::from_millis(300), "not before they had their time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_is_refused_and_an_idle_connection_is_closed() {
    let (_replica, url) = replica(2).await;
    let world = World::start(&[url], PLENTY).await;
    let mut slow = world.connect().await;
    let bearer = format!("Bearer {}", world.key);
    slow.send(format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: {bearer}\r\ncontent-length: 100\r\n\r\n{{"))
        .await;
    let answer = slow.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (408, "close"));
    let mut idle = world.connect().await;
    assert_eq!(idle.get("/healthz", &[]).await.status, 200);
    assert!(
        !idle.closes_within(Duration::from_millis(800)).await,
        "an idle connection may rest longer than a head may take"
    );
    assert!(idle.closes_within(Duration::from_secs(3)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_streams_end_and_takes_nothing_new() {
    let (_replica, url) = replica_with(Config { seed: 3, speed: 4.0, ..Config::default() }).await;
    let mut world = World::start(&[url], PLENTY).await;
    let mut stream = world.connect().await;
    let bearer = format!("Bearer {}", world.key);
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 300, "ignore_eos": true, "stream": true});
    stream.send(request("POST", CHAT, &[("authorization", &bearer)], &body.to_string())).await;
    stream.read_until("data: {").await;
    let mut idle = world.connect().await;
    assert_eq!(idle.get("/healthz", &[]).await.status, 200);
    let address = world.address;
    let drain = tokio::spawn(async move {
        world.drain().await;
        world
    });
    assert!(idle.closes_within(Duration::from_secs(1)).await, "idle connections are closed at once");
    assert!(std::net::TcpStream::connect(address).is_err(), "nothing new is taken");
    let answer = stream.answer().await;
    assert_eq!(answer.events().last(), Some(&"[DONE]"), "the stream ran to its end");
    let world = drain.await.unwrap();
    assert!(world.used().await > 300, "and was settled");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_carries_calls_side_by_side_on_one_connection() {
    let (_replica, url) = replica(4).await;
    let world = World::start(&[url], PLENTY).await;
    let stream = std::net::TcpStream::connect(world.address).unwrap();
    stream.set_nonblocking(true).unwrap();
    let io = TokioIo::new(tokio::net::TcpStream::from_std(stream).unwrap());
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let calls = (0..20).map(|_| {
        let body =
            json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 20, "stream": true}).to_string();
        let request = http::Request::post(format!("http://gateway{CHAT}"))
            .header("authorization", format!("Bearer {}", world.key))
            .body(Full::new(bytes::Bytes::from(body)))
            .unwrap();
        let mut sender = sender.clone();
        async move { sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes() }
    });
    for body in futures_util::future::join_all(calls).await {
        assert!(body.ends_with(b"data: [DONE]\n\n"), "{body:?}");
    }
    assert_eq!(world.counter("tollgate_requests_total"), 20.0);
}
