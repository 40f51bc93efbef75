//! How many output tokens a call will need: what it asks for, unless that is far beyond what such calls usually need.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a caller asks for up to here is taken at its word.
const TRUSTED_MAX: u64 = 4096;
/// What a call is taken to need before any has taught better.
const COLD_START: f64 = 1024.0;
/// How fast the learnt size follows a larger output, and how slowly it forgets it: about one output in twenty is larger.
const RISE: f64 = 0.25;
const FALL: f64 = 0.015;

/// A high size of the outputs of one subscription's calls to one model, in tokens.
pub(super) struct OutputSize(AtomicU64);

impl Default for OutputSize {
    fn default() -> OutputSize {
        OutputSize(AtomicU64::new(COLD_START.to_bits()))
    }
}

impl OutputSize {
    /// A call ended with so many output tokens.
    pub(super) fn learn(&self, output: u64) {
        let learnt = |bits| Some(moved(f64::from_bits(bits), output).to_bits());
        // The closure never refuses, so neither does the update.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, learnt);
    }

    /// What a call will need that asks for `asked` tokens, or does not say.
    pub(super) fn estimate(&self, asked: Option<u64>) -> u64 {
        estimate(f64::from_bits(self.0.load(Ordering::Acquire)), asked)
    }
}

fn moved(high: f64, output: u64) -> f64 {
    let distance = output as f64 - high;
    high + distance * if distance > 0.0 { RISE } else { FALL }
}

/// With `high` as the learnt size.
pub(super) fn estimate(high: f64, asked: Option<u64>) -> u64 {
    match asked {
        Some(asked) if asked <= TRUSTED_MAX => asked,
        Some(asked) => asked.min(TRUSTED_MAX.max((2.0 * high).ceil() as u64)),
        None => high.ceil().max(1.0) as u64,
    }
}

/// The estimate of a call whose like has never been seen.
pub(super) fn cold(asked: Option<u64>) -> u64 {
    estimate(COLD_START, asked)
}

#[cfg(test)]
mod tests;
