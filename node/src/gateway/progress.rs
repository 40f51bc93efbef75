//! What the events of a streamed answer say: how much was produced, what it used, and whether it ended well.
//!
//! HTTP 200 and `[DONE]` do not mean success: a stream may carry an `error` event, or end with `finish_reason: "abort"`.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use actors::epp::Outcome;
use bytes::Bytes;
use http::StatusCode;
use memchr::memmem::{self, Finder};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::endpoint::Kind;
use super::learnt::{Fingerprint, Learnt};
use super::outcome;
use super::sse::{Edit, Event, EventAction};
use super::tally::{Choices, Tally};
use super::usage::{self, Reported};
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

/// How far one stream has come.
pub(super) struct Progress {
    kind: Kind,
    hidden: HiddenUsage,
    /// Several choices end one after the other.
    is_several: bool,
    stage: Stage,
    /// What its own error says of the replica.
    outcome: Outcome,
    tally: Tally,
    learnt: Arc<Learnt>,
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
static FINISH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"finish_reason\""));

/// An OpenAI chunk as far as it matters.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    choices: Option<Vec<Choice>>,
    #[serde(borrow)]
    system_fingerprint: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u64,
    finish_reason: Option<String>,
}

impl Progress {
    pub(super) fn new(kind: Kind, hidden: HiddenUsage, choices: Choices, learnt: Arc<Learnt>) -> Progress {
        Progress {
            kind,
            hidden,
            is_several: choices != Choices::ONE,
            stage: Stage::Open,
            outcome: Outcome::Failed,
            tally: Tally::new(choices, learnt.token_bytes()),
            learnt,
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

    /// What the caller is told in place of the error event that was left out.
    pub(super) fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// What it says of tokens.
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// It is over: remembers what it taught of the replica.
    pub(super) fn teach(&self) {
        if let Some(usage) = self.tally.reported() {
            self.learnt.had_text(self.tally.text_bytes(), usage.output);
        }
    }

    /// Takes note of an event and says whether the caller gets it.
    pub(super) fn note(&mut self, event: &Event<'_>) -> EventAction {
        if matches!(self.stage, Stage::Failed | Stage::Aborted) {
            // A `[DONE]` after an error would look like success.
            return EventAction::Remove;
        }
        match self.kind {
            Kind::Messages => self.note_message(event),
            Kind::Responses => self.note_response(event),
            Kind::Speech => self.note_speech(event),
            Kind::Chat | Kind::ChatBatch | Kind::Completions | Kind::Encode | Kind::Tokens => {
                self.note_chunk(&event.data)
            }
        }
    }

    fn note_chunk(&mut self, data: &[u8]) -> EventAction {
        if data == b"[DONE]" {
            self.stage = Stage::Complete;
            return EventAction::Pass;
        }
        let text = match self.kind {
            Kind::Completions => text(data, &["text"]),
            _ => text(data, &["content", "reasoning", "reasoning_content", "arguments"]),
        };
        // Quotes inside texts are escaped, so these are only found where they may matter.
        let matters = [&*USAGE, &*ERROR].iter().any(|finder| finder.find(data).is_some()) || finishes(data);
        if matters && let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) {
            return self.note_parsed(data, &chunk, text);
        }
        self.tally.text(0, text, false);
        EventAction::Pass
    }

    fn note_parsed(&mut self, data: &[u8], chunk: &Chunk<'_>, text: (u64, u64)) -> EventAction {
        if chunk.error.is_some() {
            self.fail(data);
            return EventAction::Pass;
        }
        let choices = chunk.choices.as_deref().unwrap_or_default();
        let reported = usage::read(chunk.usage);
        if let [choice] = choices {
            self.tally.text(choice.index, text, reported.usage().is_some());
            self.tally.reported_of(choice.index, reported);
        } else {
            self.tally.text(0, text, false);
        }
        let is_last = chunk.choices.is_some() && choices.is_empty() && reported != Reported::Nothing;
        if is_last {
            self.tally.reported_of_all(reported);
            if self.hidden.last {
                return EventAction::Release(self.learn_fingerprint(chunk));
            }
        }
        let cut = chunk.usage.filter(|_| self.hidden.running && !is_last).map(|usage| cut(data, usage.get()));
        let mut reasons = choices.iter().filter_map(|choice| choice.finish_reason.as_deref()).peekable();
        let finishes = reasons.peek().is_some();
        if reasons.any(|reason| reason == "abort") {
            self.stage = Stage::Aborted;
        } else if finishes && self.hidden.last && chunk.system_fingerprint.is_none() && self.kind != Kind::Speech {
            return self.with_fingerprint(cut);
        }
        cut.map_or(EventAction::Pass, |cut| EventAction::Edit(Edit { cut: Some(cut), added: None }))
    }

    /// vLLM puts its fingerprint on the chunk with usage if there is one, else on the last chunk of each choice. The caller asked for no usage, so
    /// the last chunk waits for the one with usage, which is next. While other choices go on it does not: what is known of the replica is used.
    fn with_fingerprint(&self, cut: Option<Range<usize>>) -> EventAction {
        match self.learnt.fingerprint().filter(|_| self.is_several) {
            Some(fingerprint) => EventAction::Edit(Edit { cut, added: field(&fingerprint) }),
            None => EventAction::Hold(cut),
        }
    }

    /// From the chunk with usage. Returns the field for those that wait for it.
    fn learn_fingerprint(&self, chunk: &Chunk<'_>) -> Option<Bytes> {
        let fingerprint = match chunk.system_fingerprint {
            Some(value) => Fingerprint::Is(Bytes::copy_from_slice(value.get().as_bytes())),
            None => Fingerprint::Absent,
        };
        let field = field(&fingerprint);
        self.learnt.has_fingerprint(fingerprint);
        field
    }

    fn note_message(&mut self, event: &Event<'_>) -> EventAction {
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
                if let Some(usage) = usage.and_then(Reported::usage) {
                    self.tally.knows_prompt(usage.input);
                }
            }
            b"message_delta" => {
                let reported = typed(&event.data).map_or(Reported::Nothing, |delta| usage::read(delta.usage));
                self.tally.reported_of_all(reported);
            }
            b"content_block_delta" => {
                self.tally.text(0, text(&event.data, &["text", "thinking", "partial_json"]), false);
            }
            b"message_stop" => self.stage = Stage::Complete,
            b"error" => return self.note_message_error(event),
            // In OpenAI's form, which has no types.
            _ if event.data.starts_with(b"{\"error\"") => return self.note_message_error(event),
            _ => {}
        }
        EventAction::Pass
    }

    /// An error goes on as it came if it is in Anthropic's form and of one of Anthropic's types.
    fn note_message_error(&mut self, event: &Event<'_>) -> EventAction {
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
            return EventAction::Pass;
        }
        let status = error.code.and_then(|code| StatusCode::from_u16(u16::try_from(code.as_u64()?).ok()?).ok());
        self.failure = Some(Failure {
            kind: known.or(status.map(anthropic::error_kind)).unwrap_or("api_error"),
            message: error.message.unwrap_or_else(|| "the replica failed".to_owned()),
        });
        EventAction::Remove
    }

    fn note_response(&mut self, event: &Event<'_>) -> EventAction {
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
                self.tally.reported_of_all(last.map_or(Reported::Nothing, |response| usage::read(response.usage)));
                if kind == b"response.failed" {
                    // It is about the call: an illness of the replica is an event of its own.
                    (self.stage, self.outcome) = (Stage::Failed, Outcome::Answered);
                } else {
                    self.stage = Stage::Complete;
                }
            }
            b"error" => self.fail(&event.data),
            kind if kind.ends_with(b".delta") => {
                self.tally.text(0, text(&event.data, &["delta"]), false);
            }
            // Some servers close these streams with OpenAI's end mark and errors.
            _ if *event.data == b"[DONE]"[..] || event.data.starts_with(b"{\"error\"") => {
                return self.note_chunk(&event.data);
            }
            _ => {}
        }
        EventAction::Pass
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

/// What is left out of a chunk so that it goes on without its `usage`, of which `value` is the text within `data`.
fn cut(data: &[u8], value: &str) -> Range<usize> {
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
    start..end
}

/// Whether a choice in a chunk says why it ended.
fn finishes(data: &[u8]) -> bool {
    FINISH.find_iter(data).any(|at| {
        let value = data[at + b"\"finish_reason\"".len()..].trim_ascii_start().strip_prefix(b":");
        value.is_some_and(|value| value.trim_ascii_start().starts_with(b"\""))
    })
}

/// The field with a fingerprint, to be put at the end of an object.
fn field(fingerprint: &Fingerprint) -> Option<Bytes> {
    match fingerprint {
        Fingerprint::Absent => None,
        Fingerprint::Is(value) => Some(Bytes::from([b",\"system_fingerprint\":", &value[..]].concat())),
    }
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

mod speech;
#[cfg(test)]
mod tests;
