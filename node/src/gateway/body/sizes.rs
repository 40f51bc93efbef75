//! How much a body asks for: answers, tokens of each, and texts that a replica reads more than once.

use super::fields::{Field, Fields, Role};
use super::values::{Misread, integer};
use crate::gateway::endpoint::{Endpoint, Kind};
use crate::gateway::refusal::Refusal;

/// Answers to one prompt: vLLM's own limit (`VLLM_MAX_N_SEQUENCES`).
const N_MAX: i64 = 16_384;
/// What vLLM generates for a completion that says nothing of its length, as OpenAI does.
const COMPLETION_TOKENS: u64 = 16;

/// An integer of the body that decides how much is generated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// The field.
    pub(super) name: &'static str,
    /// Its value; `None` is `null`, which is as good as absent except for a completion's `max_tokens`.
    pub(super) value: Option<u64>,
}

/// Reads all of them, in the order of the body. Errors: one is no integer, or none that a replica would take.
pub(super) fn read(body: &[u8], fields: &Fields) -> Result<Vec<Size>, Refusal> {
    fields.with(Role::Size).map(|field| read_one(body, field)).collect()
}

fn read_one(body: &[u8], field: &Field) -> Result<Size, Refusal> {
    let name = field.name;
    let wrong = |why: &str| Refusal::field(name, format!("`{name}` {why}"));
    let json = std::str::from_utf8(&body[field.value.clone()]).map_err(|_| wrong("must be an integer"))?;
    let value = integer(json).map_err(|why: Misread| wrong(&why.to_string()))?;
    let (least, most) = match name {
        "n" => (1, N_MAX),
        "best_of" => (0, N_MAX),
        _ => (0, i64::MAX),
    };
    match value {
        Some(number) if number < least => Err(wrong(&format!("must be at least {least}"))),
        Some(number) if number > most => Err(wrong(&format!("must be at most {most}"))),
        value => Ok(Size { name, value: value.and_then(|number| u64::try_from(number).ok()) }),
    }
}

/// The most tokens of one answer. Of several fields the first of the endpoint's counts, as at the replica.
pub(super) fn max_tokens(sizes: &[Size], endpoint: &Endpoint) -> Option<u64> {
    let find = |name: &&str| sizes.iter().find(|size| size.name == *name);
    let written = endpoint.max_tokens_fields().iter().filter_map(find).find_map(|size| size.value);
    // A completion that only echoes its prompt is counted as one token.
    let written = written.map(|tokens| tokens.max(1));
    if endpoint.kind == Kind::Completions && !sizes.iter().any(|size| size.name == "max_tokens") {
        return Some(COMPLETION_TOKENS);
    }
    written
}

/// How many answers are generated: prompts times `n` or `best_of`.
pub(super) fn choices(fields: &Fields, sizes: &[Size], endpoint: &Endpoint) -> u64 {
    let of_each = sizes.iter().filter(|size| matches!(size.name, "n" | "best_of")).filter_map(|size| size.value);
    of_each.fold(1, u64::max).saturating_mul(prompts(fields, endpoint))
}

/// How many prompts are answered separately.
pub(super) fn prompts(fields: &Fields, endpoint: &Endpoint) -> u64 {
    let count = |name: &str| fields.get(name).map_or(0, |field| field.items.max(1));
    match endpoint.kind {
        Kind::Completions => {
            // A list of numbers is one prompt of tokens.
            let is_number = |first: u8| matches!(first, b'0'..=b'9' | b'-' | b't' | b'f');
            let is_tokens = fields.get("prompt").and_then(|field| field.first).is_some_and(is_number);
            let texts = if is_tokens { 1 } else { count("prompt") };
            (texts + count("prompt_embeds")).max(1)
        }
        Kind::ChatBatch => count("messages").max(1),
        Kind::Chat | Kind::Responses | Kind::Messages | Kind::Encode | Kind::Speech | Kind::Tokens => 1,
    }
}

/// A part of the prompt that is compared with several others, and read with each of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::gateway) struct Compared {
    /// The field.
    pub(in crate::gateway) field: &'static str,
    /// How often it is read.
    pub(in crate::gateway) pairs: u64,
}

/// What is compared, where the endpoint compares.
pub(super) fn compared(fields: &Fields, endpoint: &Endpoint) -> Option<Compared> {
    let found = |names: &[&str]| names.iter().find_map(|name| fields.get(name));
    let one = found(&["query", "queries", "text_1", "data_1"])?;
    let several = found(&["documents", "text_2", "data_2"])?;
    let pairs = if several.first.is_some() { several.items } else { 1 };
    endpoint.compares().then_some(Compared { field: one.name, pairs })
}
