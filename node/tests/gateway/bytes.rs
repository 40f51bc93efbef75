//! Embeddings as bytes: passed on as they are, and charged by the header that says what they used.

use serde_json::{Value, json};

use crate::client::Answer;
use crate::scripted::Script;
use crate::world::{PLENTY, World};

const EMBEDDINGS: &str = "/llm/qwen/v1/embeddings";
const POOLING: &str = "/llm/qwen/pooling";
const METADATA: &str = r#"{"id": "embd-1", "created": 1, "model": "acme/qwen", "data": [{"index": 0, "start": 0, "end": 4}], "usage": {"prompt_tokens": 7, "total_tokens": 7}}"#;
const NUMBERS: &str = "abcd";

async fn world(media_type: &str, metadata: &str) -> (Script, World) {
    let script = Script::default();
    let metadata = if metadata.is_empty() { String::new() } else { format!("metadata: {metadata}\r\n") };
    script.whole_with("200 OK", &format!("content-type: {media_type}\r\n{metadata}"), NUMBERS);
    let world = World::start(&[script.serve().await], PLENTY).await;
    (script, world)
}

/// The type of an answer, its header and its bytes.
fn parts(answer: &Answer) -> (&str, &str, &str) {
    (answer.header("content-type"), answer.header("metadata"), &answer.body)
}

fn sent(script: &Script) -> String {
    script.requests().pop().unwrap().split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_on_with_their_header_if_it_was_asked_for_and_cost_what_it_says() {
    let (script, world) = world("application/octet-stream", METADATA).await;
    let mut used = 0;
    for path in [EMBEDDINGS, POOLING] {
        for (format, header) in [("bytes", METADATA), ("bytes_only", "")] {
            let body = json!({"model": "qwen", "input": "hello", "encoding_format": format, "embed_dtype": "float16"});
            let answer = world.post(path, &body).await;
            assert_eq!(
                (answer.status, parts(&answer)),
                (200, ("application/octet-stream", header, NUMBERS)),
                "{path} {format}"
            );
            let asked: Value = serde_json::from_str(&sent(&script)).unwrap();
            assert_eq!((&asked["encoding_format"], &asked["embed_dtype"]), (&json!("bytes"), &json!("float16")));
            used += 7;
            assert_eq!(world.used().await, used, "{path} {format}");
        }
    }
    assert_eq!(world.counter_with("tollgate_usage_settlements_total", "reported"), 4.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_says_nothing_of_its_cost_costs_what_was_held() {
    // The type and header of the answer; its status.
    let table =
        [("application/octet-stream", "", 200), ("application/octet-stream", "x", 200), ("audio/wav", METADATA, 200)];
    for (media_type, metadata, status) in table {
        let (_, world) = world(media_type, metadata).await;
        let answer = world.post(EMBEDDINGS, &json!({"input": "hello", "encoding_format": "bytes"})).await;
        assert_eq!(answer.status, status, "{media_type}: {answer:?}");
        assert!(world.used().await > 0, "{media_type}");
    }
    let (_, world) = world("audio/wav", "").await;
    let answer = world.post("/llm/qwen/v1/rerank", &json!({"query": "a", "documents": ["b"]})).await;
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].as_str()),
        (502, Some("bad_upstream_answer")),
        "{answer:?}"
    );
    assert!(world.used().await > 0 && world.counter_with("tollgate_usage_settlements_total", "estimated") == 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_inputs_than_a_header_can_tell_of_are_refused_and_without_it_they_pass() {
    let (script, world) = world("application/octet-stream", "").await;
    let many = |format: &str, count: usize| json!({"encoding_format": format, "input": vec!["x"; count]});
    let refused = world.post(EMBEDDINGS, &many("bytes", 2049)).await;
    assert_eq!(
        (refused.status, refused.json()["error"]["param"].as_str()),
        (400, Some("encoding_format")),
        "{refused:?}"
    );
    assert_eq!((script.requests().len(), world.used().await), (0, 0));
    assert_eq!(world.post(EMBEDDINGS, &many("bytes", 2048)).await.status, 200);
    assert_eq!(world.post(EMBEDDINGS, &many("bytes_only", 2049)).await.status, 200);
    assert!(sent(&script).contains("bytes_only"));
    // One text in tokens.
    let ids = json!({"encoding_format": "bytes", "input": vec![7; 3000]});
    assert_eq!(world.post(EMBEDDINGS, &ids).await.status, 200);
}
