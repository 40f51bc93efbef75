//! How many output tokens a call will need: what it asks for, unless that is far beyond what such calls usually need.

use std::sync::{Mutex, PoisonError};

use raft::state::{Usage, UsageSum};

use crate::routing::{AccessKey, Name};

/// What a caller asks for up to here is taken at its word.
const TRUSTED_MAX: u64 = 4096;
/// What a call is taken to need before any has taught better.
const COLD_START: f64 = 1024.0;
/// How fast the learnt size follows a larger output, and how slowly it forgets it: about one output in twenty is larger.
const RISE: f64 = 0.25;
const FALL: f64 = 0.015;
/// After so many outputs more is known than before the first. Until then each counts for half of what is known.
const HANDFUL: u32 = 5;
const HANDFUL_STEP: f64 = 0.5;
/// Rows of usage that are looked at for earlier calls, newest first: what is older says little of today, and callers wait for it.
const ROWS_MAX: usize = 10_000;
/// Few outputs are larger than so many times the mean.
const HIGH_OF_MEAN: f64 = 2.0;

/// A high size of the outputs of one subscription's calls to one model, in tokens.
#[derive(Default)]
pub(super) struct OutputSize(Mutex<Learnt>);

#[derive(Clone, Copy)]
struct Learnt {
    high: f64,
    /// From so many outputs; counted up to a handful.
    outputs: u32,
}

impl Default for Learnt {
    fn default() -> Learnt {
        Learnt { high: COLD_START, outputs: 0 }
    }
}

impl OutputSize {
    /// As the newest usage of the subscription and the model teaches it.
    pub(super) fn of_usage(usage: &Usage, key: &AccessKey) -> OutputSize {
        let name = |(namespace, name): &(String, String), wanted: &Name| {
            **namespace == *wanted.namespace && **name == *wanted.name
        };
        let mut sum = UsageSum::default();
        for ((_, labels), row) in usage.hours.iter().rev().take(ROWS_MAX) {
            let is_of_key = name(&labels.subscription, &key.subscription) && name(&labels.model, &key.model);
            if is_of_key && row.absurd_calls == 0 {
                sum.add(row);
            }
        }
        OutputSize(Mutex::new(Learnt::of(&sum)))
    }

    /// A call ended with so many output tokens.
    pub(super) fn learn(&self, output: u64) {
        let mut learnt = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *learnt = learnt.with(output);
    }

    /// What a call will need that asks for `asked` tokens, or does not say.
    pub(super) fn estimate(&self, asked: Option<u64>) -> u64 {
        let high = self.0.lock().unwrap_or_else(PoisonError::into_inner).high;
        estimate(high, asked)
    }
}

impl Learnt {
    /// From the sum of some calls.
    fn of(sum: &UsageSum) -> Learnt {
        if sum.calls == 0 {
            return Learnt::default();
        }
        let high = (HIGH_OF_MEAN * sum.output as f64 / sum.calls as f64).max(1.0);
        Learnt { high, outputs: u32::try_from(sum.calls).unwrap_or(HANDFUL).min(HANDFUL) }
    }

    fn with(self, output: u64) -> Learnt {
        let distance = output as f64 - self.high;
        let step = match distance > 0.0 {
            _ if self.outputs < HANDFUL => HANDFUL_STEP,
            true => RISE,
            false => FALL,
        };
        Learnt { high: self.high + distance * step, outputs: (self.outputs + 1).min(HANDFUL) }
    }
}

/// With `high` as the learnt size.
pub(super) fn estimate(high: f64, asked: Option<u64>) -> u64 {
    match asked {
        Some(asked) if asked <= TRUSTED_MAX => asked,
        Some(asked) => asked.min(TRUSTED_MAX.max((2.0 * high).ceil() as u64)),
        None => high.ceil().max(1.0) as u64,
    }
}

#[cfg(test)]
mod tests;
