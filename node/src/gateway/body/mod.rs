//! The JSON body of a call: read once, scanned once without being built up, and rewritten by splicing.
//!
//! The scan borrows. Every field it does not know is forwarded byte for byte, and so is everything inside the fields it
//! knows, except `model` and `stream_options`.

mod fields;
mod options;
mod read;
mod rewrite;
mod sizes;

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use serde::de::Deserializer;

use super::endpoint::Endpoint;
use super::progress::HiddenUsage;
use super::refusal::Refusal;
use fields::Scan;
use options::stream_options;
use sizes::{prompts, repeated};

pub(super) use read::read;

/// A slice of the body.
type Span = Range<usize>;

/// A call's body and what the gateway needs to know of it.
#[derive(Debug)]
pub(super) struct CallBody {
    bytes: Bytes,
    /// `model`, decoded.
    pub(super) model: Option<String>,
    /// `stream` is `true`.
    pub(super) streams: bool,
    /// The caller wants the usage chunk of a stream.
    pub(super) wants_usage: bool,
    /// And usage in every other chunk, too.
    pub(super) wants_running_usage: bool,
    /// `max_tokens`, `max_completion_tokens` or `max_output_tokens`: the largest, per choice.
    pub(super) max_tokens: Option<u64>,
    /// How many answers are generated: prompts times `n` or `best_of`.
    pub(super) choices: u64,
    /// `cache_salt`, as written.
    salt: Option<Span>,
    /// Where the object's content begins, and whether it has any.
    inside: usize,
    is_empty: bool,
    model_span: Option<Span>,
    stream_options: Option<Span>,
    /// The endpoint's own among the fields that bound the output.
    bounds: Vec<Span>,
    /// Bytes of the prompt that a replica reads more than once, as often as it reads them again.
    pub(super) repeated: u64,
    /// The parts of the prompt in the order in which chat templates render them.
    prompt: Vec<Span>,
}

impl CallBody {
    /// Scans a body. Errors: it is not one JSON object, `model` is no string or there twice.
    pub(super) fn scan(bytes: Bytes, endpoint: &Endpoint) -> Result<CallBody, Refusal> {
        let bytes = if bytes.starts_with(b"\xef\xbb\xbf") { bytes.slice(3..) } else { bytes };
        let Some(brace) = bytes.iter().position(|byte| !byte.is_ascii_whitespace()) else {
            return Err(Refusal::body("the request body is empty: send a JSON object"));
        };
        if bytes[brace] != b'{' {
            return Err(Refusal::body("the request body is not a JSON object"));
        }
        let fields = {
            let mut json = serde_json::Deserializer::from_slice(&bytes);
            let fields = json
                .deserialize_map(Scan { body: &bytes, bounds: endpoint.max_tokens_fields() })
                .and_then(|fields| json.end().map(|()| fields));
            // The library's message has a position and never quotes the text.
            fields.map_err(|error| match error.classify() {
                serde_json::error::Category::Data => Refusal::field("model", strip_position(&error.to_string())),
                _ => Refusal::body(format!("the request body is not valid JSON: {error}")),
            })?
        };
        let model = fields.model.as_ref().map(|span| model_name(&bytes[span.clone()])).transpose()?.flatten();
        let options =
            fields.stream_options.as_ref().map(|span| stream_options(&bytes[span.clone()])).unwrap_or_default();
        Ok(CallBody {
            model,
            streams: fields.stream,
            wants_usage: options.include_usage == Some(true),
            wants_running_usage: options.include_usage == Some(true) && options.continuous_usage_stats == Some(true),
            max_tokens: fields.max_tokens,
            choices: fields.n.max(1).saturating_mul(prompts(&bytes, &fields, endpoint)),
            repeated: repeated(&bytes, &fields, endpoint),
            salt: fields.salt,
            inside: brace + 1,
            is_empty: fields.is_empty,
            model_span: fields.model,
            stream_options: fields.stream_options,
            bounds: fields.bounds,
            prompt: fields.prompt.into_iter().flatten().collect(),
            bytes,
        })
    }

    /// Which parts of a stream's usage the caller did not ask for.
    pub(super) fn hidden_usage(&self, endpoint: &Endpoint) -> HiddenUsage {
        if !endpoint.must_ask_for_usage() {
            return HiddenUsage::default();
        }
        HiddenUsage { last: !self.wants_usage, running: !self.wants_running_usage }
    }

    /// The body's size in bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The whole body as received.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The prompt as JSON text: borrowed if it is one field, else its fields one after the other.
    pub(super) fn prompt(&self) -> Cow<'_, [u8]> {
        match self.prompt.as_slice() {
            [] => Cow::Borrowed(&[]),
            [only] => Cow::Borrowed(&self.bytes[only.clone()]),
            several => Cow::Owned(several.iter().flat_map(|span| &self.bytes[span.clone()]).copied().collect()),
        }
    }

    /// The prompt's fields, each as JSON text.
    pub(super) fn prompt_fields(&self) -> impl Iterator<Item = &[u8]> {
        self.prompt.iter().map(|span| &self.bytes[span.clone()])
    }

    /// `cache_salt` as written; empty if absent.
    pub(super) fn salt(&self) -> &str {
        self.salt.as_ref().and_then(|span| std::str::from_utf8(&self.bytes[span.clone()]).ok()).unwrap_or_default()
    }
}

/// The model a body names; `null` and `""` name none.
fn model_name(raw: &[u8]) -> Result<Option<String>, Refusal> {
    match serde_json::from_slice::<Option<String>>(raw) {
        Ok(name) => Ok(name.filter(|name| !name.is_empty())),
        Err(_) => Err(Refusal::field("model", "`model` must be a string")),
    }
}

/// `message at line 1 column 2` without its end: for messages of our own.
fn strip_position(message: &str) -> String {
    message.rsplit_once(" at line ").map_or(message, |(message, _)| message).to_owned()
}

#[cfg(test)]
mod tests;
