//! Bodies that are meant to do harm by their size or their form, and bodies that are compressed.

use std::sync::Arc;
use std::time::Duration;

use async_compression::tokio::write::{GzipEncoder, ZstdEncoder};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::client::Answer;
use crate::scripted::Script;
use crate::world::{PLENTY, World};

const CHAT: &str = "/llm/qwen/v1/chat/completions";
const ANSWER: &str = r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
const MIB: usize = 1024 * 1024;

/// Posts bytes with ann's key and one more header.
async fn post(world: &World, header: &str, body: &[u8]) -> Answer {
    let (key, length) = (&world.key, body.len());
    let mut connection = world.connect().await;
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\n{header}content-length: {length}\r\n\r\n"
    );
    connection.send(&head).await;
    connection.send(body).await;
    connection.answer().await
}

/// The most memory that this process has ever had, in bytes.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn json_bombs_are_refused_in_little_memory_and_keep_nobody_waiting() {
    let script = Script::default();
    script.whole("200 OK", ANSWER);
    let world = Arc::new(World::start_sized(&[script.serve().await], PLENTY, 32 * MIB).await);
    let wide = format!(r#"{{"messages":[{}],"x":"image"}}"#, vec![r#"{"":0}"#; 4_600_000].join(","));
    let deep = format!(r#"{{"messages":{}{},"x":"image"}}"#, "[".repeat(15 * MIB), "]".repeat(15 * MIB));
    assert!(wide.len() > 30 * MIB && deep.len() > 30 * MIB);
    let bombs = [Arc::new(wide), Arc::new(deep)];
    let before = peak_memory();
    let mut calls = tokio::task::JoinSet::new();
    for bomb in bombs.iter().cycle().take(8) {
        let (world, bomb) = (world.clone(), bomb.clone());
        calls.spawn(async move { post(&world, "", bomb.as_bytes()).await });
    }
    let (mut answers, mut slowest) = (Vec::new(), Duration::ZERO);
    while !calls.is_empty() {
        let began = Instant::now();
        assert_eq!(world.connect().await.get("/healthz", &[]).await.status, 200);
        slowest = slowest.max(began.elapsed());
        while let Some(answer) = calls.try_join_next() {
            answers.push(answer.unwrap());
        }
    }
    for answer in &answers {
        assert_eq!(answer.status, 400, "{answer:?}");
        let text = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        let is_said = text.contains("more than 500000 objects") || text.contains("deeper than 100 levels");
        assert!(is_said && text.contains(r#"in or after the field "messages""#), "{text}");
    }
    let grown = peak_memory() - before;
    assert!(grown < 300 * MIB, "eight bodies of 31 MiB took {} MiB more", grown / MIB);
    // On a machine that does other things, too: without bounds it is several seconds.
    assert!(slowest < Duration::from_secs(1), "a probe waited for {slowest:?}");
    assert!(script.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_bodies_are_decoded_and_go_on_plain() {
    let script = Script::default();
    script.whole("200 OK", ANSWER);
    let world = World::start(&[script.serve().await], PLENTY).await;
    let plain = br#"{"messages":[{"role":"user","content":"hello"}],"max_tokens":7.0}"#;
    let mut zstd = ZstdEncoder::new(Vec::new());
    zstd.write_all(plain).await.unwrap();
    zstd.shutdown().await.unwrap();
    let mut gzip = GzipEncoder::new(Vec::new());
    gzip.write_all(plain).await.unwrap();
    gzip.shutdown().await.unwrap();
    for (header, body) in [
        ("content-encoding: zstd\r\n", zstd.into_inner()),
        ("content-encoding: gzip\r\n", gzip.into_inner()),
        ("content-encoding: identity\r\n", plain.to_vec()),
    ] {
        let answer = post(&world, header, &body).await;
        assert_eq!(answer.status, 200, "{header}: {answer:?}");
        let seen = script.requests().pop().unwrap();
        let (head, body) = seen.split_once("\r\n\r\n").unwrap();
        assert!(!head.contains("content-encoding"), "{head}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!((&body["messages"][0]["content"], &body["max_tokens"]), (&"hello".into(), &7.into()), "{header}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_is_refused() {
    let script = Script::default();
    let world = World::start(&[script.serve().await], PLENTY).await;
    let answer = post(&world, "content-encoding: compress\r\n", b"{}").await;
    assert_eq!((answer.status, answer.header("accept-encoding")), (415, "zstd, gzip, deflate, br"), "{answer:?}");
    assert_eq!(answer.json()["error"]["code"], "unsupported_content_encoding");
    let answer = post(&world, "content-encoding: gzip\r\n", br#"{"messages":[]}"#).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    // A thousand times as large as the port accepts, in some kilobytes.
    let mut zstd = ZstdEncoder::new(Vec::new());
    for _ in 0..1024 {
        zstd.write_all(&[b' '; 64 * 1024]).await.unwrap();
    }
    zstd.shutdown().await.unwrap();
    let bomb = zstd.into_inner();
    assert!(bomb.len() < 64 * 1024, "{}", bomb.len());
    let answer = post(&world, "content-encoding: zstd\r\n", &bomb).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (413, &"request_too_large".into()), "{answer:?}");
    assert!(script.requests().is_empty());
}
