//! What the events of a streamed answer say: how much was produced, what it used, and whether it ended well.
//!
//! HTTP 200 and `[DONE]` do not mean success: a stream may carry an `error` event, or end with `finish_reason: "abort"`.

use std::sync::LazyLock;

use actors::epp::Outcome;
use http::StatusCode;
use memchr::memmem::{self, Finder};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::endpoint::Kind;
use super::outcome;
use super::sse::{Event, Verdict};
use super::usage::{self, Reported, Usage};
use crate::anthropic;

/// How far a stream has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// It goes on.
    Open,
    /// It said that it is complete.
    Complete,
    /// It carried its own error, which the caller has got, or gets as [`Progress::take_failure`] says.
    Failed,
    /// The replica gave up on it without saying so in an event of its own.
    Aborted,
}

/// What the caller did not ask for, and so does not get.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct HiddenUsage {
    /// The chunk at the end that has nothing but usage.
    pub(super) last: bool,
    /// The usage in the chunks before.
    pub(super) running: bool,
}

/// The tally of one stream.
pub(super) struct Progress {
    kind: Kind,
    hidden: HiddenUsage,
    /// There is one choice: a chunk's usage is that of the whole answer so far.
    is_single: bool,
    stage: Stage,
    /// What its own error says of the replica.
    outcome: Outcome,
    reported: Option<Usage>,
    /// It reported something that cannot be true.
    was_absurd: bool,
    /// Reported by the first event of a Messages stream; the last one repeats it more exactly.
    input: u64,
    /// Since the last report, like the next.
    pieces: u64,
    text_bytes: u64,
    failure: Option<Failure>,
}

/// An error of the replica in a Messages stream that the clients of this dialect would not understand as it came.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Failure {
    /// One of Anthropic's types.
    pub(super) kind: &'static str,
    pub(super) message: String,
}

/// Finders are built once: they are used on every event.
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"error\""));
static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\""));
static COLON: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\":\""));
static ABORT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"abort\""));

/// An OpenAI chunk as far as it matters.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    choices: Option<Vec<Choice>>,
}

#[derive(Deserialize)]
struct Choice {
    finish_reason: Option<String>,
}

impl Progress {
    pub(super) fn new(kind: Kind, hidden: HiddenUsage, is_single: bool) -> Progress {
        Progress {
            kind,
            hidden,
            is_single,
            stage: Stage::Open,
            outcome: Outcome::Failed,
            reported: None,
            was_absurd: false,
            input: 0,
            pieces: 0,
            text_bytes: 0,
            failure: None,
        }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// What the error in it says of the replica, once it is [`Stage::Failed`].
    pub(super) fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The replica's own error is in `data`.
    fn fail(&mut self, data: &[u8]) {
        (self.stage, self.outcome) = (Stage::Failed, outcome::of_error_event(data));
    }

    /// What the replica reported, if it did, and what was counted since.
    pub(super) fn reported(&self) -> Option<Usage> {
        let reported = self.reported?;
        Some(Usage { output: reported.output.saturating_add(self.counted()), ..reported })
    }

    /// What the caller is told in place of the error event that was left out.
    pub(super) fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// Whether it reported something that cannot be true.
    pub(super) fn was_absurd(&self) -> bool {
        self.was_absurd
    }

    /// Tokens produced so far, as far as can be told: reported ones, else at least one per piece of text and one per four bytes.
    pub(super) fn produced(&self) -> u64 {
        self.reported().map_or(self.counted(), |usage| usage.output)
    }

    /// Of what nobody has reported.
    fn counted(&self) -> u64 {
        self.pieces.max(self.text_bytes.div_ceil(4))
    }

    /// Takes note of an event and says whether the caller gets it.
    pub(super) fn note(&mut self, event: &Event<'_>) -> Verdict {
        if matches!(self.stage, Stage::Failed | Stage::Aborted) {
            // A `[DONE]` after an error would look like success.
            return Verdict::Remove;
        }
        match self.kind {
            Kind::Messages => self.note_message(event),
            Kind::Responses => self.note_response(event),
            Kind::Chat | Kind::ChatBatch | Kind::Completions | Kind::Encode | Kind::Tokens => {
                self.note_chunk(&event.data)
            }
        }
    }

    fn note_chunk(&mut self, data: &[u8]) -> Verdict {
        if data == b"[DONE]" {
            self.stage = Stage::Complete;
            return Verdict::Pass;
        }
        let (pieces, bytes) = match self.kind {
            Kind::Completions => text(data, &["text"]),
            _ => text(data, &["content", "reasoning", "reasoning_content", "arguments"]),
        };
        self.pieces += pieces;
        self.text_bytes += bytes;
        // Quotes inside texts are escaped, so these are only found where they may matter.
        let matters = [&*USAGE, &*ERROR, &*ABORT].iter().any(|finder| finder.find(data).is_some());
        if matters && let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) {
            return self.note_parsed(data, &chunk);
        }
        Verdict::Pass
    }

