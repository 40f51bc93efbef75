//! The body as a replica gets it: the received bytes with some values replaced and some fields added.

use bytes::Bytes;

use super::options::with_options;
use super::sizes::number;
use super::{CallBody, Span};
use crate::gateway::endpoint::Endpoint;

impl CallBody {
    /// The body as a replica gets it: `model` is `served_name`, a stream reports its usage if it has to be asked to, and no choice has
    /// more tokens than `output_max`.
    pub(in crate::gateway) fn rewrite(&self, served_name: &str, endpoint: &Endpoint, output_max: Option<u64>) -> Bytes {
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
}
