//! The end of a limit: replicas count prompts exactly, so that what is left of a hard limit is used, and nothing goes wrong where they do
//! not. Of other limits a call that is alone gets the rest (`rest`), and is counted only where it would wait for calls in progress.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sim_vllm::{Config, Fault, FaultKind};
use tokio::time::Instant;

use crate::client::{Answer, request};
use crate::scripted::Script;
use crate::world::{PLENTY, World, replica, replica_with};

const CHAT: &str = "/llm/qwen/v1/chat/completions";
const COMPLETIONS: &str = "/llm/qwen/v1/completions";

fn chat() -> Value {
    let content = "hello ".repeat(60);
    json!({"messages": [{"role": "user", "content": content}], "max_tokens": 20, "ignore_eos": true})
}

/// What is held for the prompt of a chat that nobody has counted.
fn bound() -> u64 {
    chat().to_string().len() as u64 + 128
}

fn counts(world: &World, result: &str) -> f64 {
    world.counter(&format!("tollgate_prompt_counts_total{{model=\"qwen\",result=\"{result}\"}}"))
}

/// What the prompt of one such call uses.
async fn cost(url: &str, path: &str, body: &Value) -> u64 {
    let world = World::start(&[url.to_owned()], PLENTY).await;
    let answer = world.post(path, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    world.charged().await.input
}

/// A world whose key is under a limit of so many tokens of prompts.
async fn under(url: &str, tokens: u64, enforcement: &str) -> World {
    let mut world = World::start(&[url.to_owned()], PLENTY).await;
    let limit = json!({"limit": tokens, "window": "1h", "unit": "input", "enforcement": enforcement});
    world.subscribe("prompts", json!([limit])).await;
    world.key = world.add_key("ann", "prompts", Duration::from_secs(3600)).await;
    world
}

/// A world with a hard limit of ten chats' prompts, so far used that the next one's bound does not fit. Also what a prompt uses.
async fn near_the_end(url: &str) -> (World, u64) {
    let one = cost(url, CHAT, &chat()).await;
    let world = under(url, one * 10, "hard").await;
    let mut used = 0;
    while used + bound() <= one * 10 {
        assert_eq!(world.post(CHAT, &chat()).await.status, 200);
        used += one;
    }
    assert!(used > 0 && used + 2 * one < one * 10, "{used} of ten times {one}");
    (world, one)
}

/// A refusal as if nobody had ever tried to count.
fn assert_refused_by_bound(answer: &Answer) {
    assert_eq!(answer.status, 429, "{answer:?}");
    assert!(answer.body.contains(&format!("{} needed", bound())), "{answer:?}");
    assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_used_to_its_last_token_when_replicas_count() {
    let (_replica, url) = replica(1).await;
    let mut streamed = chat();
    streamed["stream"] = true.into();
    let prompts =
        json!({"prompt": ["once upon ".repeat(40), "a time ".repeat(40)], "max_tokens": 10, "ignore_eos": true});
    for (path, body) in [(CHAT, chat()), (CHAT, streamed), (COMPLETIONS, prompts)] {
        let one = cost(&url, path, &body).await;
        for enforcement in ["hard", "reserve"] {
            let world = under(&url, one * 10, enforcement).await;
            for call in 0..10 {
                let answer = world.post(path, &body).await;
                assert_eq!(answer.status, 200, "call {call}: {answer:?}");
            }
            let by_count = counts(&world, "counted");
            let expected = if enforcement == "hard" { 1.0..10.0 } else { 0.0..1.0 };
            assert!(expected.contains(&by_count), "{by_count} of ten calls were counted, {enforcement}");
            for _ in 0..3 {
                assert_eq!(world.post(path, &body).await.status, 429);
            }
            assert_eq!(counts(&world, "counted"), by_count, "nobody is asked for what is hopeless");
            assert_eq!(world.charged().await.input, one * 10);
            assert_eq!(world.counter("limited_calls"), 3.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_by_the_exact_size_is_told_it_and_was_counted_once() {
    let (_replica, url) = replica(2).await;
    let one = cost(&url, CHAT, &chat()).await;
    let world = under(&url, one * 11 - 1, "hard").await;
    for _ in 0..10 {
        assert_eq!(world.post(CHAT, &chat()).await.status, 200);
    }
    let by_count = counts(&world, "counted");
    let answer = world.post(CHAT, &chat()).await;
    assert_eq!(answer.status, 429, "{answer:?}");
    assert!(answer.body.contains(&format!("{one} needed")), "{answer:?}");
    assert_eq!((world.used().await, counts(&world, "counted")), (one * 10, by_count + 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_cannot_count_change_nothing() {
    let (_replica, url) = replica_with(Config { scale_out_endpoints: false, speed: 50.0, ..Config::default() }).await;
    let (world, _) = near_the_end(&url).await;
    let used = world.used().await;
    assert_refused_by_bound(&world.post(CHAT, &chat()).await);
    assert_eq!((world.used().await, counts(&world, "failed"), counts(&world, "counted")), (used, 1.0, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_no_counts_change_nothing_and_are_asked_for_with_the_calls_own_body() {
    let script = Script::default();
    let url = script.serve().await;
    script.whole("200 OK", r#"{"usage":{"prompt_tokens":70,"completion_tokens":20}}"#);
    let (world, _) = near_the_end(&url).await;
    let (used, asked) = (world.used().await, script.requests().len());
    let table = [
        ("200 OK", r#"{"token_ids":"1,2"}"#),
        ("200 OK", r#"{"token_ids":[]}"#),
        ("200 OK", r#"{"token_ids":[1,2"#),
        ("200 OK", "<html>"),
        ("200 OK", ""),
        ("404 Not Found", r#"{"token_ids":[1,2]}"#),
        ("503 Service Unavailable", "busy"),
    ];
    for (status, body) in table {
        script.whole(status, body);
        assert_refused_by_bound(&world.post(CHAT, &chat()).await);
    }
    assert_eq!((world.used().await, counts(&world, "failed")), (used, table.len() as f64));
    let requests = script.requests();
    assert_eq!(requests.len() - asked, table.len(), "no second replica, no second try, no call");
    for request in &requests[asked..] {
        assert!(request.starts_with("POST /v1/chat/completions/render HTTP/1.1\r\n"), "{request}");
        assert!(!request.contains("authorization"), "{request}");
        let sent: Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!((&sent["model"], &sent["messages"]), (&json!("acme/qwen"), &chat()["messages"]));
    }
    assert_eq!(world.replica_statuses(), ["ready"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_never_answers_holds_up_few_callers_and_none_for_long() {
    let (replica, url) = replica(3).await;
    let (world, one) = near_the_end(&url).await;
    let used = world.used().await;
    replica.set_fault(Some(Fault::new(FaultKind::HangBeforeHeaders)));
    let (body, began) = (chat(), Instant::now());
    for answer in join_all((0..20).map(|_| world.post(CHAT, &body))).await {
        assert_refused_by_bound(&answer);
    }
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(2) && waited < Duration::from_secs(6), "{waited:?}");
    assert_eq!((counts(&world, "failed"), counts(&world, "refused")), (8.0, 12.0));
    replica.set_fault(None);
    assert_eq!((world.post(CHAT, &chat()).await.status, world.used().await), (200, used + one));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_share_what_is_left_to_its_last_token() {
    let (_replica, url) = replica(4).await;
    let (world, one) = near_the_end(&url).await;
    let left = (one * 10 - world.used().await) / one;
    let body = chat();
    let answers = join_all((0..60).map(|_| world.post(CHAT, &body))).await;
    let admitted = answers.iter().filter(|answer| answer.status == 200).count() as u64;
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 429)), "{answers:?}");
    assert_eq!((admitted, world.charged().await.input), (left, one * 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_fit_beside_one_in_progress_are_counted_and_need_not_wait_for_it() {
    // By rendering, by tokenizing, or not at all.
    let table = [(Config::default(), true), (Config { scale_out_endpoints: false, ..Config::default() }, true)];
    for (config, is_counted) in table {
        let renders = config.scale_out_endpoints;
        let (_replica, url) = replica_with(Config { seed: 5, speed: 1.0, ..config }).await;
        let mut slow = chat();
        (slow["max_tokens"], slow["stream"]) = (json!(300), json!(true));
        let world = World::start(std::slice::from_ref(&url), 700).await;
        let mut first = world.connect().await;
        let bearer = format!("Bearer {}", world.key);
        first.send(request("POST", CHAT, &[("authorization", &bearer)], &slow.to_string())).await;
        first.read_until("data: {").await;
        // Its prompt is known, so of 700 some 370 are left; two such calls have bounds of 200 each, and use 30.
        let mut wide = chat();
        wide["messages"][0]["content"] = json!("hello ".repeat(40));
        let began = Instant::now();
        for answer in join_all((0..2).map(|_| world.post(CHAT, &wide))).await {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(counts(&world, "counted") > 0.0, is_counted, "renders: {renders}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_and_responses_are_rendered_where_a_replica_can() {
    let text = "hello ".repeat(60);
    let messages = json!({"max_tokens": 20, "messages": [{"role": "user", "content": text}]});
    let responses = json!({"max_output_tokens": 20, "input": text});
    for (path, body) in [("/v1/messages", messages), ("/v1/responses", responses)] {
        let script = Script::default();
        let url = script.serve().await;
        // It is an answer and a rendering.
        let both = json!({"usage": {"input_tokens": 70, "output_tokens": 5}, "token_ids": vec![1; 70]});
        script.whole("200 OK", &both.to_string());
        let world = under(&url, 700, "hard").await;
        let call = async || world.post(&format!("/llm/qwen{path}"), &body).await.status;
        for number in 0..10 {
            assert_eq!(call().await, 200, "call {number} to {path}");
        }
        assert_eq!(call().await, 429, "{path}");
        let asked = format!("POST {path}/render HTTP/1.1\r\n");
        let rendered = script.requests().iter().filter(|request| request.starts_with(&asked)).count();
        assert!(rendered > 0 && rendered as f64 == counts(&world, "counted"), "{rendered} renderings of {path}");
    }
}
