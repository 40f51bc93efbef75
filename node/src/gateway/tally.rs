//! How many tokens a stream has brought so far: what its events report, and what is counted where they report nothing.

use std::collections::BTreeMap;

use super::usage::{Reported, Usage};

/// How many answers a stream brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Choices {
    /// Prompts that are answered.
    pub(super) prompts: u64,
    /// Answers to each of them. The choices of the first prompt have the first indices, and so on.
    pub(super) each: u64,
}

impl Choices {
    pub(super) const ONE: Choices = Choices { prompts: 1, each: 1 };

    fn count(self) -> u64 {
        self.prompts.saturating_mul(self.each)
    }
}

/// See the module.
pub(super) struct Tally {
    choices: Choices,
    /// Bytes of text in a token of this replica.
    token_bytes: f64,
    /// Reported of all choices together. What is counted of them begins anew with it.
    whole: Option<Usage>,
    /// Of each choice since then. Not more than there are choices.
    parts: BTreeMap<u64, Part>,
    /// Tokens of the prompt, reported before anything else was.
    prompt: Option<u64>,
    /// It reported something that cannot be true.
    was_absurd: bool,
    /// Of all text that came.
    text_bytes: u64,
}

/// One choice.
#[derive(Default)]
struct Part {
    /// Its prompt and its output so far.
    reported: Option<Usage>,
    /// Since that report, like the next: events with text.
    pieces: u64,
    text_bytes: u64,
}

impl Part {
    /// Tokens that nobody has reported.
    ///
    /// Each event has one token at least, and nearly always just one: replicas put several into an event only when they fall behind. That
    /// shows, because then the events have more text than tokens have.
    fn counted(&self, token_bytes: f64) -> u64 {
        /// Languages and kinds of text differ from each other by less.
        const VARIETY: f64 = 1.5;
        if self.text_bytes as f64 <= self.pieces as f64 * token_bytes * VARIETY {
            self.pieces
        } else {
            (self.text_bytes as f64 / token_bytes) as u64
        }
    }

    fn output(&self, token_bytes: f64) -> u64 {
        self.reported.map_or(0, |usage| usage.output).saturating_add(self.counted(token_bytes))
    }
}

impl Tally {
    pub(super) fn new(choices: Choices, token_bytes: f64) -> Tally {
        Tally {
            choices,
            token_bytes,
            whole: None,
            parts: BTreeMap::new(),
            prompt: None,
            was_absurd: false,
            text_bytes: 0,
        }
    }

    /// An event had so many texts of a choice, of so many bytes together, and reported nothing of it if not `is_reported`.
    pub(super) fn text(&mut self, choice: u64, (pieces, bytes): (u64, u64), is_reported: bool) {
        self.text_bytes += bytes;
        if pieces > 0 && !is_reported {
            let part = self.part(choice);
            part.pieces += pieces;
            part.text_bytes += bytes;
        }
    }

    /// A report of one choice and its prompt, as of now.
    pub(super) fn reported_of(&mut self, choice: u64, reported: Reported) {
        self.was_absurd |= reported == Reported::Absurd;
        if let Some(usage) = reported.usage() {
            *self.part(choice) = Part { reported: Some(usage), ..Part::default() };
        }
    }

    /// A report of the whole call, as of now.
    pub(super) fn reported_of_all(&mut self, reported: Reported) {
        self.was_absurd |= reported == Reported::Absurd;
        if let Some(usage) = reported.usage() {
            // A report at the beginning may know more of the prompt than the one at the end.
            self.whole = Some(Usage { input: usage.input.max(self.prompt.unwrap_or(0)), ..usage });
            self.parts.clear();
        }
    }

    /// The prompts have so many tokens together.
    pub(super) fn knows_prompt(&mut self, tokens: u64) {
        self.prompt = Some(tokens);
    }

    fn part(&mut self, choice: u64) -> &mut Part {
        let last = self.choices.count().saturating_sub(1);
        self.parts.entry(choice.min(last)).or_default()
    }

