//! A limit is usable by the people it is for: a call that nobody competes with gets the rest of it, what it uses beyond that is owed, and
//! who is refused is told how much that is. No report of a replica costs more than the call can have used.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sim_vllm::Config;

use crate::scripted::Script;
use crate::world::{PLENTY, World, replica, replica_with};

const CHAT: &str = "/llm/qwen/v1/chat/completions";

fn hello() -> Value {
    json!({"messages": [{"role": "user", "content": "Hello"}]})
}

/// A world whose key is under one limit of so many tokens per `window`.
async fn under(url: &str, tokens: u64, window: &str) -> World {
    let mut world = World::start(&[url.to_owned()], PLENTY).await;
    world.subscribe("small", json!([{"limit": tokens, "window": window}])).await;
    world.key = world.add_key("ann", "small", Duration::from_secs(3600)).await;
    world
}

/// A replica that reports so many tokens of each call.
async fn reporting(prompt: u64, completion: u64) -> (Script, String) {
    let script = Script::default();
    let usage = json!({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}});
    script.whole("200 OK", &usage.to_string());
    let url = script.serve().await;
    (script, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_greetings_that_ask_for_no_size_pass_a_limit_of_a_thousand() {
    let (_script, url) = reporting(9, 4).await;
    let world = under(&url, 1000, "60s").await;
    for call in 0..10 {
        let answer = world.post(CHAT, &hello()).await;
        assert_eq!(answer.status, 200, "call {call}: {answer:?}");
    }
    assert_eq!(world.charged().await.total(), 130);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifteen_small_calls_pass_a_small_limit_where_no_replica_renders() {
    let (_replica, url) = replica_with(Config { scale_out_endpoints: false, speed: 50.0, ..Config::default() }).await;
    let body = json!({"prompt": "hi", "max_tokens": 3, "ignore_eos": true});
    let path = "/llm/qwen/v1/completions";
    let world = World::start(std::slice::from_ref(&url), PLENTY).await;
    assert_eq!(world.post(path, &body).await.status, 200);
    let one = world.used().await;
    assert!(one * 15 <= 100, "{one}");
    let world = under(&url, 100, "60s").await;
    for call in 0..15 {
        let answer = world.post(path, &body).await;
        assert_eq!(answer.status, 200, "call {call}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_thirty_callers_at_once_as_many_are_admitted_as_a_small_limit_has_room_for() {
    let (_replica, url) = replica(11).await;
    let mut body = hello();
    (body["max_tokens"], body["ignore_eos"]) = (json!(50), json!(true));
    let world = World::start(std::slice::from_ref(&url), PLENTY).await;
    assert_eq!(world.post(CHAT, &body).await.status, 200);
    let one = world.used().await;
    // Four fit, and not quite half of a fifth one.
    let world = under(&url, one * 4 + 28, "60s").await;
    let answers = join_all((0..30).map(|_| world.post(CHAT, &body))).await;
    let admitted = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 429)), "{answers:?}");
    assert!((3..=5).contains(&admitted), "{admitted} of four that fit");
    assert_eq!(world.charged().await.total(), admitted as u64 * one);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_nonsense_is_recorded_told_of_and_charged_as_far_as_it_can_be_true() {
    let stated = json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 10});
    let elsewhere = json!({"type": "audio_url", "audio_url": {"url": "https://example.com/a"}});
    let media = json!({"max_tokens": 10, "messages": [{"role": "user", "content": [elsewhere]}]});
    let table = [
        // What is asked, what is reported, what may be charged, whether that is nonsense.
        (&stated, (12, 9_999_999), (12, 10..=10), true),
        (&hello(), (12, 9_999_999), (12, 4096..=12_000), true),
        (&stated, (12, 10), (12, 10..=10), false),
        (&stated, (9_999_999, 10), (stated.to_string().len() as u64 + 128, 10..=10), true),
        // Nobody knows how much a sound is that is elsewhere.
        (&media, (30_000, 10), (30_000, 10..=10), false),
    ];
    for (body, (prompt, completion), (input, output), is_absurd) in table {
        let (_script, url) = reporting(prompt, completion).await;
        let world = under(&url, 50_000, "1h").await;
        assert_eq!(world.post(CHAT, body).await.status, 200);
        let sum = world.charged().await;
        let told = (sum.input, sum.output, sum.absurd_calls);
        assert_eq!(told, (prompt, completion, u64::from(is_absurd)), "usage says what was reported");
        let count = world.counter("tollgate_usage_absurd_reports_total");
        assert_eq!(count, f64::from(u8::from(is_absurd)), "{body}");
        let used = world.used().await;
        assert!(output.contains(&used.saturating_sub(input)), "{used} charged of {body}");
        // And the next call passes.
        assert_eq!(world.post(CHAT, body).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_what_is_owed_and_what_would_fit_and_when_that_is_paid() {
    let (_script, url) = reporting(100, 250).await;
    let world = under(&url, 100, "60s").await;
    let mut body = hello();
    body["max_tokens"] = json!(300);
    assert_eq!(world.post(CHAT, &body).await.status, 200);
    let refused = world.post(CHAT, &body).await;
    assert_eq!(refused.status, 429, "{refused:?}");
    let error = &refused.json()["error"];
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("100 used, 250 owed, 0 reserved"), "{message}");
    assert!(message.ends_with("100 needed, 0 would fit now"), "{message}");
    let quota = &error["quota"];
    assert_eq!((&quota["debt"], &quota["fits_now"], &quota["used"]), (&json!(250), &json!(0), &json!(100)));
    // The rest of this window, and two whole ones.
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((120..=180).contains(&seconds), "{seconds}");
}
