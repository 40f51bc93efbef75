//! What a replica is told at its start: names, kind of model, engine sizes and speeds.
//!
//! Every default comes from one recorded server: an 8B model on one H200 with vLLM 0.26
//! (44,295 KV blocks of 16 tokens, 8,192 batched tokens a step, context 40,960).

use std::{fmt, time::Duration};

/// Slower than this is as slow as this.
const SPEED_MIN: f64 = 0.001;

/// A replica's settings. `Config::default()` is the recorded server with gpt-oss manners.
#[derive(Clone, Debug)]
pub struct Config {
    /// All chance (ids, texts, lengths, fault rates) is drawn from this.
    pub seed: u64,
    /// Served model names. Each is accepted; answers carry the first, as vLLM does.
    pub model_names: Vec<String>,
    /// Whether it generates text or embeds it.
    pub kind: Kind,
    /// Sizes of the engine: blocks, batch, sequences.
    pub engine: EngineParams,
    /// How long each piece of work takes.
    pub timing: Timing,
    /// How many times faster than `timing` the replica runs: 1.0 as recorded, 100.0 for quick tests.
    pub speed: f64,
    /// Unix time at which the replica starts; `created` and `date` are this plus tokio's elapsed time.
    pub start_unix_seconds: u64,
    /// How long connections are closed unanswered after the start (a real server does not listen while it loads).
    pub startup: Duration,
    /// With a key, paths under `/v1` and `/inference` want `Authorization: Bearer`; the rest stays open, as in vLLM.
    pub api_key: Option<ApiKey>,
    /// `--enable-request-id-headers`: answers carry `x-request-id`.
    pub enable_request_id_headers: bool,
    /// `--enable-prompt-tokens-details`: usage carries `prompt_tokens_details`.
    pub enable_prompt_tokens_details: bool,
    /// `--enable-server-load-tracking`: `/load` counts; without it `/load` stays 0.
    pub enable_server_load_tracking: bool,
    /// The render endpoints answer. The recorded version always has them; newer ones only with
    /// `VLLM_ENABLE_SCALE_OUT_ENDPOINTS=1`, else their paths are 404.
    pub scale_out_endpoints: bool,
    /// The model takes pictures. They come inside the request: one that is to be fetched is never reached.
    pub multimodal: bool,
    /// The model takes speech: transcriptions and translations are served, which otherwise are 404.
    pub audio: bool,
    /// Which HTTP front end's manner of dying to show.
    pub front_end: FrontEnd,
    /// The admin calls (`/sim/...`) answer; off leaves only what vLLM has.
    pub admin: bool,
}

/// What the model does.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A language model.
    Generative {
        /// Prompt and output together, in tokens.
        context_len: usize,
        /// Answers think first (`reasoning`, then `content`), as gpt-oss.
        reasoning: bool,
        /// `--enable-auto-tool-choice --tool-call-parser`; without it tools are refused.
        tool_parser: bool,
    },
    /// An embedding model.
    Embedding {
        /// Longest input, in tokens.
        context_len: usize,
        /// Length of a vector.
        dimensions: usize,
    },
}

impl Kind {
    /// The longest sequence, in tokens.
    pub fn context_len(&self) -> usize {
        match self {
            Self::Generative { context_len, .. } | Self::Embedding { context_len, .. } => *context_len,
        }
    }
}

/// Sizes of the engine.
#[derive(Clone, Debug)]
pub struct EngineParams {
    /// Tokens in one KV block.
    pub block_size: usize,
    /// KV blocks; one of them is never given out, as in vLLM.
    pub num_blocks: usize,
    /// Tokens that one step may compute.
    pub max_num_batched_tokens: usize,
    /// Sequences that may run at once; the others wait.
    pub max_num_seqs: usize,
    /// `--scheduling-policy priority`: lower `priority` first; off is first come, first served.
    pub priority_scheduling: bool,
}