    fn note_parsed(&mut self, data: &[u8], chunk: &Chunk<'_>) -> Verdict {
        if chunk.error.is_some() {
            self.fail(data);
            return Verdict::Pass;
        }
        let choices = chunk.choices.as_deref().unwrap_or_default();
        if choices.iter().any(|choice| choice.finish_reason.as_deref() == Some("abort")) {
            self.stage = Stage::Aborted;
        }
        let reported = usage::read(chunk.usage);
        if reported == Reported::Nothing {
            return Verdict::Pass;
        }
        let is_last = chunk.choices.as_ref().is_some_and(Vec::is_empty);
        if is_last || self.is_single {
            self.believe(reported);
        }
        match (is_last, chunk.usage) {
            (true, _) if self.hidden.last => Verdict::Remove,
            (false, Some(usage)) if self.hidden.running => cut(data, usage.get()),
            _ => Verdict::Pass,
        }
    }

    fn believe(&mut self, reported: Reported) {
        self.was_absurd |= reported == Reported::Absurd;
        if let Some(usage) = reported.usage() {
            self.reported = Some(usage);
            (self.pieces, self.text_bytes) = (0, 0);
        }
    }

    fn note_message(&mut self, event: &Event<'_>) -> Verdict {
        #[derive(Deserialize)]
        struct Message<'a> {
            #[serde(borrow)]
            usage: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        struct Typed<'a> {
            #[serde(borrow)]
            message: Option<Message<'a>>,
            #[serde(borrow)]
            usage: Option<&'a RawValue>,
        }
        let typed = |data| serde_json::from_slice::<Typed<'_>>(data).ok();
        match kind_of(event) {
            b"message_start" => {
                let usage =
                    typed(&event.data).and_then(|start| start.message).map(|message| usage::read(message.usage));
                self.input = usage.and_then(Reported::usage).map_or(0, |usage| usage.input);
            }
            b"message_delta" => {
                let reported = typed(&event.data).map_or(Reported::Nothing, |delta| usage::read(delta.usage));
                self.believe(reported);
                if let Some(usage) = &mut self.reported {
                    usage.input = usage.input.max(self.input);
                }
            }
            b"content_block_delta" => {
                let (pieces, bytes) = text(&event.data, &["text", "thinking", "partial_json"]);
                self.pieces += pieces;
                self.text_bytes += bytes;
            }
            b"message_stop" => self.stage = Stage::Complete,
            b"error" => return self.note_message_error(event),
            // In OpenAI's form, which has no types.
            _ if event.data.starts_with(b"{\"error\"") => return self.note_message_error(event),
            _ => {}
        }
        Verdict::Pass
    }

    /// An error goes on as it came if it is in Anthropic's form and of one of Anthropic's types.
    fn note_message_error(&mut self, event: &Event<'_>) -> Verdict {
        #[derive(Deserialize)]
        struct Inner {
            r#type: Option<String>,
            message: Option<String>,
            code: Option<serde_json::Value>,
        }
        #[derive(Deserialize)]
        struct Outer {
            r#type: Option<String>,
            error: Inner,
        }
        self.fail(&event.data);
        let Outer { r#type, error } = serde_json::from_slice(&event.data)
            .unwrap_or(Outer { r#type: None, error: Inner { r#type: None, message: None, code: None } });
        let known = error.r#type.as_deref().and_then(anthropic::known_error_kind);
        if event.name == b"error" && r#type.as_deref() == Some("error") && known.is_some() && error.message.is_some() {
            return Verdict::Pass;
        }
        let status = error.code.and_then(|code| StatusCode::from_u16(u16::try_from(code.as_u64()?).ok()?).ok());
        self.failure = Some(Failure {
            kind: known.or(status.map(anthropic::error_kind)).unwrap_or("api_error"),
            message: error.message.unwrap_or_else(|| "the replica failed".to_owned()),
        });
        Verdict::Remove
    }

    fn note_response(&mut self, event: &Event<'_>) -> Verdict {
        #[derive(Deserialize)]
        struct Response<'a> {
            #[serde(borrow)]
            usage: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        struct Last<'a> {
            #[serde(borrow)]
            response: Option<Response<'a>>,
        }
        match kind_of(event) {
            kind @ (b"response.completed" | b"response.incomplete" | b"response.failed") => {
                let last = serde_json::from_slice::<Last<'_>>(&event.data).ok().and_then(|last| last.response);
                self.believe(last.map_or(Reported::Nothing, |response| usage::read(response.usage)));
                if kind == b"response.failed" {
                    // It is about the call: an illness of the replica is an event of its own.
                    (self.stage, self.outcome) = (Stage::Failed, Outcome::Answered);
                } else {
                    self.stage = Stage::Complete;
                }
            }
            b"error" => self.fail(&event.data),
            kind if kind.ends_with(b".delta") => {
                let (pieces, bytes) = text(&event.data, &["delta"]);
                self.pieces += pieces;
                self.text_bytes += bytes;
            }
            // Some servers close these streams with OpenAI's end mark and errors.
            _ if *event.data == b"[DONE]"[..] || event.data.starts_with(b"{\"error\"") => {
                return self.note_chunk(&event.data);
            }
            _ => {}
        }
        Verdict::Pass
    }
}

