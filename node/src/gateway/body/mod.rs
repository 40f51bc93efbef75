//! The body of a call, as JSON: read once, scanned once without being built up, and rewritten by splicing.
//!
//! A field that the gateway does not know is forwarded byte for byte, and so is everything inside the prompt. Of the fields
//! that it knows, each is there once: replicas differ in which of two they take. The texts of a form are read as such an object, too.

mod budget;
mod decode;
mod encoding;
mod fields;
mod form;
mod options;
mod parts;
mod read;
mod rewrite;
mod scan;
mod sizes;
mod steering;
mod values;

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::call_id::CallId;
use super::endpoint::Endpoint;
use super::estimate::Speech;
use super::progress::HiddenUsage;
use super::refusal::Refusal;
use encoding::Encoding;
use fields::{CONTINUOUS_USAGE, Field, Fields, INCLUDE_USAGE, Role};
use form::Form;
use options::StreamOptions;
use scan::{Fault, Scanner};
use sizes::{Compared, Size};

pub(super) use budget::{BodyBudget, BodyHold};
pub(super) use decode::ACCEPTED;
pub(super) use read::read;
pub(super) use steering::Steering;

/// A slice of the body.
type Span = Range<usize>;

/// So many bytes are scanned before other calls have a turn.
const STEP: usize = 64 * 1024;

/// Bytes of a prompt that the picker looks at.
const HASHED_MAX: usize = 512 * 1024;

/// A call's body and what the gateway needs to know of it.
#[derive(Debug)]
pub(super) struct CallBody {
    bytes: Bytes,
    /// `model`, decoded.
    pub(super) model: Option<String>,
    /// Whether the answer is streamed, as the replica reads `stream`.
    pub(super) streams: bool,
    stream_options: StreamOptions,
    /// The most tokens of one choice, as the replica reads them.
    pub(super) max_tokens: Option<u64>,
    /// How many answers are generated: prompts times `n` or `best_of`.
    pub(super) choices: u64,
    /// The prompts alone.
    pub(super) prompts: u64,
    /// What a replica reads more than once.
    pub(super) compared: Option<Compared>,
    /// The file of a form, if it is one.
    pub(super) speech: Option<Speech>,
    form: Option<Form>,
    encoding: Encoding,
    sizes: Vec<Size>,
    fields: Fields,
    /// Where the object's content begins.
    inside: usize,
    /// The parts of the prompt in the order in which chat templates render them.
    prompt: Vec<Span>,
}

/// A body that is being scanned.
struct Scan<'a> {
    bytes: Bytes,
    endpoint: &'a Endpoint,
    scanner: Scanner,
    fields: Fields,
    brace: usize,
    scanned: usize,
}

impl<'a> Scan<'a> {
    /// Errors: it is no JSON object.
    fn begin(bytes: Bytes, endpoint: &'a Endpoint) -> Result<Scan<'a>, Refusal> {
        let bytes = if bytes.starts_with(b"\xef\xbb\xbf") { bytes.slice(3..) } else { bytes };
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let Some(brace) = bytes.iter().position(|byte| !is_space(byte)) else {
            return Err(Refusal::body("the request body is empty: send a JSON object"));
        };
        if bytes[brace] != b'{' {
            return Err(Refusal::body("the request body is not a JSON object"));
        }
        Ok(Scan { bytes, endpoint, scanner: Scanner::from(brace), fields: Fields::default(), brace, scanned: brace })
    }

    /// Scans the next [`STEP`] bytes. Whether there are more.
    fn step(&mut self) -> Result<bool, Refusal> {
        let until = (self.scanned + STEP).min(self.bytes.len());
        let (bytes, endpoint, fields) = (&self.bytes, self.endpoint, &mut self.fields);
        let advanced = self.scanner.advance(bytes, until, &mut |member| fields.add(bytes, endpoint, member));
        advanced.map_err(|fault| self.refusal(fault))?;
        self.scanned = until;
        Ok(until < self.bytes.len())
    }

    fn end(self) -> Result<CallBody, Refusal> {
        self.scanner.finish().map_err(|fault| self.refusal(fault))?;
        let Scan { bytes, endpoint, fields, brace, .. } = self;
        let fields = fields
            .each_once()
            .map_err(|fields::Twice(name)| Refusal::field(name, format!("`{name}` is there twice: send it once")))?;
        let text = |name: &str| fields.get(name).map(|field| (&bytes[field.value.clone()], field.name));
        let model = text("model").map(|(json, _)| model_name(json)).transpose()?.flatten();
        let streams = text("stream").map(|(json, name)| flag(json, name)).transpose()?.flatten() == Some(true);
        let stream_options = if endpoint.takes_form() {
            let option = |name: &str| text(name).map(|(json, name)| flag(json, name)).transpose();
            let [last, running] = [option(INCLUDE_USAGE)?, option(CONTINUOUS_USAGE)?];
            Some(StreamOptions::flat(last.flatten() == Some(true), running.flatten() == Some(true)))
        } else {
            text("stream_options").map(|(json, name)| stream_options(json, name)).transpose()?
        };
        let sizes = sizes::read(&bytes, &fields)?;
        Ok(CallBody {
            model,
            streams,
            stream_options: stream_options.unwrap_or_default(),
            max_tokens: sizes::max_tokens(&sizes, endpoint),
            choices: sizes::choices(&fields, &sizes, endpoint),
            prompts: sizes::prompts(&fields, endpoint),
            compared: sizes::compared(&fields, endpoint),
            speech: None,
            form: None,
            encoding: encoding::read(&bytes, &fields)?,
            sizes,
            inside: brace + 1,
            prompt: fields.prompt(),
            fields,
            bytes,
        })
    }

    /// What is wrong and where. The text itself is never repeated.
    fn refusal(&self, fault: Fault) -> Refusal {
        let name = &self.bytes[self.scanner.member_name()];
        let in_field = match std::str::from_utf8(name) {
            Ok(name) if (3..=64).contains(&name.len()) => format!(", in or after the field {name}"),
            _ => String::new(),
        };
        Refusal::body(format!("the request body {fault}{in_field}"))
    }
}

impl CallBody {
    /// Scans a body. Errors: it is not one JSON object, it is too deep or has too many nodes, a known field is there twice or
    /// has a value that a replica would not take.
    #[cfg(test)]
    pub(super) fn scan(bytes: Bytes, endpoint: &Endpoint) -> Result<CallBody, Refusal> {
        let mut scan = Scan::begin(bytes, endpoint)?;
        while scan.step()? {}
        scan.end()
    }

