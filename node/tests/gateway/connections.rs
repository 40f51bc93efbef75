//! Which connections get a place on a port that is full, and which one gives it up.

use std::time::Duration;

use node::accept::Limits;
use serde_json::json;
use sim_vllm::Config;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::{Answer, Connection, request};
use crate::world::{World, eventually, limits, replica, replica_with};

const CHAT: &str = "/llm/qwen/v1/chat/completions";
const CUT: &str = "tollgate_connections_cut_total";
/// A health check is given up by orchestrators soon after.
const PROBE_MAX: Duration = Duration::from_millis(250);

fn hello() -> String {
    json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}).to_string()
}

/// A place for so many, and time for all of them.
fn places(connections_max: usize) -> Limits {
    let idle_timeout = Duration::from_secs(600);
    Limits {
        connections_max,
        connections_per_address_max: connections_max,
        connections_unauthenticated_max: connections_max,
        idle_timeout,
        ..limits()
    }
}

async fn call(world: &World, connection: &mut Connection) -> Answer {
    let bearer = format!("Bearer {}", world.key);
    connection.post(CHAT, &[("authorization", &bearer)], &hello()).await
}

/// Connections that have asked once without a credential, and stay.
async fn strangers(world: &World, count: usize) -> Vec<Connection> {
    let mut connections = Vec::new();
    for _ in 0..count {
        let mut connection = world.connect().await;
        assert_eq!(connection.post(CHAT, &[], &hello()).await.status, 401);
        connections.push(connection);
    }
    connections
}

async fn closed(connections: &mut [Connection]) -> usize {
    let mut closed = 0;
    for connection in connections {
        closed += usize::from(connection.closes_within(Duration::from_millis(20)).await);
    }
    closed
}

