//! Signs of life in silent streams: in each dialect, wherever the silence is, and that they change nothing else.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Answer, Connection, request};
use crate::scripted::{End, Script};
use crate::world::{World, eventually};

const INTERVAL: Duration = Duration::from_millis(25);
const COMMENT: &str = ": keep-alive\n\n";
const PING: &str = "event: ping\ndata: {\"type\": \"ping\"}\n\n";

const CHAT: &str = "/llm/qwen/v1/chat/completions";
const MESSAGES: &str = "/llm/qwen/v1/messages";
const RESPONSES: &str = "/llm/qwen/v1/responses";
const DIALECTS: [(&str, &str); 4] =
    [(CHAT, COMMENT), ("/llm/qwen/v1/completions", COMMENT), (RESPONSES, COMMENT), (MESSAGES, PING)];

/// A short stream of the dialect.
fn events(path: &str) -> [&'static str; 2] {
    match path {
        CHAT => ["data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\n", "data: [DONE]\n\n"],
        MESSAGES => [
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":3}}}\n\n",
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        ],
        RESPONSES => [
            "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hi\"}\n\n",
            "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":3,\"output_tokens\":1,\"total_tokens\":4}}}\n\n",
        ],
        _ => ["data: {\"choices\":[{\"index\":0,\"text\":\"hi\"}]}\n\n", "data: [DONE]\n\n"],
    }
}

fn call(stream: bool) -> Value {
    json!({"messages": [], "prompt": "hello", "input": "hello", "max_tokens": 5, "stream": stream})
}

async fn begin(world: &World, path: &str, stream: bool) -> Connection {
    let mut connection = world.connect().await;
    let bearer = format!("Bearer {}", world.key);
    connection.send(request("POST", path, &[("authorization", &bearer)], &call(stream).to_string())).await;
    connection
}

