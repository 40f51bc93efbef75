//! The other dialects: messages and responses with reasoning and tool calls, an embedding model, and faults in them.

use serde_json::{Value, json};
use sim_vllm::{Config, Kind, Replica};
use tokio::time::Instant;

use crate::client::{Answer, post, post_with, send};

fn tool() -> Value {
    json!({"type": "object", "properties": {"city": {"enum": ["Paris"]}}, "required": ["city"]})
}

/// The names of events, equal ones that follow each other once.
fn names(answer: &Answer) -> Vec<String> {
    let mut names: Vec<String> = answer.events().into_iter().filter_map(|event| event.name).collect();
    names.dedup();
    names
}

#[tokio::test(start_paused = true)]
async fn messages_think_then_answer_then_call_tools() {
    let replica = Replica::start(Config::default());
    let body = |text: &str, stream: bool| {
        json!({"max_tokens": 400, "messages": [{"role": "user", "content": text}], "stream": stream,
            "tools": [{"name": "get_weather", "input_schema": tool()}]})
    };
    let plain = send(&replica, &post("/v1/messages", &body("hello", false))).await.json();
    let kinds: Vec<&Value> = plain["content"].as_array().unwrap().iter().map(|block| &block["type"]).collect();
    assert_eq!(kinds, ["thinking", "text"]);
    assert_eq!(plain["stop_reason"], "end_turn");

    let called = send(&replica, &post("/v1/messages", &body("the weather please", false))).await.json();
    let last = called["content"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["type"], &last["input"]), (&json!("tool_use"), &json!({"city": "Paris"})));
    assert_eq!(called["stop_reason"], "tool_use");

    let stream = send(&replica, &post("/v1/messages", &body("the weather please", true))).await;
    let block = ["content_block_start", "content_block_delta", "content_block_stop"];
    let expected = [&["message_start"][..], &block, &block, &["message_delta", "message_stop"]].concat();
    assert_eq!(names(&stream), expected);
    let partial: String =
        stream.chunks().iter().filter_map(|chunk| chunk["delta"]["partial_json"].as_str().map(str::to_owned)).collect();
    assert_eq!(serde_json::from_str::<Value>(&partial).unwrap(), json!({"city": "Paris"}));
    let chunks = stream.chunks();
    assert_eq!(chunks[chunks.len() - 2]["usage"]["output_tokens"], called["usage"]["output_tokens"]);
}

#[tokio::test(start_paused = true)]
async fn responses_think_then_answer_then_call_functions() {
    let replica = Replica::start(Config::default());
    let body = |text: &str, stream: bool| {
        json!({"input": text, "stream": stream,
            "tools": [{"type": "function", "name": "get_weather", "parameters": tool()}]})
    };
    let kinds = |response: &Value| -> Vec<String> {
        response["output"].as_array().unwrap().iter().map(|item| item["type"].as_str().unwrap().to_owned()).collect()
    };
    let plain = send(&replica, &post("/v1/responses", &body("hello", false))).await.json();
    assert_eq!((kinds(&plain), &plain["status"]), (vec!["reasoning".into(), "message".into()], &json!("completed")));
    assert!(plain["usage"]["output_tokens_details"]["reasoning_tokens"].as_u64().unwrap() > 0);

    let stream = send(&replica, &post("/v1/responses", &body("the weather please", true))).await;
    let chunks = stream.chunks();
    let completed = &chunks.last().unwrap()["response"];
    assert_eq!(kinds(completed), ["reasoning", "function_call"]);
    assert_eq!(completed["output"][1]["arguments"], r#"{"city":"Paris"}"#);
    let names = names(&stream);
    assert_eq!(names.first().unwrap(), "response.created");
    assert!(names.contains(&"response.reasoning_text.delta".into()));
    assert!(names.contains(&"response.function_call_arguments.done".into()));
    let numbers: Vec<u64> = chunks.iter().map(|chunk| chunk["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn usage_can_lie_in_every_dialect() {
    let replica = Replica::start(Config::default());
    let chat = json!([{"role": "user", "content": "hi"}]);
    for (path, body) in [
        ("/v1/completions", json!({"prompt": "hi"})),
        ("/v1/messages", json!({"messages": chat, "max_tokens": 9})),
        ("/v1/responses", json!({"input": "hi"})),
    ] {
        let huge = send(&replica, &post_with(path, "x-sim-fault: usage=huge\r\n", &body)).await.json();
        let output = huge["usage"]["completion_tokens"].as_u64().or(huge["usage"]["output_tokens"].as_u64());
        assert_eq!(output, Some(1_000_000_000_000), "{path}");
        let missing = send(&replica, &post_with(path, "x-sim-fault: missing-usage\r\n", &body)).await.json();
        assert!(missing["usage"].is_null(), "{path}");
    }
}

fn embedding() -> Replica {
    let kind = Kind::Embedding { context_len: 512, dimensions: 64 };
    Replica::start(Config { model_names: vec!["embed".into()], kind, ..Config::default() })
}

#[tokio::test(start_paused = true)]
async fn an_embedding_model_embeds_scores_and_ranks() {
    let replica = embedding();
    let begin = Instant::now();
    let body = json!({"model": "embed", "input": ["model servers count tokens", "model servers count tokens", "a green tree"]});
    let answer = send(&replica, &post("/v1/embeddings", &body)).await.json();
    assert!(begin.elapsed().as_millis() > 10, "reading takes the engine's time");
    let vector = |at: usize| -> Vec<f64> {
        answer["data"][at]["embedding"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
    };
    let norm: f64 = vector(0).iter().map(|value| value * value).sum();
    assert!((norm - 1.0).abs() < 1e-4 && vector(0).len() == 64);
    assert_eq!(vector(0), vector(1));
    assert_ne!(vector(0), vector(2));
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 10);

    let body = json!({"query": "count tokens", "documents": ["a green tree", "servers count tokens"], "top_n": 1});
    for path in ["/rerank", "/v1/rerank", "/v2/rerank"] {
        let ranked = send(&replica, &post(path, &body)).await.json();
        assert_eq!((ranked["results"].as_array().unwrap().len(), &ranked["results"][0]["index"]), (1, &json!(1)));
    }
    let body = json!({"text_1": "count tokens", "text_2": ["count tokens", "a green tree"]});
    let scored = send(&replica, &post("/score", &body)).await.json();
    assert!(scored["data"][0]["score"].as_f64() > scored["data"][1]["score"].as_f64());
}

#[tokio::test(start_paused = true)]
async fn an_embedding_model_refuses_what_it_is_not() {
    let replica = embedding();
    for (path, body, status) in [
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "hi"}]}), 404),
        ("/v1/embeddings", json!({"model": "other", "input": "hi"}), 404),
        ("/v1/embeddings", json!({"model": "embed"}), 400),
        ("/v1/embeddings", json!({"input": "word ".repeat(600)}), 400),
        ("/v1/embeddings", json!({"input": "hi", "dimensions": 65}), 400),
        ("/v1/embeddings", json!({"input": "hi", "dimensions": 8, "encoding_format": "base64"}), 200),
    ] {
        assert_eq!(send(&replica, &post(path, &body)).await.status, status, "{path} {body}");
    }
}
