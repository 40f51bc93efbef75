//! `/v1/completions`.

use std::{collections::VecDeque, fmt::Write};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    Reply,
    call::{Call, Part, Prompt},
    errors::ApiError,
    events::{DONE, Streaming, Writer, push_json},
    logprobs,
    sampling::Sampling,
    structured,
    usage::UsageStyle,
};
use crate::{
    chance::{self, Chance},
    text::{decode, encode, is_token},
};

/// vLLM's default limit here.
pub(super) const DEFAULT_MAX_TOKENS: usize = 16;

/// How prompts are shown with their answers.
#[derive(Clone, Copy, Default)]
pub(super) struct Show {
    echo: bool,
    /// Only the prompt: `echo` with a limit of 0.
    nothing_else: bool,
    logprobs: Option<usize>,
}

/// Reads a completion request: its prompts in tokens, and what is wanted of the answers.
///
/// # Errors
/// As vLLM refuses it.
pub(super) fn read(call: &Call) -> Result<(Vec<Vec<u32>>, Sampling, Show), ApiError> {
    let fields = call.fields();
    fields.text("model")?;
    let prompts = read_prompts(fields.get("prompt"));
    if let Err(error) = &prompts
        && error.is_validation()
    {
        return Err(error.clone());
    }
    structured::check_form(fields)?;
    let echo = fields.flag("echo")?;
    let sampling = Sampling::read(fields, &["max_tokens"], i64::from(!echo))?;
    call.check_model()?;
    if fields.get("suffix").is_some() {
        return Err(ApiError::bad("suffix is not currently supported"));
    }
    let show = Show {
        echo,
        nothing_else: echo && sampling.max_tokens == Some(0),
        logprobs: fields.int("logprobs")?.map(|top| top.clamp(0, 20) as usize),
    };
    let mut prompts = prompts?;
    if let Some(length) = fields.int("truncate_prompt_tokens")? {
        for prompt in &mut prompts {
            prompt.drain(..prompt.len().saturating_sub(length.max(1) as usize));
        }
    }
    Ok((prompts, sampling, show))
}

/// Answers a completion request.
///
/// # Errors
/// As vLLM refuses it.
pub(crate) async fn answer(call: Call) -> Result<Reply, ApiError> {
    let (prompts, sampling, show) = read(&call)?;
    let mut wishes = Vec::with_capacity(prompts.len());
    for tokens in prompts {
        let mut chance = Chance::new(chance::hash_tokens(&tokens, call.shared.config.seed));
        wishes.push(Prompt { wish: structured::wish(call.fields(), &mut chance)?, reasoning: false, tokens });
    }
    let id = call.id("cmpl");
    let mut parts = call.start(&id, wishes, &sampling, Some(DEFAULT_MAX_TOKENS))?;
    if sampling.stream {
        let writer = CompletionWriter::new(&call, &id, &sampling, show, parts.len());
        return Ok(Reply::Events(Box::new(Streaming::new(parts, writer, VecDeque::new()))));
    }
    for part in &mut parts {
        part.finished().await?;
    }
    Ok(Reply::Json(whole(&call, &id, &parts, &sampling, show)))
}