/// The type of an event: its name, or the `type` in its data.
fn kind_of<'a>(event: &'a Event<'_>) -> &'a [u8] {
    if !event.name.is_empty() {
        return event.name;
    }
    let Some(at) = memmem::find(&event.data, b"\"type\":\"") else { return b"" };
    let rest = &event.data[at + 8..];
    &rest[..memchr::memchr(b'"', rest).unwrap_or(rest.len())]
}

/// The verdict on a chunk that goes on without its `usage`, of which `value` is the text within `data`.
fn cut(data: &[u8], value: &str) -> Verdict {
    let from = value.as_ptr() as usize - data.as_ptr() as usize;
    let (mut start, mut end) = (from, from + value.len());
    // Back over `"usage":`, which is there, to what is before it.
    while start > 0 && !data[..start].ends_with(b"\"usage\"") {
        start -= 1;
    }
    start = start.saturating_sub(b"\"usage\"".len());
    let before = data[..start].trim_ascii_end();
    if before.ends_with(b",") {
        start = before.len() - 1;
    } else if let Some(after) = data[end..].trim_ascii_start().strip_prefix(b",") {
        end = data.len() - after.len();
    }
    Verdict::Cut(start..end)
}

/// How many texts that are not empty are values of one of `keys` in `data`, and their length in bytes as written.
fn text(data: &[u8], keys: &[&str]) -> (u64, u64) {
    let (mut pieces, mut bytes) = (0, 0);
    // Quotes inside texts are escaped, so this is only found between a key and its text.
    for at in COLON.find_iter(data) {
        let is_key = |key: &&str| data[..at].strip_suffix(key.as_bytes()).is_some_and(|before| before.ends_with(b"\""));
        if keys.iter().any(is_key) {
            let length = string_length(&data[at + 3..]);
            pieces += u64::from(length > 0);
            bytes += length as u64;
        }
    }
    (pieces, bytes)
}