async fn probe(world: &World) -> Duration {
    let began = Instant::now();
    assert_eq!(world.connect().await.get("/healthz", &[]).await.status, 200);
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_strangers_shut_out_neither_calls_nor_health_checks() {
    let (_replica, url) = replica(1).await;
    let world = World::start_limited(&[url], places(20)).await;
    let mut caller = world.connect().await;
    assert_eq!(call(&world, &mut caller).await.status, 200);

    let mut strangers = strangers(&world, 100).await;
    assert!(probe(&world).await < PROBE_MAX);
    assert_eq!(call(&world, &mut world.connect().await).await.status, 200);
    // The caller's connection has been quiet for longer than any of theirs, and has its place.
    assert_eq!(call(&world, &mut caller).await.status, 200);
    let (old, new) = strangers.split_at_mut(80);
    assert_eq!(closed(old).await, 80, "who was quiet the longest made room");
    assert!(closed(new).await <= 4, "and only as many as were needed");
    assert!(world.counter_with(CUT, "reason=\"room\"") >= 80.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_have_a_limit_of_their_own_whatever_they_are_doing() {
    let (_replica, url) = replica(2).await;
    let world = World::start_limited(&[url], Limits { connections_unauthenticated_max: 10, ..places(1000) }).await;
    let mut connections = Vec::new();
    for start in ["", "GET /healthz HTTP/1.1\r\nhost: a\r\nx: ", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        for _ in 0..20 {
            let mut connection = world.connect().await;
            connection.send(start).await;
            connections.push(connection);
        }
    }
    eventually("all but ten are closed", || world.counter_with(CUT, "reason=\"room\"") >= 50.0).await;
    assert_eq!(call(&world, &mut world.connect().await).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_callers_make_room_where_there_are_only_callers() {
    let (_replica, url) = replica(3).await;
    let world = World::start_limited(&[url], places(5)).await;
    let mut callers = Vec::new();
    for _ in 0..8 {
        let mut caller = world.connect().await;
        assert_eq!(call(&world, &mut caller).await.status, 200);
        callers.push(caller);
    }
    assert_eq!(closed(&mut callers[..3]).await, 3);
    for caller in &mut callers[3..] {
        assert_eq!(call(&world, caller).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_never_end_make_room_too() {
    let (_replica, url) = replica(8).await;
    let world = World::start_limited(&[url], Limits { body_read_timeout: Duration::from_secs(60), ..places(5) }).await;
    let mut slow = Vec::new();
    for _ in 0..5 {
        let mut connection = world.connect().await;
        let key = &world.key;
        let head =
            format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\ncontent-length: 900\r\n\r\n{{");
        connection.send(head).await;
        slow.push(connection);
    }
    eventually("all places are taken", || world.counter_with("tollgate_auth_decisions_total", "accepted") >= 5.0).await;
    for _ in 0..3 {
        assert!(probe(&world).await < PROBE_MAX);
        assert_eq!(call(&world, &mut world.connect().await).await.status, 200);
    }
    assert!(slow[0].closes_within(Duration::from_millis(500)).await, "the oldest made room");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_takes_its_own_places_only() {
    let (_replica, url) = replica(4).await;
    let world = World::start_limited(&[url], Limits { connections_per_address_max: 5, ..places(1000) }).await;
    let mut other = Connection::open_from("127.0.0.2", world.address).await;
    assert_eq!(other.post(CHAT, &[], &hello()).await.status, 401);
    let mut greedy = strangers(&world, 30).await;
    assert_eq!(closed(&mut greedy[..25]).await, 25);
    assert_eq!(other.post(CHAT, &[], &hello()).await.status, 401, "another address keeps its connection");
    assert!(probe(&world).await < PROBE_MAX);

    // A balancer that is trusted has no such limit.
    let (_replica, url) = replica(5).await;
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let limits = Limits { connections_per_address_max: 5, trusted_proxies, ..places(1000) };
    let world = World::start_limited(&[url], limits).await;
    let mut balancer = strangers(&world, 30).await;
    assert_eq!(closed(&mut balancer).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_place_is_busy_health_checks_are_answered_and_calls_are_told_to_come_back() {
    let (slow, url) = replica_with(Config { seed: 6, speed: 1.0, ..Config::default() }).await;
    let world = World::start_limited(&[url], Limits { connections_reserved: 2, ..places(3) }).await;
    let bearer = format!("Bearer {}", world.key);
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 100, "ignore_eos": true, "stream": true});
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = world.connect().await;
        stream.send(request("POST", CHAT, &[("authorization", &bearer)], &body.to_string())).await;
        stream.read_until("data: {").await;
        streams.push(stream);
    }
    for _ in 0..10 {
        assert!(probe(&world).await < PROBE_MAX);
        let refused = call(&world, &mut world.connect().await).await;
        assert_eq!((refused.status, refused.header("retry-after"), refused.header("connection")), (503, "1", "close"));
        assert_eq!(refused.json()["error"]["code"], "connections_exhausted");
    }
    assert_eq!(world.counter_with(CUT, "reason=\"full\""), 10.0);
    for mut stream in streams {
        assert_eq!(stream.answer().await.events().last(), Some(&"[DONE]"), "no stream in progress was cut");
    }
    assert_eq!(slow.stats().running, 0);
    assert_eq!(call(&world, &mut world.connect().await).await.status, 200);
}

/// The attack as it was reported, for as long as it takes to see: about half a minute.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "opens 10,000 connections; run it with --run-ignored only"]
async fn ten_thousand_idle_connections_and_a_thousand_wrong_keys_a_second_disturb_nobody() {
    let (_replica, url) = replica(7).await;
    let limits = Limits { idle_timeout: Duration::from_secs(75), ..Limits::default() };
    let world = World::start_limited(&[url], limits).await;
    let (address, key) = (world.address, world.key.clone());
    let mut attack = JoinSet::new();
    attack.spawn(async move {
        let mut idle = Vec::new();
        while idle.len() < 10_000 {
            let mut connection = Connection::open(address).await;
            connection.post(CHAT, &[], &hello()).await;
            idle.push(connection);
        }
        std::future::pending::<()>().await;
        drop(idle);
    });
    for _ in 0..10 {
        attack.spawn(async move {
            let mut guesser = Connection::open(address).await;
            let mut pace = tokio::time::interval(Duration::from_millis(10));
            for guess in 0.. {
                pace.tick().await;
                let bearer = format!("Bearer sk-oai-guess_{guess}");
                let status = guesser.post(CHAT, &[("authorization", &bearer)], &hello()).await.status;
                assert!(matches!(status, 403 | 429), "{status}");
            }
        });
    }
    let (began, mut slowest, mut calls) = (Instant::now(), Duration::ZERO, 0);
    while began.elapsed() < Duration::from_secs(30) {
        slowest = slowest.max(probe(&world).await);
        let bearer = format!("Bearer {key}");
        let answer = world.connect().await.post(CHAT, &[("authorization", &bearer)], &hello()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        calls += 1;
    }
    println!("{calls} calls, none failed; the slowest probe took {slowest:?}");
    assert!(slowest < PROBE_MAX, "{slowest:?}");
    assert_eq!(attack.len(), 11, "the attack went on to the end");
}
