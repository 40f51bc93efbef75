//! A prompt as a chain of hashes: equal prefixes have equal hashes, so a replica that served one holds the other's blocks.
//!
//! The index remembers which replica was sent which blocks, as far as the replica's cache reaches. It is written at the
//! pick, not at the answer: the next call of a burst must already find the first one's replica.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use lru::LruCache;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Bytes of a prompt in one block.
const BLOCK_BYTES: usize = 256;
/// Tokens in one block, at four bytes each.
pub(super) const BLOCK_TOKENS: u64 = 64;
/// Blocks looked at: 512 KiB of prompt, about 131,072 tokens. What two prompts share beyond it changes no choice.
const BLOCKS_MAX: u16 = 2048;
/// What a replica is taken to hold until it tells its capacity, in blocks.
const CAPACITY_DEFAULT: u64 = 31_250;
/// Replicas of one pool that the index tells apart. Those beyond it are served without affinity.
pub(super) const SLOTS_MAX: usize = 128;

/// Hashes of a prompt's growing prefixes, in blocks of 256 bytes (about 64 tokens): of every block at first, then at growing
/// distances. A prefix is known to an eighth of its length, and a prompt of 220 KB takes 79 entries of the index instead of 880.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixHashes(Vec<Step>);

/// One of the prefixes of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    hash: u64,
    /// Its length in blocks.
    end: u16,
    /// How many blocks it is longer than the one before it.
    blocks: u16,
}

/// Whether the prefix of so many blocks is hashed on its own.
fn is_step(end: u16) -> bool {
    match end {
        0..=32 => true,
        33..=256 => end.is_multiple_of(8),
        _ => end.is_multiple_of(32),
    }
}

impl PrefixHashes {
    /// Hashes `prompt` as sent to `model`, kept apart by `salt` (`cache_salt`). Only whole blocks count.
    pub fn of(model: &str, salt: &str, prompt: &[u8]) -> PrefixHashes {
        let mut hash = xxh3_64_with_seed(salt.as_bytes(), xxh3_64(model.as_bytes()));
        let mut steps = Vec::new();
        let mut before = 0;
        for (end, block) in (1..=BLOCKS_MAX).zip(prompt.chunks_exact(BLOCK_BYTES)) {
            hash = xxh3_64_with_seed(block, hash);
            if is_step(end) {
                steps.push(Step { hash, end, blocks: end - before });
                before = end;
            }
        }
        PrefixHashes(steps)
    }

    /// The longest prefix, in blocks.
    pub(super) fn blocks(&self) -> u16 {
        self.0.last().map_or(0, |step| step.end)
    }
}

/// The keys are hashes already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

type BuildAsIs = BuildHasherDefault<AsIs>;

/// Which slot (replica of a pool) holds which blocks.
#[derive(Default)]
pub(super) struct PrefixIndex {
    /// A bit per slot.
    holders: HashMap<u64, u128, BuildAsIs>,
    slots: HashMap<u8, Slot>,
}

struct Slot {
    /// Prefixes it holds, each with the blocks it adds to the one before; least recently used first out.
    steps: LruCache<u64, u16, BuildAsIs>,
    /// In blocks.
    held: u64,
    /// In blocks.
    capacity: u64,
}

/// For each slot, how many blocks from the start of a prompt it holds without a gap.
pub(super) struct Matches([u16; SLOTS_MAX]);

impl Matches {
    /// Of the slot, if it has one.
    pub(super) fn of(&self, slot: Option<u8>) -> u16 {
        slot.and_then(|slot| self.0.get(usize::from(slot))).copied().unwrap_or(0)
    }
}

impl PrefixIndex {
    /// Walks the chain until nobody holds the next block.
    pub(super) fn matches(&self, prefix: &PrefixHashes) -> Matches {
        let mut lengths = [0; SLOTS_MAX];
        let mut holding = u128::MAX;
        for step in &prefix.0 {
            holding &= self.holders.get(&step.hash).copied().unwrap_or(0);
            if holding == 0 {
                break;
            }
            let mut left = holding;
            while left != 0 {
                lengths[left.trailing_zeros() as usize] = step.end;
                left &= left - 1;
            }
        }
        Matches(lengths)
    }

    /// `slot` is about to hold the prompt's blocks.
    pub(super) fn note(&mut self, slot: u8, prefix: &PrefixHashes) {
        let bit = bit(slot);
        let held = self.slots.entry(slot).or_insert_with(Slot::new);
        // The longest first, so that a chain loses its tail before its head: without the head the rest is worth nothing.
        for step in prefix.0.iter().rev() {
            if held.steps.put(step.hash, step.blocks).is_none() {
                held.held += u64::from(step.blocks);
                *self.holders.entry(step.hash).or_default() |= bit;
            }
        }
        self.evict(slot);
    }

    /// `slot` can hold so many tokens.
    pub(super) fn resize(&mut self, slot: u8, tokens: u64) {
        self.slots.entry(slot).or_insert_with(Slot::new).capacity = (tokens / BLOCK_TOKENS).max(1);
        self.evict(slot);
    }

    /// `slot` holds nothing any more: its replica was started anew or is gone.
    pub(super) fn clear(&mut self, slot: u8) {
        let Some(held) = self.slots.remove(&slot) else { return };
        for (hash, _) in &held.steps {
            release(&mut self.holders, *hash, bit(slot));
        }
    }

    fn evict(&mut self, slot: u8) {
        let Some(held) = self.slots.get_mut(&slot) else { return };
        while held.held > held.capacity {
            let Some((hash, blocks)) = held.steps.pop_lru() else { return };
            held.held -= u64::from(blocks);
            release(&mut self.holders, hash, bit(slot));
        }
    }
}

impl Slot {
    fn new() -> Slot {
        Slot { steps: LruCache::unbounded_with_hasher(BuildAsIs::default()), held: 0, capacity: CAPACITY_DEFAULT }
    }
}

fn bit(slot: u8) -> u128 {
    1_u128.checked_shl(u32::from(slot)).unwrap_or(0)
}

fn release(holders: &mut HashMap<u64, u128, BuildAsIs>, hash: u64, bit: u128) {
    if let Some(held_by) = holders.get_mut(&hash) {
        *held_by &= !bit;
        if *held_by == 0 {
            holders.remove(&hash);
        }
    }
}

#[cfg(test)]
mod tests;
