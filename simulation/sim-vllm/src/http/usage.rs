//! Usage, true or as a fault wants it told.

use serde_json::{Value, json};

use super::call::{Call, Part};
use crate::fault::{FaultKind, Lie};

/// What a request used, in tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) prompt: i64,
    pub(crate) completion: i64,
    pub(crate) cached: i64,
    /// Prompt tokens newly put into whole cache blocks; completions do not tell.
    pub(crate) created: Option<i64>,
}

/// How usage is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UsageStyle {
    pub(crate) details: bool,
    pub(crate) fault: Option<FaultKind>,
    block: usize,
    creation: bool,
}

impl Usage {
    /// The usage of parts so far; the parts of one prompt (`n` each) count it once.
    pub(crate) fn of(parts: &[Part], n: usize, block: usize) -> Self {
        let mut usage = Self::default();
        let mut created = 0;
        for part in parts.iter().step_by(n.max(1)) {
            let length = part.prompt.len();
            usage.prompt += length as i64;
            usage.cached += part.cached as i64;
            created += (length / block * block).saturating_sub(part.cached) as i64;
        }
        usage.completion = parts.iter().map(|part| part.produced as i64).sum();
        usage.created = Some(created);
        usage
    }

    /// The three numbers.
    pub(crate) fn short(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "total_tokens": self.prompt + self.completion,
            "completion_tokens": self.completion,
        })
    }

    /// The three numbers and, where enabled, the cache details; streams leave out what is null.
    pub(crate) fn full(&self, style: UsageStyle, stream: bool) -> Value {
        let mut usage = self.short();
        if style.details {
            usage["prompt_tokens_details"] = if stream {
                json!({"cached_tokens": self.cached, "created_cache_tokens": self.created})
            } else {
                json!({"cached_tokens": self.cached, "created_cache_tokens": self.created, "multimodal_tokens": null})
            };
            if stream && self.created.is_none() {
                usage["prompt_tokens_details"] = json!({"cached_tokens": self.cached});
            }
        } else if !stream {
            usage["prompt_tokens_details"] = Value::Null;
        }
        usage
    }
}

impl UsageStyle {
    pub(crate) fn of(call: &Call) -> Self {
        Self {
            details: call.shared.config.enable_prompt_tokens_details,
            fault: call.fault,
            block: call.shared.config.engine.block_size,
            creation: true,
        }
    }

    /// The same, for an API that does not tell what went into the cache.
    pub(crate) fn without_creation(self) -> Self {
        Self { creation: false, ..self }
    }

    /// Whether usage is told at all.
    pub(crate) fn tells(&self) -> bool {
        self.fault != Some(FaultKind::MissingUsage)
    }

    /// The usage of parts, as it is to be told.
    pub(crate) fn of_parts(&self, parts: &[Part], n: usize) -> Usage {
        let Usage { prompt, completion, cached, created } = Usage::of(parts, n, self.block);
        let created = created.filter(|_| self.creation);
        match self.fault {
            Some(FaultKind::Usage(Lie::Wrong)) => {
                Usage { prompt: prompt * 2 + 1, completion: completion * 3 + 7, cached, created }
            }
            Some(FaultKind::Usage(Lie::Negative)) => {
                Usage { prompt: -prompt - 1, completion: -completion - 1, cached, created }
            }
            Some(FaultKind::Usage(Lie::Huge)) => {
                Usage { prompt: 1_000_000_000_000, completion: 1_000_000_000_000, cached, created }
            }
            _ => Usage { prompt, completion, cached, created },
        }
    }
}
