//! Randomness: identifiers, secrets, jitter, ties.

use std::sync::{Mutex, PoisonError};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

/// A source of random bytes.
pub trait Chance: Send + Sync + 'static {
    /// Overwrites `bytes` with random ones.
    fn fill(&self, bytes: &mut [u8]);

    /// A uniformly random number.
    fn u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A uniformly random number below `bound`, or 0 if `bound` is 0.
    fn below(&self, bound: u64) -> u64 {
        ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A random (version 4) UUID.
    fn uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

/// Cryptographic randomness: a generator per thread that the operating system seeds, again and again. Every request takes some, so
/// it does not ask the kernel each time.
#[derive(Debug, Clone, Copy)]
pub struct OsChance;

impl Chance for OsChance {
    fn fill(&self, bytes: &mut [u8]) {
        #[expect(clippy::disallowed_methods, reason = "the door for chance")]
        rand::rng().fill_bytes(bytes);
    }
}

/// Reproducible randomness for tests and simulations. Not for secrets.
#[derive(Debug)]
pub struct SeededChance(Mutex<SmallRng>);

impl SeededChance {
    /// Equal seeds give equal sequences.
    pub fn new(seed: u64) -> SeededChance {
        SeededChance(Mutex::new(SmallRng::seed_from_u64(seed)))
    }
}

impl Chance for SeededChance {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
    }
}
