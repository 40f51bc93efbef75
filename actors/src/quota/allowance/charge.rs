//! What a call costs in the end, and how that is known.

use raft::state::UsageSum;

use super::Amount;

/// Where the tokens of a call are known from.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Source {
    /// The replica said so.
    Reported,
    /// Counted from what was streamed.
    #[default]
    Counted,
    /// Nothing was to be counted: the reservation.
    Estimated,
}

impl Source {
    /// As metrics and logs say it.
    pub fn name(self) -> &'static str {
        match self {
            Source::Reported => "reported",
            Source::Counted => "counted",
            Source::Estimated => "estimated",
        }
    }
}

/// What a call is charged. The default is nothing: it never reached a replica.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Charge {
    /// As limits count it.
    pub amount: Amount,
    /// Tokens of the prompt that the replica had in its cache, as far as it says. They are charged like the others.
    pub cached: u64,
    /// Tokens of the answer that were reasoning, as far as the replica says. They are charged like the others.
    pub reasoning: u64,
    /// How it is known.
    pub source: Source,
    /// The replica reported what cannot be true.
    pub is_absurd: bool,
    /// What it reported beyond `amount`: usage says it, and no limit counts it.
    pub beyond: Amount,
}

impl Charge {
    /// As it is accounted; `None` if the call never reached a replica.
    pub(super) fn sum(&self) -> Option<UsageSum> {
        let Charge { amount: charged, cached, reasoning, source, is_absurd, beyond } = *self;
        let amount = Amount { input: charged.input + beyond.input, output: charged.output + beyond.output, ..charged };
        let of = |wanted: Source, value: u64| if source == wanted { value } else { 0 };
        let sum = UsageSum {
            calls: amount.requests,
            limited: 0,
            input: amount.input,
            cached,
            output: amount.output,
            reasoning,
            counted_calls: of(Source::Counted, amount.requests),
            counted: of(Source::Counted, amount.total()),
            estimated_calls: of(Source::Estimated, amount.requests),
            estimated: of(Source::Estimated, amount.total()),
            absurd_calls: u64::from(is_absurd),
        };
        (amount != Amount::default()).then_some(sum)
    }
}
