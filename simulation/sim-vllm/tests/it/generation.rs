//! What is generated: lengths, reasoning and content, tool calls, structured outputs, sameness from a seed.

use std::time::Duration;

use serde_json::{Value, json};
use sim_vllm::{Config, EngineParams, Outcome, Replica};

use crate::client::{chat, connect, exchange, get, post, post_with, send};

const CHAT: &str = "/v1/chat/completions";

fn weather() -> Value {
    let city = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]});
    json!([{"type": "function", "function": {"name": "get_weather", "description": "w", "parameters": city}}])
}

#[tokio::test(start_paused = true)]
async fn a_chat_answer_has_reasoning_and_content_and_true_usage() {
    let replica = Replica::start(Config::default());
    for limit in [2, 30, 200, 4000] {
        let answer = send(&replica, &post(CHAT, &chat("Hello there", json!({"max_tokens": limit})))).await.json();
        let message = &answer["choices"][0]["message"];
        assert!(!message["reasoning"].as_str().unwrap().is_empty(), "{answer}");
        assert!(!message["content"].as_str().unwrap().is_empty(), "{answer}");
        let usage = &answer["usage"];
        let produced = usage["completion_tokens"].as_u64().unwrap();
        assert_eq!(answer["choices"][0]["finish_reason"], if produced == limit { "length" } else { "stop" });

        // The tokens of what it says are as many as usage says.
        let count = async |text: &Value| {
            send(&replica, &post("/tokenize", &json!({"prompt": text}))).await.json()["count"].as_u64().unwrap()
        };
        assert_eq!(count(&message["reasoning"]).await + count(&message["content"]).await, produced);
        assert_eq!(usage["total_tokens"], usage["prompt_tokens"].as_u64().unwrap() + produced);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_says_what_the_plain_call_says() {
    let replica = Replica::start(Config::default());
    let plain = send(&replica, &post(CHAT, &chat("Tell me more", json!({"seed": 4})))).await.json();
    let body = chat("Tell me more", json!({"seed": 4, "stream": true, "stream_options": {"include_usage": true}}));
    let stream = send(&replica, &post(CHAT, &body)).await;
    let message = &plain["choices"][0]["message"];
    assert_eq!(stream.streamed("reasoning"), message["reasoning"].as_str().unwrap());
    assert_eq!(stream.streamed("content"), message["content"].as_str().unwrap());
    let chunks = stream.chunks();
    let usage = &chunks.last().unwrap()["usage"];
    assert_eq!(usage["completion_tokens"], plain["usage"]["completion_tokens"]);
    assert_eq!(stream.events().last().unwrap().data, "[DONE]");

    // One event for each token, the role before them, the end and usage after them.
    assert_eq!(chunks.len() as u64, usage["completion_tokens"].as_u64().unwrap() + 3);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_and_requests_give_the_same_bytes() {
    let mut bodies = Vec::new();
    for _ in 0..2 {
        let replica = Replica::start(Config { seed: 11, ..Config::default() });
        let first = send(&replica, &post(CHAT, &chat("Same", json!({"n": 2, "stream": true})))).await;
        bodies.push(first.text());
    }
    assert_eq!(bodies[0], bodies[1]);
    let other = Replica::start(Config { seed: 12, ..Config::default() });
    let answer = send(&other, &post(CHAT, &chat("Same", json!({"n": 2, "stream": true})))).await;
    assert_ne!(answer.text(), bodies[0]);
}

#[tokio::test(start_paused = true)]
async fn tools_are_called_when_they_must_be_and_when_they_are_mentioned() {
    let replica = Replica::start(Config::default());
    let named = json!({"type": "function", "function": {"name": "get_weather"}});
    for (text, choice, calls) in [
        ("hello", json!("required"), true),
        ("hello", named, true),
        ("what is the weather", json!("auto"), true),
        ("hello", json!("auto"), false),
        ("what is the weather", json!("none"), false),
    ] {
        let body = chat(text, json!({"tools": weather(), "tool_choice": choice}));
        let answer = send(&replica, &post(CHAT, &body)).await.json();
        let choice = &answer["choices"][0];
        assert_eq!(choice["finish_reason"], if calls { "tool_calls" } else { "stop" }, "{text} {body}");
        if calls {
            let function = &choice["message"]["tool_calls"][0]["function"];
            assert_eq!(function["name"], "get_weather");
            let arguments: Value = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
            assert!(arguments["city"].is_string() && arguments["days"].is_i64(), "{arguments}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_streamed_tool_call_comes_in_fragments_that_join_to_json() {
    let replica = Replica::start(Config::default());
    let body = chat("hello", json!({"tools": weather(), "tool_choice": "required", "stream": true}));
    let answer = send(&replica, &post(CHAT, &body)).await;
    let (mut names, mut arguments, mut finish) = (Vec::new(), String::new(), Value::Null);
    for chunk in answer.chunks() {
        let choice = &chunk["choices"][0];
        let call = &choice["delta"]["tool_calls"][0];
        names.extend(call["function"]["name"].as_str().map(str::to_owned));
        arguments.push_str(call["function"]["arguments"].as_str().unwrap_or_default());
        finish = choice["finish_reason"].clone();
    }
    assert_eq!((names, finish), (vec!["get_weather".to_owned()], json!("tool_calls")));
    assert!(serde_json::from_str::<Value>(&arguments).unwrap()["city"].is_string());
}

#[tokio::test(start_paused = true)]
async fn a_json_schema_is_satisfied() {
    let replica = Replica::start(Config::default());
    let schema = json!({"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "c", "schema": schema}});
    let answer = send(&replica, &post(CHAT, &chat("Where?", json!({"response_format": format})))).await.json();
    let content: Value = serde_json::from_str(answer["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
    assert!(["Paris", "Rome"].contains(&content["city"].as_str().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_conversation_finds_its_earlier_turns_in_the_cache() {
    let replica = Replica::start(Config::default());
    let text = "word ".repeat(400);
    let first = send(&replica, &post(CHAT, &chat(&text, json!({})))).await.json();
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    let reply = first["choices"][0]["message"]["content"].clone();
    let messages = json!([{"role": "user", "content": text}, {"role": "assistant", "content": reply}, {"role": "user", "content": "go on"}]);
    let second = send(&replica, &post(CHAT, &json!({"messages": messages}))).await.json();
    let cached = second["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    let before = first["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(cached % 16, 0);
    assert!(cached + 32 > before && cached <= before, "{cached} of {before}");
}

#[tokio::test(start_paused = true)]
async fn a_small_cache_preempts_and_every_answer_is_whole() {
    // As recorded: 4,784 tokens of KV, 60 requests of 100 tokens in and 400 out; 109 preemptions, all 200.
    let engine = EngineParams { num_blocks: 300, ..EngineParams::default() };
    let replica = Replica::start(Config { engine, ..Config::default() });
    let tasks: Vec<_> = (0..60)
        .map(|number| {
            let replica = replica.clone();
            let prompt: Vec<u32> = (0..100).map(|at| 1 + number * 300 + at).collect();
            let body = json!({"messages": [{"role": "user", "content": format!("{prompt:?}")}], "max_tokens": 400, "ignore_eos": true});
            tokio::spawn(async move { send(&replica, &post(CHAT, &body)).await.json() })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let metrics = send(&replica, &get("/metrics")).await.text();
    assert!(value(&metrics, "vllm:num_requests_waiting{") > 0.0 && value(&metrics, "vllm:kv_cache_usage_perc{") > 0.9);
    for task in tasks {
        assert_eq!(task.await.unwrap()["usage"]["completion_tokens"], 400);
    }
    let stats = replica.stats();
    assert!(stats.preemptions > 20, "{} preemptions", stats.preemptions);
    assert_eq!((stats.running, stats.waiting, stats.kv_usage), (0, 0, 0.0));
    assert!(stats.requests.iter().all(|record| record.outcome == Outcome::Finished));
}

/// The first value of a metric.
pub(crate) fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn metrics_tell_what_happened() {
    let replica = Replica::start(Config::default());
    for _ in 0..2 {
        send(&replica, &post(CHAT, &chat(&"word ".repeat(100), json!({"max_tokens": 10})))).await;
    }
    let metrics = send(&replica, &get("/metrics")).await.text();
    assert_eq!(value(&metrics, "vllm:generation_tokens_total{"), 20.0);
    assert_eq!(value(&metrics, "vllm:request_success_total{engine=\"0\",finished_reason=\"length\""), 2.0);
    assert_eq!(value(&metrics, "vllm:time_to_first_token_seconds_count{"), 2.0);
    assert_eq!(value(&metrics, "vllm:inter_token_latency_seconds_count{"), 18.0);
    assert_eq!(value(&metrics, "vllm:num_requests_running{"), 0.0);
    assert!(value(&metrics, "vllm:prefix_cache_hits_total{") > 80.0);
    assert!(metrics.contains("block_size=\"16\"") && metrics.contains("num_gpu_blocks=\"44295\""));
}

#[tokio::test(start_paused = true)]
async fn a_request_id_becomes_the_id_and_is_found_in_the_stats() {
    let replica = Replica::start(Config { enable_request_id_headers: true, ..Config::default() });
    let request = post_with(CHAT, "X-Request-Id: mine-1\r\n", &chat("hi", json!({"max_tokens": 3})));
    let answer = send(&replica, &request).await;
    assert_eq!(answer.json()["id"], "chatcmpl-mine-1");
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));
    let stats = replica.stats();
    let record = stats.request("mine-1").next().unwrap();
    assert_eq!((record.produced_tokens, record.outcome), (3, Outcome::Finished));
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_for_five_idle_seconds() {
    let replica = Replica::start(Config::default());
    let mut io = connect(&replica);
    for pause in [0, 4_000, 4_000] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        assert_eq!(exchange(&mut io, &get("/health")).await.status, 200);
    }
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    assert_eq!(exchange(&mut io, &get("/health")).await.status, 0);
}

#[tokio::test(start_paused = true)]
async fn odd_requests_are_refused_and_harm_nobody() {
    let replica = Replica::start(Config::default());
    let nameless = json!([{"type": "function", "function": {"name": ""}}]);
    for (path, body) in [
        ("/v1/completions", json!({"prompt": [[]]})),
        ("/v1/completions", json!({"prompt": [["a"]]})),
        ("/v1/completions", json!({"prompt": {"text": "hi"}})),
        (CHAT, chat("hi", json!({"tools": nameless, "tool_choice": "required"}))),
        (CHAT, json!({"messages": [[]]})),
        (CHAT, json!({"messages": [{"role": 1, "content": []}]})),
        ("/v1/responses", json!({"input": 7})),
        ("/detokenize", json!({"tokens": "x"})),
    ] {
        assert_eq!(send(&replica, &post(path, &body)).await.status, 400, "{path} {body}");
    }
    assert_eq!(send(&replica, &post(CHAT, &chat("", json!({"max_tokens": 1})))).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn tokens_merge_into_fewer_events_when_the_front_end_falls_behind() {
    // Sequences at once, how fast, and how many events 128 tokens make: as recorded where there is a recording.
    for (size, speed, events) in [(64, 1.0, 128.0..=128.0), (128, 1.0, 126.0..=127.5), (64, 100.0, 64.0..=96.0)] {
        let replica = Replica::start(Config { speed, ..Config::default() });
        let body = |number: usize| json!({"prompt": format!("{number}"), "max_tokens": 128, "ignore_eos": true, "stream": true});
        let calls: Vec<_> = (0..size)
            .map(|number| {
                let (replica, request) = (replica.clone(), post("/v1/completions", &body(number)));
                tokio::spawn(async move { send(&replica, &request).await })
            })
            .collect();
        let (mut seen, mut text) = (0, 0);
        for call in calls {
            let answer = call.await.unwrap();
            seen += answer.events().len() - 1;
            text += answer
                .chunks()
                .iter()
                .filter_map(|chunk| chunk["choices"][0]["text"].as_str())
                .map(str::len)
                .sum::<usize>();
        }
        let mean = seen as f64 / size as f64;
        assert!(events.contains(&mean), "{size} at {speed}: {mean} events");
        assert!(text > size * 128, "{size} at {speed}: nothing is lost");
        assert_eq!(replica.stats().generation_tokens, size as u64 * 128);
    }
}