/// The length of the JSON string whose opening quote is just before `rest`.
fn string_length(rest: &[u8]) -> usize {
    let mut from = 0;
    while let Some(offset) = memchr::memchr2(b'"', b'\\', &rest[from..]) {
        if rest[from + offset] == b'"' {
            return from + offset;
        }
        from = (from + offset + 2).min(rest.len());
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(kind: Kind, hides: bool) -> Progress {
        Progress::new(kind, HiddenUsage { last: hides, running: hides }, true)
    }

    fn note(progress: &mut Progress, name: &str, data: &str) -> Verdict {
        progress.note(&Event { name: name.as_bytes(), data: data.as_bytes().into() })
    }

    #[test]
    fn a_chat_is_counted_then_reported_and_its_usage_chunk_is_hidden() {
        let mut chat = stream(Kind::Chat, true);
        note(
            &mut chat,
            "",
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
        );
        assert_eq!(chat.produced(), 0, "the role is no token");
        note(
            &mut chat,
            "",
            r#"{"choices":[{"delta":{"content":"\"usage\": \"error\" \"abort\""},"finish_reason":null}]}"#,
        );
        assert_eq!((chat.stage(), chat.produced()), (Stage::Open, 8));
        let last = r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
        let Verdict::Cut(cut) = note(&mut chat, "", last) else { panic!("it has a choice, and usage") };
        let left = [&last[..cut.start], &last[cut.end..]].concat();
        assert_eq!(left, r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}"#);
        assert_eq!(chat.produced(), 2);
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":16,"total_tokens":24,"completion_tokens":8}}"#;
        assert_eq!(note(&mut chat, "", usage), Verdict::Remove);
        assert_eq!(chat.reported(), Some(Usage { input: 16, output: 8, ..Usage::default() }));
        assert_eq!(note(&mut chat, "", "[DONE]"), Verdict::Pass);
        assert_eq!(chat.stage(), Stage::Complete);
        let mut asked = stream(Kind::Chat, false);
        assert_eq!(note(&mut asked, "", usage), Verdict::Pass);
    }

    #[test]
    fn failures_are_seen_and_nothing_after_them_passes() {
        let mut failed = stream(Kind::Chat, true);
        assert_eq!(note(&mut failed, "", r#"{"error":{"message":"engine died","code":500}}"#), Verdict::Pass);
        assert_eq!((failed.stage(), note(&mut failed, "", "[DONE]")), (Stage::Failed, Verdict::Remove));
        let mut aborted = stream(Kind::Completions, true);
        assert_eq!(note(&mut aborted, "", r#"{"choices":[{"text":"ab","finish_reason":"abort"}]}"#), Verdict::Pass);
        assert_eq!((aborted.stage(), aborted.produced()), (Stage::Aborted, 1));
        assert_eq!(note(&mut aborted, "", "[DONE]"), Verdict::Remove);
        let mut message = stream(Kind::Messages, false);
        note(&mut message, "error", r#"{"type":"error","error":{}}"#);
        assert_eq!(message.stage(), Stage::Failed);
    }

    #[test]
    fn errors_in_a_messages_stream_have_types_that_its_clients_know() {
        let table = [
            ("error", r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#, None),
            ("error", r#"{"type":"error","error":{"type":"internal_error","message":"m"}}"#, Some(("api_error", "m"))),
            (
                "",
                r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
                Some(("overloaded_error", "m")),
            ),
            (
                "",
                r#"{"error":{"message":"m","type":"BadRequestError","code":400}}"#,
                Some(("invalid_request_error", "m")),
            ),
            ("", r#"{"error":{"message":"m","code":529}}"#, Some(("overloaded_error", "m"))),
            ("", r#"{"error":{"message":"m","code":"x"}}"#, Some(("api_error", "m"))),
            ("error", "what", Some(("api_error", "the replica failed"))),
        ];
        for (name, data, expected) in table {
            let mut message = stream(Kind::Messages, false);
            let verdict = note(&mut message, name, data);
            let failure = message.take_failure();
            let said = failure.as_ref().map(|failure| (failure.kind, failure.message.as_str()));
            assert_eq!((message.stage(), said), (Stage::Failed, expected), "{data}");
            assert_eq!(verdict == Verdict::Pass, expected.is_none(), "{data}");
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
        assert_eq!(message.produced(), 3);
        note(&mut message, "message_delta", r#"{"type":"message_delta","delta":{},"usage":{"output_tokens":8}}"#);
        note(&mut message, "message_stop", r#"{"type":"message_stop"}"#);
        assert_eq!(
            (message.stage(), message.reported()),
            (Stage::Complete, Some(Usage { input: 11, output: 8, ..Usage::default() }))
        );

        let mut response = stream(Kind::Responses, false);
        note(
            &mut response,
            "response.output_text.delta",
            r#"{"delta":"abcdefgh","type":"response.output_text.delta"}"#,
        );
        assert_eq!(response.produced(), 2);
        let done = r#"{"response":{"usage":{"input_tokens":11,"output_tokens":8,"total_tokens":19}},"type":"response.completed"}"#;
        note(&mut response, "response.completed", done);
        assert_eq!(
            (response.stage(), response.reported()),
            (Stage::Complete, Some(Usage { input: 11, output: 8, ..Usage::default() }))
        );
    }

    #[test]
    fn running_usage_is_believed_of_one_choice_and_cut_out_wherever_it_stands() {
        let usage = r#"{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":0}}"#;
        let table = [
            (format!(r#"{{"choices":[{{}}],"usage":{usage}}}"#), r#"{"choices":[{}]}"#),
            (format!(r#"{{"choices":[{{}}],"usage":{usage},"x":1}}"#), r#"{"choices":[{}],"x":1}"#),
            (format!(r#"{{ "usage" : {usage} , "choices":[{{}}]}}"#), r#"{  "choices":[{}]}"#),
            (format!(r#"{{"choices":[{{}}] , "usage": {usage} }}"#), r#"{"choices":[{}]  }"#),
        ];
        for (data, expected) in table {
            let mut one = stream(Kind::Chat, true);
            let Verdict::Cut(cut) = note(&mut one, "", &data) else { panic!("{data}") };
            assert_eq!([&data[..cut.start], &data[cut.end..]].concat(), expected);
            assert_eq!(one.produced(), 2);
            // A replica that says no more of it goes on to be counted.
            note(&mut one, "", r#"{"choices":[{"delta":{"content":"12345678"}}]}"#);
            assert_eq!((one.produced(), one.reported().map(|usage| usage.output)), (4, Some(4)));
            let mut several = Progress::new(Kind::Chat, HiddenUsage::default(), false);
            assert_eq!((note(&mut several, "", &data), several.reported()), (Verdict::Pass, None), "of one of several");
        }
    }
}
