//! What a call can have used at most, whatever its replica reports: one report that cannot be true must not cost a caller the windows of
//! a week.

use std::time::Duration;

use actors::quota::Amount;

use super::body::CallBody;
use super::endpoint::Endpoint;
use super::estimate::PromptEstimate;

/// An answer of unstated size may have so many tokens at once, and so many more in each second: several times what the fastest replica
/// generates for one call.
const ANSWER_TOKENS: u64 = 4096;
const ANSWER_RATE: u64 = 4000;

/// See the module. `None`: the request does not say.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Ceiling {
    /// Tokens of the prompt.
    prompt: Option<u64>,
    /// Tokens of all answers together.
    output: Option<u64>,
}

impl Ceiling {
    /// Of a call with this body.
    pub(super) fn of(endpoint: &Endpoint, body: &CallBody, prompt: PromptEstimate) -> Ceiling {
        let output = match body.max_tokens {
            _ if !endpoint.generates() => Some(0),
            Some(each) => Some(each.saturating_mul(body.choices)),
            None => None,
        };
        // A bound that media may exceed is none.
        Ceiling { prompt: prompt.has_bound.then_some(prompt.bound), output }
    }

    /// So long after the call was sent, with so many answers.
    pub(super) fn after(self, elapsed: Duration, choices: u64) -> Amount {
        let by_time = || {
            let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            let each = ANSWER_TOKENS.saturating_add(millis.saturating_mul(ANSWER_RATE) / 1000);
            each.saturating_mul(choices.max(1))
        };
        Amount::of_call(self.prompt.unwrap_or(u64::MAX), self.output.unwrap_or_else(by_time))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_call_uses_what_its_request_allows_and_else_what_its_time_does() {
        let prompt = PromptEstimate { bound: 200, guess: 20, has_bound: true, has_media: false };
        let unbounded = PromptEstimate { has_bound: false, has_media: true, ..prompt };
        let (chat, embeddings) = ("/v1/chat/completions", "/v1/embeddings");
        let table = [
            (chat, r#"{"max_tokens":30}"#, prompt, (200, 30)),
            (chat, r#"{"max_tokens":30,"n":8.0}"#, prompt, (200, 240)),
            (chat, "{}", prompt, (200, 12_096)),
            (chat, r#"{"n":2}"#, prompt, (200, 24_192)),
            (chat, r#"{"max_tokens":30}"#, unbounded, (u64::MAX, 30)),
            (embeddings, r#"{"input":"x"}"#, prompt, (200, 0)),
        ];
        for (path, json, prompt, (input, output)) in table {
            let endpoint = Endpoint::at(path).unwrap();
            let body = CallBody::scan(Bytes::from_static(json.as_bytes()), endpoint).unwrap();
            let most = Ceiling::of(endpoint, &body, prompt).after(Duration::from_secs(2), body.choices);
            assert_eq!(most, Amount::of_call(input, output), "{path} {json}");
        }
    }
}
