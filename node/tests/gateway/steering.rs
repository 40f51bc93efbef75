//! What a caller may steer: the answer, and of the engine only what an administrator lets it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use raft::resources::Kind;
use serde_json::{Value, json};

use crate::client::Answer;
use crate::scripted::Script;
use crate::world::{PLENTY, World};

const CHAT: &str = "/llm/qwen/v1/chat/completions";
const ANSWER: &str = r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;

/// Whatever a caller can write to steer an engine.
fn meddling() -> Value {
    json!({
        "messages": [], "temperature": 0.5,
        "priority": -100, "request_id": "theirs", "cache_salt": "theirs", "kv_transfer_params": {"remote_host": "10.0.0.1"},
        "ec_transfer_params": {"a": 1}, "vllm_xargs": {"kv_transfer_params": 1}, "mm_processor_kwargs": {"max_pixels": 1e9},
        "media_io_kwargs": {"video": {"num_frames": 10000}}, "chat_template": "{% for _ in range(99999) %}x{% endfor %}",
        "service_tier": "priority", "data_parallel_rank": 1, "bootstrap_host": "10.0.0.1", "lora_path": "/", "rid": "theirs",
    })
}

async fn post(world: &World, key: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let bearer = format!("Bearer {key}");
    let headers: Vec<_> = [("authorization", &*bearer)].into_iter().chain(headers.iter().copied()).collect();
    world.connect().await.post(path, &headers, &body.to_string()).await
}

/// The value of a header of each call that came.
fn seen(script: &Script, name: &str) -> Vec<String> {
    let value = |request: &String| {
        request.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap_or_default().to_owned()
    };
    script.requests().iter().map(value).collect()
}

/// The body of the call that came last.
fn sent(script: &Script) -> Value {
    serde_json::from_str(script.requests().last().unwrap().split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_callers_with_one_request_id_are_two_calls_at_the_replica() {
    let script = Script::default();
    script.whole("200 OK", ANSWER);
    let world = World::start(&[script.serve().await], PLENTY).await;
    let other = world.add_key("ann", "dev", Duration::from_secs(60)).await;
    for key in [&world.key, &other, &world.key] {
        let headers = [("x-request-id", "same"), ("x-request-id", "second"), ("x-vllm-priority", "-9")];
        let answer = post(&world, key, CHAT, &headers, &meddling()).await;
        assert_eq!((answer.status, answer.header("x-request-id")), (200, "same"), "{answer:?}");
    }
    let ids = seen(&script, "x-request-id");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 3, "{ids:?}");
    assert!(ids.iter().all(|id| id.len() == 32 && !id.contains("same")), "{ids:?}");
    assert_eq!(seen(&script, "x-vllm-priority"), ["", "", ""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_steer_the_engine_do_not_reach_a_replica() {
    let script = Script::default();
    script.whole("200 OK", ANSWER);
    let world = World::start(&[script.serve().await], PLENTY).await;
    let paths = ["chat/completions", "completions", "responses", "messages", "embeddings", "chat/completions/batch"];
    for path in paths {
        let answer = post(&world, &world.key, &format!("/llm/qwen/v1/{path}"), &[], &meddling()).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let body = sent(&script);
        assert_eq!(body, json!({"model": "acme/qwen", "messages": [], "temperature": 0.5}), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_say_what_steers_the_engine() {
    let script = Script::default();
    script.whole("200 OK", ANSWER);
    let url = script.serve().await;
    let world = World::start(std::slice::from_ref(&url), PLENTY).await;
    let annotations = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| (format!("tollgate.dev/{name}"), (*value).to_owned())).collect()
    };
    let tenant = "models-as-a-service";
    let service = json!({"spec": {"model": {"name": "acme/tuned"}}});
    world.apply_with(Kind::InferenceService, "llm", "tuned", annotations(&[("replicas", &url)]), service).await;
    let reference = json!({"spec": {"modelRef": {"kind": "LLMInferenceService", "name": "tuned"}}});
    let allowed = annotations(&[("allowed-request-fields", "vllm_xargs, priority")]);
    world.apply_with(Kind::ModelRef, "llm", "tuned", allowed, reference).await;
    let model = json!({"name": "tuned", "namespace": "llm", "tokenRateLimits": [{"limit": PLENTY, "window": "1h"}]});
    let spec = json!({"spec": {"owner": {"users": ["ann", "bob"]}, "modelRefs": [model]}});
    world.apply_with(Kind::Subscription, tenant, "plain", BTreeMap::new(), spec.clone()).await;
    let urgent = annotations(&[("priority", "-5"), ("cache-isolation", "user")]);
    world.apply_with(Kind::Subscription, tenant, "urgent", urgent, spec).await;
    let policy =
        json!({"spec": {"modelRefs": [{"name": "tuned", "namespace": "llm"}], "subjects": {"users": ["ann", "bob"]}}});
    world.apply_with(Kind::AuthPolicy, tenant, "tuned", BTreeMap::new(), policy).await;

    let mut bodies = Vec::new();
    for (user, subscription) in [("ann", "plain"), ("ann", "urgent"), ("bob", "urgent")] {
        let key = world.add_key(user, subscription, Duration::from_secs(60)).await;
        let answer = post(&world, &key, "/llm/tuned/v1/chat/completions", &[], &meddling()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        bodies.push(sent(&script));
    }
    let salts: Vec<Value> =
        bodies.iter_mut().map(|body| body.as_object_mut().unwrap().remove("cache_salt").unwrap_or_default()).collect();
    let with = |priority: i64| {
        json!({
            "model": "acme/tuned", "messages": [], "temperature": 0.5,
            "vllm_xargs": {"kv_transfer_params": 1}, "priority": priority,
        })
    };
    assert_eq!(
        bodies,
        [with(-100), with(-5), with(-5)],
        "the model lets the caller's through, the subscription's goes first"
    );
    assert_eq!(seen(&script, "x-vllm-priority"), ["", "-5", "-5"]);
    assert_eq!(salts[0], Value::Null, "none was configured");
    assert!(salts[1..].iter().all(|salt| salt.as_str().is_some_and(|salt| salt.len() == 32)), "{salts:?}");
    assert_ne!(salts[1], salts[2], "users are kept apart");
}
