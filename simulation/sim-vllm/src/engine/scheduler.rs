//! Who computes what in the next step: continuous batching with chunked prefill, as vLLM's V1 scheduler.
//!
//! Running sequences go first, in order of arrival; what is left of the step's token budget goes to waiting ones.
//! A running sequence that finds no KV block preempts the last one (it gives back its blocks, waits, and is computed
//! again); nobody is admitted in a step that preempted. Pure: it decides, [`super`] waits and delivers.

use std::collections::BTreeMap;

use super::{
    kv::{BlockId, BlockPool},
    timing::Load,
};
use crate::{chance, config::EngineParams};

/// One sequence: a prompt and the output that it is going to have.
pub(crate) struct Sequence {
    id: u64,
    priority: i64,
    prompt: Vec<u32>,
    output: Vec<u32>,
    /// Ends with its prompt (embeddings): no token is produced.
    pooling: bool,
    salt: u64,
    produced: usize,
    computed: usize,
    /// Tokens of the step in progress.
    scheduled: usize,
    aborted: bool,
    started: bool,
    blocks: Vec<BlockId>,
    /// Chained hashes of the full blocks known so far.
    hashes: Vec<u64>,
    remembered: usize,
}

/// What a step is.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) load: Load,
    /// Sequences that run for the first time.
    pub(crate) started: Vec<Started>,
    pub(crate) preempted: u64,
}

/// A sequence left the waiting queue for the first time.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) id: u64,
    pub(crate) prompt_tokens: usize,
    /// Prompt tokens found in the prefix cache: whole blocks, never the full prompt.
    pub(crate) cached_tokens: usize,
}

/// A sequence advanced by a step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Advance {
    pub(crate) id: u64,
    /// Tokens produced since the beginning.
    pub(crate) produced: usize,
    pub(crate) finished: bool,
}

/// The queues and the cache of one engine.
pub(crate) struct Scheduler {
    params: EngineParams,
    pool: BlockPool,
    running: Vec<Sequence>,
    /// By priority, then arrival.
    waiting: BTreeMap<(i64, u64), Sequence>,
}

impl Sequence {
    /// A sequence that will produce `output` after `prompt`. Equal prompts share blocks only under an equal `salt`.
    pub(crate) fn new(id: u64, priority: i64, prompt: Vec<u32>, output: Vec<u32>, salt: u64) -> Self {
        Self {
            id,
            priority,
            prompt,
            output,
            pooling: false,
            salt,
            produced: 0,
            computed: 0,
            scheduled: 0,
            aborted: false,
            started: false,
            blocks: Vec::new(),
            hashes: Vec::new(),
            remembered: 0,
        }
    }

    /// The same, for a prompt that is only read.
    pub(crate) fn pooling(id: u64, prompt: Vec<u32>, salt: u64) -> Self {
        Self { pooling: true, ..Self::new(id, 0, prompt, Vec::new(), salt) }
    }

    /// Tokens that exist: the prompt and what was produced.
    fn known(&self) -> usize {
        self.prompt.len() + self.produced
    }

    fn token(&self, at: usize) -> u32 {
        if at < self.prompt.len() { self.prompt[at] } else { self.output[at - self.prompt.len()] }
    }

    fn extend_hashes(&mut self, block_size: usize) {
        while (self.hashes.len() + 1) * block_size <= self.known() {
            let first = self.hashes.len() * block_size;
            let parent = self.hashes.last().copied().unwrap_or(self.salt);
            let tokens: Vec<u32> = (first..first + block_size).map(|at| self.token(at)).collect();
            self.hashes.push(chance::hash_tokens(&tokens, parent));
        }
    }

    /// Goes back to the start, keeping what was produced: it is computed again as if it were prompt.
    fn reset(&mut self, pool: &mut BlockPool) {
        pool.release(&mut self.blocks);
        self.computed = 0;
        self.scheduled = 0;
        self.remembered = 0;
    }
}

impl Scheduler {
    pub(crate) fn new(params: EngineParams) -> Self {
        let pool = BlockPool::new(params.num_blocks);
        Self { params, pool, running: Vec::new(), waiting: BTreeMap::new() }
    }

    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn kv_usage(&self) -> f64 {
        self.pool.usage()
    }

    /// Queues a sequence.
    pub(crate) fn add(&mut self, sequence: Sequence) {
        let priority = if self.params.priority_scheduling { sequence.priority } else { 0 };
        self.waiting.insert((priority, sequence.id), sequence);
    }

