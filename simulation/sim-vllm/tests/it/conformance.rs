//! The replica against the recordings of a real vLLM 0.26: every recorded request is sent again, and status, headers,
//! JSON shape and sequence of events must be those of the recording.
//!
//! Shape: keys in order, types of values, and literally those values that say what a thing is (`LITERAL`). Free are
//! numbers, texts, ids, and how many equal events or list items follow each other.
//! `tests/recordings/*.jsonl` holds the requests as they were sent (long repetitions written as `[text, times]`) and
//! the answers, without timings; messages of errors are shortened, metrics reduced to families and labels.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sim_vllm::{ApiKey, Config, EngineParams, Kind, Replica};

use crate::client::{Answer, send};

/// Keys whose values are compared as they are.
const LITERAL: &[&str] = &["object", "type", "role", "finish_reason", "code", "owned_by", "detail", "param"];

/// What is not compared, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("batch_chat", "a gateway routes no batch endpoint"),
    ("generate_tito", "a gateway routes no token-in token-out endpoint"),
    ("get_openapi", "a gateway asks no replica for its OpenAPI document"),
    ("auth_none_get_openapi", "a gateway asks no replica for its OpenAPI document"),
    ("err_nan", "NaN is JSON to Python only; it is refused here as malformed JSON, with the same status"),
    (
        "chat_stop_token_ids_all",
        "every id as a stop token leaves the recorded model no text; here the first token is none of them",
    ),
];

/// Why forced tool calls differ.
const TOOL_TEXT: &str =
    "the recorded model has random weights: its forced calls ran into max_tokens inside white space";

/// Answers of which only status and headers are compared, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("chat_json_schema", "the recorded model wandered until max_tokens; here the JSON is complete"),
    ("json_object", "the recorded model wandered until max_tokens; here the JSON is complete"),
    ("err_deep_json", "nesting is limited by the JSON parser here, by the schema there: another `param`"),
    ("tools_required", TOOL_TEXT),
    ("tools_named", TOOL_TEXT),
    ("tools_parallel_false", TOOL_TEXT),
    ("tools_required_stream", TOOL_TEXT),
    ("tools_named_stream", TOOL_TEXT),
    ("msg_tool_any", TOOL_TEXT),
    ("msg_tool_forced", TOOL_TEXT),
    ("msg_tool_forced_stream", TOOL_TEXT),
    ("resp_tool_required", TOOL_TEXT),
    ("resp_tool_required_stream", TOOL_TEXT),
];

fn main_server() -> Config {
    Config {
        model_names: vec!["gpt-oss-20b".into()],
        kind: Kind::Generative { context_len: 40_960, reasoning: false, tool_parser: false },
        enable_request_id_headers: true,
        ..Config::default()
    }
}

fn tiny_server() -> Config {
    Config {
        model_names: vec!["gpt-oss-20b".into(), "alias-model".into()],
        kind: Kind::Generative { context_len: 2_048, reasoning: false, tool_parser: true },
        engine: EngineParams { num_blocks: 300, priority_scheduling: true, ..EngineParams::default() },
        api_key: Some(ApiKey::from("secret")),
        enable_prompt_tokens_details: false,
        ..Config::default()
    }
}

#[tokio::test(start_paused = true)]
async fn the_main_server() {
    compare(main_server(), include_str!("../recordings/main.jsonl")).await;
}

#[tokio::test(start_paused = true)]
async fn the_small_server_with_a_key_and_tools() {
    compare(tiny_server(), include_str!("../recordings/tiny.jsonl")).await;
}

#[test]
fn what_is_left_out_was_recorded() {
    let names: Vec<String> = [include_str!("../recordings/main.jsonl"), include_str!("../recordings/tiny.jsonl")]
        .iter()
        .flat_map(|file| cases(file))
        .map(|case| case["name"].as_str().unwrap().to_owned())
        .collect();
    for (name, _) in LEFT_OUT.iter().chain(DIFFERENT) {
        assert!(names.iter().any(|recorded| recorded == name), "{name} is in no recording");
    }
}

