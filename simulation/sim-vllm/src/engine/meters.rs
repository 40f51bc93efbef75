//! The counters and histograms behind `/metrics`. Names and help texts are in `http::metrics`.

use std::time::Duration;

/// Buckets of vLLM's histograms.
pub(crate) mod buckets {
    pub(crate) const TOKENS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4];
    pub(crate) const ITERATION: &[f64] =
        &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];
    pub(crate) const COUNT: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0];
    pub(crate) const FIRST_TOKEN: &[f64] = &[
        0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
        160.0, 640.0, 2560.0,
    ];
    pub(crate) const BETWEEN_TOKENS: &[f64] =
        &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0];
    pub(crate) const REQUEST: &[f64] = &[
        0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
        1920.0, 7680.0,
    ];
}

/// A cumulative histogram as Prometheus reads it.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    pub(crate) bounds: &'static [f64],
    /// One more than bounds: the last is everything above.
    pub(crate) counts: Vec<u64>,
    pub(crate) sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    pub(crate) fn observe(&mut self, value: f64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.counts[at] += 1;
        self.sum += value;
    }
}

/// Everything an engine counts.
#[derive(Clone, Debug)]
pub(crate) struct Meters {
    pub(crate) prefix_queries: u64,
    pub(crate) prefix_hits: u64,
    pub(crate) preemptions: u64,
    /// Of prompts that brought a first token: an abort before that leaves no trace here.
    pub(crate) prompt_tokens: u64,
    /// The part of `prompt_tokens` that was in the prefix cache.
    pub(crate) prompt_cached: u64,
    pub(crate) generation_tokens: u64,
    /// Requests that ended, by reason: stop, length, abort, error.
    pub(crate) ended: [u64; 4],
    pub(crate) prompt_size: Histogram,
    pub(crate) generation_size: Histogram,
    pub(crate) iteration: Histogram,
    pub(crate) max_generation_size: Histogram,
    pub(crate) param_n: Histogram,
    pub(crate) param_max_tokens: Histogram,
    pub(crate) first_token: Histogram,
    pub(crate) between_tokens: Histogram,
    pub(crate) per_output_token: Histogram,
    pub(crate) end_to_end: Histogram,
    pub(crate) queue: Histogram,
    pub(crate) inference: Histogram,
    pub(crate) prefill: Histogram,
    pub(crate) decode: Histogram,
    pub(crate) prefill_computed: Histogram,
}

/// When one request passed its stages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passage {
    pub(crate) queue: Duration,
    pub(crate) prefill: Duration,
    pub(crate) decode: Duration,
    pub(crate) end_to_end: Duration,
}

impl Default for Meters {
    fn default() -> Self {
        let tokens = || Histogram::new(buckets::TOKENS);
        let request = || Histogram::new(buckets::REQUEST);
        Self {
            prefix_queries: 0,
            prefix_hits: 0,
            preemptions: 0,
            prompt_tokens: 0,
            prompt_cached: 0,
            generation_tokens: 0,
            ended: [0; 4],
            prompt_size: tokens(),
            generation_size: tokens(),
            iteration: Histogram::new(buckets::ITERATION),
            max_generation_size: tokens(),
            param_n: Histogram::new(buckets::COUNT),
            param_max_tokens: tokens(),
            first_token: Histogram::new(buckets::FIRST_TOKEN),
            between_tokens: Histogram::new(buckets::BETWEEN_TOKENS),
            per_output_token: Histogram::new(buckets::BETWEEN_TOKENS),
            end_to_end: request(),
            queue: request(),
            inference: request(),
            prefill: request(),
            decode: request(),
            prefill_computed: tokens(),
        }
    }
}

impl Meters {
    /// A request ended after producing `produced` tokens of its own accord.
    pub(super) fn ended_well(&mut self, prompt_tokens: usize, produced: usize, max_tokens: usize, passage: Passage) {
        self.prompt_size.observe(prompt_tokens as f64);
        self.generation_size.observe(produced as f64);
        self.max_generation_size.observe(produced as f64);
        self.param_n.observe(1.0);
        self.param_max_tokens.observe(max_tokens as f64);
        self.end_to_end.observe(passage.end_to_end.as_secs_f64());
        self.queue.observe(passage.queue.as_secs_f64());
        self.prefill.observe(passage.prefill.as_secs_f64());
        self.decode.observe(passage.decode.as_secs_f64());
        self.inference.observe((passage.prefill + passage.decode).as_secs_f64());
        if produced > 1 {
            self.per_output_token.observe(passage.decode.as_secs_f64() / (produced - 1) as f64);
        }
    }
}
