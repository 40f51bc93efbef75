//! The fields that the gateway knows: which of them a body has, and where.

use std::borrow::Cow;

use raft::resources::ENGINE_FIELDS;

use super::Span;
use super::scan::Member;
use crate::gateway::endpoint::{Endpoint, Kind};

/// A longer name, as written, is none of these, even if every character of it is escaped.
const NAME_MAX: usize = 256;

/// Fields that become part of the prompt, in the order in which chat templates render them.
const PROMPT_FIELDS: [&str; 17] = [
    "tools",
    "system",
    "instructions",
    "previous_input_messages",
    "messages",
    "prompt",
    "input",
    "inputs",
    "images",
    "query",
    "queries",
    "documents",
    "text_1",
    "text_2",
    "texts",
    "data_1",
    "data_2",
];

/// Integers that decide how much is generated.
const SIZES: [&str; 3] = ["n", "best_of", "min_tokens"];

/// What Responses keep between calls.
const STATE: [&str; 3] = ["previous_response_id", "conversation", "background"];

/// Stream options of a form.
pub(super) const INCLUDE_USAGE: &str = "stream_include_usage";
pub(super) const CONTINUOUS_USAGE: &str = "stream_continuous_usage_stats";

/// What the gateway does with a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Names the model.
    Model,
    /// `stream`.
    Stream,
    /// `stream_options`.
    StreamOptions,
    /// A stream option of a form, which has each in a field of its own.
    StreamOption,
    /// `encoding_format`, where it decides whether the answer is JSON.
    Encoding,
    /// An integer that decides how much is generated.
    Size,
    /// Prompts as embeddings.
    PromptEmbeds,
    /// A part of the prompt, by its place in [`PROMPT_FIELDS`].
    Prompt(usize),
    /// Steers the engine and not the answer.
    Engine,
    /// Refers to what earlier calls left behind, or leaves something behind.
    State,
}

/// A known field that a body has.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) role: Role,
    pub(super) value: Span,
    /// If the value is a list: how many elements it has.
    pub(super) items: u64,
    /// If the value is a list: the first byte of its first element.
    pub(super) first: Option<u8>,
    /// Where its name begins.
    pub(super) start: usize,
    /// Where the value of the field before it ends.
    pub(super) before: Option<usize>,
    /// Where the name of the field after it begins.
    pub(super) after: Option<usize>,
}

/// A known field is there twice. Replicas differ in which of the two they take.
#[derive(Debug)]
pub(super) struct Twice(pub(super) &'static str);

/// What one scan of a body finds.
#[derive(Debug, Default)]
pub(super) struct Fields {
    known: Vec<Field>,
    /// All fields, unknown ones too.
    pub(super) count: usize,
    /// Where the last value ends.
    end: usize,
    is_last_known: bool,
    twice: Option<&'static str>,
}

impl Fields {
    /// Takes the next member of `body`.
    pub(super) fn add(&mut self, body: &[u8], endpoint: &Endpoint, member: &Member) {
        let start = member.name.start;
        if let (true, Some(last)) = (self.is_last_known, self.known.last_mut()) {
            last.after = Some(start);
        }
        let before = (self.count > 0).then_some(self.end);
        let found = decoded(&body[member.name.clone()]).and_then(|name| role(&name, endpoint));
        (self.count, self.end, self.is_last_known) = (self.count + 1, member.value.end, found.is_some());
        let Some((name, role)) = found else { return };
        if self.get(name).is_some() {
            // Kept apart, so that the list stays short whatever a body repeats.
            self.is_last_known = false;
            self.twice.get_or_insert(name);
            return;
        }
        let (value, items, first) = (member.value.clone(), member.items, member.first);
        self.known.push(Field { name, role, value, items, first, start, before, after: None });
    }

    /// All of them, each once. Errors: one is there twice.
    pub(super) fn each_once(self) -> Result<Fields, Twice> {
        match self.twice {
            Some(name) => Err(Twice(name)),
            None => Ok(self),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Field> {
        self.known.iter().find(|field| field.name == name)
    }

    /// Those with a role, in the order of the body.
    pub(super) fn with(&self, role: Role) -> impl Iterator<Item = &Field> {
        self.known.iter().filter(move |field| field.role == role)
    }

    /// The parts of the prompt, in the order of the body.
    pub(super) fn of_prompt(&self) -> impl Iterator<Item = &Field> {
        self.known.iter().filter(|field| matches!(field.role, Role::Prompt(_)))
    }

    /// The parts of the prompt in the order in which chat templates render them.
    pub(super) fn prompt(&self) -> Vec<Span> {
        let place = |field: &Field| match field.role {
            Role::Prompt(place) => Some((place, field.value.clone())),
            _ => None,
        };
        let mut parts: Vec<(usize, Span)> = self.known.iter().filter_map(place).collect();
        parts.sort_unstable_by_key(|(place, _)| *place);
        parts.into_iter().map(|(_, span)| span).collect()
    }
}

/// A name with its escapes resolved. `None`: it is longer than any known one, or no Unicode.
fn decoded(raw: &[u8]) -> Option<Cow<'_, str>> {
    if raw.len() > NAME_MAX {
        return None;
    }
    if memchr::memchr(b'\\', raw).is_some() {
        return serde_json::from_slice::<String>(raw).ok().map(Cow::Owned);
    }
    std::str::from_utf8(raw.get(1..raw.len() - 1)?).ok().map(Cow::Borrowed)
}

/// Whether the gateway knows a field of this name.
pub(super) fn is_known(name: &str, endpoint: &Endpoint) -> bool {
    role(name, endpoint).is_some()
}

/// The field of this name, where the replica reads it.
fn role(name: &str, endpoint: &Endpoint) -> Option<(&'static str, Role)> {
    let among = |names: &[&'static str]| names.iter().copied().find(|known| *known == name);
    let streams =
        matches!(endpoint.kind, Kind::Chat | Kind::Completions | Kind::Responses | Kind::Messages | Kind::Speech);
    match name {
        "model" => return Some(("model", Role::Model)),
        "stream" if streams => return Some(("stream", Role::Stream)),
        "stream_options" if endpoint.must_ask_for_usage() && !endpoint.takes_form() => {
            return Some(("stream_options", Role::StreamOptions));
        }
        "encoding_format" if endpoint.answers_bytes() => return Some(("encoding_format", Role::Encoding)),
        "prompt_embeds" if endpoint.kind == Kind::Completions => return Some(("prompt_embeds", Role::PromptEmbeds)),
        _ => {}
    }
    if endpoint.takes_form()
        && let Some(name) = among(&[INCLUDE_USAGE, CONTINUOUS_USAGE])
    {
        return Some((name, Role::StreamOption));
    }
    if endpoint.kind == Kind::Responses
        && let Some(name) = among(&STATE)
    {
        return Some((name, Role::State));
    }
    if endpoint.generates()
        && let Some(name) = among(&SIZES).or_else(|| among(endpoint.max_tokens_fields()))
    {
        return Some((name, Role::Size));
    }
    if let Some(place) = PROMPT_FIELDS.iter().position(|known| *known == name) {
        return Some((PROMPT_FIELDS[place], Role::Prompt(place)));
    }
    among(&ENGINE_FIELDS).map(|name| (name, Role::Engine))
}