    /// What the replica has reported of the whole call, and what was counted since. `None`: not yet of every prompt.
    pub(super) fn reported(&self) -> Option<Usage> {
        let output = self.produced();
        if let Some(whole) = self.whole {
            return Some(Usage { output, ..whole });
        }
        let (mut sum, mut prompts, mut last) = (Usage { output, ..Usage::default() }, 0, None);
        for (choice, part) in &self.parts {
            let Some(usage) = part.reported else { continue };
            sum.reasoning += usage.reasoning;
            // In order, so those of one prompt follow each other.
            let prompt = Some(choice / self.choices.each.max(1));
            if prompt != last {
                (sum.input, sum.cached) = (sum.input + usage.input, sum.cached + usage.cached);
                (prompts, last) = (prompts + 1, prompt);
            }
        }
        (prompts == self.choices.prompts.max(1)).then_some(sum)
    }

    /// Tokens of the prompts together, if they were said before anything else was.
    pub(super) fn prompt(&self) -> Option<u64> {
        self.prompt
    }

    /// Tokens produced so far, as far as can be told.
    pub(super) fn produced(&self) -> u64 {
        let parts = self.parts.values().map(|part| part.output(self.token_bytes)).sum::<u64>();
        self.whole.map_or(0, |usage| usage.output).saturating_add(parts)
    }

    pub(super) fn was_absurd(&self) -> bool {
        self.was_absurd
    }

    /// Of all text that came.
    pub(super) fn text_bytes(&self) -> u64 {
        self.text_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: u64, output: u64) -> Reported {
        Reported::Tokens(Usage { input, output, ..Usage::default() })
    }

    #[test]
    fn events_are_tokens_unless_they_have_too_much_text_for_that() {
        // Events, bytes of text, bytes in a token; tokens.
        let table = [
            (0, 0, 4.0, 0),
            (100, 400, 4.0, 100),
            (100, 630, 6.0, 100),
            (100, 150, 4.0, 100),
            (100, 600, 4.0, 100),
            (100, 604, 4.0, 151),
            (10, 4000, 4.0, 1000),
        ];
        for (pieces, bytes, token_bytes, expected) in table {
            let mut tally = Tally::new(Choices::ONE, token_bytes);
            tally.text(0, (pieces, bytes), false);
            assert_eq!(tally.produced(), expected, "{pieces} events, {bytes} bytes, {token_bytes} in a token");
        }
    }

    #[test]
    fn running_reports_of_several_choices_add_up_and_their_prompts_count_once() {
        let mut tally = Tally::new(Choices { prompts: 2, each: 2 }, 4.0);
        tally.reported_of(0, usage(10, 3));
        tally.reported_of(1, usage(10, 4));
        assert_eq!((tally.produced(), tally.reported()), (7, None), "the second prompt is not known yet");
        tally.reported_of(3, usage(20, 1));
        tally.reported_of(1, usage(10, 5));
        assert_eq!(tally.reported(), Some(Usage { input: 30, output: 9, ..Usage::default() }));
        tally.text(2, (2, 8), false);
        assert_eq!(tally.produced(), 11);
        tally.reported_of_all(usage(30, 12));
        assert_eq!(tally.reported(), Some(Usage { input: 30, output: 12, ..Usage::default() }));
    }

    #[test]
    fn a_prompt_may_be_known_before_anything_else_and_lies_are_noted() {
        let mut tally = Tally::new(Choices::ONE, 4.0);
        tally.knows_prompt(11);
        tally.text(0, (3, 12), false);
        assert_eq!((tally.prompt(), tally.produced(), tally.reported()), (Some(11), 3, None));
        tally.reported_of_all(Reported::Absurd);
        assert!(tally.was_absurd());
        tally.reported_of_all(usage(7, 8));
        assert_eq!(tally.reported(), Some(Usage { input: 11, output: 8, ..Usage::default() }));
    }
}
