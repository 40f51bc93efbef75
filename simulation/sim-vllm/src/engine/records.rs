//! What became of each request: what tests ask a replica afterwards ("did it see the abort, and when?").

use std::{collections::VecDeque, time::Duration};

use serde::Serialize;

/// Ended requests that are remembered; older ones are forgotten.
const REMEMBERED_MAX: usize = 8_192;

/// A replica at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Stats {
    /// Sequences in the batch.
    pub running: usize,
    /// Sequences that wait for room.
    pub waiting: usize,
    /// Requests on their way to the engine (being tokenised).
    pub arriving: usize,
    /// KV cache in use, 0.0 to 1.0.
    pub kv_usage: f64,
    /// Times a sequence lost its KV blocks to another.
    pub preemptions: u64,
    /// Prompt tokens found in the prefix cache.
    pub prefix_hit_tokens: u64,
    /// Prompt tokens of all requests that brought a first token, as vLLM counts them.
    pub prompt_tokens: u64,
    /// Tokens produced.
    pub generation_tokens: u64,
    /// The requests in progress, then the last 8,192 that ended, oldest first.
    pub requests: Vec<RequestRecord>,
}

/// One sequence: a request with `n` or several prompts has several records.
#[derive(Clone, Debug, Serialize)]
pub struct RequestRecord {
    /// The id that the answer carries, e.g. `chatcmpl-...`; it holds the caller's `x-request-id` if there was one.
    pub request_id: String,
    /// `x-client-request-id` of the request, which vLLM takes no notice of; empty without one.
    pub client_id: String,
    /// Length of the prompt.
    pub prompt_tokens: usize,
    /// Prompt tokens found in the prefix cache.
    pub cached_tokens: usize,
    /// Tokens produced so far.
    pub produced_tokens: usize,
    /// What became of it.
    pub outcome: Outcome,
    /// When it arrived, since the start of the replica, in seconds.
    pub arrived_seconds: f64,
    /// When it ended, since the start of the replica, in seconds.
    pub ended_seconds: Option<f64>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It waits or runs.
    Open,
    /// It produced all of its output.
    Finished,
    /// Its client left, or the server was told to stop.
    Aborted,
    /// The engine died under it.
    Failed,
}

impl Stats {
    /// The records of one request id (also when only the caller's part of the id is given).
    pub fn request<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a RequestRecord> {
        self.requests.iter().filter(move |record| {
            record.request_id == id || record.request_id.split_once('-').is_some_and(|(_, rest)| rest == id)
        })
    }

    /// Requests that were aborted.
    pub fn aborted(&self) -> usize {
        self.requests.iter().filter(|record| record.outcome == Outcome::Aborted).count()
    }
}

/// The ended requests.
#[derive(Default)]
pub(super) struct Records(VecDeque<RequestRecord>);

impl Records {
    pub(super) fn end(&mut self, mut record: RequestRecord, outcome: Outcome, at: Duration) {
        record.outcome = outcome;
        record.ended_seconds = Some(at.as_secs_f64());
        if self.0.len() == REMEMBERED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(record);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &RequestRecord> {
        self.0.iter()
    }
}
