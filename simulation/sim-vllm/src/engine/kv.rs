//! The KV cache: blocks with reference counts, found again by hash, evicted least recently used first.
//!
//! A block that nobody uses keeps its contents and its hash until it is given out again, so a cache
//! that looks empty (`usage` 0) can still hit. Pure: no clock, no chance.

use std::collections::HashMap;

use xxhash_rust::xxh3::Xxh3DefaultBuilder;

/// Where a block is in the pool.
pub(crate) type BlockId = u32;

/// End of the free list.
const NONE: BlockId = BlockId::MAX;

/// All blocks of one engine.
pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    /// Looked up by key, never iterated.
    by_hash: HashMap<u64, BlockId, Xxh3DefaultBuilder>,
    /// The block that is evicted next.
    oldest: BlockId,
    newest: BlockId,
    free: usize,
}

#[derive(Clone, Copy)]
struct Block {
    users: u32,
    hash: Option<u64>,
    older: BlockId,
    newer: BlockId,
}

impl BlockPool {
    /// A pool of `num_blocks`, of which one is never given out.
    pub(crate) fn new(num_blocks: usize) -> Self {
        let usable = num_blocks.saturating_sub(1);
        let empty = Block { users: 0, hash: None, older: NONE, newer: NONE };
        let mut pool =
            Self { blocks: vec![empty; usable], by_hash: HashMap::default(), oldest: NONE, newest: NONE, free: 0 };
        for id in 0..usable {
            pool.push_free(id as BlockId);
        }
        pool
    }

    /// The share of blocks in use, 0.0 to 1.0.
    pub(crate) fn usage(&self) -> f64 {
        if self.blocks.is_empty() { 0.0 } else { 1.0 - self.free as f64 / self.blocks.len() as f64 }
    }

    /// The blocks that hold the longest known prefix of `hashes`.
    pub(crate) fn find(&self, hashes: &[u64]) -> Vec<BlockId> {
        hashes.iter().map_while(|hash| self.by_hash.get(hash).copied()).collect()
    }

    /// Whether `reused` can be taken and `fresh` more be given out.
    pub(crate) fn has_room(&self, reused: &[BlockId], fresh: usize) -> bool {
        let idle = reused.iter().filter(|id| self.blocks[**id as usize].users == 0).count();
        self.free >= idle + fresh
    }

    /// Takes blocks that already hold what is needed.
    pub(crate) fn reuse(&mut self, reused: &[BlockId]) {
        for id in reused {
            if self.blocks[*id as usize].users == 0 {
                self.unlink_free(*id);
            }
            self.blocks[*id as usize].users += 1;
        }
    }

    /// Gives out the least recently used free block, forgetting what it held.
    pub(crate) fn take(&mut self) -> Option<BlockId> {
        let id = self.oldest;
        if id == NONE {
            return None;
        }
        self.unlink_free(id);
        let block = &mut self.blocks[id as usize];
        block.users = 1;
        if let Some(hash) = block.hash.take() {
            self.by_hash.remove(&hash);
        }
        Some(id)
    }

    /// Makes a full block findable. The first block with a hash keeps it.
    pub(crate) fn remember(&mut self, id: BlockId, hash: u64) {
        let block = &mut self.blocks[id as usize];
        if block.hash.is_none() && !self.by_hash.contains_key(&hash) {
            block.hash = Some(hash);
            self.by_hash.insert(hash, id);
        }
    }

    /// Gives blocks back, the last ones first, so that a prefix outlives its tail.
    pub(crate) fn release(&mut self, blocks: &mut Vec<BlockId>) {
        while let Some(id) = blocks.pop() {
            let block = &mut self.blocks[id as usize];
            block.users -= 1;
            if block.users == 0 {
                self.push_free(id);
            }
        }
    }

    fn push_free(&mut self, id: BlockId) {
        let older = self.newest;
        self.blocks[id as usize].older = older;
        self.blocks[id as usize].newer = NONE;
        if older == NONE {
            self.oldest = id;
        } else {
            self.blocks[older as usize].newer = id;
        }
        self.newest = id;
        self.free += 1;
    }

    fn unlink_free(&mut self, id: BlockId) {
        let Block { older, newer, .. } = self.blocks[id as usize];
        if older == NONE {
            self.oldest = newer;
        } else {
            self.blocks[older as usize].newer = newer;
        }
        if newer == NONE {
            self.newest = older;
        } else {
            self.blocks[newer as usize].older = older;
        }
        self.free -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_block_is_found_until_it_is_the_oldest_and_needed() {
        // Four usable blocks: two hold a prefix and are given back.
        let mut pool = BlockPool::new(5);
        let mut held = vec![pool.take().unwrap(), pool.take().unwrap()];
        pool.remember(held[0], 10);
        pool.remember(held[1], 11);
        pool.release(&mut held);
        assert_eq!(pool.usage(), 0.0);
        assert_eq!(pool.find(&[10, 11, 12]).len(), 2);

        // The never used blocks go first, then the tail of the prefix, then its head.
        let _others = [pool.take().unwrap(), pool.take().unwrap()];
        assert_eq!(pool.find(&[10, 11]).len(), 2);
        pool.take().unwrap();
        assert_eq!(pool.find(&[10, 11]).len(), 1);
        pool.take().unwrap();
        assert_eq!(pool.find(&[10, 11]).len(), 0);
        assert!(pool.take().is_none());
        assert_eq!(pool.usage(), 1.0);
    }

    #[test]
    fn a_block_in_use_by_two_is_free_after_both_gave_it_back() {
        let mut pool = BlockPool::new(3);
        let mut first = vec![pool.take().unwrap()];
        pool.remember(first[0], 7);
        let mut second = pool.find(&[7]);
        assert!(pool.has_room(&second, 1));
        assert!(!pool.has_room(&second, 2));
        pool.reuse(&second);
        pool.release(&mut first);
        assert_eq!(pool.usage(), 0.5);
        pool.release(&mut second);
        assert_eq!(pool.usage(), 0.0);
    }
}
