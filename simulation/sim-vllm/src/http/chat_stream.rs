//! The events of a streamed chat answer. Written by hand: one event costs about a microsecond.

use std::{collections::VecDeque, fmt::Write};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    call::{Call, Part},
    events::{DONE, Writer, push_json},
    logprobs,
    sampling::Sampling,
    usage::UsageStyle,
};
use crate::script::Finish;

/// Writes `chat.completion.chunk` events.
pub(crate) struct ChatWriter {
    /// Everything up to the index of the choice.
    head: String,
    /// The same, for the last event, which has no choices.
    usage_head: String,
    fingerprint: String,
    tool_ids: Vec<String>,
    n: usize,
    include_usage: bool,
    continuous_usage: bool,
    return_token_ids: bool,
    top_logprobs: Option<usize>,
    usage: UsageStyle,
    started: bool,
}

/// One piece of an answer: the delta, and the tokens that it shows.
struct Piece {
    delta: String,
    from: usize,
    to: usize,
}

impl ChatWriter {
    pub(crate) fn new(call: &Call, id: String, sampling: &Sampling, top_logprobs: Option<usize>) -> Self {
        let mut head = String::from("data: {\"id\":");
        push_json(&mut head, &id);
        let _ =
            write!(head, ",\"object\":\"chat.completion.chunk\",\"created\":{},\"model\":", call.shared.unix_seconds());
        push_json(&mut head, call.shared.config.model());
        head.push_str(",\"choices\":[");
        Self {
            usage_head: head.clone() + "]",
            head: head + "{\"index\":",
            fingerprint: call.shared.fingerprint.clone(),
            tool_ids: (0..sampling.n).map(|_| format!("chatcmpl-tool-{}", call.shared.hex())).collect(),
            n: sampling.n,
            include_usage: sampling.include_usage,
            continuous_usage: sampling.continuous_usage,
            return_token_ids: sampling.return_token_ids,
            top_logprobs,
            usage: UsageStyle::of(call),
            started: false,
        }
    }

    /// The first event of each choice: its role, and nothing of the answer.
    fn start(&mut self, parts: &[Part], out: &mut VecDeque<Bytes>) {
        self.started = true;
        for (index, part) in parts.iter().enumerate() {
            let mut event = String::with_capacity(self.head.len() + 160);
            let _ = write!(
                event,
                "{}{index},\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\"logprobs\":null,\"finish_reason\":null}}]",
                self.head
            );
            self.push_usage(&mut event, part, 0);
            let prompt = if self.return_token_ids { json!(*part.prompt) } else { Value::Null };
            let _ = write!(event, ",\"prompt_token_ids\":{prompt},\"prompt_text\":null}}\n\n");
            out.push_back(event.into());
        }
    }

    fn push_usage(&self, event: &mut String, part: &Part, produced: usize) {
        if self.continuous_usage && self.usage.tells() {
            let mut usage = self.usage.of_parts(std::slice::from_ref(part), 1);
            usage.completion = if produced == part.produced { usage.completion } else { produced as i64 };
            let _ = write!(event, ",\"usage\":{}", usage.short());
        }
    }

    fn event(&self, index: usize, part: &Part, piece: &Piece, last: bool) -> Bytes {
        let mut event = String::with_capacity(self.head.len() + piece.delta.len() + 160);
        let _ = write!(event, "{}{index},\"delta\":{},\"logprobs\":", self.head, piece.delta);
        match self.top_logprobs {
            Some(top) if piece.from < piece.to => {
                let _ = write!(event, "{}", logprobs::chat(part, piece.from, piece.to, top));
            }
            _ => event.push_str("null"),
        }
        match part.finish().filter(|_| last) {
            None => event.push_str(",\"finish_reason\":null"),
            Some(finish) => {
                let reason = &part.script.stop_reason;
                let _ = write!(event, ",\"finish_reason\":\"{}\",\"stop_reason\":{reason}", finish.as_str());
            }
        }
        if self.return_token_ids {
            let _ = write!(event, ",\"token_ids\":{}}}]", json!(part.script.tokens[piece.from..piece.to]));
        } else {
            event.push_str(",\"token_ids\":null}]");
        }
        self.push_usage(&mut event, part, piece.to);
        if last && !self.include_usage {
            let _ = write!(event, ",\"system_fingerprint\":\"{}\"", self.fingerprint);
        }
        event.push_str("}\n\n");
        event.into()
    }
}

impl Writer for ChatWriter {
    fn advance(&mut self, index: usize, parts: &[Part], from: usize, out: &mut VecDeque<Bytes>) {
        if !self.started {
            self.start(parts, out);
        }
        let part = &parts[index];
        let finished = part.ending.is_some();
        let mut pieces = pieces(part, from, &self.tool_ids[index % self.tool_ids.len()]);
        // What ends of itself, or without text (a stop token, an abort, a tool call), ends with an empty delta.
        let of_itself = part.finish() == Some(Finish::Stop) && part.script.stop_reason.is_null();
        if finished && (pieces.is_empty() || of_itself || !part.script.calls.is_empty()) {
            pieces.push(Piece { delta: "{}".to_owned(), from: part.produced, to: part.produced });
        }
        let count = pieces.len();
        for (at, piece) in pieces.iter().enumerate() {
            out.push_back(self.event(index, part, piece, finished && at + 1 == count));
        }
    }

    fn end(&mut self, parts: &[Part], out: &mut VecDeque<Bytes>) {
        if self.include_usage && self.usage.tells() {
            let usage = self.usage.of_parts(parts, self.n).full(self.usage, true);
            let event =
                format!("{},\"usage\":{usage},\"system_fingerprint\":\"{}\"}}\n\n", self.usage_head, self.fingerprint);
            out.push_back(event.into());
        }
        out.push_back(DONE);
    }
}

/// The deltas of the tokens from `from` to what exists.
fn pieces(part: &Part, from: usize, tool_id: &str) -> Vec<Piece> {
    let script = &part.script;
    let to = part.produced;
    let mut pieces = Vec::new();
    let mut text = |begin: usize, end: usize, before: &str, after: &str| {
        let (begin, end) = (begin.max(from), end.min(to));
        if begin < end {
            let mut delta = before.to_owned();
            push_json(&mut delta, script.text(begin, end));
            delta.push_str(after);
            pieces.push(Piece { delta, from: begin, to: end });
        }
    };
    text(0, script.reasoning, "{\"reasoning\":", "}");
    text(script.reasoning, script.content_end(), "{\"content\":", "}");
    for (number, call) in script.calls.iter().enumerate() {
        if (from..to).contains(&(call.arguments - 1)) {
            let function = json!({"id": format!("{tool_id}{number}"), "type": "function", "index": number,
                "function": {"name": call.name}});
            let delta = format!("{{\"content\":null,\"tool_calls\":[{function}]}}");
            pieces.push(Piece { delta, from: call.first.max(from), to: call.arguments });
        }
        let (begin, end) = (call.arguments.max(from), call.end.min(to));
        if begin < end {
            let mut delta =
                format!("{{\"content\":null,\"tool_calls\":[{{\"index\":{number},\"function\":{{\"arguments\":");
            push_json(&mut delta, script.text(begin, end));
            delta.push_str("}}]}");
            pieces.push(Piece { delta, from: begin, to: end });
        }
    }
    pieces
}
