//! Media in prompts: held by their length, charged by what the replica reports, refused under a hard limit where they have no bound.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use raft::resources::{AUDIO_TOKENS_ANNOTATION, Kind, REPLICAS_ANNOTATION};
use serde_json::{Value, json};

use crate::scripted::Script;
use crate::world::{World, eventually};

const CHAT: &str = "/llm/qwen/v1/chat/completions";
const USAGE: &str = r#"{"usage":{"prompt_tokens":390,"completion_tokens":10,"total_tokens":400}}"#;
const BODY_MAX: usize = 4 * 1024 * 1024;

/// Thirty seconds of silence: 16 kHz, mono, 16 bits. In base 64 they have 1.28 million characters.
fn sound() -> String {
    let head = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0";
    let mut file = head.to_vec();
    file.resize(12 + 30 * 32_000, 0);
    BASE64_STANDARD.encode(file)
}

fn chat(part: Value) -> Value {
    json!({"max_tokens": 10, "messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}]})
}

fn spoken(sound: &str) -> Value {
    json!({"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}})
}

/// A replica that answers each call with [`USAGE`], and a world in front of it under a limit of 50,000 tokens an hour.
async fn world() -> (Script, World) {
    let script = Script::default();
    script.whole("200 OK", USAGE);
    let world = World::start_sized(&[script.serve().await], 50_000, BODY_MAX).await;
    (script, world)
}

fn hard() -> Value {
    json!([{"limit": 50_000, "window": "1h", "enforcement": "hard"}])
}

#[tokio::test(flavor = "multi_thread")]
async fn media_in_the_body_pass_a_usual_limit_and_are_charged_by_the_replica() {
    let (script, world) = world().await;
    let sound = sound();
    let pdf = BASE64_STANDARD.encode(format!("%PDF-1.4 {}{}", "<</Type /Page>>".repeat(5), " ".repeat(500_000)));
    let parts = [
        spoken(&sound),
        json!({"type": "audio_url", "audio_url": {"url": format!("data:audio/wav;base64,{sound}")}}),
        json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{sound}")}}),
        json!({"type": "file", "file": {"file_data": format!("data:application/pdf;base64,{pdf}")}}),
    ];
    let count = parts.len() as u64;
    for part in parts {
        let file = if part["type"] == "file" { &pdf } else { &sound };
        let answer = world.post(CHAT, &chat(part)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let sent = script.requests().pop().unwrap();
        assert!(sent.contains(file.as_str()), "the replica gets the file as it was");
    }
    assert_eq!(world.charged().await.total(), count * 400);
    // Whoever writes the same bytes as text pays for text.
    let text = chat(json!({"type": "text", "text": sound}));
    world.subscribe("hard", hard()).await;
    let key = world.add_key("ann", "hard", Duration::from_secs(3600)).await;
    assert_eq!(world.post_as(&key, CHAT, &text).await.status, 429);
    assert_eq!(world.post_as(&key, CHAT, &chat(spoken(&sound))).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_bound_is_refused_under_a_hard_limit_and_only_there() {
    let (script, mut world) = world().await;
    let plain = world.key.clone();
    world.subscribe("hard", hard()).await;
    world.key = world.add_key("ann", "hard", Duration::from_secs(3600)).await;
    let url = "https://example.com/a";
    let document = json!({"type": "document", "source": {"type": "url", "url": url}});
    let (messages, responses) = ("/llm/qwen/v1/messages", "/llm/qwen/v1/responses");
    let input = |part: Value| json!({"max_output_tokens": 10, "input": [{"role": "user", "content": [part]}]});
    let table = [
        (CHAT, chat(json!({"type": "audio_url", "audio_url": {"url": url}})), "`messages`, `audio_url` is at a URL"),
        (CHAT, chat(json!({"video_url": url})), "`messages`, `video_url` is at a URL"),
        (CHAT, chat(json!({"type": "file", "file": {"file_id": "file-1"}})), "`messages`, `file` is at a URL"),
        (CHAT, chat(json!({"type": "hologram"})), "`messages`, a content part has the unknown type `hologram`"),
        (messages, chat(document), "`messages`, `document` is at a URL"),
        (responses, input(json!({"type": "input_file", "file_url": url})), "`input`, `input_file` is at a URL"),
    ];
    for (path, body, expected) in &table {
        let answer = world.post(path, body).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.body.contains(expected), "{answer:?}");
    }
    assert_eq!((script.requests(), world.used().await), (vec![], 0));
    // What has a bound passes, and so does everything where no limit is hard.
    for part in [spoken(&sound()), json!({"type": "image_url", "image_url": {"url": url}})] {
        assert_eq!(world.post(CHAT, &chat(part)).await.status, 200);
    }
    for (path, body, _) in table.iter().filter(|(path, ..)| *path == CHAT) {
        assert_eq!(world.post_as(&plain, path, body).await.status, 200, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_of_the_model_gives_media_at_urls_a_bound() {
    let (script, mut world) = world().await;
    let url = script.serve().await;
    let annotated = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let replicas = annotated(REPLICAS_ANNOTATION, &url);
    let service = json!({"spec": {"model": {"name": "acme/voice"}}});
    world.apply_with(Kind::InferenceService, "llm", "voice", replicas, service).await;
    let reference = json!({"spec": {"modelRef": {"kind": "LLMInferenceService", "name": "voice"}}});
    world.apply_with(Kind::ModelRef, "llm", "voice", annotated(AUDIO_TOKENS_ANNOTATION, "1500"), reference).await;
    let model = json!({"name": "voice", "namespace": "llm", "tokenRateLimits": hard()});
    let subscription = json!({"spec": {"owner": {"users": ["ann"]}, "modelRefs": [model]}});
    world.apply_with(Kind::Subscription, "models-as-a-service", "voice", BTreeMap::new(), subscription).await;
    let policy =
        json!({"spec": {"modelRefs": [{"name": "voice", "namespace": "llm"}], "subjects": {"users": ["ann"]}}});
    world.apply_with(Kind::AuthPolicy, "models-as-a-service", "voice", BTreeMap::new(), policy).await;
    world.key = world.add_key("ann", "voice", Duration::from_secs(3600)).await;
    let path = "/llm/voice/v1/chat/completions";
    let there = |kind: &str| chat(json!({"type": kind, kind: {"url": "https://example.com/a"}}));
    eventually("the new model has a replica", || {
        world.replica_statuses() == ["ready", "ready"] && world.context.actors.routing.by_path("llm", "voice").is_some()
    })
    .await;
    assert_eq!(world.post(path, &there("audio_url")).await.status, 200);
    assert_eq!(world.post(path, &there("video_url")).await.status, 400);
}
