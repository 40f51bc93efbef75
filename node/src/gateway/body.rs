//! The JSON body of a call: read once, scanned once without being built up, and rewritten by splicing.
//!
//! The scan borrows. Every field it does not know is forwarded byte for byte, and so is everything inside the fields it
//! knows, except `model` and `stream_options`.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::endpoint::{Endpoint, Kind};
use super::progress::HiddenUsage;
use super::refusal::Refusal;
use crate::accept;

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

/// A discarded body is read on for this long at most, so that a client that is still sending gets to see its refusal.
const DISCARD: std::time::Duration = std::time::Duration::from_secs(1);

/// Reads the whole body.
pub(super) async fn read(mut body: accept::Body) -> Result<Bytes, Refusal> {
    let Some(first) = next_data(&mut body).await? else { return Ok(Bytes::new()) };
    let Some(second) = next_data(&mut body).await? else { return Ok(first) };
    let mut whole = BytesMut::with_capacity((first.len() + second.len()) * 2);
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&second);
    while let Some(piece) = next_data(&mut body).await? {
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

async fn next_data(body: &mut accept::Body) -> Result<Option<Bytes>, Refusal> {
    loop {
        if http_body::Body::is_end_stream(body) {
            return Ok(None);
        }
        match body.frame().await {
            None => return Ok(None),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => return Ok(Some(data)),
                Err(_trailers) => {}
            },
            Some(Err(error)) => {
                if matches!(error, accept::BodyError::TooLarge { .. }) {
                    body.discard(DISCARD).await;
                }
                return Err(error.into());
            }
        }
    }
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

    /// The body as a replica gets it: `model` is `served_name`, a stream reports its usage if it has to be asked to, and no choice has
    /// more tokens than `output_max`.
    pub(super) fn rewrite(&self, served_name: &str, endpoint: &Endpoint, output_max: Option<u64>) -> Bytes {
        let mut edits: Vec<(Span, String)> = Vec::with_capacity(2);
        let mut added = String::new();
        let comma = if self.is_empty { "" } else { "," };
        if self.model.as_deref() != Some(served_name) {
            let name = serde_json::Value::from(served_name).to_string();
            match &self.model_span {
                Some(span) => edits.push((span.clone(), name)),
                None => added = format!("\"model\":{name}{comma}"),
            }
        }
        let options = self.options_to_add(endpoint);
        if !options.is_empty() {
            match &self.stream_options {
                Some(span) => edits.push((span.clone(), with_options(&self.bytes[span.clone()], options))),
                // An empty object does not stream, so something follows.
                None => added.push_str(&format!("\"stream_options\":{},", with_options(b"null", options))),
            }
        }
        if let Some(most) = output_max {
            let is_beyond = |span: &&Span| {
                let written = std::str::from_utf8(&self.bytes[(*span).clone()]).ok().and_then(number);
                written.is_none_or(|written| written > most)
            };
            edits.extend(self.bounds.iter().filter(is_beyond).map(|span| (span.clone(), most.to_string())));
            if let (true, Some(field)) = (self.bounds.is_empty(), endpoint.max_tokens_fields().first()) {
                // Something was asked, so something follows.
                added.push_str(&format!("\"{field}\":{most},"));
            }
        }
        if !added.is_empty() {
            edits.push((self.inside..self.inside, added));
        }
        if edits.is_empty() {
            return self.bytes.clone();
        }
        edits.sort_unstable_by_key(|(span, _)| span.start);
        let mut whole = Vec::with_capacity(self.bytes.len() + 128);
        let mut copied = 0;
        for (span, text) in edits {
            whole.extend_from_slice(&self.bytes[copied..span.start]);
            whole.extend_from_slice(text.as_bytes());
            copied = span.end;
        }
        whole.extend_from_slice(&self.bytes[copied..]);
        Bytes::from(whole)
    }

    /// What a stream has to be asked for, so that its tokens are known at every moment, and was not. vLLM's running usage is of one choice
    /// only, so that is asked for where there is one.
    fn options_to_add(&self, endpoint: &Endpoint) -> &'static [&'static str] {
        match (self.streams && endpoint.must_ask_for_usage(), self.wants_usage, self.wants_running_usage) {
            (false, _, _) | (true, _, true) => &[],
            (true, _, false) if self.choices == 1 => &["include_usage", "continuous_usage_stats"],
            (true, false, false) => &["include_usage"],
            (true, true, false) => &[],
        }
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

/// What one pass over the top level finds.
#[derive(Default)]
struct Fields {
    is_empty: bool,
    model: Option<Span>,
    stream: bool,
    stream_options: Option<Span>,
    max_tokens: Option<u64>,
    bounds: Vec<Span>,
    n: u64,
    salt: Option<Span>,
    /// By their place in [`PROMPT_FIELDS`].
    prompt: [Option<Span>; PROMPT_FIELDS.len()],
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
    fn prompt_field(&self, name: &str) -> Option<Span> {
        let place = PROMPT_FIELDS.iter().position(|known| *known == name)?;
        self.prompt[place].clone()
    }
}

struct Scan<'a> {
    body: &'a [u8],
    /// The names of fields that bound the output.
    bounds: &'static [&'static str],
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

