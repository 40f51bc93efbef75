//! Pools: which replicas get calls, as probes and calls find them.

use std::time::Duration;

use actors::epp::{CallShape, CallerId, Outcome, PoolSnapshot, ReplicaSnapshot, Status};
use actors::routing::Name;
use actors::{NoReplica, PrefixHashes, Route};
use raft::resources::{Kind, ReplicaHealth};

use crate::support::Node;

const A: &str = "http://a:8000";
const B: &str = "http://b:8000";
/// Some probes.
const PROBED: Duration = Duration::from_secs(2);

fn pick_for(node: &Node, user: &str, prompt: &[u8]) -> Result<Route, NoReplica> {
    let prefix = PrefixHashes::of("qwen", "", prompt);
    let (prompt_tokens, caller) = (prompt.len() as u64 / 4, CallerId::of(user));
    let call = CallShape { prefix: &prefix, prompt_tokens, caller, is_for_engine: true };
    node.actors.pools.rank(&Name::new("llm", "qwen"), &call)?.next_route()
}

fn pick_prompt(node: &Node, prompt: &[u8]) -> Result<Route, NoReplica> {
    pick_for(node, "ann", prompt)
}

fn pick(node: &Node) -> Result<Route, NoReplica> {
    pick_prompt(node, b"hello")
}

fn pool(node: &Node) -> PoolSnapshot {
    node.actors.pools.snapshot().remove(0)
}

fn replica(node: &Node, url: &str) -> ReplicaSnapshot {
    pool(node).replicas.into_iter().find(|replica| replica.url == url).unwrap()
}

async fn with_two_replicas() -> Node {
    let node = Node::start().await;
    for url in [A, B] {
        node.replicas.answer(&format!("{url}/health"), 200, "");
        node.replicas.answer(&format!("{url}/metrics"), 200, "vllm:num_requests_waiting{engine=\"0\"} 0\n");
    }
    node.publish("qwen", &format!("{A},{B}")).await;
    tokio::time::sleep(PROBED).await;
    node
}

#[tokio::test(start_paused = true)]
async fn a_pool_follows_its_service() {
    let node = Node::start().await;
    assert_eq!(pick(&node).unwrap_err(), NoReplica::None);
    node.publish("qwen", "").await;
    tokio::time::sleep(PROBED).await;
    assert_eq!(pick(&node).unwrap_err(), NoReplica::None);
    assert_eq!(node.actors.pools.replicas("llm", "qwen"), Some((0, 0)));

    // Listed, and not there yet.
    node.publish("qwen", A).await;
    tokio::time::sleep(PROBED).await;
    assert_eq!(pick(&node).unwrap_err(), NoReplica::Unhealthy);
    assert_eq!(replica(&node, A).status, Status::Down("connection refused".to_owned()));
    node.replicas.answer("http://a:8000/health", 503, "");
    tokio::time::sleep(PROBED).await;
    assert_eq!(pick(&node).unwrap_err(), NoReplica::Unhealthy);
    node.replicas.answer("http://a:8000/health", 200, "");
    tokio::time::sleep(PROBED).await;
    let route = pick(&node).unwrap();
    assert_eq!((route.base(), replica(&node, A).in_flight), (A, 1));

    // One that stays keeps its id and its calls; one that goes gets no more.
    let id = route.replica();
    node.publish("qwen", &format!("{B},{A}")).await;
    tokio::time::sleep(PROBED).await;
    assert_eq!(pool(&node).replicas.iter().map(|replica| replica.url.as_str()).collect::<Vec<_>>(), [B, A]);
    assert_eq!((replica(&node, A).id, replica(&node, A).in_flight), (id, 1));
    node.publish("qwen", B).await;
    tokio::time::sleep(PROBED).await;
    assert_eq!(pick(&node).unwrap_err(), NoReplica::Unhealthy);
    drop(route);

    node.delete(Kind::InferenceService, "llm", "qwen").await;
    tokio::time::sleep(PROBED).await;
    assert_eq!((pick(&node).unwrap_err(), node.actors.pools.replicas("llm", "qwen")), (NoReplica::None, None));
}

