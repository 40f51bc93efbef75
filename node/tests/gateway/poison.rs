//! Calls that make a replica fail, again and again, by one caller: no other caller loses a call by it, and no replica is out for it.

use serde_json::{Value, json};

use crate::scripted::Script;
use crate::world::{PLENTY, World};

/// Poison calls to one good call.
const POISON_PER_GOOD: usize = 10;
/// Good calls for each kind of poison.
const GOOD: usize = 8;

/// A kind of poison: the call, a text by which the replica knows it, and the replica's answer.
struct Poison {
    kind: &'static str,
    path: &'static str,
    body: Value,
    known_by: &'static str,
    answer: String,
}

fn answer(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn json_answer(status: &str, body: &str) -> String {
    answer(&format!("{status}\r\ncontent-type: application/json"), body)
}

fn stream(body: &str) -> String {
    answer("200 OK\r\ncontent-type: text/event-stream", body)
}

/// As vLLM says that the server itself failed.
fn failure(message: &str) -> String {
    json_answer(
        "500 Internal Server Error",
        &json!({"error": {"message": message, "type": "InternalServerError", "param": null, "code": 500}}).to_string(),
    )
}

fn poisons() -> Vec<Poison> {
    let hello = json!([{"role": "user", "content": "poison"}]);
    let chat = |kind, body, answer| Poison { kind, path: "/v1/chat/completions", body, known_by: "poison", answer };
    let message = |kind, body, known_by| {
        let answer = json_answer(
            "500 Internal Server Error",
            r#"{"type":"error","error":{"type":"internal_error","message":"list index out of range"}}"#,
        );
        Poison { kind, path: "/v1/messages", body, known_by, answer }
    };
    let picture = json!([{"role": "user", "content": [
        {"type": "text", "text": "poison"},
        {"type": "image_url", "image_url": {"url": "http://192.0.2.1/cat.png"}},
    ]}]);
    let plain = || json!({"messages": hello, "max_tokens": 5});
    let streamed = || json!({"messages": hello, "max_tokens": 5, "stream": true});
    vec![
        message("no messages", json!({"messages": [], "max_tokens": 5}), "\"messages\":[]"),
        message("temperature", json!({"messages": hello, "max_tokens": 5, "temperature": -1}), "poison"),
        message("top_p", json!({"messages": hello, "max_tokens": 5, "top_p": 3}), "poison"),
        message("empty stop", json!({"messages": hello, "max_tokens": 5, "stop_sequences": [""]}), "poison"),
        chat(
            "unreachable picture",
            json!({"messages": picture, "max_tokens": 5}),
            failure("Cannot connect to host 192.0.2.1:80 ssl:default [Connect call failed]"),
        ),
        chat("502", plain(), json_answer("502 Bad Gateway", "{}")),
        chat("503", plain(), json_answer("503 Service Unavailable", "{}")),
        chat("504", plain(), json_answer("504 Gateway Timeout", "{}")),
        chat("no JSON", plain(), json_answer("200 OK", "NaN of no number")),
        chat("no HTTP", plain(), "poisoned\r\n\r\n".to_owned()),
        chat("no answer", plain(), String::new()),
        chat("half an answer", plain(), json_answer("200 OK", r#"{"choices":[]}"#).replace("length: 14", "length: 99")),
        chat("engine died", plain(), failure("EngineCore encountered an issue. See stack trace (above)")),
        chat("error event, 400", streamed(), stream("data: {\"error\":{\"message\":\"too long\",\"code\":400}}\n\n")),
        chat("error event, 500", streamed(), stream("data: {\"error\":{\"message\":\"boom\",\"code\":500}}\n\n")),
        chat("half a stream", streamed(), stream("data: {\"choices\":[]}\n\n")),
        Poison {
            kind: "response.failed",
            path: "/v1/responses",
            body: json!({"input": "poison", "max_output_tokens": 5, "stream": true}),
            known_by: "poison",
            answer: stream(
                "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"usage\":null}}\n\n",
            ),
        },
    ]
}

async fn no_good_call_is_lost(replicas: usize) {
    let scripts: Vec<Script> = (0..replicas).map(|_| Script::default()).collect();
    let mut urls = Vec::new();
    for script in &scripts {
        script.whole("200 OK", r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#);
        urls.push(script.serve().await);
    }
    let world = World::start(&urls, PLENTY).await;
    let bob = world.add_bob().await;
    let hello = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5});
    for Poison { kind, path, body, known_by, answer } in poisons() {
        scripts.iter().for_each(|script| script.poison(known_by, &answer));
        for good in 0..GOOD {
            for _ in 0..POISON_PER_GOOD {
                world.post_as(&bob, &format!("/llm/qwen{path}"), &body).await;
            }
            let answer = world.post("/llm/qwen/v1/chat/completions", &hello).await;
            assert_eq!(answer.status, 200, "{kind}, {replicas} replicas, good call {good}: {answer:?}");
        }
        let reached = scripts.iter().flat_map(Script::requests).filter(|request| request.contains(known_by)).count();
        assert!(reached >= GOOD * POISON_PER_GOOD, "{kind} reached the replicas {reached} times");
        if kind != "engine died" {
            assert_eq!(world.replica_statuses(), vec!["ready"; replicas], "{kind}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_of_one_caller_costs_another_no_call_at_a_single_replica() {
    no_good_call_is_lost(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_of_one_caller_costs_another_no_call_at_three_replicas() {
    no_good_call_is_lost(3).await;
}
