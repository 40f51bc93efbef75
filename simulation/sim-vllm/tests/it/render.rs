//! Rendering tells the tokens of a prompt that the call itself would have.

use serde_json::{Value, json};
use sim_vllm::{Config, Replica};

use crate::client::{chat, post, send};

fn ids(rendered: &Value) -> Vec<&Value> {
    let objects = rendered.as_array().map_or(std::slice::from_ref(rendered), Vec::as_slice);
    objects.iter().flat_map(|object| object["token_ids"].as_array().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_rendered_prompt_has_as_many_tokens_as_the_call_reports() {
    let replica = Replica::start(Config::default());
    let tool = json!({"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}});
    let table = [
        ("/v1/chat/completions", chat("Hello, how are you?", json!({"max_tokens": 8}))),
        ("/v1/chat/completions", chat("the weather", json!({"max_tokens": 8, "tools": [tool], "n": 3}))),
        ("/v1/chat/completions", chat("go on", json!({"max_tokens": 8, "continue_final_message": true}))),
        ("/v1/completions", json!({"prompt": "once upon a time", "max_tokens": 8})),
        ("/v1/completions", json!({"prompt": ["one", "two of them"], "max_tokens": 8, "n": 2})),
        ("/v1/completions", json!({"prompt": [[1, 2, 3], [4]], "max_tokens": 8})),
        ("/v1/completions", json!({"prompt": [1, 2, 3, 4], "truncate_prompt_tokens": 2, "max_tokens": 8})),
    ];
    for (path, body) in table {
        let rendered = send(&replica, &post(&format!("{path}/render"), &body)).await;
        let called = send(&replica, &post(path, &body)).await;
        assert_eq!((rendered.status, called.status), (200, 200), "{path} {body}");
        let (rendered, called) = (rendered.json(), called.json());
        assert_eq!(json!(ids(&rendered).len()), called["usage"]["prompt_tokens"], "{path} {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn rendering_does_not_reach_the_engine_and_refuses_what_the_call_refuses() {
    let replica = Replica::start(Config::default());
    let rendered = send(&replica, &post("/v1/completions/render", &json!({"prompt": ["a", "b"]}))).await.json();
    assert_eq!(rendered[1]["sampling_params"]["max_tokens"], 16, "{rendered}");
    assert!(rendered[1]["request_id"].as_str().unwrap().ends_with("-1"), "{rendered}");
    let table = [
        ("/v1/chat/completions", chat("hi", json!({"model": "other"})), 404),
        ("/v1/chat/completions", chat("hi", json!({"max_tokens": 0})), 400),
        ("/v1/chat/completions", chat(&"word ".repeat(50_000), json!({})), 400),
        ("/v1/completions", json!({"max_tokens": 8}), 400),
    ];
    for (path, body, status) in table {
        let rendered = send(&replica, &post(&format!("{path}/render"), &body)).await;
        let called = send(&replica, &post(path, &body)).await;
        assert_eq!((rendered.status, called.status), (status, status), "{path}: {}", rendered.text());
        assert_eq!(rendered.json()["error"]["message"], called.json()["error"]["message"], "{path}");
    }
    assert_eq!((replica.stats().requests.len(), replica.stats().prompt_tokens), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn without_scale_out_endpoints_nothing_is_rendered() {
    let replica = Replica::start(Config { scale_out_endpoints: false, ..Config::default() });
    for path in ["/v1/chat/completions/render", "/v1/completions/render"] {
        let answer = send(&replica, &post(path, &chat("hi", json!({})))).await;
        assert_eq!((answer.status, answer.json()), (404, json!({"detail": "Not Found"})), "{path}");
    }
    assert_eq!(send(&replica, &post("/v1/chat/completions", &chat("hi", json!({"max_tokens": 2})))).await.status, 200);
}