fn cases(file: &str) -> Vec<Value> {
    file.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn compare(config: Config, file: &str) {
    let replica = Replica::start(config);
    let mut differences = Vec::new();
    let mut compared = 0;
    for case in cases(file) {
        let name = case["name"].as_str().unwrap();
        if LEFT_OUT.iter().any(|(left, _)| *left == name) {
            continue;
        }
        let answer = send(&replica, &request(&case)).await;
        compared += 1;
        differences.extend(differ(&case, &answer).map(|difference| format!("{name}: {difference}")));
    }
    assert!(differences.is_empty(), "{} of {compared} differ\n{}", differences.len(), differences.join("\n"));
    assert!(compared > 60);
}

fn request(case: &Value) -> Vec<u8> {
    if let Some(encoded) = case["request_base64"].as_str() {
        return from_base64(encoded);
    }
    match &case["request"] {
        Value::String(text) => text.clone().into_bytes(),
        Value::Array(parts) => parts.iter().map(expand).collect::<String>().into_bytes(),
        other => panic!("no request: {other}"),
    }
}

fn expand(part: &Value) -> String {
    match part {
        Value::String(text) => text.clone(),
        Value::Array(repeat) => repeat[0].as_str().unwrap().repeat(repeat[1].as_u64().unwrap() as usize),
        _ => (0..=part["count_to"].as_u64().unwrap()).map(|id| id.to_string()).collect::<Vec<_>>().join(", "),
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let joined = group.iter().fold(0u32, |joined, byte| joined << 6 | u32::from(digit(*byte)));
        let joined = joined << (6 * (4 - group.len()));
        bytes.extend(&joined.to_be_bytes()[1..group.len()]);
    }
    bytes
}

/// What is different about an answer, if anything.
fn differ(case: &Value, answer: &Answer) -> Option<String> {
    let unequal = |what: &str, ours: String, theirs: String| {
        (ours != theirs).then(|| format!("{what}\n    ours   {ours}\n    theirs {theirs}"))
    };
    let name = case["name"].as_str().unwrap();
    let status = unequal(
        "status",
        format!("{} {}", answer.status, if answer.status == case["status"] { String::new() } else { answer.text() }),
        format!("{} ", case["status"]),
    );
    if status.is_some() || !answer.complete {
        return status.or(Some("incomplete".into()));
    }
    let headers = headers(case, answer);
    if headers.is_some() {
        return headers;
    }
    if let Some(families) = case.get("families") {
        return metrics(families, &answer.text());
    }
    if DIFFERENT.iter().any(|(different, _)| *different == name) {
        return None;
    }
    let theirs = outline(case["body"].as_str().unwrap(), case["headers"]["content-type"].as_str());
    unequal("body", outline(&answer.text(), answer.header("content-type")), theirs)
}

fn headers(case: &Value, answer: &Answer) -> Option<String> {
    for (name, recorded) in case["headers"].as_object().unwrap() {
        // A page of metrics is chunked or not; both are read.
        let free = recorded == "*" || (name == "transfer-encoding" && case.get("families").is_some());
        let ours = answer.header(name);
        if !free && ours != recorded.as_str() {
            return Some(format!("header {name}: ours {ours:?}, theirs {recorded}"));
        }
    }
    let id = answer.header("x-request-id").is_some();
    (id != case["headers"].get("x-request-id").is_some()).then(|| format!("x-request-id: ours {id}"))
}

/// Families that nothing that routes or scales looks at.
const METRICS_LEFT_OUT: &[&str] = &["vllm:estimated_", "vllm:tool_call_parser_"];

/// Every vLLM family is there, with its type and labels.
fn metrics(recorded: &Value, ours: &str) -> Option<String> {
    let ours = families(ours);
    for (name, family) in recorded.as_object().unwrap() {
        if !name.starts_with("vllm:") || METRICS_LEFT_OUT.iter().any(|left| name.starts_with(left)) {
            continue;
        }
        let Some((kind, labels)) = ours.get(name) else { return Some(format!("no metric {name}")) };
        let recorded: Vec<&str> = family[1].as_array().unwrap().iter().map(|label| label.as_str().unwrap()).collect();
        let same = if name == "vllm:cache_config_info" {
            labels.iter().all(|label| recorded.contains(&label.as_str()))
        } else {
            *labels == recorded
        };
        if family[0] != *kind || !same {
            return Some(format!("{name}: ours {kind} {labels:?}, theirs {family}"));
        }
    }
    None
}

fn families(text: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let mut families: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            families.insert(name.to_owned(), (kind.to_owned(), Vec::new()));
        } else if let Some((name, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels: Vec<String> = rest
                .split(',')
                .filter_map(|label| label.split_once("=\"").map(|(label, _)| label.to_owned()))
                .collect();
            let short = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let key = if families.contains_key(name) { name } else { short.unwrap_or(name) };
            let family = families.get_mut(key).unwrap_or_else(|| panic!("{name} has no TYPE"));
            if labels.len() > family.1.len() {
                family.1 = labels;
            }
        }
    }
    families
}

/// The shape of a body.
fn outline(body: &str, content_type: Option<&str>) -> String {
    match content_type {
        Some("application/json") if body.is_empty() => String::new(),
        Some("application/json") => shape(None, &serde_json::from_str(body).unwrap_or(json!(body))),
        Some(kind) if kind.starts_with("text/event-stream") => {
            let mut events: Vec<String> = body
                .split("\n\n")
                .filter(|block| !block.is_empty())
                .map(|block| {
                    block
                        .lines()
                        .map(|line| match line.strip_prefix("data: ").map(|data| (data, serde_json::from_str(data))) {
                            Some((_, Ok(value))) => shape(None, &value),
                            _ => line.to_owned(),
                        })
                        .collect::<Vec<_>>()
                        .join(" ")
                })
                .collect();
            events.dedup();
            events.join("\n           ")
        }
        _ => body.to_owned(),
    }
}

fn shape(key: Option<&str>, value: &Value) -> String {
    if key.is_some_and(|key| LITERAL.contains(&key)) && !value.is_object() && !value.is_array() {
        return value.to_string();
    }
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "text".into(),
        Value::Array(items) => {
            let mut shapes: Vec<String> = items.iter().map(|item| shape(None, item)).collect();
            shapes.dedup();
            format!("[{}]", shapes.join(","))
        }
        // Objects whose keys are data: token ids and token texts.
        Value::Object(map) if key == Some("top_logprobs") || is_by_id(map) => {
            let mut shapes: Vec<String> = map.values().map(|item| shape(None, item)).collect();
            shapes.dedup();
            format!("{{*:{}}}", shapes.join(","))
        }
        Value::Object(map) => {
            let fields: Vec<String> =
                map.iter().map(|(name, value)| format!("{name}:{}", shape(Some(name), value))).collect();
            format!("{{{}}}", fields.join(","))
        }
    }
}

/// Whether the values of an object are numbers (token texts) or it is keyed by numbers (token ids).
fn is_by_id(map: &serde_json::Map<String, Value>) -> bool {
    !map.is_empty()
        && (map.keys().all(|key| key.parse::<u64>().is_ok())
            || map.values().all(|value| value.as_f64().is_some_and(|number| number < 0.0)))
}
