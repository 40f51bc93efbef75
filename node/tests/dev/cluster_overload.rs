//! Three nodes, more callers than there are tokens, and somebody who kills nodes: no window admits more than its limit, and usage adds up.
//!
//! The short run is a test like others. The long one is asked for by name:
//! `cargo test -p tollgate --test dev -- --ignored --nocapture limits_hold`. With `TOLLGATE_FAKETIME=/path/to/libfaketime.so.1`
//! the leader's wall clock is set an hour ahead and back meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::nodes::{bring_back, leader, wait_until_ready};
use crate::run::{CHAT, Dev, signal};

const SUBSCRIPTIONS: &str = "/apis/maas.opendatahub.io/v1alpha1/namespaces/models-as-a-service/maassubscriptions";
const WINDOW: Duration = Duration::from_secs(10);
/// From hardly more than one call's worth to more than anybody uses.
const LIMITS: [u64; 4] = [150, 2_000, 30_000, 10_000_000];

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_for_a_crowd_while_nodes_are_killed() {
    overload("crowd", 40, Duration::from_secs(16)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes over a minute, and both processors"]
async fn limits_hold_for_five_hundred_callers_while_nodes_are_killed() {
    overload("five-hundred", 500, Duration::from_secs(60)).await;
}

async fn overload(name: &str, callers: usize, lasts: Duration) {
    let mut dev = Dev::start(name, &["--nodes", "3", "--replicas", "2"]).await;
    let mut clocks = Clocks::of_environment(&dev);
    let mut shared = Vec::new();
    for limit in LIMITS {
        for enforcement in ["hard", "reserve"] {
            shared.push(Account::open(&dev, limit, enforcement).await);
        }
    }
    let mut nodes = clocks.restart_all(&mut dev).await;

    let stop = Arc::new(AtomicBool::new(false));
    let calling: Vec<_> = (0..callers)
        .map(|number| {
            let account = number % shared.len();
            let clients = (1..=3).map(|node| dev.gateway_as(node, &shared[account].secret)).collect();
            tokio::spawn(call_on(clients, account, number, stop.clone()))
        })
        .collect();
    let watching = tokio::spawn(watch(
        (1..=3).map(|node| dev.admin(node)).collect(),
        shared.iter().map(|account| account.key.clone()).collect(),
        stop.clone(),
    ));
    let began = Instant::now();
    let mut kills = 0;
    while began.elapsed() < lasts {
        sleep(Duration::from_secs(5)).await;
        clocks.turn(&dev).await;
        let node = 1 + (kills * 7 + 1) % 3;
        signal("KILL", nodes.pid(&dev, node));
        kills += 1;
        nodes.bring_back(&mut dev, node, &clocks).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut tallies = vec![Tally::default(); shared.len()];
    for caller in calling {
        let (account, tally) = caller.await.unwrap();
        tallies[account].add(&tally);
    }
    let mut seen = watching.await.unwrap();

    // What was killed tells what it knew, and what calls in progress held is charged.
    let settled = Instant::now();
    let answered: u64 = tallies.iter().map(|tally| tally.answered).sum();
    let mut used = usage(&dev).await;
    while settled.elapsed() < Duration::from_secs(10) {
        sleep(Duration::from_millis(500)).await;
        used = usage(&dev).await;
    }
    println!("{kills} kills in {:.0} s; {answered} calls answered", lasts.as_secs_f64());
    println!("limit      enforced  windows  answered  tokens     429s    broken  most used  most owed");
    for ((account, tally), seen) in shared.iter().zip(&tallies).zip(&mut seen) {
        println!(
            "{:<10} {:<9} {:<8} {:<9} {:<10} {:<7} {:<7} {:<10} {}",
            account.limit,
            account.enforcement,
            seen.windows.len(),
            tally.answered,
            tally.tokens,
            tally.limited,
            tally.broken,
            seen.windows.values().max().unwrap_or(&0),
            seen.most_owed
        );
        let (limit, name) = (account.limit, format!("{} {}", account.limit, account.enforcement));
        for (window, used) in &seen.windows {
            assert!(*used <= limit, "{name}: {used} were charged in the window that ended at {window}");
        }
        assert!(account.enforcement == "reserve" || seen.most_owed == 0, "{name}: {} are owed", seen.most_owed);
        let most = began.elapsed().as_secs() / WINDOW.as_secs() + 1;
        assert!(seen.windows.len() as u64 <= most, "{name}: windows ended too early: {:?}", seen.windows);
        let in_all = limit * seen.windows.len() as u64 + seen.owed;
        assert!(tally.tokens <= in_all, "{name}: answers had {} tokens, windows admit {in_all}", tally.tokens);
        assert!(tally.answered > 0, "{name}: nobody was served");
    }
    // To the token, what whoever has an answer was told; calls that broke off may be there, too.
    let tokens: u64 = tallies.iter().map(|tally| tally.tokens).sum();
    let broken: u64 = tallies.iter().map(|tally| tally.broken).sum();
    let lost = (used.calls - used.inexact_calls).checked_sub(answered);
    let lost = lost.unwrap_or_else(|| panic!("{answered} answered, usage has {used:?}"));
    assert!(used.calls <= answered + broken, "{answered} answered and {broken} broken, usage has {used:?}");
    let of_lost = (used.total - used.inexact).checked_sub(tokens);
    let of_lost = of_lost.unwrap_or_else(|| panic!("{tokens} tokens in answers, usage has {used:?}"));
    println!(
        "usage: {tokens} tokens of {answered} answered calls; beside them {of_lost} of {lost} calls whose answers got lost, {} of {} that were killed",
        used.inexact, used.inexact_calls
    );
    assert!(lost > 0 || of_lost == 0, "usage has {of_lost} tokens too many");
    assert!(dev.stop().await);
    drop(nodes);
}

/// A subscription with one limit, and a key of it.
struct Account {
    limit: u64,
    enforcement: &'static str,
    key: String,
    secret: String,
}

impl Account {
    async fn open(dev: &Dev, limit: u64, enforcement: &'static str) -> Account {
        let name = format!("l{limit}-{enforcement}");
        let limits = json!([{"limit": limit, "window": format!("{}s", WINDOW.as_secs()), "enforcement": enforcement}]);
        let subscription = json!({
            "apiVersion": "maas.opendatahub.io/v1alpha1", "kind": "MaaSSubscription",
            "metadata": {"name": name, "namespace": "models-as-a-service"},
            "spec": {"owner": {"groups": [{"name": "calculus-users"}]}, "modelRefs": [
                {"name": "gpt-oss-20b", "namespace": "gpt-oss-model", "tokenRateLimits": limits},
            ]},
        });
        let made = dev.admin(1).post(SUBSCRIPTIONS, &subscription).await.unwrap();
        assert_eq!(made.status, 201, "{}", made.text);
        let user = dev.admin_as(1, &dev.exports()["USER_TOKEN"]);
        let made = user.post("/maas-api/v1/api-keys", &json!({"name": name, "subscription": name})).await.unwrap();
        assert_eq!(made.status, 201, "{}", made.text);
        let text = |name: &str| made.json()[name].as_str().unwrap().to_owned();
        Account { limit, enforcement, key: text("id"), secret: text("key") }
    }
}

/// What one account's callers saw.
#[derive(Clone, Default)]
struct Tally {
    answered: u64,
    tokens: u64,
    limited: u64,
    broken: u64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.answered += other.answered;
        self.tokens += other.tokens;
        self.limited += other.limited;
        self.broken += other.broken;
    }
}

/// Calls one node after the other, never saying how long an answer may be.
async fn call_on(clients: Vec<Client>, account: usize, number: usize, stop: Arc<AtomicBool>) -> (usize, Tally) {
    let mut tally = Tally::default();
    for (turn, client) in clients.iter().cycle().skip(number).enumerate() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let words = "word ".repeat((number * 13 + turn * 7) % 40);
        let body = json!({"model": "gpt-oss-20b", "messages": [{"role": "user", "content": format!("{number} {turn} {words}")}]});
        match client.post(CHAT, &body).await {
            Ok(answer) if answer.status == 200 => {
                tally.answered += 1;
                tally.tokens += answer.json()["usage"]["total_tokens"].as_u64().unwrap();
            }
            // It was told that nothing was done.
            Ok(answer) => {
                assert!(answer.status == 429 || answer.status >= 500, "{}", answer.text);
                tally.limited += u64::from(answer.status == 429);
                sleep(Duration::from_millis(100 + (number as u64 * 37) % 200)).await;
            }
            Err(_) => {
                tally.broken += 1;
                sleep(Duration::from_millis(200)).await;
            }
        }
    }
    (account, tally)
}

/// What the ledger said of one meter.
#[derive(Clone, Default)]
struct Seen {
    /// The most that was charged, by the end of the window.
    windows: BTreeMap<String, u64>,
    most_owed: u64,
    /// At the end.
    owed: u64,
}

/// Asks again and again where the meters stand.
async fn watch(nodes: Vec<Client>, keys: Vec<String>, stop: Arc<AtomicBool>) -> Vec<Seen> {
    let mut seen = vec![Seen::default(); keys.len()];
    for node in nodes.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        for (key, seen) in keys.iter().zip(&mut seen) {
            let path = format!("/tollgate/v1/quota?key={key}&model=gpt-oss-20b");
            let Ok(answer) = node.get(&path).await else { continue };
            let limit = &answer.json()["limits"][0];
            let Some(debt) = limit["debt"].as_u64() else { continue };
            (seen.owed, seen.most_owed) = (debt, seen.most_owed.max(debt));
            if let (Some(ends), Some(used)) = (limit["resets"].as_str(), limit["used"].as_u64()) {
                let most = seen.windows.entry(ends.to_owned()).or_default();
                *most = used.max(*most);
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    seen
}

#[derive(Debug)]
struct Usage {
    calls: u64,
    total: u64,
    /// Counted or estimated, because no replica's report was there.
    inexact_calls: u64,
    inexact: u64,
}

async fn usage(dev: &Dev) -> Usage {
    let answer = dev.admin(2).get("/maas-api/v1/usage").await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    let total = answer.json()["total"].clone();
    let number = |name: &str| total[name].as_u64().unwrap_or_else(|| panic!("{name} in {total}"));
    Usage {
        calls: number("calls"),
        total: number("total"),
        inexact_calls: number("counted_calls") + number("estimated_calls"),
        inexact: number("counted_total") + number("estimated_total"),
    }
}

/// Processes that were brought back.
#[derive(Default)]
struct Nodes(BTreeMap<u16, Child>);

impl Nodes {
    fn pid(&self, dev: &Dev, node: u16) -> u32 {
        self.0.get(&node).and_then(Child::id).unwrap_or_else(|| dev.pids()[usize::from(node) - 1])
    }

    async fn bring_back(&mut self, dev: &mut Dev, node: u16, clocks: &Clocks) {
        match self.0.remove(&node) {
            Some(mut killed) => _ = killed.wait().await.unwrap(),
            None => dev.wait_for_output(&format!("node-{node}/tollgate.toml")).await,
        }
        self.0.insert(node, bring_back(dev, node, &clocks.environment(node)));
        wait_until_ready(dev, node).await;
    }
}

/// Wall clocks that can be set, if there is the library for it.
struct Clocks {
    library: Option<String>,
    dir: PathBuf,
    turn: usize,
}

impl Clocks {
    fn of_environment(dev: &Dev) -> Clocks {
        #[expect(clippy::disallowed_methods, reason = "of a test, which has no configuration")]
        let library = std::env::var("TOLLGATE_FAKETIME").ok();
        Clocks { library, dir: dev.dir.clone(), turn: 0 }
    }

    fn file(&self, node: u16) -> PathBuf {
        self.dir.join(format!("clock-{node}"))
    }

    fn set(&self, node: u16, offset: &str) {
        std::fs::write(self.file(node), offset).unwrap();
    }

    fn environment(&self, node: u16) -> Vec<(&'static str, String)> {
        let Some(library) = &self.library else { return Vec::new() };
        vec![
            ("LD_PRELOAD", library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.file(node).display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    /// Nodes whose clocks can be set; those that run already otherwise.
    async fn restart_all(&self, dev: &mut Dev) -> Nodes {
        let mut nodes = Nodes::default();
        if self.library.is_some() {
            for node in 1..=3 {
                self.set(node, "+0");
                signal("KILL", nodes.pid(dev, node));
                nodes.bring_back(dev, node, self).await;
            }
        }
        nodes
    }

    /// Sets the leader's clock ahead, then back, then right, while others are right.
    async fn turn(&mut self, dev: &Dev) {
        if self.library.is_none() {
            return;
        }
        (1..=3).for_each(|node| self.set(node, "+0"));
        let offset = ["+3600", "-3600", "+0"][self.turn % 3];
        self.turn += 1;
        let leader = leader(dev).await;
        self.set(leader, offset);
        println!("the clock of node {leader}, which leads, is set to {offset} s");
    }
}
