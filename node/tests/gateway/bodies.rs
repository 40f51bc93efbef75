//! Bodies as callers write them: whatever form a size or a flag has, the replica and the gateway read the same.

use std::time::Duration;

use serde_json::{Value, json};

use crate::scripted::Script;
use crate::world::{PLENTY, World};

const CHAT: &str = "/llm/qwen/v1/chat/completions";

/// The body of the call that came last.
fn sent(script: &Script) -> Value {
    serde_json::from_str(script.requests().last().unwrap().split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// Posts `body` as it is written.
async fn post(world: &World, body: &str) -> crate::client::Answer {
    world.connect().await.post(CHAT, &[("authorization", &format!("Bearer {}", world.key))], body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_limit_holds_whatever_form_the_sizes_have() {
    // Each asks for 800 tokens in all.
    let forms = [
        r#"{"messages":[],"max_tokens":100,"n":8.0}"#,
        r#"{"messages":[],"max_tokens":100.0,"n":"8"}"#,
        r#"{"messages":[],"max_tokens":"1_00","n":" 8.0 "}"#,
        r#"{"messages":[],"max_completion_tokens":1e2,"max_tokens":3,"\u006e":8}"#,
        r#"{"messages":[],"max_tokens":800.0,"n":true}"#,
    ];
    for form in forms {
        let script = Script::default();
        let mut world = World::start(&[script.serve().await], PLENTY).await;
        let limit = json!([{"limit": 1000, "window": "1h", "unit": "output", "enforcement": "hard"}]);
        world.subscribe("hard", limit).await;
        world.key = world.add_key("ann", "hard", Duration::from_secs(3600)).await;
        script.whole("200 OK", r#"{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":800}}"#);
        assert_eq!(post(&world, form).await.status, 200, "{form}");
        let body = sent(&script);
        let most = body["max_completion_tokens"].as_u64().or(body["max_tokens"].as_u64()).unwrap();
        assert_eq!(body["n"].as_u64().unwrap() * most, 800, "{form} went upstream as {body}");
        assert_eq!(world.charged().await.output, 800, "{form}");
        // 200 are left: the same call again is told to stop there.
        script.whole("200 OK", r#"{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":200}}"#);
        assert_eq!(post(&world, form).await.status, 200, "{form}");
        let body = sent(&script);
        let most = body["max_completion_tokens"].as_u64().or(body["max_tokens"].as_u64()).unwrap();
        assert_eq!(body["n"].as_u64().unwrap() * most, 200, "{form} went upstream as {body}");
        assert_eq!(post(&world, form).await.status, 429, "{form}");
        assert_eq!(world.charged().await.output, 1000, "{form}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_charged_as_one_whatever_form_its_flag_has() {
    let script = Script::default();
    let world = World::start(&[script.serve().await], PLENTY).await;
    let events = [
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1}}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7,\"total_tokens\":12}}\n\n",
        "data: [DONE]\n\n",
    ];
    script.stream(&events.map(str::as_bytes), true);
    let forms = ["true", "1", "1.0", r#""true""#, r#""on""#, r#""Yes""#, r#""T""#];
    for (before, form) in forms.into_iter().enumerate() {
        let answer = post(&world, &format!(r#"{{"messages":[],"stream":{form}}}"#)).await;
        assert_eq!(answer.status, 200, "{form}: {answer:?}");
        let body = sent(&script);
        assert_eq!(body["stream"], true, "{form} went upstream as {body}");
        assert_eq!(body["stream_options"]["include_usage"], true, "{form} went upstream as {body}");
        assert!(!answer.body.contains("usage"), "it had not been asked for: {answer:?}");
        assert_eq!(world.charged().await.total(), 12 * (before as u64 + 1), "{form}");
    }
}
