//! Speech as a form: written down or translated, charged, and refused where it is no sound form.

use std::time::Duration;

use serde_json::{Value, json};
use sim_vllm::Config;

use crate::client::{Answer, request};
use crate::scripted::Script;
use crate::world::{PLENTY, World, replica_with};

const TRANSCRIBE: &str = "/v1/audio/transcriptions";
const TRANSLATE: &str = "/v1/audio/translations";
const BODY_MAX: usize = 2 * 1024 * 1024;

/// 8 kHz, mono, 8 bits.
fn wav(seconds: usize) -> String {
    let samples = 8000 * seconds;
    let size = |number: usize| String::from_utf8(vec![number as u8 & 0x7f, 0, 0, 0]).unwrap();
    // Sizes that are too large end where the file ends.
    let [large, rate] = ["\u{7f}\u{7f}\u{7f}\u{7f}".to_owned(), "\x40\x1f\0\0".to_owned()];
    let format = format!("\x01\0\x01\0{rate}{rate}\x01\0\x08\0");
    format!("RIFF{large}WAVEfmt {}{format}data{large}{}", size(16), "\x7f".repeat(samples))
}

fn text(name: &str, value: &str) -> String {
    format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn file(bytes: &str) -> String {
    format!(
        "--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"speech.wav\"\r\nContent-Type: audio/wav\r\n\r\n{bytes}\r\n"
    )
}

fn form(parts: &[String]) -> String {
    parts.concat() + "--xyz--\r\n"
}

async fn post(world: &World, path: &str, form: &str) -> Answer {
    post_as(world, &world.key, path, form).await
}

async fn post_as(world: &World, key: &str, path: &str, form: &str) -> Answer {
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "multipart/form-data; boundary=xyz")];
    world.connect().await.post(path, &headers, form).await
}

async fn simulated() -> (sim_vllm::Replica, World) {
    let (replica, url) = replica_with(Config { audio: true, speed: 50.0, ..Config::default() }).await;
    (replica, World::start_sized(&[url], PLENTY, BODY_MAX).await)
}

async fn scripted(answer: &str) -> (Script, World) {
    let script = Script::default();
    script.whole("200 OK", answer);
    let world = World::start_sized(&[script.serve().await], PLENTY, BODY_MAX).await;
    (script, world)
}

