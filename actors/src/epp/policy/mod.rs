//! The policy: which replica is best for a call, second best, and so on. Pure.

mod score;
mod ties;

pub(super) use score::{Candidate, Observed};
pub(super) use ties::mix;

/// The indexes of `candidates`, best first. Equals are in an order that `chance` (a random number) decides.
pub(super) fn rank(candidates: &[Candidate], chance: u64) -> Vec<usize> {
    let scores = score::scores(candidates);
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|&a, &b| {
        let by_score = scores[b].total_cmp(&scores[a]);
        by_score.then_with(|| ties::place(chance, a).cmp(&ties::place(chance, b)))
    });
    order
}

#[cfg(test)]
mod tests;
