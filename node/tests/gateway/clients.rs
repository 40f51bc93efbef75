//! Clients as they are: what the SDKs of OpenAI and Anthropic, coding agents and proxies send and expect.

use serde_json::{Value, json};

use crate::client::{Answer, request};
use crate::scripted::Script;
use crate::world::{PLENTY, World, replica};

const CHAT: &str = "/llm/qwen/v1/chat/completions";
const MESSAGES: &str = "/llm/qwen/v1/messages";

/// Sends ann's key, and these headers.
async fn ask(world: &World, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let bearer = format!("Bearer {}", world.key);
    let headers = [&[("authorization", bearer.as_str())][..], headers].concat();
    let mut connection = world.connect().await;
    connection.send(request(method, path, &headers, body)).await;
    connection.answer().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_found_at_its_prefix_by_each_of_its_names_and_in_either_form() {
    let script = Script::default();
    let world = World::start(&[script.serve().await], PLENTY).await;
    for id in ["qwen", "llm/qwen", "llm%2Fqwen", "acme/qwen", "acme%2fqwen/"] {
        let answer = ask(&world, "GET", &format!("/llm/qwen/v1/models/{id}"), &[], "").await;
        assert_eq!((answer.status, answer.json()["id"].as_str()), (200, Some("qwen")), "{id} {answer:?}");
    }
    let version = [("anthropic-version", "2023-06-01")];
    let model = ask(&world, "GET", "/llm/qwen/v1/models/acme/qwen", &version, "").await;
    assert_eq!((&model.json()["type"], &model.json()["display_name"]), (&json!("model"), &json!("qwen")), "{model:?}");
    let list = ask(&world, "GET", "/llm/qwen/v1/models/", &version, "").await;
    assert_eq!((&list.json()["has_more"], &list.json()["last_id"]), (&json!(false), &json!("qwen")), "{list:?}");
    assert_eq!(list.header("request-id"), list.header("x-request-id"));
    // Neither an id nor what only looks like one becomes a path at a replica.
    for (id, status) in [("other", 404), ("v1/chat/completions", 404), ("..%2f..%2fv1%2fchat", 400)] {
        assert_eq!(ask(&world, "GET", &format!("/llm/qwen/v1/models/{id}"), &[], "").await.status, status, "{id}");
    }
    assert_eq!(ask(&world, "POST", "/llm/qwen/v1/models/v1/messages", &[], "{}").await.status, 405);
    assert_eq!(script.requests(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_a_replica_reach_anthropics_clients_in_their_own_form() {
    let script = Script::default();
    let world = World::start(&[script.serve().await], PLENTY).await;
    let openai = r#"{"error":{"message":"why","type":"BadRequestError","param":null,"code":400}}"#;
    let vllm = r#"{"type":"error","error":{"type":"internal_error","message":"why"}}"#;
    // Refusals are among the failures, so that the replica goes on getting calls.
    let table = [
        ("400 Bad Request", openai, 400, "invalid_request_error"),
        ("500 Internal Server Error", vllm, 500, "api_error"),
        ("402 Payment Required", openai, 402, "billing_error"),
        ("504 Gateway Timeout", vllm, 504, "timeout_error"),
        ("404 Not Found", r#"{"detail":"why"}"#, 404, "not_found_error"),
        ("529 Overloaded", openai, 529, "overloaded_error"),
        ("413 Content Too Large", openai, 413, "request_too_large"),
        ("429 Too Many Requests", vllm, 429, "rate_limit_error"),
    ];
    let mut connection = world.connect().await;
    let bearer = format!("Bearer {}", world.key);
    for (line, body, status, kind) in table {
        script.whole(line, body);
        let answer =
            connection.post(MESSAGES, &[("authorization", &bearer)], r#"{"max_tokens":1,"messages":[]}"#).await;
        let id = answer.header("request-id").to_owned();
        let expected = json!({"type": "error", "error": {"type": kind, "message": "why"}, "request_id": id});
        assert_eq!((answer.status, answer.json()), (status, expected), "{line} {answer:?}");
        assert_eq!(id, answer.header("x-request-id"), "{answer:?}");
    }
    assert_eq!(world.used().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_inside_a_messages_stream_have_a_known_type_and_the_calls_id() {
    let script = Script::default();
    let world = World::start(&[script.serve().await], PLENTY).await;
    let start =
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":3}}}\n\n";
    let known =
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"why\"}}\n\n";
    let vllm =
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"internal_error\",\"message\":\"why\"}}\n\n";
    let openai = "data: {\"error\":{\"message\":\"why\",\"type\":\"BadRequestError\",\"code\":400}}\n\n";
    for (event, kind) in [(known, None), (vllm, Some("api_error")), (openai, Some("invalid_request_error"))] {
        script.stream(&[start.as_bytes(), event.as_bytes()], true);
        let answer = ask(&world, "POST", MESSAGES, &[], r#"{"max_tokens":1,"messages":[],"stream":true}"#).await;
        let Some(kind) = kind else {
            assert_eq!(answer.body, format!("{start}{known}"), "an error in the dialect goes on as it came");
            continue;
        };
        let data: Value = serde_json::from_str(answer.events()[1]).unwrap();
        let id = answer.header("request-id");
        let expected = json!({"type": "error", "error": {"type": kind, "message": "why"}, "request_id": id});
        assert_eq!((answer.status, data), (200, expected), "{answer:?}");
        assert!(answer.body.contains("event: error\n"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_placeholder_in_one_header_does_not_hide_a_good_key_in_the_other() {
    let (_replica, url) = replica(21).await;
    let world = World::start(&[url], PLENTY).await;
    let bobs = world.add_key("bob", "dev", std::time::Duration::from_secs(60)).await;
    let body = r#"{"model":"qwen","messages":[{"role":"user","content":"hello"}],"max_tokens":4}"#;
    let good = world.key.as_str();
    let unknown = "sk-oai-nobody_nothing";
    let table = [
        (good, "dummy", 200),
        ("dummy", good, 200),
        (good, unknown, 200),
        (unknown, good, 200),
        ("", good, 200),
        (good, "", 200),
        (good, good, 200),
        ("dummy", "dummy", 401),
        // The error is about the one that looks like a key.
        ("dummy", unknown, 403),
        (unknown, "dummy", 403),
        // Bob owns no subscription: if both are good, Authorization counts.
        (&bobs, good, 403),
        (good, &bobs, 200),
    ];
    for (bearer, key, status) in table {
        let bearer = format!("Bearer {bearer}");
        let headers = [("authorization", bearer.as_str()), ("x-api-key", key), ("anthropic-version", "2023-06-01")];
        let answer = world.connect().await.post("/v1/messages", &headers, body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(!answer.header("request-id").is_empty(), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replicas_advice_on_retries_is_passed_on() {
    let script = Script::default();
    let world = World::start(&[script.serve().await], PLENTY).await;
    let body = r#"{"error":{"message":"later","type":"x","code":1}}"#;
    for (path, status) in [(CHAT, 429), (CHAT, 503), (MESSAGES, 429), (MESSAGES, 503)] {
        let advice = "retry-after: 17\r\nretry-after-ms: 16500\r\nx-should-retry: false\r\n";
        script.whole_with(&format!("{status} Later"), advice, body);
        let answer = ask(&world, "POST", path, &[], r#"{"messages":[],"max_tokens":1}"#).await;
        let said = ["retry-after", "retry-after-ms", "x-should-retry"].map(|name| answer.header(name));
        assert_eq!((answer.status, said), (status, ["17", "17000", "false"]), "{path} {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_socket_is_refused_so_that_codex_goes_on_over_http_at_once() {
    let script = Script::default();
    let world = World::start(&[script.serve().await], PLENTY).await;
    for path in ["/v1/responses", "/llm/qwen/v1/responses", "/v1/chat/completions"] {
        let headers = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let answer = ask(&world, "GET", path, &headers, "").await;
        assert_eq!((answer.status, answer.header("upgrade")), (426, "HTTP/1.1"), "{path} {answer:?}");
        assert!(answer.body.contains("POST"), "{answer:?}");
    }
    // A client that would rather speak HTTP/2 is answered as it asked.
    script.whole("200 OK", r#"{"usage":{"prompt_tokens":1,"total_tokens":1}}"#);
    let h2c = [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABk")];
    assert_eq!(ask(&world, "POST", CHAT, &h2c, r#"{"messages":[]}"#).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_that_need_an_earlier_one_are_refused_with_the_reason_and_others_may_be_stored() {
    let (_replica, url) = replica(22).await;
    let world = World::start(&[url], PLENTY).await;
    let path = "/llm/qwen/v1/responses";
    let table = [
        (json!({"input": "hello", "previous_response_id": "resp_1"}), "previous_response_id"),
        (json!({"input": "hello", "conversation": {"id": "conv_1"}}), "conversation"),
        (json!({"input": "hello", "background": true}), "background"),
        (json!({"input": [{"type": "item_reference", "id": "msg_1"}]}), "input"),
    ];
    for (body, field) in table {
        let answer = world.post(path, &body).await;
        assert_eq!((answer.status, answer.json()["error"]["param"].as_str()), (400, Some(field)), "{answer:?}");
        assert!(answer.body.contains("no response is kept here"), "{answer:?}");
    }
    let stored = json!({"input": "hello", "store": true, "previous_response_id": null, "max_output_tokens": 8});
    assert_eq!(world.post(path, &stored).await.status, 200);
    for (method, path) in
        [("GET", "/v1/responses/resp_1"), ("DELETE", "/llm/qwen/v1/responses/resp_1"), ("POST", "/v1/conversations")]
    {
        let answer = ask(&world, method, path, &[], "").await;
        assert_eq!(answer.status, 404, "the SDKs do not try again: {path} {answer:?}");
        assert!(answer.body.contains("none is kept here"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slashes_that_say_nothing_are_passed_over_and_the_root_says_what_this_is() {
    let script = Script::default();
    script.whole("200 OK", r#"{"usage":{"prompt_tokens":1,"total_tokens":1}}"#);
    let world = World::start(&[script.serve().await], PLENTY).await;
    for path in
        ["/llm/qwen/v1/chat/completions/", "//llm/qwen//v1/chat/completions", "/llm/qwen/v1//chat/completions?x=//"]
    {
        let answer = ask(&world, "POST", path, &[], r#"{"messages":[]}"#).await;
        assert_eq!(answer.status, 200, "{path} {answer:?}");
    }
    assert!(script.requests().iter().all(|seen| seen.starts_with("POST /v1/chat/completions HTTP/1.1\r\n")));
    assert_eq!(world.connect().await.get("//healthz/", &[]).await.body, "ok");
    for path in ["/", "//", "/v1/"] {
        let answer = world.connect().await.get(path, &[]).await;
        assert_eq!((answer.status, answer.json()["name"].as_str()), (200, Some("Tollgate")), "{path} {answer:?}");
    }
}
