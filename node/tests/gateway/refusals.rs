//! Bad input: one line each, with its status and what it says. None of it costs anything, and none reaches a replica.

use std::time::Duration;

use crate::client::{Answer, request};
use crate::scripted::Script;
use crate::world::{PLENTY, World};

const CHAT: &str = "/llm/qwen/v1/chat/completions";
const GOOD: &str = r#"{"messages":[]}"#;

/// The status and the error's code (or Anthropic's type).
fn summary(answer: &Answer) -> String {
    let error = &answer.json()["error"];
    let code = if error["code"].is_null() { &error["type"] } else { &error["code"] };
    format!("{} {}", answer.status, code.as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_refused_with_its_reason_and_costs_nothing() {
    let script = Script::default();
    script.whole("200 OK", r#"{"usage":{"total_tokens":1}}"#);
    let world = World::start(&[script.serve().await], PLENTY).await;
    world.publish("closed", "").await;
    let expired = world.add_key("ann", "dev", Duration::ZERO).await;
    let strangers = world.add_key("eve", "dev", Duration::from_secs(60)).await;
    let lost = world.add_key("ann", "gone", Duration::from_secs(60)).await;
    let good = format!("Bearer {}", world.key);
    let bearer = |key: &str| format!("Bearer {key}");
    let (expired, strangers, lost) = (bearer(&expired), bearer(&strangers), bearer(&lost));
    let long = format!("{{\"messages\":\"{}\"}}", "x".repeat(70_000));
    let unknown = bearer("sk-oai-nobody_nothing");
    let with = |auth: &str, path: &str, body: &str| request("POST", path, &[("authorization", auth)], body);
    let raw = |head: &str| format!("POST {CHAT} HTTP/1.1\r\nauthorization: {good}\r\n{head}\r\n{GOOD}");
    let length = GOOD.len();
    let table = [
        (with(&good, CHAT, "{"), "400 invalid_request"),
        (with(&good, CHAT, "[]"), "400 invalid_request"),
        (with(&good, CHAT, ""), "400 invalid_request"),
        (with(&good, CHAT, r#"{"model":7}"#), "400 invalid_request"),
        (with(&good, CHAT, r#"{"model":"qwen","mod\u0065l":"qwen"}"#), "400 invalid_request"),
        (with(&good, CHAT, r#"{"messages":[],"n":1,"n":8}"#), "400 invalid_request"),
        (with(&good, CHAT, r#"{"messages":[],"n":1.5}"#), "400 invalid_request"),
        (with(&good, CHAT, r#"{"messages":[],"stream":"maybe"}"#), "400 invalid_request"),
        (with(&good, CHAT, r#"{"messages":[],"temperature":NaN}"#), "400 invalid_request"),
        (
            with(&good, CHAT, &format!(r#"{{"messages":{}{}}}"#, "[".repeat(100), "]".repeat(100))),
            "400 invalid_request",
        ),
        (with(&good, CHAT, r#"{"model":"closed"}"#), "400 model_mismatch"),
        (with(&good, "/v1/chat/completions", GOOD), "400 invalid_request"),
        (with(&good, "/v1/chat/completions", r#"{"model":"nope"}"#), "403 model_not_in_subscription"),
        (with(&good, "/v1/messages", r#"{"model":"nope"}"#), "403 permission_error"),
        (with(&good, "/llm/nope/v1/chat/completions", GOOD), "403 model_not_in_subscription"),
        (with(&good, "/llm/closed/v1/chat/completions", GOOD), "403 model_not_in_subscription"),
        (with(&good, "/llm/qwen%2fv1/v1/chat/completions", GOOD), "400 invalid_request"),
        (with(&good, "/llm/%2e%2e/v1/chat/completions", GOOD), "400 invalid_request"),
        (with(&good, "/llm/qwen%00/v1/chat/completions", GOOD), "400 invalid_request"),
        (with(&good, "/llm/qwen/invocations", GOOD), "404 unknown_url"),
        (with(&good, "/llm/qwen/v1/load_lora_adapter", GOOD), "404 unknown_url"),
        (with(&good, "/llm/qwen/v1/responses/resp_1/cancel", ""), "404 not_stored"),
        (with(&good, "/llm/qwen/v1/responses/render", GOOD), "404 unknown_url"),
        (with(&good, "/v1/messages/batches", GOOD), "404 not_found_error"),
        (
            with(&good, "/llm/qwen/v1/responses", r#"{"input":"x","previous_response_id":"resp_1"}"#),
            "400 invalid_request",
        ),
        (with(&good, "/llm/qwen/v1/responses", r#"{"input":"x","background":true}"#), "400 invalid_request"),
        (
            request("GET", "/v1/responses", &[("authorization", &good), ("upgrade", "websocket")], ""),
            "426 web_socket_not_supported",
        ),
        (with(&good, CHAT, &long), "413 request_too_large"),
        (
            request("POST", CHAT, &[("authorization", &good), ("content-encoding", "compress")], GOOD),
            "415 unsupported_content_encoding",
        ),
        (request("GET", CHAT, &[("authorization", &good)], ""), "405 method_not_allowed"),
        (request("POST", CHAT, &[], GOOD), "401 invalid_api_key"),
        (with("Bearer rubbish", CHAT, GOOD), "401 invalid_api_key"),
        (with("Bearer rubbish", "/v1/messages", GOOD), "401 authentication_error"),
        (with(&unknown, CHAT, GOOD), "403 invalid_api_key"),
        (with("Bearer sk-oai-", CHAT, GOOD), "403 invalid_api_key"),
        (with(&expired, CHAT, GOOD), "403 invalid_api_key"),
        (with(&strangers, CHAT, GOOD), "403 access_denied"),
        (with(&lost, CHAT, GOOD), "403 not_found"),
        (request("POST", CHAT, &[("authorization", &good), ("x-maas-username", "root")], GOOD), "403 forged_identity"),
        (raw(&format!("content-length: {length}\r\n")), "400 invalid_request"),
        (raw(&format!("host: a\r\nhost: a\r\ncontent-length: {length}\r\n")), "400 invalid_request"),
        (raw("host: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"), "400 invalid_request"),
        (
            format!(
                "POST http://other{CHAT} HTTP/1.1\r\nauthorization: {good}\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{GOOD}"
            ),
            "400 invalid_request",
        ),
    ];
    for (bytes, expected) in table {
        let mut connection = world.connect().await;
        connection.send(&bytes).await;
        let answer = connection.answer().await;
        let shown: String = bytes.chars().take(200).collect();
        assert_eq!(summary(&answer), expected, "{shown}\n{answer:?}");
        assert!(!answer.header("x-request-id").is_empty(), "{answer:?}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{answer:?}");
        assert_eq!(answer.header("www-authenticate").is_empty(), answer.status != 401, "{answer:?}");
    }
    assert_eq!((script.requests(), world.used().await), (vec![], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_not_the_callers_and_one_that_does_not_exist_are_refused_alike() {
    let script = Script::default();
    let world = World::start(&[script.serve().await], PLENTY).await;
    world.publish("closed", "").await;
    let strangers = world.add_key("eve", "dev", Duration::from_secs(60)).await;
    let lost = world.add_key("ann", "gone", Duration::from_secs(60)).await;
    let ways = [
        ("POST", "/llm/NAME/v1/chat/completions", GOOD),
        ("POST", "/llm/NAME/v1/chat/completions", r#"{"model":"NAME","messages":[]}"#),
        ("POST", "/llm/NAME/v1/chat/completions", r#"{"model":"another","messages":[]}"#),
        ("POST", "/v1/chat/completions", r#"{"model":"NAME","messages":[]}"#),
        ("POST", "/v1/chat/completions", r#"{"model":"llm/NAME","messages":[]}"#),
        ("POST", "/v1/messages", r#"{"model":"publishers/llm/models/NAME","messages":[]}"#),
        ("GET", "/llm/NAME/v1/models", ""),
    ];
    for key in [&world.key, &strangers, &lost] {
        for (method, path, body) in ways {
            let mut answers = Vec::new();
            for name in ["closed", "absent"] {
                let bearer = format!("Bearer {key}");
                let headers = [("authorization", bearer.as_str()), ("x-request-id", "the-same")];
                let mut connection = world.connect().await;
                connection
                    .send(&request(method, &path.replace("NAME", name), &headers, &body.replace("NAME", name)))
                    .await;
                let answer = connection.answer().await;
                let reason = answer.header("x-ext-auth-reason").to_owned();
                answers.push((answer.status, reason, answer.json().to_string().replace(name, "NAME")));
            }
            assert_eq!(answers[0], answers[1], "{path} {body}");
            assert_eq!(answers[0].0, 403, "{path} {body}: {answers:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_no_heads_are_refused_before_anybody_looks_at_them() {
    let script = Script::default();
    let world = World::start(&[script.serve().await], PLENTY).await;
    let table = [
        ("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n".to_owned(), "400"),
        ("POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nhost: a\r\nname with blank: 1\r\n\r\n".to_owned(), "400"),
        (format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(100_000)), "431"),
    ];
    for (bytes, expected) in table {
        let mut connection = world.connect().await;
        connection.send(&bytes).await;
        connection.read_until(&format!("HTTP/1.1 {expected}")).await;
        assert!(connection.closes_within(Duration::from_secs(2)).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_two_lengths_is_the_last_one_on_its_connection() {
    let script = Script::default();
    script.whole("200 OK", r#"{"usage":{"total_tokens":1}}"#);
    let world = World::start(&[script.serve().await], PLENTY).await;
    let smuggled = request("GET", "/healthz", &[], "");
    let mut connection = world.connect().await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n", world.key);
    let length = GOOD.len();
    connection
        .send(format!(
            "{head}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{GOOD}\r\n0\r\n\r\n{smuggled}"
        ))
        .await;
    let answer = connection.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    assert!(connection.closes_within(Duration::from_secs(2)).await, "and nothing more is answered");
}
