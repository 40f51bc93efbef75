//! A replica behind a real port: it answers, keeps to real time, and closes the port when it dies.
#![expect(clippy::disallowed_methods, reason = "the port is real here; everything else runs in memory")]

use std::{net::SocketAddr, time::Duration};

use serde_json::json;
use sim_vllm::{Config, Replica};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::{Instant, timeout},
};

use crate::client::{chat, post};

/// A replica on a port, what stops its port, and the end of its serving.
async fn listen(config: Config) -> (Replica, SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let replica = Replica::start(config);
    let serving = replica.clone();
    let task = tokio::spawn(async move { serving.serve(listener, async { drop(stopped.await) }).await });
    (replica, address, stop, task)
}

/// Sends a streamed chat request and reads until the server closes.
async fn stream(address: SocketAddr, tokens: usize) -> String {
    let mut io = TcpStream::connect(address).await.unwrap();
    let body = chat("hello", json!({"stream": true, "max_tokens": tokens, "ignore_eos": true}));
    io.write_all(&post("/v1/chat/completions", &body)).await.unwrap();
    let mut seen = String::new();
    let mut buffer = vec![0; 16 << 10];
    while !seen.contains("[DONE]") {
        let count = io.read(&mut buffer).await.unwrap_or(0);
        if count == 0 {
            break;
        }
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    seen
}

#[tokio::test]
async fn it_answers_at_the_recorded_pace() {
    let (_replica, address, stop, task) = listen(Config::default()).await;
    let begin = Instant::now();
    let seen = stream(address, 100).await;
    assert_eq!(seen.matches("data: ").count(), 102);

    // 20 ms to the first token and 99 steps of 4.8 ms; a busy machine may take longer, never less.
    let elapsed = begin.elapsed();
    assert!(elapsed > Duration::from_millis(440) && elapsed < Duration::from_secs(5), "{elapsed:?}");
    stop.send(()).unwrap();
    task.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_death_closes_the_port() {
    let (replica, address, _stop, task) = listen(Config::default()).await;
    let call = tokio::spawn(stream(address, 10_000));
    tokio::time::sleep(Duration::from_millis(200)).await;
    replica.kill();
    timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    assert!(call.await.unwrap().contains("\"code\":500"));
}