/// Waits for two more signs.
async fn stays_alive(connection: &mut Connection, sign: &str) {
    let so_far = connection.count(sign);
    connection.read_until_times(sign, so_far + 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_has_signs_of_life_between_its_events_in_each_dialect() {
    let script = Script::default();
    let world = World::start_kept_alive(&[script.serve().await], INTERVAL).await;
    for (path, sign) in DIALECTS {
        let at_first = world.used().await;
        let [first, last] = events(path);
        script.stream(&[first.as_bytes(), last.as_bytes()], true);
        let whole = world.post(path, &call(true)).await;
        assert_eq!(whole.body, [first, last].concat(), "{path}: what is not silent is as it came");
        let cost = world.used().await - at_first;

        let (begun, rest) = first.split_at(first.len() / 2);
        script.paused_stream(&["", begun, "", rest, "", last, ""], End::Proper);
        let mut connection = begin(&world, path, true).await;
        // Before the first event, in the middle of it, and before the next one.
        for _ in 0..3 {
            stays_alive(&mut connection, sign).await;
            script.go_on();
        }
        connection.read_until(last.trim_end()).await;
        tokio::time::sleep(INTERVAL * 4).await;
        script.go_on();
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.header("content-type")), (200, whole.header("content-type")));
        let limits = |answer: &Answer| answer.header("ratelimit-policy").to_owned();
        assert_eq!(limits(&answer), limits(&whole), "{path}");
        let signs = answer.body.matches(sign).count();
        assert!(signs >= 6, "{path}: {}", answer.body);
        let (before, after) = answer.body.split_once(first).expect("the event is whole");
        assert_eq!(before.replace(sign, ""), "", "{path}: {}", answer.body);
        assert_eq!(after.replace(sign, ""), last, "{path}: {}", answer.body);
        assert!(answer.body.ends_with(last), "{path}: nothing follows the end mark: {}", answer.body);
        eventually("the call is settled", || world.counter("tollgate_requests_in_flight") == 0.0).await;
        assert_eq!(world.used().await - at_first, 2 * cost, "{path}: signs cost nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_head_yet_or_is_no_stream_keeps_its_status() {
    // A head that does not come, and an answer that is not streamed.
    let headless = ("", true);
    let whole = ("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n", false);
    for (head, stream) in [headless, whole] {
        let script = Script::default();
        let world = World::start_kept_alive(&[script.serve().await], INTERVAL).await;
        script.paused_head(head, End::Cut);
        let mut connection = begin(&world, CHAT, stream).await;
        eventually("the replica has the call", || !script.requests().is_empty()).await;
        tokio::time::sleep(INTERVAL * 4).await;
        // A connection that was open before may have been used first, and then another one.
        (0..8).for_each(|_| script.go_on());
        let answer = connection.answer().await;
        assert_eq!(answer.status, 502, "{answer:?}");
        assert!(!answer.body.contains("keep-alive"), "{answer:?}");
        assert_eq!(world.used().await, 0);
    }
}

/// Calls until `first` is the one that is asked first; it is silent until the caller has had a sign of life, and then it is gone.
async fn answer_after(world: &World, path: &str, first: &Script) -> Answer {
    first.paused_stream(&[""], End::Cut);
    loop {
        let mut connection = begin(world, path, true).await;
        // The end of a sign, of an event, or of a head and a JSON body.
        connection.read_until("\r\n\r\n").await;
        if first.requests().is_empty() {
            connection.answer().await;
            continue;
        }
        stays_alive(&mut connection, if path == MESSAGES { PING } else { COMMENT }).await;
        first.go_on();
        return connection.answer().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_sign_of_life_another_replica_may_answer_and_nobody_sees_it() {
    for (path, sign) in DIALECTS {
        let (dying, other) = (Script::default(), Script::default());
        let world = World::start_kept_alive(&[dying.serve().await, other.serve().await], INTERVAL).await;
        let [first, last] = events(path);
        other.stream(&[first.as_bytes(), last.as_bytes()], true);
        let answer = answer_after(&world, path, &dying).await;
        assert_eq!(answer.body.replace(sign, ""), [first, last].concat(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_sign_of_life_a_failure_is_an_event_of_the_dialect_and_costs_nothing() {
    let refusals = [
        ("400 Bad Request", r#"{"error":{"message":"the prompt is too long","type":"BadRequestError","code":400}}"#),
        ("200 OK", r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#),
    ];
    for (path, sign) in DIALECTS {
        for (status, body) in refusals {
            let (dying, other) = (Script::default(), Script::default());
            let world = World::start_kept_alive(&[dying.serve().await, other.serve().await], INTERVAL).await;
            other.whole(status, body);
            let answer = answer_after(&world, path, &dying).await;
            let said = answer.body.replace(sign, "");
            let message = if status.starts_with("400") { "the prompt is too long" } else { "no stream of events" };
            let data: Value = serde_json::from_str(said.split("data: ").nth(1).unwrap().trim_end()).unwrap();
            let shown = if path == RESPONSES { &data["message"] } else { &data["error"]["message"] };
            assert!(shown.as_str().unwrap().contains(message), "{path}: {said}");
            assert_eq!(said.starts_with("event: error\n"), [RESPONSES, MESSAGES].contains(&path), "{path}: {said}");
            assert_eq!(said.matches("\n\n").count(), 1, "{path}: nothing follows it: {said}");
            if path == MESSAGES {
                let kind = if status.starts_with("400") { "invalid_request_error" } else { "api_error" };
                assert_eq!(data["error"]["type"], kind);
                assert_eq!(data["request_id"], answer.header("request-id"));
            }
            eventually("the call is over", || world.counter("tollgate_requests_in_flight") == 0.0).await;
            // Calls that the other one was asked first for may have cost something.
            let asked_first = other.requests().len() - 1;
            let paid = if status.starts_with("400") { 0 } else { asked_first };
            assert_eq!(world.charged().await.calls, paid as u64, "{path} {status}");
        }
        let alone = Script::default();
        let world = World::start_kept_alive(&[alone.serve().await], INTERVAL).await;
        let answer = answer_after(&world, path, &alone).await;
        assert!(answer.body.replace(sign, "").contains("closed the connection"), "{path}: {}", answer.body);
        assert_eq!((world.used().await, world.counter("tollgate_requests_in_flight")), (0, 0.0), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_during_the_silence_is_noticed_and_pays_for_the_prompt() {
    for pieces in [&[""][..], &[events(CHAT)[0], ""]] {
        let script = Script::default();
        let world = World::start_kept_alive(&[script.serve().await], INTERVAL).await;
        script.paused_stream(pieces, End::Proper);
        let mut connection = begin(&world, CHAT, true).await;
        stays_alive(&mut connection, COMMENT).await;
        assert_eq!(world.counter("tollgate_requests_in_flight"), 1.0);
        drop(connection);
        eventually("the call is over", || world.counter("tollgate_requests_in_flight") == 0.0).await;
        eventually("the replica's connection is closed", || script.open_calls() == 0).await;
        assert!(world.used().await > 0, "its prompt at least");
    }
}
