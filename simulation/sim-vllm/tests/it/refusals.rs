//! What real servers refuse, what they refuse with the wrong status, and what they let pass, beyond the recordings.

use serde_json::{Value, json};
use sim_vllm::{Config, Kind, Replica};

use crate::client::{chat, post, send};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

/// A messages request with other values.
fn message(more: Value) -> Value {
    let mut body = json!({"max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// A conversation in which an assistant called a tool with these arguments.
fn history(arguments: &str) -> Value {
    let function = json!({"name": "f", "arguments": arguments});
    let called = json!({"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": function}]});
    json!({"max_tokens": 5, "messages": [{"role": "user", "content": "hi"}, called]})
}

fn picture(url: &str) -> Value {
    json!([{"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": {"url": url}}])
}

#[tokio::test(start_paused = true)]
async fn statuses_are_those_of_a_real_server() {
    let function = |arguments: &str| {
        json!({"input": [{"role": "user", "content": "hi"},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": arguments}], "max_output_tokens": 5})
    };
    let no_content = json!({"messages": [{"role": "user"}], "max_tokens": 5});
    let table = [
        // What is raised while a message becomes a chat request is an internal error.
        (MESSAGES, message(json!({"messages": []})), 500),
        (MESSAGES, message(json!({"temperature": -1})), 500),
        (MESSAGES, message(json!({"top_p": 3})), 500),
        (MESSAGES, message(json!({"stop_sequences": [""]})), 500),
        (MESSAGES, message(json!({"max_tokens": 50_000})), 500),
        (MESSAGES, message(json!({"max_tokens": 0})), 400),
        (MESSAGES, message(json!({"max_tokens": "many"})), 400),
        (CHAT, chat("hi", json!({"temperature": -1})), 400),
        (CHAT, chat("hi", json!({"top_p": 3})), 400),
        (CHAT, chat("hi", json!({"stop": ""})), 400),
        (CHAT, json!({"messages": []}), 400),
        (CHAT, history("{\"city\":"), 400),
        (CHAT, history("{\"city\": 1}"), 200),
        (CHAT, history(""), 200),
        (RESPONSES, function("{\"city\":"), 400),
        (RESPONSES, function("{}"), 200),
        (CHAT, chat("hi", json!({"logit_bias": {"999999": 1}})), 400),
        (CHAT, chat("hi", json!({"logit_bias": {"-1": 1}})), 400),
        (CHAT, chat("hi", json!({"min_tokens": 9, "max_tokens": 8})), 400),
        (CHAT, chat("hi", json!({"min_tokens": 8, "max_tokens": 8})), 200),
        (CHAT, chat("hi", json!({"min_tokens": 1_000_000})), 400),
        (CHAT, chat("hi", json!({"max_tokens": 5, "stop_token_ids": [1e18 as u64, -7, 99_999_999_999_u64]})), 200),
        (CHAT, chat("hi", json!({"stop_token_ids": ["seven"]})), 400),
        (CHAT, no_content, 200),
        (RESPONSES, json!({"input": [{"type": "nonsense"}]}), 400),
        (RESPONSES, json!({"input": [{"role": "user", "content": "hi"}], "max_output_tokens": 5}), 200),
        (CHAT, json!({"messages": [{"role": "user", "content": picture("data:image/png;base64,AAAA")}]}), 400),
        ("/pooling", json!({"input": "hi"}), 404),
    ];
    let replica = Replica::start(Config::default());
    for (path, body, status) in table {
        let answer = send(&replica, &post(path, &body)).await;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
    }
}

#[tokio::test(start_paused = true)]
async fn a_multimodal_model_counts_pictures_and_reaches_none_that_it_would_have_to_fetch() {
    let replica = Replica::start(Config { multimodal: true, ..Config::default() });
    let unreachable = "http://192.0.2.1/cat.png";
    let source = json!({"type": "url", "url": unreachable});
    let table = [
        (CHAT, json!({"max_tokens": 5, "messages": [{"role": "user", "content": picture(unreachable)}]}), 500),
        (
            MESSAGES,
            message(json!({"messages": [{"role": "user", "content": [{"type": "image", "source": source}]}]})),
            500,
        ),
        (
            CHAT,
            json!({"max_tokens": 5, "messages": [{"role": "user", "content": picture("data:image/png;base64,AA==")}]}),
            200,
        ),
    ];
    for (path, body, status) in table {
        let answer = send(&replica, &post(path, &body)).await;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
        if status == 200 {
            assert!(answer.json()["usage"]["prompt_tokens"].as_u64().unwrap() > 256);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_of_an_unknown_type_is_repeated_for_each_form_that_it_could_have_had() {
    let replica = Replica::start(Config::default());
    let body = json!({"input": [{"type": "nonsense", "content": "x".repeat(1_000)}]});
    let answer = send(&replica, &post(RESPONSES, &body)).await;
    assert_eq!((answer.status, &answer.json()["error"]["type"]), (400, &json!("Bad Request")));
    assert!(answer.body.len() > 64 << 10, "{} bytes", answer.body.len());
}

#[tokio::test(start_paused = true)]
async fn a_pooling_model_gives_its_vectors_as_they_are() {
    let kind = Kind::Embedding { context_len: 512, dimensions: 8 };
    let replica = Replica::start(Config { kind, ..Config::default() });
    let answer = send(&replica, &post("/pooling", &json!({"input": ["one", "two"]}))).await.json();
    assert_eq!((&answer["object"], &answer["data"][1]["object"]), (&json!("list"), &json!("pooling")));
    assert_eq!(answer["data"][1]["data"].as_array().unwrap().len(), 8);
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() >= 2);
}