    /// Forgets a sequence; one that is being computed leaves at the end of the step. Whether it was known.
    pub(crate) fn abort(&mut self, id: u64) -> bool {
        if let Some(key) = self.waiting.iter().find(|(_, sequence)| sequence.id == id).map(|(key, _)| *key) {
            self.waiting.remove(&key);
            return true;
        }
        let Some(at) = self.running.iter().position(|sequence| sequence.id == id) else { return false };
        if self.running[at].scheduled > 0 {
            self.running[at].aborted = true;
        } else {
            let mut sequence = self.running.remove(at);
            sequence.reset(&mut self.pool);
        }
        true
    }

    /// Decides the next step, or nothing when there is nothing to compute.
    pub(crate) fn schedule(&mut self) -> Option<Step> {
        let mut step = Step::default();
        let mut budget = self.params.max_num_batched_tokens;
        self.schedule_running(&mut budget, &mut step);
        // With nobody left running, the preempted sequence itself is the one to admit.
        if step.preempted == 0 || self.running.is_empty() {
            self.schedule_waiting(&mut budget, &mut step);
        }
        for sequence in &self.running {
            if sequence.scheduled > 0 {
                let decode = sequence.scheduled == 1 && sequence.computed >= sequence.prompt.len();
                step.load.add(sequence.scheduled, sequence.computed, decode);
            }
        }
        (step.load.tokens() > 0).then_some(step)
    }

    /// Ends the step in progress: what was scheduled is now computed.
    pub(crate) fn complete(&mut self, advances: &mut Vec<Advance>) {
        let pool = &mut self.pool;
        self.running.retain_mut(|sequence| {
            sequence.computed += std::mem::take(&mut sequence.scheduled);
            if sequence.aborted {
                sequence.reset(pool);
                return false;
            }
            if sequence.computed < sequence.known() {
                return true;
            }
            if !sequence.pooling {
                sequence.produced += 1;
            }
            let finished = sequence.produced >= sequence.output.len();
            advances.push(Advance { id: sequence.id, produced: sequence.produced, finished });
            if finished {
                sequence.reset(pool);
            }
            !finished
        });
    }

    fn schedule_running(&mut self, budget: &mut usize, step: &mut Step) {
        let mut at = 0;
        while at < self.running.len() && *budget > 0 {
            let wanted = (self.running[at].known() - self.running[at].computed).min(*budget);
            if self.grow(at, wanted) {
                *budget -= wanted;
                at += 1;
                continue;
            }
            let victim = self.victim();
            let mut sequence = self.running.remove(victim);
            *budget += sequence.scheduled;
            sequence.reset(&mut self.pool);
            step.preempted += 1;
            self.add(sequence);
            if victim < at {
                at -= 1;
            }
        }
    }

    /// The sequence that gives way: the last to arrive, among the least important ones under priority scheduling.
    fn victim(&self) -> usize {
        let last = self.running.len() - 1;
        if !self.params.priority_scheduling {
            return last;
        }
        (0..=last).max_by_key(|at| (self.running[*at].priority, self.running[*at].id)).unwrap_or(last)
    }

    fn schedule_waiting(&mut self, budget: &mut usize, step: &mut Step) {
        while *budget > 0 && self.running.len() < self.params.max_num_seqs {
            let Some((key, mut sequence)) = self.waiting.pop_first() else { return };
            let block_size = self.params.block_size;
            sequence.extend_hashes(block_size);
            let reusable = (sequence.known() - 1) / block_size;
            let reused = self.pool.find(&sequence.hashes[..reusable.min(sequence.hashes.len())]);
            let cached = reused.len() * block_size;
            let wanted = (sequence.known() - cached).min(*budget);
            let fresh = (cached + wanted).div_ceil(block_size) - reused.len();
            if !self.pool.has_room(&reused, fresh) {
                self.waiting.insert(key, sequence);
                return;
            }
            self.pool.reuse(&reused);
            sequence.remembered = reused.len();
            sequence.blocks = reused;
            sequence.computed = cached;
            if !sequence.started {
                sequence.started = true;
                step.started.push(Started {
                    id: sequence.id,
                    prompt_tokens: sequence.prompt.len(),
                    cached_tokens: cached,
                });
            }
            self.running.push(sequence);
            self.grow(self.running.len() - 1, wanted);
            *budget -= wanted;
        }
    }

