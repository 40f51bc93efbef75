//! What a well-behaved caller gets, and what it costs.

use std::time::Duration;

use serde_json::json;

use crate::scripted::Script;
use crate::world::{PLENTY, World, replica};

const CHAT: &str = "/llm/qwen/v1/chat/completions";

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_is_answered_charged_what_it_used_and_shows_its_limits() {
    let (_replica, url) = replica(1).await;
    let world = World::start(&[url], PLENTY).await;
    let body = json!({"model": "qwen", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20});
    let answer = world.post(CHAT, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let total = answer.json()["usage"]["total_tokens"].as_u64().unwrap();
    assert_eq!(world.used().await, total);
    assert_eq!(world.counter("authorized_hits"), total as f64);
    assert_eq!(world.counter("authorized_hits_total"), total as f64);
    assert_eq!(world.counter("authorized_calls"), 1.0);
    assert_eq!(world.counter("tollgate_requests_in_flight"), 0.0);
    assert_eq!(answer.header("x-ratelimit-limit-tokens"), PLENTY.to_string());
    assert_eq!(answer.header("ratelimit-policy"), format!("\"1h\";q={PLENTY};w=3600;maas-unit=\"tokens\""));
    assert_eq!(answer.header("x-request-id").len(), 32);
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_usage_only_if_the_caller_asked_and_is_charged_either_way() {
    let (_replica, url) = replica(2).await;
    let world = World::start(&[url], PLENTY).await;
    let mut body = json!({"model": "llm/qwen", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20, "stream": true});
    let silent = world.post("/v1/chat/completions", &body).await;
    let (events, used) = (silent.events(), world.used().await);
    assert_eq!((silent.status, events.last()), (200, Some(&"[DONE]")), "{silent:?}");
    assert!(used > 20 && !silent.body.contains("\"usage\""), "{used} {silent:?}");
    body["stream_options"] = json!({"include_usage": true});
    let asked = world.post("/v1/chat/completions", &body).await;
    let events = asked.events();
    let (last, before) = events[..events.len() - 1].split_last().unwrap();
    let usage: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(usage["usage"]["total_tokens"].as_u64(), Some(world.used().await - used));
    assert!(before.iter().all(|event| !event.contains("\"usage\"")), "{asked:?}");
    body["stream_options"]["continuous_usage_stats"] = json!(true);
    let running = world.post("/v1/chat/completions", &body).await;
    let events = running.events();
    let tokens = |event: &str| -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(event).unwrap()["usage"]["completion_tokens"].clone()
    };
    let counts: Vec<_> = events[..events.len() - 1].iter().map(|event| tokens(event).as_u64().unwrap()).collect();
    assert!(counts.is_sorted() && counts.last() == Some(&20), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_dialect_is_metered_and_tokens_are_counted_for_free() {
    let (_replica, url) = replica(3).await;
    let world = World::start(&[url], PLENTY).await;
    let mut used = 0;
    let hello = json!([{"role": "user", "content": "hello"}]);
    let table = [
        ("/v1/completions", json!({"prompt": "once", "max_tokens": 8}), "/usage/total_tokens"),
        ("/v1/responses", json!({"input": "hello", "max_output_tokens": 8}), "/usage/total_tokens"),
        ("/v1/messages", json!({"messages": hello, "max_tokens": 8}), "/usage/output_tokens"),
    ];
    for (path, mut body, tokens) in table {
        let answer = world.post(&format!("/llm/qwen{path}"), &body).await;
        assert_eq!(answer.status, 200, "{path} {answer:?}");
        let charged = world.used().await - used;
        let reported = answer.json().pointer(tokens).and_then(serde_json::Value::as_u64).unwrap();
        assert!(charged >= reported && charged < reported + 100, "{path}: {charged} for {reported}");
        body["stream"] = true.into();
        let stream = world.post(&format!("/llm/qwen{path}"), &body).await;
        assert!(!stream.body.contains("\"error\""), "{path} {stream:?}");
        assert_eq!(world.used().await - used, 2 * charged, "{path}: a stream costs the same");
        used = world.used().await;
    }
    for (path, body) in
        [("/tokenize", json!({"prompt": "hello"})), ("/v1/messages/count_tokens", json!({"messages": hello}))]
    {
        let answer = world.post(&format!("/llm/qwen{path}"), &body).await;
        assert_eq!((answer.status, world.used().await), (200, used), "{path} {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropics_sdk_sends_its_key_in_its_own_header_and_sees_its_own_limits() {
    let (_replica, url) = replica(4).await;
    let world = World::start(&[url], PLENTY).await;
    let body =
        json!({"model": "qwen", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}).to_string();
    let headers = [("x-api-key", world.key.as_str()), ("anthropic-version", "2023-06-01"), ("x-request-id", "my-id")];
    let answer = world.connect().await.post("/v1/messages?beta=true", &headers, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("anthropic-ratelimit-tokens-limit"), PLENTY.to_string());
    assert_eq!(answer.header("x-request-id"), "my-id");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_lists_itself_even_when_its_quota_is_used_up() {
    let (_replica, url) = replica(5).await;
    let world = World::start(&[url], 10).await;
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 50});
    let first = world.post(CHAT, &body).await;
    assert_eq!(first.status, 200, "a call larger than its whole limit passes in a fresh window: {first:?}");
    let second = world.post(CHAT, &body).await;
    assert_eq!(second.status, 429, "{second:?}");
    assert!(
        second.json()["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with("limit of 10 tokens per 1h of subscription `dev` reached")
    );
    assert_eq!(second.json()["error"]["code"], "rate_limit_exceeded");
    let seconds: u64 = second.header("retry-after").parse().unwrap();
    // The rest of this window, and the whole ones that what it used beyond pays for.
    let owed = first.json()["usage"]["total_tokens"].as_u64().unwrap() - 10;
    let windows = owed / 10 * 3600;
    assert!((3500 + windows..=3600 + windows).contains(&seconds), "{seconds} after {owed} tokens too many");
    assert_eq!(second.json()["error"]["quota"]["debt"], owed);
    assert_eq!(world.counter("limited_calls"), 1.0);
    let bearer = format!("Bearer {}", world.key);
    let list = world.connect().await.get("/llm/qwen/v1/models", &[("authorization", &bearer)]).await;
    assert_eq!((list.status, list.json()["data"][0]["id"].as_str()), (200, Some("qwen")));
    assert_eq!(world.connect().await.get("/healthz", &[]).await.body, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_gets_a_request_built_for_it() {
    let script = Script::default();
    script.whole("200 OK", r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#);
    let world = World::start(&[script.serve().await], PLENTY).await;
    let body = r#"{"model":"qwen", "x":[1, 2e3],"messages":[]}"#;
    let bearer = format!("Bearer {}", world.key);
    let headers = [
        ("authorization", bearer.as_str()),
        ("cookie", "a=b"),
        ("x-maas-subscription", "dev"),
        ("x-request-id", "r-1"),
        ("x-odd", "1"),
    ];
    let answer = world.connect().await.post(CHAT, &headers, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = script.requests().pop().unwrap();
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<_> = head.split("\r\n").filter(|line| !line.starts_with("host: ")).collect();
    lines[1..].sort_unstable();
    let id = lines.pop().unwrap().strip_prefix("x-request-id: ").unwrap();
    assert!(id.len() == 32 && answer.header("x-request-id") == "r-1", "the replica gets an id of its own: {id}");
    assert_eq!(lines, ["POST /v1/chat/completions HTTP/1.1", "content-length: 49", "content-type: application/json"]);
    assert_eq!(body, r#"{"model":"acme/qwen", "x":[1, 2e3],"messages":[]}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_a_stream_is_split_the_caller_gets_the_same_bytes_and_pays_the_same() {
    let script = Script::default();
    let chunk = |text: &str| {
        format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\r\n\r\n")
    };
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2,\"total_tokens\":7}}\r\n\r\n";
    let kept = format!(": hello\r\n\r\n{}{}", chunk("é€"), chunk("😀"));
    let stream = format!("{kept}{usage}data: [DONE]\r\n\r\n");
    let world = World::start(&[script.serve().await], PLENTY).await;
    let body = json!({"messages": [], "stream": true});
    let bearer = format!("Bearer {}", world.key);
    let mut connection = world.connect().await;
    for at in 0..=stream.len() {
        script.stream(&[&stream.as_bytes()[..at], &stream.as_bytes()[at..]], true);
        let answer = connection.post(CHAT, &[("authorization", &bearer)], &body.to_string()).await;
        assert_eq!(answer.body, format!("{kept}data: [DONE]\r\n\r\n"), "split at {at}");
    }
    assert_eq!(world.used().await, 7 * (stream.len() as u64 + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_calls_for_each_key_counts_calls_and_says_so() {
    let (_replica, url) = replica(9).await;
    let mut world = World::start(&[url], PLENTY).await;
    let limits =
        json!([{"limit": PLENTY, "window": "1h"}, {"limit": 2, "window": "60s", "unit": "requests", "scope": "key"}]);
    world.subscribe("few", limits).await;
    let body = json!({"model": "qwen", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4});
    // What never reaches a replica is no call.
    let wrong = json!({"model": "qwen", "messages": [], "max_tokens": -1});
    for key in ["first", "second"] {
        world.key = world.add_key("ann", "few", Duration::from_secs(3600)).await;
        assert_eq!(world.post("/llm/qwen/invocations", &wrong).await.status, 404);
        for left in ["1", "0"] {
            let answer = world.post(CHAT, &body).await;
            assert_eq!(
                (answer.status, answer.header("x-ratelimit-remaining-requests")),
                (200, left),
                "{key} {answer:?}"
            );
            assert_eq!(answer.header("x-ratelimit-limit-tokens"), PLENTY.to_string());
        }
        let refused = world.post(CHAT, &body).await;
        assert_eq!(refused.status, 429, "{key} {refused:?}");
        assert!(refused.body.contains("limit of 2 requests per 60s"), "{refused:?}");
        assert!((1..=60).contains(&refused.header("retry-after").parse::<u64>().unwrap()), "{refused:?}");
    }
}
