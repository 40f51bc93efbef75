//! Hard limits: an answer ends where the limit does, and nothing is ever charged beyond it, whatever a replica says.

use std::time::Duration;

use serde_json::{Value, json};

use crate::scripted::Script;
use crate::world::{PLENTY, World, replica};

const CHAT: &str = "/llm/qwen/v1/chat/completions";

fn hard(limit: u64, unit: &str) -> Value {
    json!([{"limit": limit, "window": "1h", "unit": unit, "enforcement": "hard"}])
}

/// A world whose key is under these limits.
async fn under(url: &str, limits: Value) -> World {
    let mut world = World::start(&[url.to_owned()], PLENTY).await;
    world.subscribe("hard", limits).await;
    world.key = world.add_key("ann", "hard", Duration::from_secs(3600)).await;
    world
}

fn chat(stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": "hello"}], "ignore_eos": true, "stream": stream})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_ends_where_the_limit_does_as_one_ends_that_reaches_its_max_tokens() {
    let (_replica, url) = replica(4).await;
    for (limit, unit, is_streamed) in [(600, "total", false), (600, "total", true), (90, "output", true)] {
        let world = under(&url, hard(limit, unit)).await;
        // It asks for no size: it gets what there is.
        let answer = world.post(CHAT, &chat(is_streamed)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.contains(r#""finish_reason":"length""#), "{answer:?}");
        if is_streamed {
            assert_eq!(answer.events().last(), Some(&"[DONE]"), "{answer:?}");
        }
        let charged = world.charged().await;
        let of_limit = if unit == "total" { charged.total() } else { charged.output };
        assert!(of_limit <= limit, "{charged:?} of {limit} {unit}");
        assert_eq!(charged.output, if unit == "output" { limit } else { limit - bound(is_streamed) }, "{charged:?}");
        // What the prompt turned out not to need, others may use; at last there is nothing left.
        let mut answered = 1;
        while world.post(CHAT, &chat(is_streamed)).await.status == 200 {
            answered += 1;
            assert!(answered < 100, "this never ends");
        }
        let charged = world.charged().await;
        let of_limit = if unit == "total" { charged.total() } else { charged.output };
        assert!(of_limit <= limit && limit - of_limit < 40, "{charged:?} of {limit} {unit} in {answered} calls");
    }
}

/// What is held for the prompt.
fn bound(is_streamed: bool) -> u64 {
    chat(is_streamed).to_string().len() as u64 + 128
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_says_beyond_what_it_was_allowed_is_recorded_and_not_charged() {
    let script = Script::default();
    let url = script.serve().await;
    let world = under(&url, hard(1000, "total")).await;
    script.whole("200 OK", r#"{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":5000}}"#);
    let mut body = chat(false);
    body["max_tokens"] = 30.into();
    assert_eq!(world.post(CHAT, &body).await.status, 200);
    let sent: Value = serde_json::from_str(script.requests()[0].split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((&sent["max_tokens"], &sent["max_completion_tokens"]), (&json!(30), &Value::Null), "as it was asked");
    let charged = world.charged().await;
    assert_eq!((charged.input, charged.output, charged.absurd_calls), (12, 5000, 1), "usage says what was reported");
    assert_eq!(world.used().await, 12 + 30, "the limit was charged what it allowed");
    assert_eq!(world.counter("tollgate_usage_absurd_reports_total"), 1.0);
}
