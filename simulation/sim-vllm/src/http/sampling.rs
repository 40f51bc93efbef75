//! What a caller asks of an answer: its length, where it stops, how many, how it is streamed.

use super::{errors::ApiError, fields::Fields};
use crate::{script::Bounds, text::is_token};

/// Sequences that one request may ask for.
const N_MAX: i64 = 16_384;

/// The parameters that chat and completions share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sampling {
    pub(crate) n: usize,
    /// The caller's limit, if any, and the field it came in.
    pub(crate) max_tokens: Option<usize>,
    pub(crate) max_field: &'static str,
    pub(crate) seed: i64,
    pub(crate) bounds: Bounds,
    pub(crate) priority: i64,
    pub(crate) salt: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// Usage on every event; only together with `include_usage`.
    pub(crate) continuous_usage: bool,
    pub(crate) return_token_ids: bool,
    pub(crate) prompt_logprobs: Option<usize>,
}

impl Sampling {
    /// Reads and checks. `least` is the smallest allowed limit (0 where echo alone is allowed).
    ///
    /// # Errors
    /// As vLLM: fields of the wrong form first, impossible values after.
    pub(crate) fn read(fields: Fields<'_>, max_fields: &[&'static str], least: i64) -> Result<Self, ApiError> {
        let mut max_tokens = None;
        let mut max_field = max_fields[0];
        for field in max_fields.iter().rev() {
            if let Some(limit) = fields.int(field)? {
                (max_tokens, max_field) = (Some(limit), field);
            }
        }
        let n = fields.int("n")?.unwrap_or(1);
        let seed = fields.int("seed")?.unwrap_or(0);
        let stop = fields.texts("stop")?;
        let temperature = fields.float("temperature")?;
        let top_p = fields.float("top_p")?;
        let penalties = [
            ("frequency_penalty", fields.float("frequency_penalty")?),
            ("presence_penalty", fields.float("presence_penalty")?),
        ];
        let stream = fields.flag("stream")?;
        let (include_usage, continuous_usage) = stream_options(fields, stream)?;
        let salt = fields.text("cache_salt")?;
        if salt == Some("") {
            return Err(ApiError::invalid(
                "cache_salt",
                "Value error, cache_salt must be a non-empty string if provided.",
            ));
        }
        let bounds = Bounds {
            limit: 0,
            min_tokens: fields.int("min_tokens")?.unwrap_or(0).max(0) as usize,
            ignore_eos: fields.flag("ignore_eos")?,
            stop,
            include_stop: fields.flag("include_stop_str_in_output")?,
            stop_token_ids: token_ids(fields, "stop_token_ids")?,
        };
        let sampling = Self {
            n: n.clamp(0, N_MAX) as usize,
            max_tokens: max_tokens.map(|limit| limit.max(0) as usize),
            max_field,
            seed,
            bounds,
            priority: fields.int("priority")?.unwrap_or(0),
            salt: salt.unwrap_or_default().to_owned(),
            stream,
            include_usage,
            continuous_usage: continuous_usage && include_usage,
            return_token_ids: fields.flag("return_token_ids")?,
            prompt_logprobs: fields.int("prompt_logprobs")?.map(|top| top.clamp(0, 20) as usize),
        };
        check_values(n, temperature, top_p, &penalties)?;
        check_limit(max_tokens, max_field, least)?;
        sampling.check_stop()?;
        check_logit_bias(fields)?;
        Ok(sampling)
    }

    /// # Errors
    /// A text at which to stop is empty.
    pub(crate) fn check_stop(&self) -> Result<(), ApiError> {
        match self.bounds.stop.iter().any(String::is_empty) {
            true => Err(ApiError::bad("stop cannot contain an empty string.")),
            false => Ok(()),
        }
    }

    /// How many tokens may be produced after a prompt.
    ///
    /// # Errors
    /// Prompt and limit together are more than the context, or the limit is below `min_tokens`.
    pub(crate) fn limit(&self, context: usize, prompt: usize, default: usize) -> Result<usize, ApiError> {
        let field = self.max_field;
        if let Some(limit) = self.max_tokens.filter(|limit| *limit > context) {
            let message = format!(
                "{field}={limit} cannot be greater than max_model_len=max_total_tokens={context}. \
                 Please request fewer output tokens. (parameter={field}, value={limit})"
            );
            return Err(ApiError::bad_param(field, message));
        }
        let wanted = self.max_tokens.unwrap_or(default).max(1);
        if prompt + wanted > context {
            let message = format!(
                "This model's maximum context length is {context} tokens. However, you requested {wanted} output tokens \
                 and your prompt contains {prompt} input tokens, for a total of {} tokens. Please reduce the length of \
                 the input prompt or the number of requested output tokens. (parameter=input_tokens, value={prompt})",
                prompt + wanted
            );
            return Err(ApiError::bad_param("input_tokens", message));
        }
        let limit = self.max_tokens.map_or(context - prompt, |limit| limit.max(1)).min(context - prompt);
        let least = self.bounds.min_tokens;
        if least > limit {
            let message = format!("min_tokens must be less than or equal to max_tokens={limit}, got {least}.");
            return Err(ApiError::bad_param("min_tokens", message));
        }
        Ok(limit)
    }
}

