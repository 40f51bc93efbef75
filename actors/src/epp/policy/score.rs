//! The scores of llm-d's default profile, weighted 2-2-3: short queue, free KV cache, prompt already cached. Pure.

use std::time::Duration;

const WEIGHT_QUEUE: f64 = 2.0;
const WEIGHT_KV: f64 = 2.0;
const WEIGHT_PREFIX: f64 = 3.0;

/// What the policy knows of one replica.
#[derive(Clone, Copy, Debug)]
pub(in crate::epp) struct Candidate {
    /// Calls waiting there, this node's own corrections included.
    pub(in crate::epp) waiting: f64,
    /// KV-cache use, 0 to 1.
    pub(in crate::epp) kv_usage: f64,
    /// Share of the prompt's blocks it holds, 0 to 1.
    pub(in crate::epp) cached: f64,
}

/// What a replica last reported, and what this node did since.
#[derive(Clone, Copy, Debug)]
pub(in crate::epp) struct Observed {
    /// Calls waiting, as reported.
    pub(in crate::epp) waiting: f64,
    /// KV-cache use, as reported.
    pub(in crate::epp) kv_usage: f64,
    /// Capacity of the KV cache in tokens; 0 if unknown.
    pub(in crate::epp) capacity_tokens: u64,
    /// How old the report is.
    pub(in crate::epp) age: Duration,
    /// This node's calls there that started after the report and have not ended.
    pub(in crate::epp) unseen_calls: u64,
    /// Tokens of prompts this node sent there after the report.
    pub(in crate::epp) unseen_tokens: u64,
    /// All of this node's calls there.
    pub(in crate::epp) in_flight: u64,
}

/// Reports younger than this count in full.
const FRESH: Duration = Duration::from_secs(2);
/// Beyond that their weight halves in so long: an old number must not send everybody to the same place, nor stop anybody.
const HALF_LIFE_SECONDS: f64 = 5.0;

impl Observed {
    /// The report corrected by what this node did since; the older it is, the more its own count replaces it.
    pub(in crate::epp) fn load(&self) -> (f64, f64) {
        let weight = match self.age.checked_sub(FRESH) {
            None => 1.0,
            Some(stale) => 0.5_f64.powf(stale.as_secs_f64() / HALF_LIFE_SECONDS),
        };
        let waiting = weight * (self.waiting + self.unseen_calls as f64) + (1.0 - weight) * self.in_flight as f64;
        let arriving = match self.capacity_tokens {
            0 => 0.0,
            capacity => self.unseen_tokens as f64 / capacity as f64,
        };
        (waiting, (weight * self.kv_usage + arriving).clamp(0.0, 1.0))
    }
}

/// The score of each candidate; the highest is the best.
pub(super) fn scores(candidates: &[Candidate]) -> Vec<f64> {
    let least = candidates.iter().map(|candidate| candidate.waiting).fold(f64::INFINITY, f64::min);
    let most = candidates.iter().map(|candidate| candidate.waiting).fold(f64::NEG_INFINITY, f64::max);
    candidates.iter().map(|candidate| score(candidate, least, most)).collect()
}

fn score(candidate: &Candidate, least: f64, most: f64) -> f64 {
    let queue = if most > least { (most - candidate.waiting) / (most - least) } else { 1.0 };
    WEIGHT_QUEUE * queue + WEIGHT_KV * (1.0 - candidate.kv_usage) + WEIGHT_PREFIX * candidate.cached
}

#[cfg(test)]
mod tests;
