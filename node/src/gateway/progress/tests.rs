use std::collections::VecDeque;

use super::*;
use crate::gateway::sse::Scanner;
use crate::gateway::usage::Usage;

fn stream(kind: Kind, hides: bool) -> Progress {
    stream_of(kind, hides, Choices::ONE)
}

fn stream_of(kind: Kind, hides: bool, choices: Choices) -> Progress {
    Progress::new(kind, HiddenUsage { last: hides, running: hides }, choices, Arc::default())
}

fn note(progress: &mut Progress, name: &str, data: &str) -> EventAction {
    progress.note(&Event { name: name.as_bytes(), data: data.as_bytes().into() })
}

#[test]
fn a_chat_is_counted_then_reported_and_its_usage_chunk_is_hidden() {
    let mut chat = stream(Kind::Chat, true);
    note(&mut chat, "", r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#);
    assert_eq!(chat.tally().produced(), 0, "the role is no token");
    note(&mut chat, "", r#"{"choices":[{"delta":{"content":"\"usage\": \"error\" \"abort\""},"finish_reason":null}]}"#);
    assert_eq!((chat.stage(), chat.tally().produced()), (Stage::Open, 5), "so much text is no single token");
    let last = r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
    let EventAction::Hold(Some(cut)) = note(&mut chat, "", last) else { panic!("it has a choice, and usage") };
    let left = [&last[..cut.start], &last[cut.end..]].concat();
    assert_eq!(left, r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}"#);
    assert_eq!(chat.tally().produced(), 2);
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":16,"total_tokens":24,"completion_tokens":8}}"#;
    assert_eq!(note(&mut chat, "", usage), EventAction::Release(None));
    assert_eq!(chat.tally().reported(), Some(Usage { input: 16, output: 8, ..Usage::default() }));
    assert_eq!(note(&mut chat, "", "[DONE]"), EventAction::Pass);
    assert_eq!(chat.stage(), Stage::Complete);
    let mut asked = stream(Kind::Chat, false);
    assert_eq!(note(&mut asked, "", usage), EventAction::Pass);
}

#[test]
fn failures_are_seen_and_nothing_after_them_passes() {
    let mut failed = stream(Kind::Chat, true);
    assert_eq!(note(&mut failed, "", r#"{"error":{"message":"engine died","code":500}}"#), EventAction::Pass);
    assert_eq!((failed.stage(), note(&mut failed, "", "[DONE]")), (Stage::Failed, EventAction::Remove));
    let mut aborted = stream(Kind::Completions, true);
    assert_eq!(note(&mut aborted, "", r#"{"choices":[{"text":"ab","finish_reason":"abort"}]}"#), EventAction::Pass);
    assert_eq!((aborted.stage(), aborted.tally().produced()), (Stage::Aborted, 1));
    assert_eq!(note(&mut aborted, "", "[DONE]"), EventAction::Remove);
    let mut message = stream(Kind::Messages, false);
    note(&mut message, "error", r#"{"type":"error","error":{}}"#);
    assert_eq!(message.stage(), Stage::Failed);
}

#[test]
fn errors_in_a_messages_stream_have_types_that_its_clients_know() {
    let table = [
        ("error", r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#, None),
        ("error", r#"{"type":"error","error":{"type":"internal_error","message":"m"}}"#, Some(("api_error", "m"))),
        ("", r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#, Some(("overloaded_error", "m"))),
        ("", r#"{"error":{"message":"m","type":"BadRequestError","code":400}}"#, Some(("invalid_request_error", "m"))),
        ("", r#"{"error":{"message":"m","code":529}}"#, Some(("overloaded_error", "m"))),
        ("", r#"{"error":{"message":"m","code":"x"}}"#, Some(("api_error", "m"))),
        ("error", "what", Some(("api_error", "the replica failed"))),
    ];
    for (name, data, expected) in table {
        let mut message = stream(Kind::Messages, false);
        let action = note(&mut message, name, data);
        let failure = message.take_failure();
        let said = failure.as_ref().map(|failure| (failure.kind, failure.message.as_str()));
        assert_eq!((message.stage(), said), (Stage::Failed, expected), "{data}");
        assert_eq!(action == EventAction::Pass, expected.is_none(), "{data}");
    }
}

#[test]
fn messages_and_responses_report_in_their_own_events() {
    let mut message = stream(Kind::Messages, false);
    note(
        &mut message,
        "message_start",
        r#"{"type":"message_start","message":{"usage":{"input_tokens":11,"output_tokens":0}}}"#,
    );
    note(
        &mut message,
        "",
        r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"hello wor"},"index":0}"#,
    );
    assert_eq!((message.tally().produced(), message.tally().prompt()), (1, Some(11)));
    note(&mut message, "message_delta", r#"{"type":"message_delta","delta":{},"usage":{"output_tokens":8}}"#);
    note(&mut message, "message_stop", r#"{"type":"message_stop"}"#);
    assert_eq!(
        (message.stage(), message.tally().reported()),
        (Stage::Complete, Some(Usage { input: 11, output: 8, ..Usage::default() }))
    );

    let mut response = stream(Kind::Responses, false);
    note(&mut response, "response.output_text.delta", r#"{"delta":"abcdefgh","type":"response.output_text.delta"}"#);
    assert_eq!(response.tally().produced(), 1);
    let done =
        r#"{"response":{"usage":{"input_tokens":11,"output_tokens":8,"total_tokens":19}},"type":"response.completed"}"#;
    note(&mut response, "response.completed", done);
    assert_eq!(
        (response.stage(), response.tally().reported()),
        (Stage::Complete, Some(Usage { input: 11, output: 8, ..Usage::default() }))
    );
}

#[test]
fn running_usage_is_believed_and_cut_out_wherever_it_stands() {
    let usage = r#"{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":0}}"#;
    let table = [
        (format!(r#"{{"choices":[{{}}],"usage":{usage}}}"#), r#"{"choices":[{}]}"#),
        (format!(r#"{{"choices":[{{}}],"usage":{usage},"x":1}}"#), r#"{"choices":[{}],"x":1}"#),
        (format!(r#"{{ "usage" : {usage} , "choices":[{{}}]}}"#), r#"{  "choices":[{}]}"#),
        (format!(r#"{{"choices":[{{}}] , "usage": {usage} }}"#), r#"{"choices":[{}]  }"#),
    ];
    for (data, expected) in table {
        let mut one = stream(Kind::Chat, true);
        let EventAction::Edit(Edit { cut: Some(cut), added: None }) = note(&mut one, "", &data) else {
            panic!("{data}")
        };
        assert_eq!([&data[..cut.start], &data[cut.end..]].concat(), expected);
        assert_eq!(one.tally().produced(), 2);
        // A replica that says no more of it goes on to be counted.
        note(&mut one, "", r#"{"choices":[{"delta":{"content":"12345678"}}]}"#);
        assert_eq!((one.tally().produced(), one.tally().reported().map(|usage| usage.output)), (3, Some(3)));
    }
}

/// What a caller gets of a stream that comes in these pieces.
fn relayed(progress: &mut Progress, pieces: &[&[u8]]) -> String {
    let (mut scanner, mut out) = (Scanner::default(), VecDeque::new());
    for piece in pieces {
        scanner.feed(Bytes::copy_from_slice(piece), &mut |event| progress.note(event), &mut out).unwrap();
    }
    scanner.finish(&mut |event| progress.note(event), &mut out);
    String::from_utf8(out.iter().flatten().copied().collect()).unwrap()
}

/// The body of a recorded answer, with equal ids and times.
fn recorded(name: &str) -> String {
    let recordings = include_str!("../../../../simulation/sim-vllm/tests/recordings/main.jsonl");
    let mut cases = recordings.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let case = cases.find(|case| case["name"] == name).unwrap_or_else(|| panic!("{name} was recorded"));
    let body = case["body"].as_str().unwrap();
    let first: serde_json::Value =
        serde_json::from_str(body.split("\n").next().unwrap().trim_start_matches("data: ")).unwrap();
    body.replace(first["id"].as_str().unwrap(), "the-id").replace(&first["created"].to_string(), "17")
}

#[test]
fn who_asked_for_no_usage_gets_what_the_replica_sends_without_it() {
    let table = [
        (Kind::Chat, "chat_stream_continuous_usage", "chat_stream"),
        (Kind::Chat, "chat_stream_usage", "chat_stream"),
        (Kind::Completions, "comp_stream_cont", "comp_stream"),
        (Kind::Completions, "comp_stream_usage", "comp_stream"),
    ];
    for (kind, with, without) in table {
        let (stream, expected) = (recorded(with), recorded(without));
        assert!(expected.contains("system_fingerprint"), "{without}");
        for at in 0..=stream.len() {
            let pieces = [&stream.as_bytes()[..at], &stream.as_bytes()[at..]];
            assert_eq!(relayed(&mut self::stream(kind, true), &pieces), expected, "{with} split at {at}");
        }
        // Nothing is to be added where it is, or where there is none.
        let add = |event: &str| match event.strip_suffix("}") {
            Some(rest) if !rest.contains("fingerprint") => format!("{rest},\"system_fingerprint\":\"x\"}}"),
            _ => event.to_owned(),
        };
        let has = stream.split("\n\n").map(add).collect::<Vec<_>>().join("\n\n");
        let has = relayed(&mut self::stream(kind, true), &[has.as_bytes()]);
        assert_eq!(has.matches("system_fingerprint").count(), has.matches("data: {").count(), "{has}");
        let none = stream.replace("system_fingerprint", "something_else");
        let none = relayed(&mut self::stream(kind, true), &[none.as_bytes()]);
        assert_eq!(none, expected.replace(",\"system_fingerprint\":\"vllm-0.26.0-d7d7f0ee\"", ""));
    }
}

/// Two choices, the first of which ends before the second.
const TWO: [&str; 5] = [
    r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}],"usage":{"prompt_tokens":5,"completion_tokens":1}}"#,
    r#"{"choices":[{"index":0,"delta":{"content":"b"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#,
    r#"{"choices":[{"index":1,"delta":{"content":"c"},"finish_reason":null}],"usage":{"prompt_tokens":5,"completion_tokens":3}}"#,
    r#"{"choices":[{"index":1,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":3}}"#,
    r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":5},"system_fingerprint":"f"}"#,
];

#[test]
fn each_of_several_choices_has_the_fingerprint_and_none_waits_for_another_once_it_is_known() {
    let events: Vec<_> = TWO.iter().map(|data| format!("data: {data}\n\n")).collect();
    let expected = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n\
        data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}],\"system_fingerprint\":\"f\"}\n\n\
        data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"c\"},\"finish_reason\":null}]}\n\n\
        data: {\"choices\":[{\"index\":1,\"delta\":{},\"finish_reason\":\"stop\"}],\"system_fingerprint\":\"f\"}\n\n";
    let learnt = Arc::new(Learnt::default());
    for is_known in [false, true] {
        let hidden = HiddenUsage { last: true, running: true };
        let mut two = Progress::new(Kind::Chat, hidden, Choices { prompts: 1, each: 2 }, learnt.clone());
        let (mut scanner, mut out, mut lengths) = (Scanner::default(), VecDeque::new(), Vec::new());
        for event in &events {
            scanner.feed(Bytes::copy_from_slice(event.as_bytes()), &mut |event| two.note(event), &mut out).unwrap();
            lengths.push(out.iter().map(Bytes::len).sum::<usize>());
        }
        assert_eq!(String::from_utf8(out.iter().flatten().copied().collect()).unwrap(), expected);
        assert_eq!(lengths[1] < lengths[2], is_known, "{lengths:?}");
        assert_eq!(two.tally().reported(), Some(Usage { input: 5, output: 5, ..Usage::default() }));
    }
}

#[test]
fn what_waits_is_not_lost_if_no_usage_comes() {
    let (mut two, choices) = (TWO.map(|data| format!("data: {data}\n\n")), Choices { prompts: 1, each: 2 });
    for end in ["data: [DONE]\n\n", ""] {
        two[4] = end.to_owned();
        let passed = relayed(&mut stream_of(Kind::Chat, true, choices), &[two.concat().as_bytes()]);
        assert!(passed.ends_with(&format!("\"finish_reason\":\"stop\"}}]}}\n\n{end}")), "{passed}");
        assert_eq!(passed.matches("data: {").count(), 4, "{passed}");
    }
}
