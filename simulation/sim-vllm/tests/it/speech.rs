//! Speech and embeddings as bytes: made after vLLM's sources, since neither was recorded.

use serde_json::{Value, json};
use sim_vllm::{Config, Kind, Replica};

use crate::client::{Answer, post, send};

/// 16 kHz, mono, 16 bits, with a chunk in front of the samples.
fn wav(seconds: u32) -> Vec<u8> {
    let size = seconds * 32_000;
    let head = [
        &b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0LIST\x02\0\0\0abdata"[..],
        &size.to_le_bytes(),
    ];
    let mut file = head.concat();
    file.resize(file.len() + size as usize, 0);
    file
}

fn form(path: &str, fields: &[(&str, &str)], file: Option<&[u8]>) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let part = format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    if let Some(file) = file {
        let head = "--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\n";
        body.extend_from_slice(&[head.as_bytes(), file, b"\r\n"].concat());
    }
    body.extend_from_slice(b"--xyz--\r\n");
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: sim\r\nContent-Type: multipart/form-data; boundary=xyz\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), &body].concat()
}

const TRANSCRIBE: &str = "/v1/audio/transcriptions";
const TRANSLATE: &str = "/v1/audio/translations";

async fn ask(replica: &Replica, path: &str, fields: &[(&str, &str)], seconds: u32) -> Answer {
    send(replica, &form(path, fields, Some(&wav(seconds)))).await
}

#[tokio::test(start_paused = true)]
async fn only_a_model_that_takes_speech_has_these_paths() {
    let deaf = Replica::start(Config::default());
    for path in [TRANSCRIBE, TRANSLATE] {
        let answer = ask(&deaf, path, &[], 1).await;
        assert_eq!((answer.status, answer.json()), (404, json!({"detail": "Not Found"})), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn speech_is_answered_whole_or_as_a_stream_of_its_windows() {
    let replica = Replica::start(Config { audio: true, ..Config::default() });
    let whole = ask(&replica, TRANSCRIBE, &[("model", "openai/gpt-oss-20b")], 70).await.json();
    assert_eq!(whole["usage"], json!({"type": "duration", "seconds": 70}));
    let translated = ask(&replica, TRANSLATE, &[], 70).await.json();
    assert_eq!(translated.as_object().unwrap().keys().collect::<Vec<_>>(), ["text"]);
    let verbose =
        ask(&replica, TRANSCRIBE, &[("response_format", "verbose_json"), ("language", "de")], 70).await.json();
    assert_eq!((&verbose["duration"], &verbose["language"]), (&json!("70"), &json!("de")));
    assert_eq!((verbose["segments"].as_array().unwrap().len(), verbose.get("usage")), (3, None));

    let options = [("stream", "true"), ("stream_include_usage", "true"), ("stream_continuous_usage_stats", "true")];
    let stream = ask(&replica, TRANSCRIBE, &options, 70).await;
    assert_eq!(stream.events().last().unwrap().data, "[DONE]");
    let chunks = stream.chunks();
    assert!(chunks.iter().all(|chunk| chunk["object"] == "transcription.chunk" && chunk["usage"].is_object()));
    let said: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said.trim(), whole["text"].as_str().unwrap());
    let ends = chunks.iter().filter(|chunk| chunk["choices"][0]["finish_reason"] == "stop");
    assert_eq!(ends.count(), 3);
    let counts: Vec<u64> = chunks.iter().map(|chunk| chunk["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert!(counts.is_sorted() && counts[counts.len() - 1] == 210, "{counts:?}");
    let last = chunks.last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["prompt_tokens"]), (&json!([]), &json!(7004)));
}

#[tokio::test(start_paused = true)]
async fn requests_are_refused_as_vllm_refuses_them() {
    let replica = Replica::start(Config { audio: true, ..Config::default() });
    let table = [
        (form(TRANSCRIBE, &[("model", "other")], Some(&wav(1))), 404),
        (form(TRANSCRIBE, &[("model", "openai/gpt-oss-20b")], None), 400),
        (form(TRANSCRIBE, &[("file", "text")], None), 422),
        (form(TRANSCRIBE, &[], Some(b"no sound")), 400),
        (form(TRANSCRIBE, &[("response_format", "srt")], Some(&wav(1))), 400),
        (form(TRANSCRIBE, &[("response_format", "odd")], Some(&wav(1))), 400),
        (form(TRANSCRIBE, &[("stream_include_usage", "true")], Some(&wav(1))), 400),
        (form(TRANSCRIBE, &[("stream", "true"), ("response_format", "verbose_json")], Some(&wav(1))), 400),
        (post(TRANSCRIBE, &json!({"model": "openai/gpt-oss-20b"})), 400),
    ];
    for (request, status) in table {
        let answer = send(&replica, &request).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.json()["error"]["message"].is_string(), "{}", answer.text());
    }
}

#[tokio::test(start_paused = true)]
async fn embeddings_come_as_bytes_with_or_without_what_they_are() {
    let kind = Kind::Embedding { context_len: 512, dimensions: 8 };
    let replica = Replica::start(Config { kind, ..Config::default() });
    let body =
        |format: &str| json!({"input": ["one text", "another"], "encoding_format": format, "embed_dtype": "float16"});
    let floats = send(&replica, &post("/v1/embeddings", &json!({"input": ["one text", "another"]}))).await.json();
    for path in ["/v1/embeddings", "/pooling"] {
        let bytes = send(&replica, &post(path, &body("bytes"))).await;
        assert_eq!(
            (bytes.status, bytes.header("content-type"), bytes.body.len()),
            (200, Some("application/octet-stream"), 32)
        );
        let metadata: Value = serde_json::from_str(bytes.header("metadata").unwrap()).unwrap();
        assert_eq!(metadata["usage"]["prompt_tokens"], floats["usage"]["prompt_tokens"]);
        let item =
            json!({"index": 1, "embed_dtype": "float16", "endianness": "native", "start": 16, "end": 32, "shape": [8]});
        assert_eq!(metadata["data"][1], item);
        let alone = send(&replica, &post(path, &body("bytes_only"))).await;
        assert_eq!((alone.header("metadata"), &alone.body), (None, &bytes.body));
    }
}
