//! The admin port by its socket: the rules for heads, bodies and wrong tokens are those of the gateway's port.

use std::net::SocketAddr;
use std::time::Duration;

use node::accept::{Limits, Port};
use node::admin;
use raft::doors::{BoxStream, Net, TokioNet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{ADMIN, World};

/// Opens the port.
async fn open(world: &World, limits: Limits) -> SocketAddr {
    let listener = TokioNet.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let port = Port { listener, tls: None, limits };
    tokio::spawn(admin::serve(world.context.clone(), world.admin.clone(), port, std::future::pending()));
    address
}

async fn connect(address: SocketAddr) -> BoxStream {
    TokioNet.connect(&address.ip().to_string(), address.port()).await.unwrap()
}

/// Sends these bytes and returns all that comes until the port closes the connection.
async fn exchange(address: SocketAddr, bytes: &str) -> String {
    let mut stream = connect(address).await;
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(ended.is_ok(), "the connection stays open after {answer}");
    answer
}

fn get(path: &str, token: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n{more}\r\n")
}

#[tokio::test]
async fn heads_that_can_be_understood_in_two_ways_are_refused() {
    let world = World::start().await;
    let address = open(&world, Limits::default()).await;
    let with =
        |lines: &str| format!("POST /api/v1/namespaces HTTP/1.1\r\nauthorization: Bearer {ADMIN}\r\n{lines}\r\n");
    let chunked = "transfer-encoding: chunked";
    let table = [
        (with(""), "HTTP/1.1 400", "no Host"),
        (with("host: a\r\nhost: b\r\n"), "HTTP/1.1 400", "more than one Host"),
        (with(&format!("host: a\r\n{chunked}, chunked\r\n")), "HTTP/1.1 400", "ambiguous length"),
        (with(&format!("host: a\r\n{chunked}\r\n{chunked}\r\n")), "HTTP/1.1 400", "ambiguous length"),
        (get("http://b/api", ADMIN, ""), "HTTP/1.1 400", "different hosts"),
        // Where a body without a length ends, somebody on the way may see otherwise: the connection carries nothing more.
        (get("/api", ADMIN, &format!("{chunked}\r\n")) + "0\r\n\r\n", "HTTP/1.1 200", "connection: close"),
    ];
    for (bytes, status, said) in table {
        let answer = exchange(address, &bytes).await;
        assert!(answer.starts_with(status) && answer.contains(said), "{bytes}\n{answer}");
    }
}

#[tokio::test]
async fn wrong_tokens_are_slowed_down_and_right_ones_are_not() {
    let world = World::start().await;
    let address = open(&world, Limits { auth_failures_burst: 20, ..Limits::default() }).await;
    let close = "connection: close\r\n";
    let mut statuses = Vec::new();
    for guess in 0..100 {
        let path = ["/api", "/maas-api/v1/models", "/tollgate/v1/members", "/metrics"][guess % 4];
        let answer = exchange(address, &get(path, &format!("guess{guess}"), close)).await;
        if answer.starts_with("HTTP/1.1 429") {
            assert!(
                answer.contains("retry-after: 1\r\n") && answer.contains("\"reason\":\"TooManyRequests\""),
                "{answer}"
            );
        }
        statuses.push(answer[9..12].to_owned());
    }
    let count = |status: &str| statuses.iter().filter(|found| *found == status).count();
    assert!(count("401") >= 20 && count("429") >= 40 && count("401") + count("429") == 100, "{statuses:?}");
    for (path, token, status) in [("/api", ADMIN, "200"), ("/metrics", ADMIN, "200"), ("/healthz", "guess", "200")] {
        assert_eq!(exchange(address, &get(path, token, close)).await[9..12], *status, "{path}");
    }
    let metrics = exchange(address, &get("/metrics", ADMIN, close)).await;
    assert!(metrics.contains("tollgate_auth_attempts_refused_total{port=\"admin\"}"), "{metrics}");
}

#[tokio::test]
async fn a_body_byte_by_byte_has_a_deadline_and_idle_strangers_make_room() {
    let world = World::start().await;
    let limits = Limits {
        body_read_timeout: Duration::from_millis(300),
        connections_unauthenticated_max: 5,
        ..Limits::default()
    };
    let address = open(&world, limits).await;
    for (path, said) in [("/api/v1/namespaces", "\"reason\":\"Timeout\""), ("/maas-api/v1/api-keys", "too slow")] {
        let head = get(path, ADMIN, "content-length: 1000\r\n").replace("GET", "POST");
        let (mut reading, mut writing) = tokio::io::split(connect(address).await);
        writing.write_all(head.as_bytes()).await.unwrap();
        let dripping = tokio::spawn(async move {
            while writing.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), reading.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(ended.is_ok() && answer.starts_with("HTTP/1.1 408") && answer.contains(said), "{path}: {answer}");
        dripping.abort();
    }
    let mut idle = Vec::new();
    for _ in 0..50 {
        let mut stream = connect(address).await;
        stream.write_all(get("/api", "", "").as_bytes()).await.unwrap();
        idle.push(stream);
    }
    assert!(exchange(address, &get("/readyz", ADMIN, "connection: close\r\n")).await.starts_with("HTTP/1.1 200"));
    assert!(exchange(address, &get("/api", ADMIN, "connection: close\r\n")).await.starts_with("HTTP/1.1 200"));
    let mut read = Vec::new();
    let first = tokio::time::timeout(Duration::from_secs(5), idle[0].read_to_end(&mut read)).await;
    assert!(first.is_ok(), "who was quiet the longest made room");
}
