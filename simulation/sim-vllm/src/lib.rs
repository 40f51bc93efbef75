//! A vLLM replica that behaves like one: the same HTTP, the same errors, a believable engine.
//!
//! `tollgate dev`, tests, benchmarks and the simulation put it where a GPU would be. It was built against recordings
//! of a real server (vLLM 0.26, one H200), and its tests compare it with them.
//!
//! - **HTTP**: chat, completions, responses, messages, embeddings, pooling, score and rerank, transcriptions and translations,
//!   tokenizer, rendering of chats and completions, models, health, load, version and metrics; errors, headers, streams and usage in
//!   the recorded shapes. Not recorded, but made after vLLM's sources: `/v1/completions/render`, speech, and embeddings as bytes.
//! - **Engine**: chunked prefill, continuous batching, KV blocks with prefix cache and preemption, timed by the
//!   recorded calibration.
//! - **Answers**: plausible words, exactly as many tokens as usage says, `reasoning` before `content`, tool calls and
//!   structured outputs that satisfy their schemas.
//! - **Faults**: table in [`fault`]; the deaths are methods of [`Replica`].
//!
//! All time is tokio's (so paused and simulated time work), all chance comes from [`Config::seed`]; there are no
//! threads and no global state. Two replicas with one seed and the same requests give the same bytes.
//!
//! # Left out, and why
//!
//! - LoRA adapters, beam search and classification models: no route of the gateway uses them. Pictures are counted, never
//!   looked at; speech is as long as its file says, which must be WAV, and is never listened to.
//! - Embeddings in 8-bit floats.
//! - The `generate`, `derender`, `batch`, developer and elastic endpoints, and rendering of responses and messages: a
//!   gateway needs none of them, and probes of them get the 404 that a closed server gives.
//! - KV events over ZMQ: prefix knowledge is learnt from the traffic.
//! - Exact validation texts: statuses, envelopes and parameter names are kept, the sentences of pydantic are not.
//! - Regex and grammar guided output is prose; only JSON schemas and choices are honoured.
//! - The Rust front end's own statuses and texts (off by default in vLLM): of it only the manner of dying is shown.
//! - TLS and HTTP/2: vLLM behind a gateway speaks plain HTTP/1.1.

mod chance;
mod config;
mod engine;
pub mod fault;
mod http;
mod replica;
mod schema;
mod script;
mod text;
mod words;

pub use crate::{
    config::{ApiKey, Config, EngineParams, FrontEnd, Kind, Timing},
    engine::records::{Outcome, RequestRecord, Stats},
    fault::{Fault, FaultKind, Lie},
    http::prompt_tokens,
    replica::Replica,
};
