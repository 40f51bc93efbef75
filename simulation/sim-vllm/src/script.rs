//! What one sequence is going to say, decided before it runs: reasoning, content, tool calls, and why it ends.
//!
//! The engine only paces how many of its tokens exist; the HTTP side reads the texts from here.

use serde_json::Value;

use crate::{
    chance::Chance,
    text::{decode, encode, prose},
};

/// Natural length of an answer in tokens, reasoning included, when nothing bounds it.
const NATURAL: (usize, usize) = (40, 300);

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    Stop,
    Length,
    ToolCalls,
    Abort,
}

impl Finish {
    /// As the OpenAI dialects write it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::Abort => "abort",
        }
    }
}

/// What bounds an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds {
    /// At most this many tokens: the caller's limit or what the context has left.
    pub(crate) limit: usize,
    pub(crate) min_tokens: usize,
    /// Goes on to the limit.
    pub(crate) ignore_eos: bool,
    pub(crate) stop: Vec<String>,
    pub(crate) include_stop: bool,
    /// Ends at the first of these tokens.
    pub(crate) stop_token_ids: Vec<u32>,
}

/// What an answer is to be.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    /// Prose.
    Prose,
    /// Exactly this text (structured outputs).
    Text(String),
    /// Calls of tools: names and JSON arguments.
    Calls(Vec<(String, String)>),
}

/// A complete answer, token by token.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) tokens: Vec<u32>,
    /// All text in order; token `i` prints what lies before `ends[i]` and after the token before it.
    text: String,
    ends: Vec<u32>,
    /// Tokens of reasoning, which come first.
    pub(crate) reasoning: usize,
    pub(crate) calls: Vec<Call>,
    pub(crate) finish: Finish,
    /// The stop string or token id that ended it.
    pub(crate) stop_reason: Value,
}

/// One tool call inside a script.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// Token at which the call (its name) begins.
    pub(crate) first: usize,
    /// Token at which its arguments begin.
    pub(crate) arguments: usize,
    /// Token after its last.
    pub(crate) end: usize,
}

impl Script {
    /// Writes an answer. `reasoning` says whether it thinks first.
    pub(crate) fn write(chance: &mut Chance, wish: &Wish, reasoning: bool, bounds: &Bounds) -> Self {
        let natural = chance.between(NATURAL.0, NATURAL.1).max(bounds.min_tokens);
        let thinking = if reasoning { natural * chance.between(20, 45) / 100 } else { 0 };
        let mut script = Self::empty();
        match wish {
            Wish::Prose => {
                let total = if bounds.ignore_eos { bounds.limit.max(1) } else { natural };
                let whole = total <= bounds.limit && !bounds.ignore_eos;
                let total = total.min(bounds.limit);
                // A tight limit still leaves half of it for the content.
                let thinking = thinking.min(total / 2);
                script.think(chance, thinking);
                script.push_text(prose(chance, total - thinking, whole));
                script.finish = if whole { Finish::Stop } else { Finish::Length };
            }
            Wish::Text(text) => {
                let tokens = encode(text);
                script.think(chance, thinking.min(bounds.limit.saturating_sub(tokens.len()) / 2));
                script.push_text(tokens);
            }
            Wish::Calls(calls) => {
                let needed: usize = calls.iter().map(|(name, json)| encode(name).len() + encode(json).len()).sum();
                script.think(chance, thinking.min(bounds.limit.saturating_sub(needed) / 2));
                for (name, arguments) in calls {
                    script.push_call(name, arguments);
                }
                script.finish = Finish::ToolCalls;
            }
        }
        script.stop_at_token(bounds);
        script.stop_at_string(bounds);
        script.truncate(bounds.limit);
        script
    }

    /// Tokens in all.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// What a range of tokens prints.
    pub(crate) fn text(&self, from: usize, to: usize) -> &str {
        let at = |token: usize| if token == 0 { 0 } else { self.ends[token - 1] as usize };
        if from >= to { "" } else { &self.text[at(from)..at(to)] }
    }

    /// The token at which content ends and tool calls begin.
    pub(crate) fn content_end(&self) -> usize {
        self.calls.first().map_or(self.len(), |call| call.first)
    }

    fn empty() -> Self {
        Self {
            tokens: Vec::new(),
            text: String::new(),
            ends: Vec::new(),
            reasoning: 0,
            calls: Vec::new(),
            finish: Finish::Stop,
            stop_reason: Value::Null,
        }
    }

    fn think(&mut self, chance: &mut Chance, length: usize) {
        self.push_text(prose(chance, length, true));
        self.reasoning = length;
    }

    fn push_text(&mut self, tokens: Vec<u32>) {
        for token in tokens {
            self.text.push_str(&decode(&[token]));
            self.ends.push(self.text.len() as u32);
            self.tokens.push(token);
        }
    }

