//! Records of calls in the log.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::world::{PLENTY, World, eventually, replica};

const CHAT: &str = "/llm/qwen/v1/chat/completions";

/// What was logged, by every thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        self.clone()
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_says_what_a_call_used_and_nothing_of_what_was_said() {
    let lines = Lines::default();
    let log = tracing_subscriber::fmt().json().with_env_filter(EnvFilter::new("trace,usage=info"));
    log.with_writer(lines.clone()).init();
    let (_replica, url) = replica(7).await;
    let world = World::start(&[url], PLENTY).await;
    let call = json!({"messages": [{"role": "user", "content": "the quick brown fox"}], "max_tokens": 8});
    let answer = world.post(CHAT, &call).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    eventually("a record", || lines.text().contains(r#""target":"usage""#)).await;

    let text = lines.text();
    let records: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["target"] == "usage")
        .collect();
    let [record] = &records[..] else { panic!("{records:?}") };
    let fields = &record["fields"];
    let usage = &answer.json()["usage"];
    assert_eq!(fields["gen_ai.usage.input_tokens"], usage["prompt_tokens"], "{record}");
    assert_eq!(fields["gen_ai.usage.output_tokens"], usage["completion_tokens"], "{record}");
    let expected = json!(["ann", "llm/qwen", "/v1/chat/completions", "reported", false]);
    let names = ["user", "model", "route", "source", "is_absurd"];
    assert_eq!(names.map(|name| fields[name].clone()).to_vec(), *expected.as_array().unwrap(), "{record}");
    assert_eq!(fields["id"], answer.header("x-request-id"), "{record}");
    assert_eq!(answer.json()["id"], format!("chatcmpl-{}", fields["own_id"].as_str().unwrap()), "{record}");
    // At no level, in no line.
    for secret in ["quick brown fox", &world.key] {
        assert!(!text.contains(secret), "{secret} was logged");
    }
}
