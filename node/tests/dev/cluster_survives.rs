//! Three nodes: any of them may be killed, at any time, the leader too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::client::Client;
use crate::nodes::{bring_back, leader, wait_until_ready};
use crate::run::{CHAT, Dev, chat, signal};

const GROUPS: &str = "/apis/user.openshift.io/v1/groups";

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_may_be_killed_while_calls_go_on() {
    let mut dev = Dev::start("leader", &["--nodes", "3"]).await;

    // What is created through one node is there through the others.
    create_group(&dev, 1, "made-on-1").await;
    for node in [2, 3] {
        let found = dev.admin(node).get(&format!("{GROUPS}/made-on-1")).await.unwrap();
        assert_eq!(found.status, 200, "node {node}: {}", found.text);
    }

    // The leader dies while a client calls the others in turns.
    let leader = leader(&dev).await;
    let others: Vec<u16> = (1..=3).filter(|node| *node != leader).collect();
    let calls = Calls::start(others.iter().map(|node| dev.gateway(*node)).collect());
    tokio::time::sleep(Duration::from_secs(1)).await;
    signal("KILL", dev.pids()[usize::from(leader) - 1]);
    let killed = Instant::now();
    let path = format!("{GROUPS}?timeout=3s");
    let body = group("made-after-the-kill");
    let made = dev.admin(others[0]).post(&path, &body).await.unwrap();
    let took = killed.elapsed();
    assert_eq!(made.status, 201, "{}", made.text);
    assert!(took < Duration::from_secs(3), "a write took {took:?} after the leader was killed");
    tokio::time::sleep(Duration::from_secs(2)).await;
    calls.stop().await;

    // The printed command brings it back, and everything is there.
    dev.wait_for_output(&format!("node-{leader}/tollgate.toml")).await;
    let _brought_back = bring_back(&dev, leader, &[]);
    dev.wait_for_output(&format!("Node {leader} is back")).await;
    wait_until_ready(&dev, leader).await;
    for name in ["made-on-1", "made-after-the-kill"] {
        let found = dev.admin(leader).get(&format!("{GROUPS}/{name}")).await.unwrap();
        assert_eq!(found.status, 200, "{name}: {}", found.text);
    }
    let answer = dev.gateway(leader).post(CHAT, &chat("hello", 5)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(dev.stop().await, "the one that was brought back by hand stops with the others");
}

#[tokio::test(flavor = "multi_thread")]
async fn settled_usage_is_exact_after_all_three_were_killed() {
    let mut dev = Dev::start("all", &["--nodes", "3", "--replicas", "1"]).await;
    let mut used = 0;
    for turn in 0..9 {
        let answer = dev.gateway(1 + turn % 3).post(CHAT, &chat("count to ten", 20)).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
        used += answer.json()["usage"]["total_tokens"].as_u64().unwrap();
    }

    // At once: what the ledger does not know yet is in the journals.
    for pid in dev.pids() {
        signal("KILL", pid);
    }
    for node in 1..=3 {
        dev.wait_for_output(&format!("node-{node}/tollgate.toml")).await;
    }
    let _brought_back: Vec<_> = (1..=3).map(|node| bring_back(&dev, node, &[])).collect();
    for node in 1..=3 {
        wait_until_ready(&dev, node).await;
    }

    // Each of them knows what was used of the limit: exactly what the nine calls used.
    let path = format!("/tollgate/v1/quota?key={}&model=gpt-oss-20b", dev.exports()["API_KEY_ID"]);
    let told = Instant::now();
    for node in 1..=3 {
        loop {
            let answer = dev.admin(node).get(&path).await.unwrap();
            if answer.json()["limits"][0]["used"] == used {
                break;
            }
            let waited = told.elapsed();
            assert!(waited < Duration::from_secs(10), "node {node}: {used} were used, but: {}", answer.text);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert_eq!(usage(&dev, 1).await, Usage { calls: 9, total: used, ..Usage::default() });
    assert!(dev.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_adds_up_whichever_node_is_killed_in_the_middle_of_calls() {
    let mut dev = Dev::start("killed", &["--nodes", "3", "--replicas", "2"]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..24)
        .map(|number| {
            let clients: Vec<Client> = (1..=3).map(|node| dev.gateway(node)).collect();
            tokio::spawn(call_on(clients, number, stop.clone()))
        })
        .collect();
    let mut brought_back = Vec::new();
    for (node, pid) in (1..).zip(dev.pids()) {
        tokio::time::sleep(Duration::from_secs(2)).await;
        signal("KILL", pid);
        dev.wait_for_output(&format!("node-{node}/tollgate.toml")).await;
        brought_back.push(bring_back(&dev, node, &[]));
        wait_until_ready(&dev, node).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut answered, mut tokens, mut broken) = (0, 0, 0);
    for caller in callers {
        let tally = caller.await.unwrap();
        answered += tally.0;
        tokens += tally.1;
        broken += tally.2;
    }
    assert!(answered > 50 && broken > 0, "{answered} answered, {broken} broke off");

    // Whoever has its answer is in usage with just that. A call that broke off may be there as its replica reported it, if only the
    // answer got lost, or as estimated; or it had not begun.
    let waited = Instant::now();
    let mut used = usage(&dev, 2).await;
    while used.calls - used.estimated_calls < answered && waited.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        used = usage(&dev, 2).await;
    }
    let reported = used.calls - used.estimated_calls - used.counted_calls;
    let lost = reported.checked_sub(answered).unwrap_or_else(|| panic!("{answered} answered, but {used:?}"));
    assert!(used.calls <= answered + broken, "{answered} answered, {broken} broke off: {used:?}");
    let of_lost = (used.total - used.estimated - used.counted).checked_sub(tokens);
    let most = lost * 100;
    assert!(
        of_lost.is_some_and(|of_lost| of_lost <= most && (of_lost > 0 || lost == 0)),
        "{tokens} tokens in {answered} answers: {used:?}"
    );
    assert!(dev.stop().await);
}

/// Calls one node after the other until told to stop: how many were answered, with how many tokens, and how many broke off.
async fn call_on(clients: Vec<Client>, number: usize, stop: Arc<AtomicBool>) -> (u64, u64, u64) {
    let (mut answered, mut tokens, mut broken) = (0, 0, 0);
    for client in clients.iter().cycle().skip(number) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match client.post(CHAT, &chat("count to ten", 20)).await {
            Ok(answer) if answer.status == 200 => {
                answered += 1;
                tokens += answer.json()["usage"]["total_tokens"].as_u64().unwrap();
            }
            // It was told that nothing was done.
            Ok(answer) => assert!(answer.status == 429 || answer.status >= 500, "{}", answer.text),
            Err(_) => {
                broken += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    (answered, tokens, broken)
}

/// What usage says of all calls.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
struct Usage {
    calls: u64,
    total: u64,
    counted_calls: u64,
    counted: u64,
    estimated_calls: u64,
    estimated: u64,
}

async fn usage(dev: &Dev, node: u16) -> Usage {
    let answer = dev.admin(node).get("/maas-api/v1/usage").await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    let total = &answer.json()["total"];
    let number = |name: &str| total[name].as_u64().unwrap_or_else(|| panic!("{name} in {total}"));
    Usage {
        calls: number("calls"),
        total: number("total"),
        counted_calls: number("counted_calls"),
        counted: number("counted_total"),
        estimated_calls: number("estimated_calls"),
        estimated: number("estimated_total"),
    }
}

/// Calls a few nodes in turns until told to stop; none may fail.
struct Calls {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Calls {
    fn start(clients: Vec<Client>) -> Calls {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), done.clone());
        let task = tokio::spawn(async move {
            let mut failures = Vec::new();
            for client in clients.iter().cycle() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                match client.post(CHAT, &chat("hello", 3)).await {
                    Ok(answer) if answer.status == 200 => _ = counted.fetch_add(1, Ordering::Relaxed),
                    Ok(answer) => failures.push(format!("{} {}", answer.status, answer.text)),
                    Err(error) => failures.push(error),
                }
            }
            failures
        });
        Calls { stop, done, task }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.task.await.unwrap();
        let done = self.done.load(Ordering::Relaxed);
        assert!(failures.is_empty(), "{} of {} calls failed: {failures:?}", failures.len(), done);
        assert!(done > 5, "only {done} calls were made");
    }
}

fn group(name: &str) -> serde_json::Value {
    json!({"apiVersion": "user.openshift.io/v1", "kind": "Group", "metadata": {"name": name}, "users": []})
}

async fn create_group(dev: &Dev, node: u16, name: &str) {
    let made = dev.admin(node).post(GROUPS, &group(name)).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.text);
}