fn stream_options(fields: Fields<'_>, stream: bool) -> Result<(bool, bool), ApiError> {
    let Some(options) = fields.object("stream_options")? else { return Ok((false, false)) };
    if !stream {
        return Err(ApiError::invalid(
            "stream_options",
            "Value error, Stream options can only be defined when `stream=True`.",
        ));
    }
    Ok((options.flag("include_usage")?, options.flag("continuous_usage_stats")?))
}

fn token_ids(fields: Fields<'_>, name: &str) -> Result<Vec<u32>, ApiError> {
    let ids = fields.list(name)?.unwrap_or_default();
    if ids.iter().any(|id| !is_integer(id)) {
        return Err(ApiError::invalid(format!("body.{name}"), "Input should be a valid integer"));
    }
    // Ids that no token has are never met.
    Ok(ids.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect())
}

/// Python's integers have no bound.
fn is_integer(value: &serde_json::Value) -> bool {
    value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn check_values(
    n: i64,
    temperature: Option<f64>,
    top_p: Option<f64>,
    penalties: &[(&str, Option<f64>)],
) -> Result<(), ApiError> {
    if n < 1 {
        return Err(ApiError::bad(format!("n must be at least 1, got {n}.")));
    }
    if n > N_MAX {
        return Err(ApiError::bad(format!("n must be at most {N_MAX}, got {n}.")));
    }
    for (name, value) in penalties {
        if let Some(value) = value.filter(|value| !(-2.0..=2.0).contains(value)) {
            return Err(ApiError::bad(format!("{name} must be in [-2, 2], got {value:?}.")));
        }
    }
    if let Some(value) = temperature.filter(|value| !(0.0..=2.0).contains(value)) {
        let message = format!("temperature must be in [0, 2], got {value:?}. (parameter=temperature, value={value:?})");
        return Err(ApiError::bad_param("temperature", message));
    }
    if let Some(value) = top_p.filter(|value| *value <= 0.0 || *value > 1.0) {
        let message = format!("top_p must be in (0, 1], got {value:?}. (parameter=top_p, value={value:?})");
        return Err(ApiError::bad_param("top_p", message));
    }
    if n > 1 && temperature == Some(0.0) {
        return Err(ApiError::bad(format!("n must be 1 when using greedy sampling, got {n}.")));
    }
    Ok(())
}

fn check_limit(limit: Option<i64>, field: &str, least: i64) -> Result<(), ApiError> {
    match limit.filter(|limit| *limit < least) {
        None => Ok(()),
        Some(limit) => Err(ApiError::bad_param(
            field,
            format!("{field} must be at least 1, got {limit}. (parameter={field}, value={limit})"),
        )),
    }
}

fn check_logit_bias(fields: Fields<'_>) -> Result<(), ApiError> {
    let Some(bias) = fields.object("logit_bias")? else { return Ok(()) };
    let unknown = bias.0.keys().find(|id| !id.parse().is_ok_and(is_token));
    match unknown {
        None => Ok(()),
        Some(id) => Err(ApiError::bad_param(
            "logit_bias",
            format!("token_id(s) [{id}] in logit_bias contain out-of-vocab token ids. (parameter=logit_bias)"),
        )),
    }
}
