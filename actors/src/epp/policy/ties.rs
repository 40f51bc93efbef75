//! The order of replicas with equal scores: random, and another one for each call, so that equals share the load.

/// A number that looks random: the splitmix64 generator's output for the state `state`.
pub(in crate::epp) fn mix(state: u64) -> u64 {
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Where the candidate at `index` stands among its equals.
pub(super) fn place(chance: u64, index: usize) -> u64 {
    mix(chance.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}