    /// Gives a running sequence the blocks for `wanted` more tokens and schedules them; false when there is no room.
    fn grow(&mut self, at: usize, wanted: usize) -> bool {
        let block_size = self.params.block_size;
        let sequence = &mut self.running[at];
        let after = sequence.computed + wanted;
        let fresh = after.div_ceil(block_size).saturating_sub(sequence.blocks.len());
        if !self.pool.has_room(&[], fresh) {
            return false;
        }
        sequence.blocks.extend((0..fresh).map_while(|_| self.pool.take()));
        sequence.scheduled = wanted;
        sequence.extend_hashes(block_size);
        // A block is findable from the moment it is scheduled: equal prompts in one step share it, as in vLLM.
        while sequence.remembered < after / block_size {
            self.pool.remember(sequence.blocks[sequence.remembered], sequence.hashes[sequence.remembered]);
            sequence.remembered += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduler(num_blocks: usize) -> Scheduler {
        Scheduler::new(EngineParams { num_blocks, max_num_batched_tokens: 64, ..EngineParams::default() })
    }

    fn prompt(length: u32, first: u32) -> Vec<u32> {
        (first..first + length).collect()
    }

    /// Steps until nothing is left; returns (steps, preemptions, produced per finished id).
    fn drain(scheduler: &mut Scheduler) -> (usize, u64, Vec<(u64, usize)>) {
        let (mut steps, mut preempted, mut finished) = (0, 0, Vec::new());
        while let Some(step) = scheduler.schedule() {
            steps += 1;
            preempted += step.preempted;
            let mut advances = Vec::new();
            scheduler.complete(&mut advances);
            finished.extend(advances.iter().filter(|a| a.finished).map(|a| (a.id, a.produced)));
            assert!(steps < 10_000, "the engine never comes to an end");
        }
        (steps, preempted, finished)
    }

    #[test]
    fn a_long_prompt_is_computed_in_chunks_beside_running_decodes() {
        let mut scheduler = scheduler(100);
        scheduler.add(Sequence::new(1, 0, prompt(10, 0), vec![7; 10], 0));
        let step = scheduler.schedule().unwrap();
        assert_eq!(step.load.prefill_tokens, 10);
        scheduler.complete(&mut Vec::new());

        // 150 tokens in steps of 64, of which one goes to the decode.
        scheduler.add(Sequence::new(2, 0, prompt(150, 500), vec![7; 2], 0));
        for expected in [63, 63, 24] {
            let step = scheduler.schedule().unwrap();
            assert_eq!((step.load.decodes, step.load.prefill_tokens), (1, expected));
            scheduler.complete(&mut Vec::new());
        }
    }

    #[test]
    fn a_repeated_prompt_hits_whole_blocks_and_never_all_of_it() {
        for (length, cached) in [(15, 0), (16, 0), (17, 16), (32, 16), (40, 32), (64, 48)] {
            let mut scheduler = scheduler(100);
            scheduler.add(Sequence::new(1, 0, prompt(length, 0), vec![7; 1], 0));
            drain(&mut scheduler);
            scheduler.add(Sequence::new(2, 0, prompt(length, 0), vec![7; 1], 0));
            assert_eq!(scheduler.schedule().unwrap().started[0].cached_tokens, cached, "prompt of {length}");
            scheduler.complete(&mut Vec::new());
            scheduler.add(Sequence::new(3, 0, prompt(length, 0), vec![7; 1], 99));
            assert_eq!(scheduler.schedule().unwrap().started[0].cached_tokens, 0, "another salt");
        }
    }

    #[test]
    fn a_full_cache_preempts_and_still_finishes_every_sequence() {
        // 9 usable blocks of 16 = 144 tokens for 4 sequences of 20 + 60.
        let mut scheduler = scheduler(10);
        for id in 1..=4 {
            scheduler.add(Sequence::new(id, 0, prompt(20, 1000 * id as u32), vec![7; 60], 0));
        }
        let (_, preempted, mut finished) = drain(&mut scheduler);
        assert!(preempted > 0);
        finished.sort_unstable();
        assert_eq!(finished, [(1, 60), (2, 60), (3, 60), (4, 60)]);
        assert_eq!(scheduler.kv_usage(), 0.0);
    }

    #[test]
    fn under_priority_the_lower_number_goes_first() {
        let params = EngineParams { max_num_seqs: 1, priority_scheduling: true, ..EngineParams::default() };
        let mut scheduler = Scheduler::new(params);
        for (id, priority) in [(1, 5), (2, 0), (3, 5), (4, -1)] {
            scheduler.add(Sequence::new(id, priority, prompt(4, 0), vec![7; 2], 0));
        }
        let (_, _, finished) = drain(&mut scheduler);
        assert_eq!(finished.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [4, 2, 1, 3]);
    }

    #[test]
    fn an_abort_in_a_step_frees_its_blocks_when_the_step_ends() {
        let mut scheduler = scheduler(100);
        scheduler.add(Sequence::new(1, 0, prompt(40, 0), vec![7; 60], 0));
        scheduler.schedule().unwrap();
        assert!(scheduler.abort(1));
        assert!(scheduler.kv_usage() > 0.0);
        let mut advances = Vec::new();
        scheduler.complete(&mut advances);
        assert_eq!((scheduler.running(), scheduler.kv_usage(), advances.len()), (0, 0.0, 0));
        assert!(!scheduler.abort(1));
    }
}
