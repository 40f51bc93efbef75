//! How fast quota is: `cargo bench -p tollgate-actors --bench quota`.
//!
//! - a warm local allowance: reserving and settling without anybody else, in nanoseconds, by threads and by limits; noting it in the
//!   journal is not waited for;
//! - a steady load: how many calls waited at all, and for how long;
//! - an empty local allowance: every call is a new user's, so every one waits for an acquire through Raft, on three nodes in one
//!   process (disks in memory): as many as there can be, and then 4,000 a second, how long each waits.
//!
//! Medians of what was measured in this process. What a disk and a network add, `simulation/side-by-side` shows.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement that cannot go on fails, and wants the machine's time"
)]

#[expect(dead_code, reason = "shared with the tests")]
#[path = "../tests/node/support.rs"]
mod support;

use std::future::poll_fn;
use std::time::{Duration, Instant};

use actors::quota::{Amount, Charge, Limits, Source};
use actors::{Actors, Permit};
use support::Node;
use tokio::task::JoinSet;

const NEED: Amount = Amount { input: 100, output: 50, requests: 1 };
const USED: Charge = Charge {
    amount: Amount { input: 90, output: 40, requests: 1 },
    cached: 0,
    reasoning: 0,
    source: Source::Reported,
    is_absurd: false,
    beyond: Amount { input: 0, output: 0, requests: 0 },
};
/// One measurement is the mean of so many calls: a clock is not read for each.
const CHUNK: u32 = 100;

#[tokio::main]
async fn main() {
    println!("a warm local allowance, nanoseconds for reserve + settle (median of means of {CHUNK} calls):\n");
    println!("| limits | users | threads | p50 | calls/s |");
    println!("|---|---|---|---|---|");
    for (limits, users, threads) in [(1, 1, 1), (4, 1, 1), (1, 1, 2), (1, 2, 2), (1, 4, 4)] {
        warm(limits, users, threads).await;
    }
    let nodes = Node::start_several(3).await;
    nodes[0].prepare(&[(1_000_000_000, "1h")]).await;
    steady(&nodes).await;
    cold(&nodes).await;
    println!();
}

/// The permits of so many users for a model under so many limits that nobody can use up.
async fn permits(node: &Node, limits: usize, users: usize) -> Vec<Permit> {
    let windows = ["1h", "2h", "3h", "4h"];
    let limits: Vec<_> = windows[..limits].iter().map(|window| (1_000_000_000, *window)).collect();
    node.prepare(&limits).await;
    let mut permits = Vec::new();
    for user in 0..users {
        let (_, key) = node.key(&format!("user-{user}"), "dev").await;
        permits.push(node.permit(&key, "qwen"));
    }
    permits
}

async fn warm(limits: usize, users: usize, threads: usize) {
    const CHUNKS: usize = 2_000;
    let node = Node::start().await;
    let permits = permits(&node, limits, users).await;
    for permit in &permits {
        // Opens the windows; the rate of what follows makes the refill acquire ahead.
        call(&node.actors, permit).await;
    }
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for thread in 0..threads {
        let (actors, permit) = (node.actors.clone(), permits[thread % users].clone());
        tasks.spawn(async move {
            let mut means = Vec::with_capacity(CHUNKS);
            for _ in 0..CHUNKS {
                let chunk = Instant::now();
                for _ in 1..CHUNK {
                    call(&actors, &permit).await;
                }
                let mut last = call(&actors, &permit).await;
                means.push(chunk.elapsed() / CHUNK);
                // The journal keeps up, as it does where callers wait for it.
                poll_fn(|cx| last.poll_noted(cx)).await;
            }
            means
        });
    }
    let mut means: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    let per_second = (threads * CHUNKS) as f64 * f64::from(CHUNK) / began.elapsed().as_secs_f64();
    println!("| {limits} | {users} | {threads} | {} | {per_second:.0} |", percentile(&mut means, 50).as_nanos());
}

async fn call(actors: &Actors, permit: &Permit) -> Limits {
    actors.quota.reserve(permit, NEED).await.unwrap().settle(USED, Some(40))
}

