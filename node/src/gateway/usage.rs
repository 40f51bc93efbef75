//! What a replica says a call used, believed only where it can be true.

use actors::quota::{Amount, Charge, Source};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// No call has more tokens than this; a report beyond it is a mistake.
const TOKENS_MAX: u64 = 10_000_000;

/// Tokens of one call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Usage {
    /// The prompt's, cached ones included.
    pub(super) input: u64,
    /// Generated, reasoning included.
    pub(super) output: u64,
    /// The part of `input` that was in the replica's cache, as far as it says.
    pub(super) cached: u64,
    /// The part of `output` that was reasoning, as far as the replica says.
    pub(super) reasoning: u64,
}

impl Usage {
    /// What a call costs of which the replica says this.
    pub(super) fn charge(self) -> Charge {
        let Usage { input, output, cached, reasoning } = self;
        let amount = Amount::of_call(input, output);
        Charge { amount, cached, reasoning, source: Source::Reported, ..Charge::default() }
    }
}

/// What a `usage` field turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reported {
    /// Believable.
    Tokens(Usage),
    /// There is a report, and it cannot be true: negative, fractional, absurdly large or no number.
    Absurd,
    /// Absent or `null`.
    Nothing,
}

impl Reported {
    /// The usage if it is believable.
    pub(super) fn usage(self) -> Option<Usage> {
        match self {
            Reported::Tokens(usage) => Some(usage),
            Reported::Absurd | Reported::Nothing => None,
        }
    }
}

/// A `usage` object of any dialect.
#[derive(Deserialize)]
struct Wire {
    r#type: Option<Value>,
    prompt_tokens: Option<Value>,
    completion_tokens: Option<Value>,
    total_tokens: Option<Value>,
    input_tokens: Option<Value>,
    output_tokens: Option<Value>,
    cache_creation_input_tokens: Option<Value>,
    cache_read_input_tokens: Option<Value>,
    prompt_tokens_details: Option<Details>,
    completion_tokens_details: Option<Details>,
    input_tokens_details: Option<Details>,
    output_tokens_details: Option<Details>,
}

/// What a count is made of. Nothing is charged by it, so what cannot be true is left out.
#[derive(Deserialize)]
struct Details {
    cached_tokens: Option<Value>,
    reasoning_tokens: Option<Value>,
}

/// Reads a `usage` value.
pub(super) fn read(usage: Option<&RawValue>) -> Reported {
    let Some(usage) = usage.map(RawValue::get).filter(|usage| *usage != "null") else { return Reported::Nothing };
    let Ok(wire) = serde_json::from_str::<Wire>(usage) else { return Reported::Absurd };
    if wire.r#type.as_ref().is_some_and(|kind| kind == "duration") {
        // Of speech: how long it was, and nothing of tokens.
        return Reported::Nothing;
    }
    believe(wire).map_or(Reported::Absurd, Reported::Tokens)
}

fn believe(wire: Wire) -> Option<Usage> {
    let count = |value: Option<Value>| match value {
        None | Some(Value::Null) => Some(None),
        Some(value) => value.as_u64().filter(|tokens| *tokens <= TOKENS_MAX).map(Some),
    };
    let prompt = count(wire.prompt_tokens)?;
    let completion = count(wire.completion_tokens)?;
    let total = count(wire.total_tokens)?;
    let input = count(wire.input_tokens)?;
    let output = count(wire.output_tokens)?;
    // Anthropic's three input counts are parts of one prompt; OpenAI's `prompt_tokens` includes cached ones.
    let written = count(wire.cache_creation_input_tokens)?.unwrap_or(0);
    let read = count(wire.cache_read_input_tokens)?.unwrap_or(0);
    let input = prompt.or(input.map(|input| input + written + read));
    let output = completion.or(output);
    let (input, output) = match (input, output, total) {
        (None, None, None) => return None,
        (Some(input), Some(output), _) => (input, output),
        (Some(input), None, total) => (input, total.map_or(0, |total| total.saturating_sub(input))),
        (None, output, total) => {
            let output = output.unwrap_or(0);
            (total.map_or(0, |total| total.saturating_sub(output)), output)
        }
    };
    let part = |details: [Option<Details>; 2], of: fn(Details) -> Option<Value>, whole: u64| {
        let said = details.into_iter().flatten().find_map(of).and_then(|value| value.as_u64());
        said.unwrap_or(0).min(whole)
    };
    let details = part([wire.prompt_tokens_details, wire.input_tokens_details], |details| details.cached_tokens, input);
    let reasoning =
        part([wire.completion_tokens_details, wire.output_tokens_details], |details| details.reasoning_tokens, output);
    Some(Usage { input, output, cached: details.max(read.min(input)), reasoning })
}

