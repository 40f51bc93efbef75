//! How large a call may be, before anybody has counted its tokens.
//!
//! The bound is never below the real number of prompt tokens, so that a limit holds whatever the text is: a tokenizer over bytes
//! makes at most one token of each byte, and JSON only lengthens a text. Pictures, audio, video and documents are the exception,
//! because few bytes may become many tokens and many bytes few: each has a bound by its kind and length. What has none (it is at
//! a URL, its length cannot be seen, its type is unknown) is refused where a limit is hard, and is estimated elsewhere. The guess is
//! what usually comes out, and is what a call is charged for its prompt if no replica ever says better. Where a limit is too short
//! for the bound, `count` asks a replica for the truth.

mod container;
mod embedded;
mod encoded;
mod part;
mod source;
mod speech;
mod tally;
#[cfg(test)]
mod tests;
mod walk;

use actors::Permit;
use raft::resources::{Enforcement, Limit, MediaTokens, Unit};

use super::body::CallBody;
use super::endpoint::{Endpoint, Kind};
use super::refusal::Refusal;
use tally::{Tally, Unbounded};
use walk::Place;

pub(super) use speech::Speech;

/// Tokens that chat templates add by themselves: default system prompts, dates, markers.
const TEMPLATE_TOKENS: u64 = 128;
/// What stands between and around the two texts of a pair that is compared.
const PAIR_TOKENS: u64 = 8;

/// What a prompt may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PromptEstimate {
    /// Never less than its tokens, if it `has_bound`.
    pub(super) bound: u64,
    /// About its tokens.
    pub(super) guess: u64,
    /// False if it has media without a bound: then `bound` is what such media usually become, and it may be more.
    pub(super) has_bound: bool,
    /// Whether there is something in it that is no text.
    pub(super) has_media: bool,
}

/// Judges the prompt of a body. Errors: it has no bound, and a hard limit of the permit needs one.
pub(super) fn prompt(body: &CallBody, endpoint: &Endpoint, permit: &Permit) -> Result<PromptEstimate, Refusal> {
    let (estimate, unbounded) = estimate(body, endpoint, &permit.model().media);
    match unbounded {
        Some((field, why)) if endpoint.is_metered() && has_hard_limit(permit, endpoint) => Err(Refusal::field(
            field,
            format!(
                "a hard limit of the subscription counts prompts, so each has to have a bound: in `{field}`, {why}"
            ),
        )),
        _ => Ok(estimate),
    }
}

/// Whether a limit that counts prompts must never be passed. The length of speech decides how much text it becomes, too.
fn has_hard_limit(permit: &Permit, endpoint: &Endpoint) -> bool {
    let counts = |unit: Unit| unit.counts_input() || endpoint.kind == Kind::Speech && unit.counts_output();
    let is_hard = |limit: &Limit| limit.enforcement == Enforcement::Hard && counts(limit.unit);
    permit.subscription().limits.iter().any(is_hard)
}

/// The estimate, and if the bound is none: in which field that is, and why.
fn estimate(
    body: &CallBody,
    endpoint: &Endpoint,
    media: &MediaTokens,
) -> (PromptEstimate, Option<(&'static str, Unbounded)>) {
    if let Some(speech) = body.speech {
        let (estimate, unbounded) = speech.estimate(body.len() as u64, media);
        return (estimate, unbounded.map(|why| ("file", why)));
    }
    let mut bound = TEMPLATE_TOKENS.saturating_add(body.len() as u64);
    let mut guess = 0_u64;
    let embeds = ("prompt_embeds", Unbounded::Embeddings { part: "prompt_embeds" });
    let mut unbounded = body.has_prompt_embeds().then_some(embeds);
    let mut has_media = unbounded.is_some();
    for (name, field) in body.prompt_fields() {
        let of_field = Field::read(field, Place::of(name, endpoint), media);
        let length = field.len() as u64;
        let again = body.compared.filter(|compared| compared.field == name).map_or(0, |compared| compared.pairs - 1);
        bound = (bound - length).saturating_add(of_field.bound.saturating_mul(again + 1));
        guess = guess.saturating_add(of_field.guess.saturating_mul(again + 1));
        has_media |= of_field.has_media;
        unbounded = unbounded.or(of_field.unbounded.map(|why| (name, why)));
    }
    let between = body.compared.map_or(0, |compared| compared.pairs.saturating_mul(PAIR_TOKENS));
    let (bound, guess) = (bound.saturating_add(between), guess.saturating_add(between / 4));
    (PromptEstimate { bound, guess, has_bound: unbounded.is_none(), has_media }, unbounded)
}

/// What one field of the prompt may cost.
struct Field {
    bound: u64,
    guess: u64,
    has_media: bool,
    unbounded: Option<Unbounded>,
}

impl Field {
    fn read(json: &[u8], place: Option<Place>, media: &MediaTokens) -> Field {
        if let Some(ids) = token_ids(json) {
            return Field { bound: ids, guess: ids, has_media: false, unbounded: None };
        }
        let mut tally = Tally::new(media);
        if let Some(place) = place {
            walk::look(json, place, &mut tally);
        }
        let text = (json.len() as u64).saturating_sub(tally.file_bytes);
        Field {
            bound: text.saturating_add(tally.bound),
            guess: text.div_ceil(4).saturating_add(tally.guess),
            has_media: tally.has_media || tally.unbounded.is_some(),
            unbounded: tally.unbounded,
        }
    }
}

/// How many elements a list of token ids (or a list of such lists) has.
fn token_ids(json: &[u8]) -> Option<u64> {
    let mut bytes = json.iter().filter(|byte| !byte.is_ascii_whitespace());
    if bytes.next() != Some(&b'[') {
        return None;
    }
    let first = match bytes.next() {
        Some(b'[') => bytes.next(),
        other => other,
    };
    first.filter(|byte| byte.is_ascii_digit())?;
    let plain = |byte: &u8| byte.is_ascii_digit() || byte.is_ascii_whitespace() || matches!(byte, b'[' | b']' | b',');
    json.iter().all(plain).then(|| 1 + memchr::memchr_iter(b',', json).count() as u64)
}