/// The prompts of a request: text, texts, token ids, or lists of those.
pub(super) fn read_prompts(prompt: Option<&Value>) -> Result<Vec<Vec<u32>>, ApiError> {
    let missing =
        || ApiError::invalid("prompt", "Value error, Either prompt or prompt_embeds must be provided and non-empty.");
    let malformed = || ApiError::invalid("body.prompt", "Input should be a valid string");
    match prompt {
        None => Err(missing()),
        Some(Value::String(text)) if text.is_empty() => Err(missing()),
        Some(Value::String(text)) => Ok(vec![encode(text)]),
        Some(Value::Array(list)) if list.is_empty() => Err(ApiError::bad("You must pass at least one prompt")),
        Some(Value::Array(list)) if list[0].is_number() => Ok(vec![read_ids(list)?]),
        Some(Value::Array(list)) => list
            .iter()
            .map(|item| match item {
                Value::String(text) => Ok(encode(text)),
                Value::Array(ids) => read_ids(ids),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Err(malformed()),
            })
            .collect(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => Err(malformed()),
    }
}

fn read_ids(list: &[Value]) -> Result<Vec<u32>, ApiError> {
    list.iter()
        .map(|id| match id.as_u64() {
            Some(id) if is_token(id) => Ok(id as u32),
            Some(id) => Err(ApiError::bad(format!("Token id {id} is out of vocabulary"))),
            None => Err(ApiError::invalid("body.prompt", "Input should be a valid integer")),
        })
        .collect()
}

fn whole(call: &Call, id: &str, parts: &[Part], sampling: &Sampling, show: Show) -> Value {
    let choices: Vec<Value> =
        parts.iter().enumerate().map(|(index, part)| choice(index, part, sampling, show)).collect();
    let style = UsageStyle::of(call).without_creation();
    let mut answer = json!({
        "id": id,
        "object": "text_completion",
        "created": call.shared.unix_seconds(),
        "model": call.shared.config.model(),
        "choices": choices,
        "service_tier": null,
        "system_fingerprint": call.shared.fingerprint,
        "usage": style.of_parts(parts, sampling.n).full(style, false),
        "kv_transfer_params": null,
        "ec_transfer_params": null,
        "metrics": null,
    });
    if !style.tells() {
        answer.as_object_mut().map(|object| object.shift_remove("usage"));
    }
    answer
}

fn choice(index: usize, part: &Part, sampling: &Sampling, show: Show) -> Value {
    let script = &part.script;
    let made = if show.nothing_else { 0 } else { part.produced };
    let mut text = if show.echo { decode(&part.prompt) } else { String::new() };
    text.push_str(script.text(0, made));
    let logprobs = show.logprobs.map(|top| {
        let mut tokens = if show.echo { part.prompt.to_vec() } else { Vec::new() };
        tokens.extend(&script.tokens[..made]);
        logprobs::completion(&tokens, show.echo, top, 0)
    });
    let prompt_logprobs = sampling.prompt_logprobs.is_some() || (show.echo && show.logprobs.is_some());
    json!({
        "index": index,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": part.finish().map(|finish| finish.as_str()),
        "stop_reason": script.stop_reason,
        "token_ids": sampling.return_token_ids.then(|| &script.tokens[..made]),
        "prompt_logprobs": prompt_logprobs.then(|| logprobs::prompt(&part.prompt)),
        "prompt_token_ids": sampling.return_token_ids.then(|| part.prompt.to_vec()),
        "routed_experts": null,
    })
}

/// Writes `text_completion` events.
struct CompletionWriter {
    head: String,
    usage_head: String,
    fingerprint: String,
    sampling: Sampling,
    show: Show,
    usage: UsageStyle,
    /// Characters shown of each choice, for the offsets of logprobs.
    offsets: Vec<usize>,
}

impl CompletionWriter {
    fn new(call: &Call, id: &str, sampling: &Sampling, show: Show, parts: usize) -> Self {
        let mut head = String::from("data: {\"id\":");
        push_json(&mut head, id);
        let _ = write!(head, ",\"object\":\"text_completion\",\"created\":{},\"model\":", call.shared.unix_seconds());
        push_json(&mut head, call.shared.config.model());
        head.push_str(",\"choices\":[");
        Self {
            usage_head: head.clone() + "]",
            head: head + "{\"index\":",
            fingerprint: call.shared.fingerprint.clone(),
            sampling: sampling.clone(),
            show,
            usage: UsageStyle::of(call).without_creation(),
            offsets: vec![0; parts],
        }
    }
}

impl Writer for CompletionWriter {
    fn advance(&mut self, index: usize, parts: &[Part], from: usize, out: &mut VecDeque<Bytes>) {
        let part = &parts[index];
        let to = if self.show.nothing_else { 0 } else { part.produced };
        let text = part.script.text(from.min(to), to);
        // The first event of an echo carries the prompt too.
        let echoed = self.show.echo && from == 0;
        let mut event = String::with_capacity(self.head.len() + text.len() + 200);
        let _ = write!(event, "{}{index},\"text\":", self.head);
        if echoed {
            push_json(&mut event, &(decode(&part.prompt) + text));
        } else {
            push_json(&mut event, text);
        }
        event.push_str(",\"logprobs\":");
        match self.show.logprobs {
            None => event.push_str("null"),
            Some(top) => {
                let mut tokens = if echoed { part.prompt.to_vec() } else { Vec::new() };
                tokens.extend(&part.script.tokens[from.min(to)..to]);
                let _ = write!(event, "{}", logprobs::completion(&tokens, echoed, top, self.offsets[index]));
                self.offsets[index] += decode(&tokens).chars().count();
            }
        }
        let finish = part.finish();
        match finish {
            None => event.push_str(",\"finish_reason\":null,\"stop_reason\":null"),
            Some(finish) => {
                let reason = &part.script.stop_reason;
                let _ = write!(event, ",\"finish_reason\":\"{}\",\"stop_reason\":{reason}", finish.as_str());
            }
        }
        let ids = |show: bool, tokens: &[u32]| if show { json!(tokens) } else { Value::Null };
        let prompt = ids(echoed || (self.sampling.return_token_ids && from == 0), &part.prompt);
        let made = ids(self.sampling.return_token_ids, &part.script.tokens[from.min(to)..to]);
        let _ = write!(event, ",\"prompt_token_ids\":{prompt},\"token_ids\":{made}}}]");
        if self.sampling.continuous_usage && self.usage.tells() {
            let _ = write!(event, ",\"usage\":{}", self.usage.of_parts(std::slice::from_ref(part), 1).short());
        }
        if finish.is_some() && !self.sampling.include_usage {
            let _ = write!(event, ",\"system_fingerprint\":\"{}\"", self.fingerprint);
        }
        event.push_str("}\n\n");
        out.push_back(event.into());
    }

    fn end(&mut self, parts: &[Part], out: &mut VecDeque<Bytes>) {
        if self.sampling.include_usage && self.usage.tells() {
            let usage = self.usage.of_parts(parts, self.sampling.n).full(self.usage, true);
            let event =
                format!("{},\"usage\":{usage},\"system_fingerprint\":\"{}\"}}\n\n", self.usage_head, self.fingerprint);
            out.push_back(event.into());
        }
        out.push_back(DONE);
    }
}