/// What work costs. A step takes
/// `step + decodes + prefill`, and at least `prefill_step_min` when it computes any prompt token.
#[derive(Clone, Debug)]
pub struct Timing {
    /// HTTP, templating and engine wake-up before a request reaches the engine.
    pub front_end: Duration,
    /// The same, for each prompt token (tokenising, hashing), in nanoseconds.
    pub front_end_token_ns: f64,
    /// Reading the weights once: the floor of every step.
    pub step: Duration,
    /// Shortest step that computes prompt tokens (no captured graph for those).
    pub prefill_step_min: Duration,
    /// Each prompt token computed, in nanoseconds.
    pub prefill_token_ns: f64,
    /// Each (prompt token, earlier token) pair, in nanoseconds: what makes long prompts slower.
    pub prefill_pair_ns: f64,
    /// Each decoding sequence, in nanoseconds.
    pub decode_sequence_ns: f64,
    /// Each token of context of a decoding sequence, in nanoseconds.
    pub decode_context_ns: f64,
    /// The square of the number of decoding sequences, in nanoseconds: a busy front end slows big batches.
    pub decode_square_ns: f64,
}

/// Whose manner of dying is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontEnd {
    /// FastAPI: an error event and `[DONE]` when the engine dies, then the port closes.
    Python,
    /// `vllm-rs`: connections are cut, chunked bodies incomplete.
    Rust,
}

/// A secret that never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Whether an `Authorization` value (`Bearer KEY`, scheme in any case, one space) holds this key.
    pub(crate) fn admits(&self, authorization: &str) -> bool {
        authorization
            .split_once(' ')
            .is_some_and(|(scheme, key)| scheme.eq_ignore_ascii_case("bearer") && key == self.0)
    }
}

impl From<&str> for ApiKey {
    fn from(key: &str) -> Self {
        Self(key.to_owned())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            model_names: vec!["openai/gpt-oss-20b".to_owned()],
            kind: Kind::Generative { context_len: 40_960, reasoning: true, tool_parser: true },
            engine: EngineParams::default(),
            timing: Timing::default(),
            speed: 1.0,
            start_unix_seconds: 1_795_000_000,
            startup: Duration::ZERO,
            api_key: None,
            enable_request_id_headers: false,
            enable_prompt_tokens_details: true,
            enable_server_load_tracking: false,
            scale_out_endpoints: true,
            multimodal: false,
            audio: false,
            front_end: FrontEnd::Python,
            admin: true,
        }
    }
}

impl Config {
    /// The name that answers carry.
    pub fn model(&self) -> &str {
        self.model_names.first().map_or("", String::as_str)
    }

    /// A time at recorded speed, as it passes here.
    pub(crate) fn scaled(&self, time: Duration) -> Duration {
        time.div_f64(self.speed.max(SPEED_MIN))
    }

    /// Tokens of KV that can be held at once.
    pub fn kv_tokens(&self) -> usize {
        self.engine.num_blocks.saturating_sub(1) * self.engine.block_size
    }

    /// The longest sequence that is accepted: the model's context, and never more than the KV cache holds.
    pub fn context_len(&self) -> usize {
        self.kind.context_len().min(self.kv_tokens())
    }
}

impl Default for EngineParams {
    fn default() -> Self {
        Self {
            block_size: 16,
            num_blocks: 44_295,
            max_num_batched_tokens: 8_192,
            max_num_seqs: 1_024,
            priority_scheduling: false,
        }
    }
}

impl Default for Timing {
    /// Fitted to the recorded calibration; `tests/calibration.rs` holds it to 25 %.
    fn default() -> Self {
        Self {
            front_end: Duration::from_micros(7_000),
            front_end_token_ns: 1_800.0,
            step: Duration::from_micros(4_800),
            prefill_step_min: Duration::from_micros(13_000),
            prefill_token_ns: 21_700.0,
            prefill_pair_ns: 1.07,
            decode_sequence_ns: 10_000.0,
            decode_context_ns: 20.0,
            decode_square_ns: 50.0,
        }
    }
}
