//! Retries: what is asked of another replica, how often, and that it stays a fifth of the load.

use serde_json::{Value, json};

use crate::scripted::Script;
use crate::world::{PLENTY, World};

const CHAT: &str = "/llm/qwen/v1/chat/completions";
const GOOD: &str = r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
const DEATH: &str = r#"{"error":{"message":"EngineCore encountered an issue. See stack trace (above) for the root cause.","type":"InternalServerError","param":null,"code":500}}"#;

fn chat(stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "stream": stream})
}

async fn world_of(scripts: &[Script]) -> World {
    let mut urls = Vec::new();
    for script in scripts {
        urls.push(script.serve().await);
    }
    World::start(&urls, PLENTY).await
}

fn requests(scripts: &[Script]) -> usize {
    scripts.iter().map(|script| script.requests().len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_engine_died_is_answered_by_another_replica() {
    for stream in [false, true] {
        let scripts = [Script::default(), Script::default()];
        let world = world_of(&scripts).await;
        let [dead, alive] = &scripts;
        if stream {
            dead.stream(&[format!("data: {DEATH}\n\n").as_bytes(), b"data: [DONE]\n\n"], true);
            alive.stream(&[b"data: {\"choices\":[]}\n\n", b"data: [DONE]\n\n"], true);
        } else {
            dead.whole("500 Internal Server Error", DEATH);
            alive.whole("200 OK", GOOD);
        }
        while dead.requests().is_empty() {
            let answer = world.post(CHAT, &chat(stream)).await;
            assert!(answer.status == 200 && !answer.body.contains("EngineCore"), "stream {stream}: {answer:?}");
        }
        assert_eq!(world.replica_statuses().iter().filter(|status| **status == "ejected").count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_died_after_the_answer_began_is_not_replaced() {
    let scripts = [Script::default()];
    let world = world_of(&scripts).await;
    let first: &[u8] = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"so far\"}}]}\n\n";
    scripts[0].stream(&[first, format!("data: {DEATH}\n\n").as_bytes(), b"data: [DONE]\n\n"], true);
    let answer = world.post(CHAT, &chat(true)).await;
    assert!(answer.body.contains("so far") && answer.body.contains("EngineCore"), "{answer:?}");
    assert!(!answer.body.contains("[DONE]"), "{answer:?}");
    // Without another replica the caller gets the replica's own words.
    scripts[0].whole("500 Internal Server Error", DEATH);
    let answer = world.post(CHAT, &chat(false)).await;
    assert_eq!(answer.status, 500);
    assert!(answer.body.contains("EngineCore encountered an issue"), "{answer:?}");
    assert_eq!(requests(&scripts), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_retried_once_and_all_retries_are_a_fifth_of_the_calls_at_most() {
    const CALLS: usize = 100;
    let scripts = [Script::default(), Script::default(), Script::default()];
    scripts.iter().for_each(|script| script.whole("503 Service Unavailable", "{}"));
    let world = world_of(&scripts).await;
    assert_eq!(world.post(CHAT, &chat(false)).await.status, 503);
    assert_eq!(requests(&scripts), 2, "one retry");
    for _ in 1..CALLS {
        assert_eq!(world.post(CHAT, &chat(false)).await.status, 503);
    }
    let extra = requests(&scripts) - CALLS;
    assert!((10..=CALLS / 5).contains(&extra), "{extra} retries of {CALLS} calls");
    assert_eq!(world.replica_statuses(), ["ready"; 3], "back-pressure is not illness");
}