#[tokio::test(flavor = "multi_thread")]
async fn speech_is_answered_and_costs_its_length_and_its_text() {
    let (_replica, world) = simulated().await;
    let model = text("model", "llm/qwen");
    let mut used = 0;
    for (path, seconds) in [(TRANSCRIBE, 5), (TRANSLATE, 5), (TRANSCRIBE, 70)] {
        // Wherever the model is named.
        for parts in [[model.clone(), file(&wav(seconds))], [file(&wav(seconds)), model.clone()]] {
            let answer = post(&world, path, &form(&parts)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let body = answer.json();
            let words = body["text"].as_str().unwrap().len() as u64;
            assert!(words > 10, "{body}");
            let duration = json!({"type": "duration", "seconds": seconds});
            assert_eq!(body["usage"], if path == TRANSCRIBE { duration } else { Value::Null });
            let cost = world.used().await - used;
            let least = 100 * seconds as u64 + words / 20;
            assert!((least..=least + words + 100).contains(&cost), "{cost} for {seconds} s and {words} bytes");
            used += cost;
        }
    }
    assert_eq!(world.counter_with("tollgate_usage_settlements_total", "estimated"), 6.0);
    assert_eq!(world.charged().await.calls, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_speech_costs_what_the_replica_says_and_shows_that_to_who_asked() {
    let (_replica, world) = simulated().await;
    let stream = |options: &[(&str, &str)]| {
        let options: Vec<String> = options.iter().map(|(name, value)| text(name, value)).collect();
        form(&[file(&wav(70)), text("stream", "true"), text("prompt", "Tollgate"), options.concat()])
    };
    let (last, running) = ("stream_include_usage", "stream_continuous_usage_stats");
    let (path, mut used) = ("/llm/qwen/v1/audio/transcriptions", 0);
    let mut plain = String::new();
    for options in [&[][..], &[(last, "true")], &[(last, "true"), (running, "true")]] {
        let answer = post(&world, path, &stream(options)).await;
        let events = answer.events();
        assert_eq!((answer.status, events.last()), (200, Some(&"[DONE]")), "{answer:?}");
        let chunks: Vec<Value> =
            events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        let said: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        let ends = chunks.iter().filter(|chunk| chunk["choices"][0]["finish_reason"] == "stop").count();
        assert_eq!(ends, 3, "one for each window: {answer:?}");
        if plain.is_empty() {
            plain = said;
        } else {
            assert_eq!(said, plain);
        }
        let told = chunks.iter().filter(|chunk| !chunk["usage"].is_null()).count();
        let expected = [0, 1, chunks.len()][options.len()];
        assert_eq!(told, expected, "{options:?} {answer:?}");
        let cost = world.used().await - used;
        used += cost;
        assert!(cost > 7000, "{cost}");
        if told > 0 {
            assert_eq!(chunks.last().unwrap()["usage"]["total_tokens"], cost);
        }
    }
    assert_eq!(world.counter_with("tollgate_usage_settlements_total", "reported"), 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_gets_a_form_of_the_gateways_own_and_its_answer_goes_on_as_it_is() {
    let (script, world) =
        scripted(r#"{"text":"hello","usage":{"type":"tokens","input_tokens":20,"output_tokens":5,"total_tokens":25}}"#)
            .await;
    let sound = wav(1);
    let parts = [text("model", "qwen"), text("priority", "-9"), file(&sound), text("language", "en")];
    let answer = post(&world, "/llm/qwen/v1/audio/transcriptions", &form(&parts)).await;
    assert_eq!((answer.status, world.used().await), (200, 25), "{answer:?}");
    let seen = script.requests().pop().unwrap();
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/audio/transcriptions HTTP/1.1\r\n"), "{head}");
    let boundary = head.split_once("content-type: multipart/form-data; boundary=").unwrap().1.lines().next().unwrap();
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    let expected = form(&[text("model", "acme/qwen"), text("language", "en"), file(&sound)]);
    assert_eq!(body, expected.replace("--xyz", &format!("--{boundary}")).replace("speech.wav", "file.wav"));
    for (media_type, words) in
        [("text/vtt", "WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n"), ("text/plain; charset=utf-8", "hello\n")]
    {
        script.whole_with("200 OK", &format!("content-type: {media_type}\r\n"), words);
        let before = world.used().await;
        let answer = post(&world, "/llm/qwen/v1/audio/translations", &form(&[file(&sound)])).await;
        assert_eq!((answer.status, answer.header("content-type"), &*answer.body), (200, media_type, words));
        assert!(world.used().await >= before + 100, "{media_type}");
    }
    // OpenAI's own events have no end mark.
    let delta = "data: {\"type\":\"transcript.text.delta\",\"delta\":\"hello\"}\n\n";
    let done = "data: {\"type\":\"transcript.text.done\",\"text\":\"hello\",\"usage\":{\"type\":\"tokens\",\"input_tokens\":9,\"output_tokens\":2,\"total_tokens\":11}}\n\n";
    script.stream(&[delta.as_bytes(), done.as_bytes()], true);
    let before = world.used().await;
    let answer =
        post(&world, "/llm/qwen/v1/audio/transcriptions", &form(&[file(&sound), text("stream", "true")])).await;
    assert_eq!((answer.body, world.used().await - before), ([delta, done].concat(), 11));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_not_sound_is_refused_before_it_costs_anything() {
    let (script, world) = scripted(r#"{"text":"hello"}"#).await;
    let good = form(&[text("model", "qwen"), file(&wav(1))]);
    let cut = &good[..good.len() - 10];
    let twice = form(&[text("model", "qwen"), text("model", "other"), file(&wav(1))]);
    let nested = form(&["--xyz\r\nContent-Disposition: form-data; name=\"a\"\r\nContent-Type: multipart/mixed; boundary=q\r\n\r\n--q--\r\n".to_owned(), file(&wav(1))]);
    let endless = format!("--xyz\r\nX: {}", "x".repeat(500_000));
    let parts = form(&[text("a", "b").repeat(70), file(&wav(1))]);
    let large = form(&[file(&wav(300))]);
    let is_form = "multipart/form-data; boundary=xyz";
    let table = [
        (TRANSCRIBE, is_form, cut, "400 invalid_request"),
        (TRANSCRIBE, is_form, &twice, "400 invalid_request"),
        (TRANSLATE, is_form, &nested, "400 invalid_request"),
        (TRANSCRIBE, is_form, &endless, "400 invalid_request"),
        (TRANSCRIBE, is_form, &parts, "400 invalid_request"),
        (TRANSCRIBE, is_form, "", "400 invalid_request"),
        (TRANSCRIBE, is_form, &large, "413 request_too_large"),
        (TRANSCRIBE, "multipart/form-data", &good, "400 invalid_request"),
        (TRANSCRIBE, "multipart/form-data; boundary=abc", &good, "400 invalid_request"),
        (TRANSCRIBE, "application/json", r#"{"model":"qwen"}"#, "400 invalid_request"),
        ("/v1/chat/completions", is_form, &good, "400 invalid_request"),
        ("/v1/embeddings", is_form, &good, "400 invalid_request"),
        (TRANSCRIBE, is_form, &form(&[file(&wav(1))]), "400 invalid_request"),
        (TRANSCRIBE, is_form, &form(&[text("model", "nope"), file(&wav(1))]), "403 model_not_in_subscription"),
        (
            "/llm/qwen/v1/audio/transcriptions",
            is_form,
            &form(&[text("model", "x"), file(&wav(1))]),
            "400 model_mismatch",
        ),
        ("/llm/qwen/v1/audio/speech", is_form, &good, "404 unknown_url"),
    ];
    let bearer = format!("Bearer {}", world.key);
    for (path, media_type, form, expected) in table {
        let headers = [("authorization", bearer.as_str()), ("content-type", media_type)];
        let mut connection = world.connect().await;
        connection.send(request("POST", path, &headers, form)).await;
        let answer = connection.answer().await;
        let error = &answer.json()["error"];
        let summary = format!("{} {}", answer.status, error["code"].as_str().unwrap());
        assert_eq!(summary, expected, "{path} {media_type} {answer:?}");
        assert!(error["message"].as_str().unwrap().len() > 10 && error["type"].is_string(), "{answer:?}");
    }
    assert_eq!((script.requests(), world.used().await), (vec![], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_hard_limit_speech_has_to_say_its_length_and_a_replica_is_told_where_to_stop() {
    let (script, mut world) = scripted(r#"{"text":"hello"}"#).await;
    let plain = world.key.clone();
    let path = "/llm/qwen/v1/audio/transcriptions";
    let noise = form(&[file(&"\x07".repeat(50_000))]);
    for (name, unit) in [("hard", "total"), ("hard-out", "output")] {
        world.subscribe(name, json!([{"limit": 30_000, "window": "1h", "unit": unit, "enforcement": "hard"}])).await;
        world.key = world.add_key("ann", name, Duration::from_secs(3600)).await;
        let refused = post(&world, path, &noise).await;
        assert_eq!((refused.status, refused.json()["error"]["param"].as_str()), (400, Some("file")), "{refused:?}");
        assert!(refused.body.contains("the length of `file` cannot be read"), "{refused:?}");
        assert!(script.requests().is_empty());
    }
    assert_eq!(post_as(&world, &plain, path, &noise).await.status, 200);
    // Two windows may say 100 tokens each.
    world.key = world.add_key("ann", "hard", Duration::from_secs(3600)).await;
    let bounded = form(&[file(&wav(50)), text("max_completion_tokens", "100")]);
    assert_eq!(post(&world, path, &bounded).await.status, 200);
    assert!(script.requests().pop().unwrap().contains("name=\"max_completion_tokens\"\r\n\r\n100\r\n"));
    // Without a size: what there is room for, half of it for each.
    assert_eq!(post(&world, path, &form(&[file(&wav(50))])).await.status, 200);
    let sent = script.requests().pop().unwrap();
    let told = sent.split_once("name=\"max_completion_tokens\"\r\n\r\n").unwrap().1.lines().next().unwrap();
    let told: u64 = told.parse().unwrap();
    assert!((1000..=4096).contains(&told), "{told}");
}