    fn push_call(&mut self, name: &str, arguments: &str) {
        let first = self.len();
        // The name is tokens of the answer, and no text of it.
        for token in encode(name) {
            self.ends.push(self.text.len() as u32);
            self.tokens.push(token);
        }
        let begin = self.len();
        self.push_text(encode(arguments));
        self.calls.push(Call { name: name.to_owned(), first, arguments: begin, end: self.len() });
    }

    fn stop_at_token(&mut self, bounds: &Bounds) {
        if bounds.stop_token_ids.is_empty() {
            return;
        }
        let from = bounds.min_tokens.min(self.len());
        let Some(at) = (from..self.len()).find(|at| bounds.stop_token_ids.contains(&self.tokens[*at])) else { return };
        let before = if at == 0 { 0 } else { self.ends[at - 1] };
        self.truncate(at + 1);
        // The stop token counts and does not print.
        self.ends[at] = before;
        self.finish = Finish::Stop;
        self.stop_reason = self.tokens[at].into();
    }

    /// Ends at the first stop string in the content (reasoning and tool calls are not looked at).
    fn stop_at_string(&mut self, bounds: &Bounds) {
        let content = self.text(self.reasoning, self.content_end());
        let found = bounds.stop.iter().filter_map(|stop| content.find(stop).map(|at| (at, stop))).min();
        let Some((at, stop)) = found else { return };
        let begin = if self.reasoning == 0 { 0 } else { self.ends[self.reasoning - 1] as usize };
        let complete = (begin + at + stop.len()) as u32;
        let last = self.ends.partition_point(|end| *end < complete);
        self.truncate(last + 1);
        let visible = if bounds.include_stop { complete } else { (begin + at) as u32 };
        for end in &mut self.ends {
            *end = (*end).min(visible);
        }
        self.finish = Finish::Stop;
        self.stop_reason = stop.as_str().into();
    }

    fn truncate(&mut self, length: usize) {
        if length >= self.len() {
            return;
        }
        self.tokens.truncate(length);
        self.ends.truncate(length);
        self.reasoning = self.reasoning.min(length);
        self.calls.retain(|call| call.arguments < length);
        for call in &mut self.calls {
            call.end = call.end.min(length);
        }
        self.finish = Finish::Length;
        self.stop_reason = Value::Null;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(wish: &Wish, bounds: &Bounds) -> Script {
        Script::write(&mut Chance::new(3), wish, true, bounds)
    }

    #[test]
    fn a_limit_leaves_reasoning_and_content() {
        for limit in [2, 8, 30, 200, 4000] {
            let script = write(&Wish::Prose, &Bounds { limit, ..Bounds::default() });
            assert!(script.len() <= limit);
            assert!(!script.text(0, script.reasoning).is_empty(), "no reasoning in {limit} tokens");
            assert!(!script.text(script.reasoning, script.len()).is_empty(), "no content in {limit} tokens");
            assert_eq!(script.finish, if script.len() == limit { Finish::Length } else { Finish::Stop });
        }
    }

    #[test]
    fn min_tokens_and_ignore_eos_are_honoured() {
        let long = write(&Wish::Prose, &Bounds { limit: 2000, min_tokens: 900, ..Bounds::default() });
        assert_eq!((long.len(), long.finish), (900, Finish::Stop));
        let full = write(&Wish::Prose, &Bounds { limit: 2000, ignore_eos: true, ..Bounds::default() });
        assert_eq!((full.len(), full.finish), (2000, Finish::Length));
    }

    #[test]
    fn a_stop_string_ends_the_content_before_it() {
        let bounds = Bounds { limit: 500, stop: vec![".".into()], ..Bounds::default() };
        let script = write(&Wish::Prose, &bounds);
        let content = script.text(script.reasoning, script.len());
        assert!(!content.is_empty() && !content.contains('.'));
        assert_eq!((script.finish, &script.stop_reason), (Finish::Stop, &Value::from(".")));
        let kept = write(&Wish::Prose, &Bounds { include_stop: true, ..bounds });
        assert_eq!(kept.text(kept.reasoning, kept.len()), format!("{content}."));
    }

    #[test]
    fn a_tool_call_has_its_arguments_whole_or_ends_by_length() {
        let wish = Wish::Calls(vec![("get_weather".into(), r#"{"city": "Paris"}"#.into())]);
        let script = write(&wish, &Bounds { limit: 500, ..Bounds::default() });
        let call = &script.calls[0];
        assert_eq!(script.text(call.arguments, call.end), r#"{"city": "Paris"}"#);
        assert_eq!(script.finish, Finish::ToolCalls);
        let cut = write(&wish, &Bounds { limit: 6, ..Bounds::default() });
        assert_eq!((cut.len(), cut.finish), (6, Finish::Length));
    }
}