    /// Reads a body: JSON, or where the endpoint takes one a form, which is the call `id`'s. Errors: it is not that, or not sound.
    pub(super) async fn read(
        bytes: Bytes,
        headers: &HeaderMap,
        endpoint: &Endpoint,
        id: &CallId,
    ) -> Result<CallBody, Refusal> {
        if endpoint.takes_form() {
            form::read(bytes, headers, endpoint, id).await
        } else {
            CallBody::scan_in_steps(bytes, endpoint).await
        }
    }

    /// Scans a body, and lets other calls have their turn meanwhile. Errors: it is not one JSON object, it is too deep or has
    /// too many nodes, a known field is there twice or has a value that a replica would not take.
    async fn scan_in_steps(bytes: Bytes, endpoint: &Endpoint) -> Result<CallBody, Refusal> {
        let mut scan = Scan::begin(bytes, endpoint)?;
        while scan.step()? {
            tokio::task::yield_now().await;
        }
        scan.end()
    }

    /// Which parts of a stream's usage the caller did not ask for.
    pub(super) fn hidden_usage(&self, endpoint: &Endpoint) -> HiddenUsage {
        if !endpoint.must_ask_for_usage() {
            return HiddenUsage::default();
        }
        let StreamOptions { include_usage, continuous_usage_stats, .. } = self.stream_options;
        HiddenUsage { last: !include_usage, running: !(include_usage && continuous_usage_stats) }
    }

    /// The value of a field, as written.
    fn text(&self, field: &Field) -> &str {
        std::str::from_utf8(&self.bytes[field.value.clone()]).unwrap_or_default()
    }

    /// Forgets all text, after what a replica gets of it was written: the call may take minutes, and the memory is others'.
    pub(super) fn forget(&mut self) {
        self.bytes = Bytes::new();
        self.fields = Fields::default();
        self.sizes.clear();
        self.prompt.clear();
        if let Some(form) = &mut self.form {
            form.forget();
        }
    }

    /// The type of what a replica gets.
    pub(super) fn content_type(&self) -> HeaderValue {
        self.form.as_ref().map_or(HeaderValue::from_static("application/json"), Form::content_type)
    }

    /// The value of a field that refers to what earlier calls left behind, as written.
    pub(super) fn state(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|field| self.text(field))
    }

    /// Whether a response is made in the background, as the replica reads it. Errors: the field is no flag.
    pub(super) fn is_in_background(&self) -> Result<bool, Refusal> {
        let field = self.fields.get("background");
        let read = field.map(|field| flag(self.text(field).as_bytes(), field.name)).transpose()?;
        Ok(read.flatten() == Some(true))
    }

    /// The size in bytes of the body, or of the texts of a form.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The whole body as received, or the texts of a form as JSON.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The beginning of the prompt as JSON text: borrowed if it is one field, else its fields one after the other.
    pub(super) fn prompt(&self) -> Cow<'_, [u8]> {
        match self.prompt.as_slice() {
            [] => Cow::Borrowed(&[]),
            [only] => Cow::Borrowed(&self.bytes[only.clone()]),
            several => Cow::Owned(
                several.iter().flat_map(|span| &self.bytes[span.clone()]).take(HASHED_MAX).copied().collect(),
            ),
        }
    }

    /// The prompt's fields in the order of the body: their names, and their values as JSON text.
    pub(super) fn prompt_fields(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.fields.of_prompt().map(|field| (field.name, &self.bytes[field.value.clone()]))
    }

    /// Whether a prompt comes as embeddings.
    pub(super) fn has_prompt_embeds(&self) -> bool {
        let is_there = |field: &Field| self.bytes[field.value.clone()] != *b"null";
        self.fields.with(Role::PromptEmbeds).any(is_there)
    }
}

/// The model a body names; `null` and `""` name none.
fn model_name(raw: &[u8]) -> Result<Option<String>, Refusal> {
    match serde_json::from_slice::<Option<String>>(raw) {
        Ok(name) => Ok(name.filter(|name| !name.is_empty())),
        Err(_) => Err(Refusal::field("model", "`model` must be a string")),
    }
}

fn flag(json: &[u8], name: &'static str) -> Result<Option<bool>, Refusal> {
    let read = std::str::from_utf8(json).map_err(|_| values::Misread::NotFlag).and_then(values::flag);
    read.map_err(|why| Refusal::field(name, format!("`{name}` {why}")))
}

fn stream_options(json: &[u8], name: &'static str) -> Result<StreamOptions, Refusal> {
    let read = std::str::from_utf8(json).map_err(|_| "is not UTF-8".to_owned()).and_then(StreamOptions::read);
    read.map_err(|why| Refusal::field(name, format!("`{name}` {why}")))
}

#[cfg(test)]
mod tests;
