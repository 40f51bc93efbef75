//! How long a step takes, from what it computes. Pure arithmetic over [`Timing`].

use std::time::Duration;

use crate::config::Timing;

/// What one step computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Sequences that produce their next token.
    pub(crate) decodes: u64,
    /// Tokens of context of those sequences, together.
    pub(crate) decode_context: u64,
    /// Prompt tokens computed.
    pub(crate) prefill_tokens: u64,
    /// Pairs of (prompt token, earlier token) looked at.
    pub(crate) prefill_pairs: u64,
}

impl Load {
    /// Tokens computed.
    pub(crate) fn tokens(&self) -> u64 {
        self.decodes + self.prefill_tokens
    }

    /// Adds a sequence that computes `tokens` after `before` earlier ones.
    pub(crate) fn add(&mut self, tokens: usize, before: usize, decode: bool) {
        let (tokens, before) = (tokens as u64, before as u64);
        if decode {
            self.decodes += 1;
            self.decode_context += before;
        } else {
            self.prefill_tokens += tokens;
            self.prefill_pairs += tokens * before + tokens * tokens / 2;
        }
    }
}

/// The time that a step takes at recorded speed.
pub(crate) fn step_time(timing: &Timing, load: &Load) -> Duration {
    let decodes = load.decodes as f64;
    let ns = timing.step.as_nanos() as f64
        + decodes * timing.decode_sequence_ns
        + decodes * decodes * timing.decode_square_ns
        + load.decode_context as f64 * timing.decode_context_ns
        + load.prefill_tokens as f64 * timing.prefill_token_ns
        + load.prefill_pairs as f64 * timing.prefill_pair_ns;
    let time = Duration::from_nanos(ns as u64);
    if load.prefill_tokens > 0 { time.max(timing.prefill_step_min) } else { time }
}

/// The time before a request of `prompt_tokens` reaches the engine, at recorded speed.
pub(crate) fn front_end_time(timing: &Timing, prompt_tokens: usize) -> Duration {
    timing.front_end + Duration::from_nanos((prompt_tokens as f64 * timing.front_end_token_ns) as u64)
}