/// A count, also when written as a string, which replicas accept.
fn number(raw: &str) -> Option<u64> {
    raw.trim_matches('"').parse().ok()
}

/// The model a body names; `null` and `""` name none.
fn model_name(raw: &[u8]) -> Result<Option<String>, Refusal> {
    match serde_json::from_slice::<Option<String>>(raw) {
        Ok(name) => Ok(name.filter(|name| !name.is_empty())),
        Err(_) => Err(Refusal::field("model", "`model` must be a string")),
    }
}

/// What of `stream_options` matters here.
#[derive(serde::Deserialize, Default)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
    #[serde(default)]
    continuous_usage_stats: Option<bool>,
}

fn stream_options(json: &[u8]) -> StreamOptions {
    serde_json::from_slice(json).unwrap_or_default()
}

/// The caller's `stream_options` with these on. What is no object stays as it is: the replica refuses it.
fn with_options(stream_options: &[u8], names: &[&str]) -> String {
    let on = |mut options: serde_json::Map<String, serde_json::Value>| {
        options.extend(names.iter().map(|name| ((*name).to_owned(), true.into())));
        serde_json::Value::Object(options).to_string()
    };
    match serde_json::from_slice::<serde_json::Value>(stream_options) {
        Ok(serde_json::Value::Object(options)) => on(options),
        Ok(serde_json::Value::Null) => on(serde_json::Map::new()),
        Ok(_) | Err(_) => String::from_utf8_lossy(stream_options).into_owned(),
    }
}

