//! A prompt as a chain of hashes: equal prefixes have equal hashes, so a replica that served one holds the other's blocks.
//!
//! The index remembers which replica was sent which blocks, as far as the replica's cache reaches. It is written at the
//! pick, not at the answer: the next call of a burst must already find the first one's replica.

use std::collections::HashMap;

use lru::LruCache;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Bytes of a prompt in one block.
const BLOCK_BYTES: usize = 256;
/// Tokens in one block, at four bytes each.
pub(super) const BLOCK_TOKENS: u64 = 64;
/// Blocks looked at: 512 KiB of prompt, about 131,072 tokens. What two prompts share beyond it changes no choice.
const BLOCKS_MAX: usize = 2048;
/// What a replica is taken to hold until it tells its capacity, in blocks.
const CAPACITY_DEFAULT: usize = 31_250;
/// Replicas of one pool that the index tells apart. Those beyond it are served without affinity.
pub(super) const SLOTS_MAX: usize = 128;

/// Hashes of a prompt's growing prefixes, one per block of 256 bytes (about 64 tokens).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixHashes(pub(crate) Vec<u64>);

impl PrefixHashes {
    /// Hashes `prompt` as sent to `model`, kept apart by `salt` (`cache_salt`). Only whole blocks count.
    pub fn of(model: &str, salt: &str, prompt: &[u8]) -> PrefixHashes {
        let mut hash = xxh3_64_with_seed(salt.as_bytes(), xxh3_64(model.as_bytes()));
        let blocks = prompt.chunks_exact(BLOCK_BYTES).take(BLOCKS_MAX);
        let chain = blocks.map(|block| {
            hash = xxh3_64_with_seed(block, hash);
            hash
        });
        PrefixHashes(chain.collect())
    }
}

/// Which slot (replica of a pool) holds which blocks.
#[derive(Default)]
pub(super) struct PrefixIndex {
    /// A bit per slot.
    holders: HashMap<u64, u128>,
    slots: HashMap<u8, Slot>,
}

struct Slot {
    /// Least recently used first out.
    blocks: LruCache<u64, ()>,
    capacity: usize,
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
        for (block, hash) in (1..).zip(&prefix.0) {
            holding &= self.holders.get(hash).copied().unwrap_or(0);
            if holding == 0 {
                break;
            }
            let mut left = holding;
            while left != 0 {
                lengths[left.trailing_zeros() as usize] = block;
                left &= left - 1;
            }
        }
        Matches(lengths)
    }

    /// `slot` is about to hold the prompt's blocks.
    pub(super) fn note(&mut self, slot: u8, prefix: &PrefixHashes) {
        let bit = bit(slot);
        let held = self.slots.entry(slot).or_insert_with(Slot::new);
        // The last block first, so that a chain loses its tail before its head: without the head the rest is worth nothing.
        for hash in prefix.0.iter().rev() {
            if held.blocks.put(*hash, ()).is_none() {
                *self.holders.entry(*hash).or_default() |= bit;
            }
        }
        self.evict(slot);
    }

    /// `slot` can hold so many tokens.
    pub(super) fn resize(&mut self, slot: u8, tokens: u64) {
        let blocks = usize::try_from(tokens / BLOCK_TOKENS).unwrap_or(usize::MAX).max(1);
        self.slots.entry(slot).or_insert_with(Slot::new).capacity = blocks;
        self.evict(slot);
    }

    /// `slot` holds nothing any more: its replica was started anew or is gone.
    pub(super) fn clear(&mut self, slot: u8) {
        let Some(held) = self.slots.remove(&slot) else { return };
        for (hash, ()) in &held.blocks {
            release(&mut self.holders, *hash, bit(slot));
        }
    }

    fn evict(&mut self, slot: u8) {
        let Some(held) = self.slots.get_mut(&slot) else { return };
        while held.blocks.len() > held.capacity {
            let Some((hash, ())) = held.blocks.pop_lru() else { return };
            release(&mut self.holders, hash, bit(slot));
        }
    }
}

impl Slot {
    fn new() -> Slot {
        Slot { blocks: LruCache::unbounded(), capacity: CAPACITY_DEFAULT }
    }
}

fn bit(slot: u8) -> u128 {
    1_u128.checked_shl(u32::from(slot)).unwrap_or(0)
}

fn release(holders: &mut HashMap<u64, u128>, hash: u64, bit: u128) {
    if let Some(held_by) = holders.get_mut(&hash) {
        *held_by &= !bit;
        if *held_by == 0 {
            holders.remove(&hash);
        }
    }
}

#[cfg(test)]
mod tests;