/// Users who have never called: 300 calls at a time, then 4,000 a second.
async fn cold(nodes: &[Node]) {
    const AT_ONCE: usize = 300;
    const EACH: usize = 5;
    let mut tasks = JoinSet::new();
    let permits = new_users(nodes, "flood", AT_ONCE * EACH).await;
    let began = Instant::now();
    for calls in permits.chunks(EACH) {
        let calls = calls.to_vec();
        tasks.spawn(async move {
            for (actors, permit) in &calls {
                call(actors, permit).await;
            }
        });
    }
    tasks.join_all().await;
    let per_second = permits.len() as f64 / began.elapsed().as_secs_f64();

    println!("\nan empty local allowance, every call a new user's: {per_second:.0} acquires/s on three nodes");

    let mut rounds = Vec::new();
    for round in 0..3 {
        let permits = new_users(nodes, &format!("paced-{round}"), 4_000).await;
        rounds.push(paced(&permits).await);
    }
    let mut percentiles = |percent| {
        let mut rounds: Vec<Duration> = rounds.iter_mut().map(|waits| percentile(waits, percent)).collect();
        percentile(&mut rounds, 50)
    };
    let (half, most) = (percentiles(50), percentiles(99));
    println!("of 4,000 such calls a second (medians of three rounds): waits p50 {half:.1?} p99 {most:.1?}");
}

/// How long each of the calls waits if four begin in each millisecond.
async fn paced(permits: &[(Actors, Permit)]) -> Vec<Duration> {
    let mut tasks = JoinSet::new();
    let mut next = tokio::time::interval(Duration::from_millis(1));
    for calls in permits.chunks(4) {
        next.tick().await;
        for (actors, permit) in calls {
            let (actors, permit) = (actors.clone(), permit.clone());
            tasks.spawn(async move {
                let asked = Instant::now();
                call(&actors, &permit).await;
                asked.elapsed()
            });
        }
    }
    tasks.join_all().await
}

/// The permits of so many users who have never called, in turn on each node.
async fn new_users(nodes: &[Node], name: &str, users: usize) -> Vec<(Actors, Permit)> {
    let mut keys = Vec::new();
    for user in 0..users {
        keys.push(nodes[0].key(&format!("{name}-{user}"), "dev").await.1);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let nodes = nodes.iter().cycle();
    keys.iter().zip(nodes).map(|(key, node)| (node.actors.clone(), node.permit(key, "qwen"))).collect()
}

/// 30 users, each of whom calls ten times a second on a node of their own, for twenty seconds. A call lasts 20 ms.
async fn steady(nodes: &[Node]) {
    const WAITED: Duration = Duration::from_micros(500);
    let mut tasks = JoinSet::new();
    for user in 0..30_u64 {
        let (_, key) = nodes[0].key(&format!("steady-{user}"), "dev").await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let node = &nodes[user as usize % nodes.len()];
        while node.actors.auth.authenticate(Some(&key)).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (permit, actors) = (node.permit(&key, "qwen"), node.actors.clone());
        tasks.spawn(async move {
            let mut waits = Vec::new();
            let mut next = tokio::time::interval(Duration::from_millis(100));
            for _ in 0..200 {
                next.tick().await;
                let asked = Instant::now();
                let reservation = actors.quota.reserve(&permit, NEED).await.unwrap();
                waits.push(asked.elapsed());
                tokio::time::sleep(Duration::from_millis(20)).await;
                reservation.settle(USED, Some(40));
            }
            waits
        });
    }
    let waits = tasks.join_all().await;
    let (starting, steady): (Vec<_>, Vec<_>) = waits.iter().map(|waits| waits.split_at(10)).unzip();
    for (what, waits) in [("starting (each user's first ten calls)", starting), ("steady", steady)] {
        let all = waits.concat();
        let mut waits: Vec<Duration> = all.iter().copied().filter(|wait| *wait > WAITED).collect();
        let share = waits.len() as f64 * 100.0 / all.len() as f64;
        let most = if waits.is_empty() { Duration::ZERO } else { percentile(&mut waits, 99) };
        println!("a load that is {what}: {share:.2} % of {} calls waited, p99 of those {most:.1?}", all.len());
    }
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}
