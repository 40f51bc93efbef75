//! The body as a replica gets it: the received bytes with some values replaced, some fields added and some taken out. A form is written anew
//! of what that makes of its texts.

use bytes::Bytes;

use super::encoding::Encoding;
use super::fields::{CONTINUOUS_USAGE, Field, INCLUDE_USAGE, Role};
use super::{CallBody, Span, Steering};
use crate::gateway::endpoint::Endpoint;

impl CallBody {
    /// The body for a replica: numbers and flags are in one form each, a stream reports its usage if it has to be asked to, no choice has more
    /// tokens than it may, and fields that steer the engine are the gateway's own.
    pub(in crate::gateway) fn rewrite(
        &self,
        served_name: &str,
        steering: &Steering,
        endpoint: &Endpoint,
        output_max: Option<u64>,
    ) -> Bytes {
        let mut edits: Vec<(Span, String)> = Vec::with_capacity(4);
        let mut added: Vec<String> = Vec::new();
        self.name_model(served_name, &mut edits, &mut added);
        self.write_stream(endpoint, &mut edits, &mut added);
        self.write_sizes(output_max, endpoint, &mut edits, &mut added);
        if let (Encoding::BytesOnly, Some(field)) = (self.encoding, self.fields.with(Role::Encoding).next()) {
            edits.push((field.value.clone(), "\"bytes\"".to_owned()));
        }
        added.extend(steering.added());
        let removed = steering.removed(self);
        edits.extend(cuts(&removed).map(|span| (span, String::new())));
        if !added.is_empty() {
            let mut added = added.join(",");
            if self.fields.count > removed.len() {
                added.push(',');
            }
            edits.push((self.inside..self.inside, added));
        }
        let written = self.spliced(edits);
        match &self.form {
            Some(form) => form.write(&written),
            None => written,
        }
    }

    fn name_model(&self, name: &str, edits: &mut Vec<(Span, String)>, added: &mut Vec<String>) {
        if self.model.as_deref() == Some(name) {
            return;
        }
        let name = serde_json::Value::from(name).to_string();
        match self.fields.get("model") {
            Some(field) => edits.push((field.value.clone(), name)),
            None => added.push(format!("\"model\":{name}")),
        }
    }

    fn write_stream(&self, endpoint: &Endpoint, edits: &mut Vec<(Span, String)>, added: &mut Vec<String>) {
        if let Some(field) = self.fields.get("stream") {
            let is_plain = matches!(&self.bytes[field.value.clone()], b"true" | b"false" | b"null");
            if !is_plain {
                edits.push((field.value.clone(), self.streams.to_string()));
            }
        }
        // Usage at its end and running usage, so that its tokens are known at every moment.
        let asks = self.streams && endpoint.must_ask_for_usage();
        if endpoint.takes_form() {
            for name in [INCLUDE_USAGE, CONTINUOUS_USAGE].into_iter().filter(|_| asks) {
                match self.fields.get(name) {
                    Some(field) => edits.push((field.value.clone(), "true".to_owned())),
                    None => added.push(format!("\"{name}\":true")),
                }
            }
            return;
        }
        match self.fields.get("stream_options") {
            Some(field) if asks || self.bytes[field.value.clone()] != *b"null" => {
                edits.push((field.value.clone(), self.stream_options.with_usage(asks)));
            }
            None if asks => {
                added.push(format!("\"stream_options\":{}", self.stream_options.with_usage(asks)));
            }
            _ => {}
        }
    }

    fn write_sizes(
        &self,
        output_max: Option<u64>,
        endpoint: &Endpoint,
        edits: &mut Vec<(Span, String)>,
        added: &mut Vec<String>,
    ) {
        let bounds = endpoint.max_tokens_fields();
        for size in &self.sizes {
            let Some(field) = self.fields.get(size.name) else { continue };
            let is_bound = bounds.contains(&size.name);
            let value = match (size.value, output_max) {
                (Some(tokens), Some(most)) if is_bound || size.name == "min_tokens" => Some(tokens.min(most)),
                (None, Some(most)) if is_bound => Some(most),
                (value, _) => value,
            };
            let text = value.map_or_else(|| "null".to_owned(), |number| number.to_string());
            if self.bytes[field.value.clone()] != *text.as_bytes() {
                edits.push((field.value.clone(), text));
            }
        }
        let is_bounded = self.sizes.iter().any(|size| bounds.contains(&size.name));
        if let (Some(most), false, Some(field)) = (output_max, is_bounded, bounds.first()) {
            added.push(format!("\"{field}\":{most}"));
        }
    }

    fn spliced(&self, mut edits: Vec<(Span, String)>) -> Bytes {
        if edits.is_empty() {
            return self.bytes.clone();
        }
        // What is added at a place comes before what is cut out there.
        edits.sort_by_key(|(span, _)| (span.start, span.end));
        let longer: usize = edits.iter().map(|(_, text)| text.len()).sum();
        let mut whole = Vec::with_capacity(self.bytes.len() + longer);
        let mut copied = 0;
        for (span, text) in edits {
            whole.extend_from_slice(&self.bytes[copied..span.start]);
            whole.extend_from_slice(text.as_bytes());
            copied = span.end;
        }
        whole.extend_from_slice(&self.bytes[copied..]);
        Bytes::from(whole)
    }
}

/// What to cut out so that `fields`, which are in the order of the body, are gone, and the comma of each with it.
fn cuts(fields: &[&Field]) -> impl Iterator<Item = Span> {
    // Neighbours go together: only the last of them says whether something follows.
    let neighbours = fields.chunk_by(|one, next| one.after == Some(next.start));
    neighbours.filter_map(|group| {
        let (first, last) = (group.first()?, group.last()?);
        Some(match (first.before, last.after) {
            (_, Some(after)) => first.start..after,
            (Some(before), None) => before..last.value.end,
            (None, None) => first.start..last.value.end,
        })
    })
}
