//! Calls that a replica refuses. The caller gets the replica's own status, and the replica is none the worse for it.

use serde_json::{Value, json};

use crate::scripted::{End, Script};
use crate::world::{PLENTY, World, replica};

const CHAT: &str = "/llm/qwen/v1/chat/completions";

/// An error as vLLM writes it, with a message of so many bytes.
fn error(bytes: usize) -> String {
    json!({"error": {"message": "x".repeat(bytes), "type": "Bad Request", "param": "body.input", "code": 400}})
        .to_string()
}

/// In pieces of 10,000 bytes.
fn cut(body: &str) -> Vec<Vec<u8>> {
    body.as_bytes().chunks(10_000).map(<[u8]>::to_vec).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_any_size_and_form_keeps_its_status_and_is_no_fault_of_the_replica() {
    let script = Script::default();
    let world = World::start(&[script.serve().await], PLENTY).await;
    let (small, large, huge) = (error(70_000), error(1_000_000), error(3_000_000));
    let shortened = "(the gateway shortened this message)";
    let html = "<html><h1>413 Request Entity Too Large</h1></html>";
    let table = [
        ("400 Bad Request", "application/json", cut(&small), End::Proper, small.as_str()),
        ("422 Unprocessable Entity", "application/json", cut(&large), End::Proper, large.as_str()),
        ("400 Bad Request", "application/json", cut(&huge), End::Proper, shortened),
        ("404 Not Found", "application/json", cut(&huge), End::Cut, shortened),
        ("429 Too Many Requests", "application/json", cut(&small), End::Cut, shortened),
        ("413 Payload Too Large", "text/html", cut(html), End::Proper, "413 Payload Too Large"),
        ("429 Too Many Requests", "text/plain", cut("slow down"), End::Proper, "slow down"),
        ("400 Bad Request", "application/json", cut(&small), End::Silence, shortened),
        ("400 Bad Request", "application/json", Vec::new(), End::Proper, "refused the call"),
    ];
    for (status, content_type, pieces, end, expected) in table {
        script.pieces(status, content_type, pieces, end);
        let answer = world.post(CHAT, &json!({"messages": []})).await;
        assert_eq!(answer.status.to_string(), status[..3], "{status} {content_type} {end:?}");
        assert!(answer.body.contains(expected), "{status} {content_type} {end:?}: {:.300}", answer.body);
        assert!(answer.json()["error"]["message"].is_string(), "{status} {content_type} {end:?}");
    }
    assert!(world.context.actors.pools.snapshot()[0].replicas[0].is_ready(), "it goes on to get calls");
    assert_eq!(world.used().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_server_error_keeps_its_status() {
    let script = Script::default();
    let world = World::start(&[script.serve().await], PLENTY).await;
    script.pieces("500 Internal Server Error", "application/json", cut(&error(200_000)), End::Proper);
    let answer = world.post(CHAT, &json!({"messages": []})).await;
    assert_eq!(answer.status, 500, "{:.300}", answer.body);
    assert_eq!(world.used().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_of_an_unknown_type_is_told_all_that_the_replica_says_of_it() {
    let (_replica, url) = replica(1).await;
    let world = World::start(&[url], PLENTY).await;
    let body = json!({"input": [{"type": "nonsense", "content": "x".repeat(2_000)}]});
    for _ in 0..4 {
        let answer = world.post("/llm/qwen/v1/responses", &body).await;
        assert_eq!(answer.status, 400, "{:.300}", answer.body);
        assert!(answer.body.len() > 64 * 1024, "{} bytes", answer.body.len());
        assert_eq!(answer.json()["error"]["code"], Value::from(400));
    }
    assert!(world.context.actors.pools.snapshot()[0].replicas[0].is_ready(), "it goes on to get calls");
}
