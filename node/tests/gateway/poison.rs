//! Calls that make a replica fail, again and again, by one caller: no other caller loses a call by it, and no replica is out for it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::scripted::Script;
use crate::world::{PLENTY, World};

/// Poison calls to one good call.
const POISON_PER_GOOD: usize = 10;
/// The kind of poison after which a replica is ejected, until a good call is answered there.
const ENGINE_DIED: &str = "engine died";

/// A kind of poison: the call, a text by which the replica knows it, and the replica's answer.
struct Poison {
    kind: &'static str,
    path: &'static str,
    body: Value,
    known_by: &'static str,
    answer: String,
}

fn answer(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn json_answer(status: &str, body: &str) -> String {
    answer(&format!("{status}\r\ncontent-type: application/json"), body)
}

fn stream(body: &str) -> String {
    answer("200 OK\r\ncontent-type: text/event-stream", body)
}

/// As vLLM says that the server itself failed.
fn failure(message: &str) -> String {
    json_answer(
        "500 Internal Server Error",
        &json!({"error": {"message": message, "type": "InternalServerError", "param": null, "code": 500}}).to_string(),
    )
}

fn poisons() -> Vec<Poison> {
    let hello = json!([{"role": "user", "content": "poison"}]);
    let chat = |kind, body, answer| Poison { kind, path: "/v1/chat/completions", body, known_by: "poison", answer };
    let message = |kind, body, known_by| {
        let answer = json_answer(
            "500 Internal Server Error",
            r#"{"type":"error","error":{"type":"internal_error","message":"list index out of range"}}"#,
        );
        Poison { kind, path: "/v1/messages", body, known_by, answer }
    };
    let picture = json!([{"role": "user", "content": [
        {"type": "text", "text": "poison"},
        {"type": "image_url", "image_url": {"url": "http://192.0.2.1/cat.png"}},
    ]}]);
    let plain = || json!({"messages": hello, "max_tokens": 5});
    let streamed = || json!({"messages": hello, "max_tokens": 5, "stream": true});
    vec![
        message("no messages", json!({"messages": [], "max_tokens": 5}), "\"messages\":[]"),
        message("temperature", json!({"messages": hello, "max_tokens": 5, "temperature": -1}), "poison"),
        message("top_p", json!({"messages": hello, "max_tokens": 5, "top_p": 3}), "poison"),
        message("empty stop", json!({"messages": hello, "max_tokens": 5, "stop_sequences": [""]}), "poison"),
        chat(
            "unreachable picture",
            json!({"messages": picture, "max_tokens": 5}),
            failure("Cannot connect to host 192.0.2.1:80 ssl:default [Connect call failed]"),
        ),
        chat("502", plain(), json_answer("502 Bad Gateway", "{}")),
        chat("503", plain(), json_answer("503 Service Unavailable", "{}")),
        chat("504", plain(), json_answer("504 Gateway Timeout", "{}")),
        chat("no JSON", plain(), json_answer("200 OK", "NaN of no number")),
        chat("no HTTP", plain(), "poisoned\r\n\r\n".to_owned()),
        chat("no answer", plain(), String::new()),
        chat("half an answer", plain(), json_answer("200 OK", r#"{"choices":[]}"#).replace("length: 14", "length: 99")),
        chat("error event, 400", streamed(), stream("data: {\"error\":{\"message\":\"too long\",\"code\":400}}\n\n")),
        chat("error event, 500", streamed(), stream("data: {\"error\":{\"message\":\"boom\",\"code\":500}}\n\n")),
        chat("half a stream", streamed(), stream("data: {\"choices\":[]}\n\n")),
        Poison {
            kind: "response.failed",
            path: "/v1/responses",
            body: json!({"input": "poison", "max_output_tokens": 5, "stream": true}),
            known_by: "poison",
            answer: stream(
                "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"usage\":null}}\n\n",
            ),
        },
        // The last one: a replica of which it is said comes back by a good call a second later.
        chat(ENGINE_DIED, plain(), failure("EngineCore encountered an issue. See stack trace (above)")),
    ]
}

/// A model with scripted replicas, and a key of user `bob`, who makes the poison calls.
struct Model {
    world: World,
    scripts: Vec<Script>,
    bob: String,
}

impl Model {
    async fn start(replicas: usize) -> Model {
        let scripts: Vec<Script> = (0..replicas).map(|_| Script::default()).collect();
        let mut urls = Vec::new();
        for script in &scripts {
            let good = r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
            script.whole("200 OK", good);
            urls.push(script.serve().await);
        }
        let world = World::start(&urls, PLENTY).await;
        let bob = world.add_bob().await;
        Model { world, scripts, bob }
    }

    /// Makes `good` good calls, and ten poison calls before each, with a pause before every call.
    async fn feed(&self, poison: &Poison, good: usize, pause: Duration) {
        let Poison { kind, path, body, known_by, answer } = poison;
        let hello = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5});
        self.scripts.iter().for_each(|script| script.poison(known_by, answer));
        for number in 0..good {
            for _ in 0..POISON_PER_GOOD {
                tokio::time::sleep(pause).await;
                self.world.post_as(&self.bob, &format!("/llm/qwen{path}"), body).await;
            }
            let answer = self.world.post("/llm/qwen/v1/chat/completions", &hello).await;
            assert_eq!(answer.status, 200, "{kind}, {} replicas, call {number}: {answer:?}", self.scripts.len());
        }
        let requests = self.scripts.iter().flat_map(Script::requests);
        let reached = requests.filter(|request| request.contains(known_by)).count();
        assert!(reached >= good * POISON_PER_GOOD, "{kind} reached the replicas {reached} times");
        if *kind != ENGINE_DIED {
            assert_eq!(self.world.replica_statuses(), vec!["ready"; self.scripts.len()], "{kind}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_of_one_caller_costs_another_no_call() {
    for replicas in [1, 3] {
        let model = Model::start(replicas).await;
        for poison in poisons() {
            model.feed(&poison, 8, Duration::ZERO).await;
        }
    }
}

/// The same at ten calls a second, every kind at once.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute"]
async fn poison_for_a_minute_costs_another_no_call() {
    let mut feeding = JoinSet::new();
    for (replicas, poison) in
        [1, 3].into_iter().flat_map(|replicas| poisons().into_iter().map(move |kind| (replicas, kind)))
    {
        feeding.spawn(async move {
            let model = Model::start(replicas).await;
            model.feed(&poison, 60, Duration::from_millis(100)).await;
        });
    }
    while let Some(fed) = feeding.join_next().await {
        fed.unwrap();
    }
}