#[tokio::test(start_paused = true)]
async fn a_server_without_health_or_metrics_is_healthy_if_it_lists_models() {
    let node = Node::start().await;
    node.publish("qwen", A).await;
    node.replicas.answer("http://a:8000/health", 404, "");
    node.replicas.answer("http://a:8000/v1/models", 401, "");
    node.replicas.answer("http://a:8000/metrics", 404, "");
    tokio::time::sleep(PROBED).await;
    let route = pick(&node).unwrap();
    assert_eq!((route.base(), replica(&node, A).metrics_age_seconds), (A, None));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_stops_gets_no_calls_until_it_is_back() {
    let node = with_two_replicas().await;
    node.replicas.stop(A);
    tokio::time::sleep(PROBED).await;
    for _ in 0..20 {
        assert_eq!(pick(&node).unwrap().base(), B);
    }
    node.replicas.answer("http://a:8000/health", 200, "");
    tokio::time::sleep(PROBED).await;
    assert!((0..50).any(|_| pick(&node).unwrap().base() == A));
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_takes_a_replica_out_at_once_until_a_probe_finds_it() {
    let node = with_two_replicas().await;
    let route = pick(&node).unwrap();
    let gone = route.replica();
    route.report(Outcome::Refused);
    assert!((0..50).all(|_| pick(&node).unwrap().replica() != gone));
    tokio::time::sleep(PROBED).await;
    assert!((0..50).any(|_| pick(&node).unwrap().replica() == gone));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_fails_several_callers_is_ejected_and_a_good_trial_brings_it_back() {
    let node = with_two_replicas().await;
    let is_ill = |route: &Route| route.base() == A;
    let call = |user: &str| {
        let route = pick_for(&node, user, b"hello").unwrap();
        route.report(if is_ill(&route) { Outcome::Failed } else { Outcome::Answered });
        is_ill(&route)
    };
    let mut failures = 0;
    while replica(&node, A).is_ready() {
        failures += usize::from(call("ann")) + usize::from(call("bob"));
        assert!(failures < 20);
    }
    // Probes go on finding it healthy, and that does not help.
    assert_eq!(replica(&node, A).status.name(), "ejected");
    assert!((0..20).all(|_| !call("eve")));
    tokio::time::sleep(Duration::from_millis(1001)).await;
    let trials = (0..20).filter(|_| call("ann")).count();
    assert!(trials <= 1, "one trial, and then the next pause: {trials}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let good = || {
        let route = pick(&node).unwrap();
        route.report(Outcome::Answered);
        is_ill(&route)
    };
    assert!((0..50).any(|_| good()));
    assert!(replica(&node, A).is_ready());
}

#[tokio::test(start_paused = true)]
async fn one_callers_poison_keeps_no_replica_from_others() {
    for urls in [vec![A], vec![A, B]] {
        let node = Node::start().await;
        urls.iter().for_each(|url| node.replicas.answer(&format!("{url}/health"), 200, ""));
        node.publish("qwen", &urls.join(",")).await;
        tokio::time::sleep(PROBED).await;
        for at in 0..600 {
            let outcome = [Outcome::Failed, Outcome::Lost, Outcome::EngineDied, Outcome::Busy][at % 4];
            pick_for(&node, "eve", b"poison").unwrap().report(outcome);
            if at % 10 == 0 {
                pick_for(&node, "ann", b"hello").unwrap().report(Outcome::Answered);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // What says that an engine died is contradicted by the next good calls.
        for _ in 0..100 {
            pick_for(&node, "ann", b"hello").unwrap().report(Outcome::Answered);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(pool(&node).replicas.iter().all(ReplicaSnapshot::is_ready), "{:?}", pool(&node));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hung_engine_gets_nothing_new_until_it_moves() {
    let node = with_two_replicas().await;
    let metrics = |url: &str, running: u64, tokens: u64| {
        let text = format!("vllm:num_requests_running {running}\nvllm:generation_tokens_total {tokens}\n");
        node.replicas.answer(&format!("{url}/metrics"), 200, &text);
    };
    metrics(A, 1, 100);
    metrics(B, 0, 100);
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(replica(&node, A).is_ready(), "a long prefill emits nothing");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(replica(&node, A).status, Status::Hung);
    assert!(replica(&node, B).is_ready(), "it has nothing to do");
    assert!((0..20).all(|_| pick(&node).unwrap().base() == B));
    // However long it takes, and though no other replica is left.
    node.replicas.stop(B);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(pick(&node).unwrap_err(), NoReplica::Unhealthy);
    metrics(A, 1, 101);
    tokio::time::sleep(PROBED).await;
    assert_eq!(pick(&node).unwrap().base(), A);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_stopped_while_it_was_idle_hangs_once_calls_wait_for_it() {
    let node = with_two_replicas().await;
    for url in [A, B] {
        node.replicas.answer(
            &format!("{url}/metrics"),
            200,
            "vllm:num_requests_running 0\nvllm:generation_tokens_total 5\n",
        );
    }
    tokio::time::sleep(PROBED).await;
    let waiting = pick(&node).unwrap();
    tokio::time::sleep(Duration::from_secs(13)).await;
    let hung = pool(&node).replicas.into_iter().find(|replica| replica.status == Status::Hung).unwrap();
    assert_eq!(hung.url, waiting.base());
    assert!((0..20).all(|_| pick(&node).unwrap().base() != hung.url));
    // When nobody waits any more, one call after the other finds out whether it moves.
    drop(waiting);
    tokio::time::sleep(Duration::from_secs(40)).await;
    let trials: Vec<Route> = (0..20).map(|_| pick(&node).unwrap()).filter(|route| route.base() == hung.url).collect();
    assert_eq!(trials.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn calls_started_since_the_last_scrape_count_so_that_there_is_no_herd() {
    let node = with_two_replicas().await;
    let routes: Vec<Route> = (0..20).map(|_| pick(&node).unwrap()).collect();
    let at_a = routes.iter().filter(|route| route.base() == A).count();
    assert_eq!(at_a, 10);
    assert_eq!((replica(&node, A).in_flight, replica(&node, B).in_flight), (10, 10));
    drop(routes);
    assert_eq!((replica(&node, A).in_flight, replica(&node, B).in_flight), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn calls_of_one_conversation_go_where_its_beginning_is_cached() {
    let node = with_two_replicas().await;
    let mut prompt = vec![b'x'; 4096];
    let first = pick_prompt(&node, &prompt).unwrap().base().to_owned();
    for turn in 0..20 {
        prompt.extend([turn; 300]);
        assert_eq!(pick_prompt(&node, &prompt).unwrap().base(), first);
    }
    // A replica that was started anew has an empty cache: a new conversation may as well begin there.
    node.replicas.stop(&first);
    tokio::time::sleep(PROBED).await;
    assert_ne!(pick_prompt(&node, &prompt).unwrap().base(), first);
    node.replicas.answer(&format!("{first}/health"), 200, "");
    node.replicas.answer(&format!("{first}/metrics"), 200, "vllm:num_requests_waiting 0\n");
    tokio::time::sleep(PROBED).await;
    assert_ne!(pick_prompt(&node, &prompt).unwrap().base(), first);
}

#[tokio::test(start_paused = true)]
async fn a_replica_with_a_queue_gets_no_calls_while_another_has_none() {
    let node = with_two_replicas().await;
    node.replicas.answer("http://a:8000/metrics", 200, "vllm:num_requests_waiting 12\nvllm:kv_cache_usage_perc 0.9\n");
    tokio::time::sleep(PROBED).await;
    assert!((0..20).all(|_| pick(&node).unwrap().base() == B));
    let seen = replica(&node, A);
    assert_eq!((seen.waiting, seen.kv_usage), (12.0, 0.9));
    assert!(seen.metrics_age_seconds.unwrap() < 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_was_tried_is_not_picked_again() {
    let node = with_two_replicas().await;
    let prefix = PrefixHashes::default();
    let call = CallShape { prefix: &prefix, prompt_tokens: 1, caller: CallerId::of("ann"), is_for_engine: true };
    let mut ranking = node.actors.pools.rank(&Name::new("llm", "qwen"), &call).unwrap();
    let first = ranking.next_route().unwrap().replica();
    let second = ranking.next_route().unwrap().replica();
    assert_ne!(first, second);
    assert_eq!(ranking.next_route().unwrap_err(), NoReplica::Exhausted);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_is_started_again_and_its_replica_gets_no_calls_meanwhile() {
    let node = with_two_replicas().await;
    node.replicas.break_once(A);
    let failed = async {
        while replica(&node, A).status != Status::Down("its probe failed".to_owned()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PROBED, failed).await.unwrap();
    assert!((0..20).all(|_| pick(&node).unwrap().base() == B));
    tokio::time::sleep(PROBED).await;
    assert!(replica(&node, A).is_ready() && replica(&node, B).is_ready());
}
