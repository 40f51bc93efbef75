//! Every random decision of a run comes from its seed, through a stream with a name: one more draw in one place does not move
//! the draws of all others.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A stream of chance.
pub(crate) struct Chance(SmallRng);

impl Chance {
    /// The stream `name` of `seed`.
    pub(crate) fn of(seed: u64, name: &str) -> Chance {
        Chance(SmallRng::seed_from_u64(seed_of(seed, name)))
    }

    /// Uniform in `from..=to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        self.0.random_range(from..=to)
    }

    /// True in `percent` of a hundred cases.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.between(1, 100) <= percent
    }

    /// One of `items`, which must not be empty.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let last = items.len() as u64 - 1;
        &items[self.between(0, last) as usize]
    }
}

/// A seed for something else, by name.
pub(crate) fn seed_of(seed: u64, name: &str) -> u64 {
    xxh3_64_with_seed(name.as_bytes(), seed)
}
