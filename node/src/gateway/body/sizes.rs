//! Sizes that a body asks for: numbers, prompts, and texts that a replica reads more than once.

use serde_json::value::RawValue;

use super::fields::Fields;
use crate::gateway::endpoint::{Endpoint, Kind};

/// A count, also when written as a string, which replicas accept.
pub(super) fn number(raw: &str) -> Option<u64> {
    raw.trim_matches('"').parse().ok()
}

/// How many prompts are answered separately.
pub(super) fn prompts(body: &[u8], fields: &Fields, endpoint: &Endpoint) -> u64 {
    let field = match endpoint.kind {
        Kind::Completions => "prompt",
        Kind::ChatBatch => "messages",
        Kind::Chat | Kind::Responses | Kind::Messages | Kind::Encode | Kind::Tokens => return 1,
    };
    let Some(span) = fields.prompt_field(field) else { return 1 };
    let Ok(items) = serde_json::from_slice::<Vec<&RawValue>>(&body[span]) else { return 1 };
    // A list of numbers is one prompt of tokens.
    if items.first().is_some_and(|item| item.get().starts_with(|c: char| c.is_ascii_digit())) {
        return 1;
    }
    items.len().max(1) as u64
}

/// Where one text is compared with several, it is read with each of them: how many bytes that makes beyond those of the body.
pub(super) fn repeated(body: &[u8], fields: &Fields, endpoint: &Endpoint) -> u64 {
    /// What stands between and around the two texts of a pair.
    const PAIR_TOKENS: u64 = 8;
    let found = |names: &[&str]| names.iter().find_map(|name| fields.prompt_field(name));
    let (Some(one), Some(several)) =
        (found(&["query", "queries", "text_1", "data_1"]), found(&["documents", "text_2", "data_2"]))
    else {
        return 0;
    };
    if !endpoint.compares() {
        return 0;
    }
    let pairs = serde_json::from_slice::<Vec<&RawValue>>(&body[several]).map_or(1, |items| items.len() as u64);
    pairs.saturating_sub(1) * one.len() as u64 + pairs * PAIR_TOKENS
}
