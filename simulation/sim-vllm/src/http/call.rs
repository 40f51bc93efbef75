//! One call: what its handler needs, and how its sequences get into the engine.

use std::{sync::Arc, task::Context, task::Poll};

use bytes::Bytes;
use serde_json::{Map, Value};

use super::{errors::ApiError, fields::Fields, sampling::Sampling};
use crate::{
    chance::{self, Chance},
    engine::{
        Job,
        output::{Ending, Generation},
    },
    fault::FaultKind,
    replica::Shared,
    script::{Finish, Script, Wish},
};

/// A request whose body has been read.
pub(crate) struct Call {
    pub(crate) shared: Arc<Shared>,
    pub(crate) body: Map<String, Value>,
    /// Of a form.
    pub(crate) file: Option<Bytes>,
    /// The caller's `x-request-id`.
    pub(crate) request_id: Option<String>,
    /// `x-client-request-id`; empty without one.
    pub(crate) client_id: String,
    pub(crate) data_parallel_rank: Option<String>,
    /// Lies about usage; other faults are applied outside.
    pub(crate) fault: Option<FaultKind>,
}

/// A prompt and what its answers are to be.
pub(crate) struct Prompt {
    pub(crate) tokens: Vec<u32>,
    pub(crate) wish: Wish,
    pub(crate) reasoning: bool,
}

/// One sequence in the engine and what it says.
pub(crate) struct Part {
    pub(crate) script: Script,
    pub(crate) prompt: Arc<Vec<u32>>,
    generation: Generation,
    /// Tokens that exist.
    pub(crate) produced: usize,
    pub(crate) cached: usize,
    pub(crate) ending: Option<Ending>,
}

impl Call {
    pub(crate) fn fields(&self) -> Fields<'_> {
        Fields(&self.body)
    }

    /// The id of the answer: the caller's, in the header or in the body, or a new one.
    pub(crate) fn id(&self, prefix: &str) -> String {
        let given = self.request_id.clone().or_else(|| self.body.get("request_id")?.as_str().map(str::to_owned));
        match given {
            Some(id) => format!("{prefix}-{id}"),
            None => format!("{prefix}-{}", self.shared.hex()),
        }
    }

    /// Whether the model named in the body (or none) is served here.
    pub(crate) fn check_model(&self) -> Result<(), ApiError> {
        match self.fields().text("model")? {
            Some(name) if !name.is_empty() && !self.shared.config.model_names.iter().any(|served| served == name) => {
                Err(ApiError::unknown_model(name))
            }
            _ => Ok(()),
        }
    }

    /// Starts `sampling.n` sequences for each prompt.
    ///
    /// # Errors
    /// A prompt that does not fit, or an engine that is dead.
    pub(crate) fn start(
        &self,
        id: &str,
        prompts: Vec<Prompt>,
        sampling: &Sampling,
        default_limit: Option<usize>,
    ) -> Result<Vec<Part>, ApiError> {
        let context = self.shared.config.context_len();
        let mut limits = Vec::with_capacity(prompts.len());
        for prompt in &prompts {
            if prompt.tokens.is_empty() {
                return Err(ApiError::bad("The decoder prompt cannot be empty"));
            }
            let limit = sampling.limit(context, prompt.tokens.len(), default_limit.unwrap_or(1))?;
            let bounded = sampling.max_tokens.is_some() || default_limit.is_none();
            limits.push(if bounded { limit } else { limit.min(default_limit.unwrap_or(limit)) });
        }
        if self.shared.engine.is_dead() {
            return Err(ApiError::engine_died());
        }
        let mut parts = Vec::with_capacity(prompts.len() * sampling.n);
        for (prompt, limit) in prompts.into_iter().zip(limits) {
            let tokens = Arc::new(prompt.tokens);
            let seed = chance::hash_tokens(&tokens, self.shared.config.seed ^ (sampling.seed as u64).rotate_left(32));
            for index in 0..sampling.n {
                let mut chance = Chance::new(seed.wrapping_add(index as u64));
                let bounds = crate::script::Bounds { limit, ..sampling.bounds.clone() };
                let script = Script::write(&mut chance, &prompt.wish, prompt.reasoning, &bounds);
                parts.push(self.submit(id, &tokens, script, sampling, limit));
            }
        }
        Ok(parts)
    }

    fn submit(&self, id: &str, prompt: &Arc<Vec<u32>>, script: Script, sampling: &Sampling, limit: usize) -> Part {
        let generation = self.shared.engine.submit(Job {
            request_id: id.to_owned(),
            client_id: self.client_id.clone(),
            prompt: prompt.to_vec(),
            output: script.tokens.clone(),
            salt: if sampling.salt.is_empty() { 0 } else { chance::hash(sampling.salt.as_bytes(), 1) },
            priority: sampling.priority,
            max_tokens: limit,
            ends_by_length: script.finish == Finish::Length,
        });
        Part { script, prompt: prompt.clone(), generation, produced: 0, cached: 0, ending: None }
    }
}

impl Part {
    /// Notes new tokens; returns how many there were before. Pending when nothing is new, or all is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.ending.is_some() {
            return Poll::Pending;
        }
        self.generation.poll_progress(cx).map(|progress| {
            let before = self.produced;
            self.produced = progress.produced;
            self.cached = progress.cached_tokens;
            self.ending = progress.ending;
            before
        })
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The engine died.
    pub(crate) async fn finished(&mut self) -> Result<(), ApiError> {
        let progress = self.generation.finished().await;
        self.produced = progress.produced;
        self.cached = progress.cached_tokens;
        self.ending = progress.ending;
        if progress.ending == Some(Ending::EngineDied) { Err(ApiError::engine_died()) } else { Ok(()) }
    }

    /// Why it ended, once it has.
    pub(crate) fn finish(&self) -> Option<Finish> {
        self.ending.map(|ending| if ending == Ending::Complete { self.script.finish } else { Finish::Abort })
    }
}
