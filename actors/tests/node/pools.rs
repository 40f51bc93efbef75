//! Pools: which replicas get calls, as probes and calls find them.

use std::time::Duration;

use actors::epp::CallShape;
use actors::epp::{Outcome, PoolSnapshot, ReplicaSnapshot};
use actors::routing::Name;
use actors::{NoReplica, PrefixHashes, Route};
use raft::resources::{Kind, ReplicaHealth};

use crate::support::Node;

const A: &str = "http://a:8000";
const B: &str = "http://b:8000";
/// Some probes.
const PROBED: Duration = Duration::from_secs(2);

fn pick_prompt(node: &Node, prompt: &[u8]) -> Result<Route, NoReplica> {
    let prefix = PrefixHashes::of("qwen", "", prompt);
    let call = CallShape { prefix: &prefix, prompt_tokens: prompt.len() as u64 / 4 };
    node.actors.pools.rank(&Name::new("llm", "qwen"), &call)?.next_route()
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
    assert_eq!(replica(&node, A).reason.unwrap(), "connection refused");
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
async fn three_failures_in_a_row_keep_calls_away_and_one_trial_brings_them_back() {
    let node = Node::start().await;
    node.replicas.answer("http://a:8000/health", 200, "");
    node.publish("qwen", A).await;
    tokio::time::sleep(PROBED).await;
    for _ in 0..3 {
        pick(&node).unwrap().report(Outcome::FailedBeforeFirstByte);
    }
    // The probe goes on finding it healthy, and that does not help.
    assert_eq!(pick(&node).unwrap_err(), NoReplica::Unhealthy);
    tokio::time::sleep(Duration::from_millis(1001)).await;
    let trial = pick(&node).unwrap();
    assert_eq!(pick(&node).unwrap_err(), NoReplica::Unhealthy);
    trial.report(Outcome::FailedMidStream);
    // The second pause is twice as long.
    tokio::time::sleep(Duration::from_millis(1900)).await;
    assert_eq!(pick(&node).unwrap_err(), NoReplica::Unhealthy);
    tokio::time::sleep(Duration::from_millis(200)).await;
    // A trial that ends without saying how is as if it had not been.
    drop(pick(&node).unwrap());
    let trial = pick(&node).unwrap();
    trial.report(Outcome::Answered);
    assert!(pick(&node).is_ok() && pick(&node).is_ok());
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
    let call = CallShape { prefix: &prefix, prompt_tokens: 1 };
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
        while replica(&node, A).reason.as_deref() != Some("its probe failed") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PROBED, failed).await.unwrap();
    assert!((0..20).all(|_| pick(&node).unwrap().base() == B));
    tokio::time::sleep(PROBED).await;
    assert!(replica(&node, A).healthy && replica(&node, B).healthy);
}
