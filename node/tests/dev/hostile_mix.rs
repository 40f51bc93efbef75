//! Hostile callers of every kind at once, for a minute: what good callers, health checks and memory notice of it.
//!
//! `cargo test --release -p tollgate --test dev -- --ignored --nocapture hostile` prints the figures.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::client::{Answer, Client, Connection};
use crate::run::{CHAT, Dev, chat};

const LASTS: Duration = Duration::from_secs(60);
const BODIES: usize = 50;
const IDLE: usize = 10_000;
/// Of new keys, and of calls with a wrong key.
const A_SECOND: u64 = 1_000;
const WORKERS: u64 = 20;
const MIB: usize = 1024 * 1024;

const P99_MAX: Duration = Duration::from_secs(1);
/// Orchestrators give up a health check soon after.
const PROBE_MAX: Duration = Duration::from_millis(250);
const MEMORY_MAX: usize = 512 * MIB;

/// How often each attack got which answer.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<BTreeMap<(&'static str, String), u64>>>);

impl Answers {
    fn add(&self, attack: &'static str, answer: &Result<Answer, String>) {
        let what = answer.as_ref().map_or_else(|_| "connection closed".to_owned(), |answer| answer.status.to_string());
        *self.0.lock().unwrap().entry((attack, what)).or_default() += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes over a minute, both processors and 10,000 connections"]
async fn hostile_callers_of_every_kind_at_once_cost_others_no_call() {
    let mut dev = Dev::start("hostile", &["--replicas", "2"]).await;
    let exports = dev.exports();
    let answers = Answers::default();
    let mut attack = JoinSet::new();
    for number in 0..BODIES {
        let (client, answers) = (dev.gateway(1), answers.clone());
        attack.spawn(send_bodies(client, large_body(number), answers));
    }
    for worker in 0..WORKERS {
        let stranger = Client::plain(&exports["MAAS_URL"], "");
        attack.spawn(stay_idle(stranger, IDLE / usize::try_from(WORKERS).unwrap()));
        let guesser = Client::plain(&exports["MAAS_URL"], "sk-oai-guess_of-a-key-that-was-never-made");
        attack.spawn(call_steadily("wrong keys", guesser, CHAT, chat("hello", 5).to_string().into(), answers.clone()));
        let user = dev.admin_as(1, &exports["USER_TOKEN"]);
        let description = if worker % 2 == 0 { "x".repeat(60_000) } else { "small".to_owned() };
        let key = json!({"name": "many", "description": description, "subscription": "calculus-dev"});
        attack.spawn(call_steadily("new keys", user, "/maas-api/v1/api-keys", key.to_string().into(), answers.clone()));
    }

    let began = Instant::now();
    let mut good = JoinSet::new();
    for _ in 0..4 {
        good.spawn(call_until(dev.gateway_as(1, &exports["AGENT_API_KEY"]), began + LASTS));
    }
    let probes = [
        tokio::spawn(probe_until(Client::plain(&exports["MAAS_URL"], ""), began + LASTS)),
        tokio::spawn(probe_until(dev.admin_as(1, ""), began + LASTS)),
    ];
    let (mut took, mut failed) = (Vec::new(), Vec::new());
    for (calls, failures) in good.join_all().await {
        took.extend(calls);
        failed.extend(failures);
    }
    let mut slowest = Vec::new();
    for probe in probes {
        slowest.push(probe.await.unwrap());
    }
    let (still, memory) = (attack.len(), peak_memory(dev.pids()[0]));
    attack.shutdown().await;

    for ((attack, answer), count) in answers.0.lock().unwrap().iter() {
        println!("{attack:<12} {answer:<18} {count}");
    }
    took.sort();
    let p99 = took[took.len() * 99 / 100];
    println!(
        "good calls: {} answered, {} failed, p50 {:?}, p99 {p99:?}, slowest {:?}",
        took.len(),
        failed.len(),
        took[took.len() / 2],
        took.last()
    );
    println!(
        "slowest health check: {:?} on the gateway port, {:?} on the admin port; peak memory {} MiB",
        slowest[0],
        slowest[1],
        memory / MIB
    );
    assert_eq!(failed, Vec::<String>::new());
    assert!(p99 < P99_MAX, "{p99:?}");
    assert!(slowest.iter().all(|probe| *probe < PROBE_MAX), "{slowest:?}");
    assert!(memory < MEMORY_MAX, "{} MiB", memory / MIB);
    assert_eq!(still, BODIES + 3 * usize::try_from(WORKERS).unwrap(), "the attacks went on to the end");
    assert!(dev.stop().await);
}

/// 31 MiB of text, of tiny objects, of depth, or of a picture.
fn large_body(number: usize) -> Bytes {
    let size = 31 * MIB;
    let (start, middle, end) = match number % 4 {
        0 => (r#"{"messages":[{"role":"user","content":""#, "word ".repeat(size / 5), r#""}]}"#),
        1 => (r#"{"messages":["#, vec![r#"{"":0}"#; size / 7].join(","), r#"],"x":"image"}"#),
        2 => (r#"{"messages":"#, "[".repeat(size / 2) + &"]".repeat(size / 2), r#","x":"image"}"#),
        _ => (
            r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,"#,
            "iVBO".repeat(size / 4),
            r#""}}]}]}"#,
        ),
    };
    [start, &middle, end].concat().into()
}

/// One large body after the other, each on a connection of its own.
async fn send_bodies(client: Client, body: Bytes, answers: Answers) {
    loop {
        let answer = match client.connect().await {
            Ok(mut connection) => connection.call("POST", CHAT, body.clone()).await,
            Err(error) => Err(error),
        };
        answers.add("large bodies", &answer);
    }
}

/// Connections that have asked once without a credential, and stay; those that are closed are opened again.
async fn stay_idle(client: Client, count: usize) {
    let mut idle: Vec<Option<Connection>> = Vec::new();
    idle.resize_with(count, || None);
    loop {
        for place in &mut idle {
            if place.as_ref().is_none_or(Connection::is_closed) {
                *place = None;
                if let Ok(mut connection) = client.connect().await {
                    let _ = connection.call("POST", CHAT, Bytes::from_static(b"{}")).await;
                    *place = Some(connection);
                }
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The same call again and again, so that all workers together make [`A_SECOND`].
async fn call_steadily(attack: &'static str, client: Client, path: &str, body: Bytes, answers: Answers) {
    let mut pace = interval(Duration::from_millis(1_000 * WORKERS / A_SECOND));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut kept: Option<Connection> = None;
    loop {
        pace.tick().await;
        if kept.is_none() {
            kept = client.connect().await.ok();
        }
        let Some(connection) = &mut kept else { continue };
        let answer = connection.call("POST", path, body.clone()).await;
        if answer.as_ref().map_or(true, |answer| answer.headers.get("connection").is_some_and(|value| value == "close"))
        {
            kept = None;
        }
        answers.add(attack, &answer);
    }
}

/// A good caller: on one connection, every fifth call on a new one. What each call took, and what failed.
async fn call_until(client: Client, end: Instant) -> (Vec<Duration>, Vec<String>) {
    let (mut took, mut failed) = (Vec::new(), Vec::new());
    let body = Bytes::from(chat("hello", 5).to_string());
    let mut kept = None;
    while Instant::now() < end {
        let began = Instant::now();
        let answer = match kept.take() {
            Some(connection) if took.len() % 5 != 0 => Ok(connection),
            _ => client.connect().await,
        };
        let answer = match answer {
            Ok(mut connection) => {
                let answer = connection.call("POST", CHAT, body.clone()).await;
                kept = Some(connection);
                answer
            }
            Err(error) => Err(error),
        };
        took.push(began.elapsed());
        match answer {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => failed.push(format!("{}: {}", answer.status, answer.text)),
            Err(error) => {
                failed.push(error);
                kept = None;
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
    (took, failed)
}

/// The slowest health check; each has a connection of its own.
async fn probe_until(client: Client, end: Instant) -> Duration {
    let mut slowest = Duration::ZERO;
    while Instant::now() < end {
        let began = Instant::now();
        let answer = client.get("/healthz").await;
        slowest = slowest.max(began.elapsed());
        assert_eq!(answer.map(|answer| answer.status), Ok(200));
        sleep(Duration::from_millis(100)).await;
    }
    slowest
}

/// The most memory that a process has ever had, in bytes.
fn peak_memory(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
