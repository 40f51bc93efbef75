//! One pass over the top level of a body: which of the known fields are there, and where.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Span;
use super::sizes::number;

/// What one pass over the top level finds.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) is_empty: bool,
    pub(super) model: Option<Span>,
    pub(super) stream: bool,
    pub(super) stream_options: Option<Span>,
    pub(super) max_tokens: Option<u64>,
    pub(super) bounds: Vec<Span>,
    pub(super) n: u64,
    pub(super) salt: Option<Span>,
    /// By their place in [`PROMPT_FIELDS`].
    pub(super) prompt: [Option<Span>; PROMPT_FIELDS.len()],
}

/// Fields that become part of the prompt, in the order in which chat templates render them.
const PROMPT_FIELDS: [&str; 14] = [
    "tools",
    "system",
    "instructions",
    "messages",
    "prompt",
    "input",
    "query",
    "queries",
    "documents",
    "text_1",
    "text_2",
    "texts",
    "data_1",
    "data_2",
];

impl Fields {
    pub(super) fn prompt_field(&self, name: &str) -> Option<Span> {
        let place = PROMPT_FIELDS.iter().position(|known| *known == name)?;
        self.prompt[place].clone()
    }
}

pub(super) struct Scan<'a> {
    pub(super) body: &'a [u8],
    /// The names of fields that bound the output.
    pub(super) bounds: &'static [&'static str],
}

impl<'de> Visitor<'de> for Scan<'de> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields { is_empty: true, ..Fields::default() };
        while let Some(Key(name)) = map.next_key::<Key<'de>>()? {
            fields.is_empty = false;
            let value = map.next_value::<&'de RawValue>()?.get();
            let span = || {
                let start = value.as_ptr() as usize - self.body.as_ptr() as usize;
                start..start + value.len()
            };
            match &*name {
                "model" if fields.model.is_some() => return Err(A::Error::custom("`model` is there twice")),
                "model" => fields.model = Some(span()),
                "stream" => fields.stream = value == "true",
                "stream_options" => fields.stream_options = Some(span()),
                name @ ("max_tokens" | "max_completion_tokens" | "max_output_tokens") => {
                    fields.max_tokens = fields.max_tokens.max(number(value));
                    if self.bounds.contains(&name) {
                        fields.bounds.push(span());
                    }
                }
                "n" | "best_of" => fields.n = fields.n.max(number(value).unwrap_or(1)),
                "cache_salt" => fields.salt = Some(span()),
                name => {
                    if let Some(place) = PROMPT_FIELDS.iter().position(|field| *field == name) {
                        fields.prompt[place] = Some(span());
                    }
                }
            }
        }
        Ok(fields)
    }
}

/// A field's name with escapes resolved, borrowed where it has none.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