/// How many prompts are answered separately.
fn prompts(body: &[u8], fields: &Fields, endpoint: &Endpoint) -> u64 {
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
fn repeated(body: &[u8], fields: &Fields, endpoint: &Endpoint) -> u64 {
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

/// `message at line 1 column 2` without its end: for messages of our own.
fn strip_position(message: &str) -> String {
    message.rsplit_once(" at line ").map_or(message, |(message, _)| message).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat() -> &'static Endpoint {
        Endpoint::at("/v1/chat/completions").unwrap()
    }

    fn scan(body: &str) -> Result<CallBody, Refusal> {
        CallBody::scan(Bytes::copy_from_slice(body.as_bytes()), chat())
    }

    #[test]
    fn bodies_are_spliced_and_nothing_else_changes() {
        let table = [
            (r#"{"model":"a"}"#, r#"{"model":"served"}"#),
            (r#" {"model" : "a" , "x":[1, 2e3,"\u00e9"]} "#, r#" {"model" : "served" , "x":[1, 2e3,"\u00e9"]} "#),
            (r#"{"mod\u0065l":"a","z":1}"#, r#"{"mod\u0065l":"served","z":1}"#),
            (r#"{}"#, r#"{"model":"served"}"#),
            (r#"{ "messages":[]}"#, r#"{"model":"served", "messages":[]}"#),
            (r#"{"model":null}"#, r#"{"model":"served"}"#),
            (r#"{"model":"served"}"#, r#"{"model":"served"}"#),
            (
                r#"{"model":"a","stream":true}"#,
                r#"{"stream_options":{"include_usage":true,"continuous_usage_stats":true},"model":"served","stream":true}"#,
            ),
            (
                r#"{"stream_options":{"continuous_usage_stats":true},"stream":true,"model":"a"}"#,
                r#"{"stream_options":{"continuous_usage_stats":true,"include_usage":true},"stream":true,"model":"served"}"#,
            ),
            (
                r#"{"stream":true,"stream_options":null,"model":"served"}"#,
                r#"{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},"model":"served"}"#,
            ),
            (
                r#"{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},"model":"served"}"#,
                r#"{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},"model":"served"}"#,
            ),
            (
                r#"{"stream":true,"stream_options":{"include_usage":true},"model":"served"}"#,
                r#"{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},"model":"served"}"#,
            ),
            // Running usage is of one choice.
            (
                r#"{"stream":true,"n":2}"#,
                r#"{"model":"served","stream_options":{"include_usage":true},"stream":true,"n":2}"#,
            ),
            (
                r#"{"stream":false,"stream_options":{},"model":"served"}"#,
                r#"{"stream":false,"stream_options":{},"model":"served"}"#,
            ),
            (
                r#"{"stream":true}"#,
                r#"{"model":"served","stream_options":{"include_usage":true,"continuous_usage_stats":true},"stream":true}"#,
            ),
        ];
        for (body, expected) in table {
            let rewritten = scan(body).unwrap().rewrite("served", chat(), None);
            assert_eq!(std::str::from_utf8(&rewritten).unwrap(), expected, "{body}");
        }
    }

    #[test]
    fn an_output_is_bounded_where_the_replica_looks_for_it() {
        let table = [
            ("/v1/chat/completions", r#"{"model":"m"}"#, r#"{"max_completion_tokens":9,"model":"m"}"#),
            ("/v1/chat/completions", r#"{"model":"m","max_tokens":9}"#, r#"{"model":"m","max_tokens":9}"#),
            (
                "/v1/chat/completions",
                r#"{"model":"m","max_tokens":10,"max_completion_tokens":"4"}"#,
                r#"{"model":"m","max_tokens":9,"max_completion_tokens":"4"}"#,
            ),
            ("/v1/chat/completions", r#"{"max_tokens":null,"model":"m"}"#, r#"{"max_tokens":9,"model":"m"}"#),
            ("/v1/completions", r#"{"max_tokens":-1,"model":"m"}"#, r#"{"max_tokens":9,"model":"m"}"#),
            // What bounds nothing there is not taken for a bound.
            (
                "/v1/completions",
                r#"{"max_output_tokens":3,"model":"m"}"#,
                r#"{"max_tokens":9,"max_output_tokens":3,"model":"m"}"#,
            ),
            ("/v1/responses", r#"{"model":"m","max_output_tokens":1e9}"#, r#"{"model":"m","max_output_tokens":9}"#),
            (
                "/v1/messages",
                r#"{"max_tokens":99,"max_tokens":5,"model":"m"}"#,
                r#"{"max_tokens":9,"max_tokens":5,"model":"m"}"#,
            ),
            ("/v1/embeddings", r#"{"model":"m"}"#, r#"{"model":"m"}"#),
        ];
        for (path, body, expected) in table {
            let endpoint = Endpoint::at(path).unwrap();
            let scanned = CallBody::scan(Bytes::from_static(body.as_bytes()), endpoint).unwrap();
            let rewritten = scanned.rewrite("m", endpoint, Some(9));
            assert_eq!(std::str::from_utf8(&rewritten).unwrap(), expected, "{path} {body}");
        }
    }

    #[test]
    fn what_is_no_call_is_refused() {
        let table = [
            ("", "the request body is empty: send a JSON object"),
            ("[]", "the request body is not a JSON object"),
            ("\"x\"", "the request body is not a JSON object"),
            ("{\"a\":1", "the request body is not valid JSON: EOF while parsing an object at line 1 column 6"),
            ("{\"a\":1} x", "the request body is not valid JSON: trailing characters at line 1 column 9"),
            ("{\"model\":7}", "`model` must be a string"),
            ("{\"model\":\"a\",\"model\":\"a\"}", "`model` is there twice"),
            (r#"{"model":"a","mod\u0065l":"b"}"#, "`model` is there twice"),
        ];
        for (body, message) in table {
            assert_eq!(scan(body).unwrap_err().to_string(), message, "{body}");
        }
    }

    #[test]
    fn sizes_are_read_where_replicas_read_them() {
        let body = scan(r#"{"max_tokens":"4","max_completion_tokens":9,"n":2,"best_of":3,"messages":[1]}"#).unwrap();
        assert_eq!((body.max_tokens, body.choices), (Some(9), 3));
        let completions = Endpoint::at("/v1/completions").unwrap();
        let choices =
            |body: &'static str| CallBody::scan(Bytes::from_static(body.as_bytes()), completions).unwrap().choices;
        assert_eq!(choices(r#"{"prompt":["a","b"],"n":2}"#), 4);
        assert_eq!(choices(r#"{"prompt":[1,2,3]}"#), 1);
        assert_eq!(choices(r#"{"prompt":[[1,2],[3]]}"#), 2);
    }
}