/// The usage of a whole JSON answer. Errors: it is not JSON.
pub(super) fn of_answer(body: &[u8]) -> Result<Reported, serde_json::Error> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        usage: Option<&'a RawValue>,
    }
    if body.trim_ascii_start().starts_with(b"{") {
        serde_json::from_slice::<Answer<'_>>(body).map(|answer| read(answer.usage))
    } else {
        // Some answers are lists; they report nothing.
        serde_json::from_slice::<serde::de::IgnoredAny>(body).map(|_| Reported::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_every_dialect_are_read_and_lies_are_not_believed() {
        let tokens = |input, output| Reported::Tokens(Usage { input, output, ..Usage::default() });
        let parts = |input, cached, output, reasoning| Reported::Tokens(Usage { input, output, cached, reasoning });
        let table = [
            (
                r#"{"prompt_tokens":16,"total_tokens":24,"completion_tokens":8,"prompt_tokens_details":null}"#,
                tokens(16, 8),
            ),
            (r#"{"prompt_tokens":5,"total_tokens":5}"#, tokens(5, 0)),
            (r#"{"total_tokens":7}"#, tokens(7, 0)),
            (r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#, tokens(0, 0)),
            (
                r#"{"input_tokens":11,"output_tokens":8,"cache_creation_input_tokens":0,"cache_read_input_tokens":32}"#,
                parts(43, 32, 8, 0),
            ),
            (
                r#"{"input_tokens":11,"input_tokens_details":{"cached_tokens":3},"output_tokens":8,"total_tokens":19}"#,
                parts(11, 3, 8, 0),
            ),
            (
                r#"{"prompt_tokens":16,"completion_tokens":8,"prompt_tokens_details":{"cached_tokens":99},"completion_tokens_details":{"reasoning_tokens":5}}"#,
                parts(16, 16, 8, 5),
            ),
            (
                r#"{"input_tokens":4,"output_tokens":8,"output_tokens_details":{"reasoning_tokens":-5}}"#,
                parts(4, 0, 8, 0),
            ),
            ("null", Reported::Nothing),
            (r#"{"type":"duration","seconds":30}"#, Reported::Nothing),
            (
                r#"{"type":"tokens","input_tokens":14,"input_token_details":{"audio_tokens":14},"output_tokens":45,"total_tokens":59}"#,
                tokens(14, 45),
            ),
            (r#"{"prompt_tokens":-1,"completion_tokens":8}"#, Reported::Absurd),
            (r#"{"prompt_tokens":1,"completion_tokens":1e12}"#, Reported::Absurd),
            (r#"{"prompt_tokens":1,"completion_tokens":99999999999}"#, Reported::Absurd),
            (r#"{"prompt_tokens":"1"}"#, Reported::Absurd),
            (r#"{}"#, Reported::Absurd),
            (r#"[1]"#, Reported::Absurd),
        ];
        for (usage, expected) in table {
            assert_eq!(of_answer(format!("{{\"usage\":{usage}}}").as_bytes()).unwrap(), expected, "{usage}");
        }
        assert_eq!(of_answer(b"[1,2]").unwrap(), Reported::Nothing);
        assert!(of_answer(b"<html>").is_err());
        assert!(of_answer(b"{\"usage\":").is_err());
    }
}
