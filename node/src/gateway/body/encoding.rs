//! Embeddings as bytes: `encoding_format` `bytes` or `bytes_only`. vLLM answers both with the numbers alone, and says in the header
//! `metadata` what they are and what the call used, to `bytes` only. So `bytes` is what a replica is asked for in either case, and who
//! asked for `bytes_only` does not get the header.

use super::CallBody;
use super::fields::{Field, Fields, Role};
use crate::gateway::refusal::Refusal;

/// Inputs of a call that is answered as bytes. The header has about 120 bytes for each, and an HTTP client reads a head of some 400 KB.
const INPUTS_MAX: u64 = 2048;

/// How the numbers come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Encoding {
    /// In JSON, or in a form that is none: the replica says so.
    #[default]
    Json,
    /// As bytes, with the header.
    Bytes,
    /// As bytes alone.
    BytesOnly,
}

/// What a body asks for. Errors: more inputs than a header can tell of.
pub(super) fn read(body: &[u8], fields: &Fields) -> Result<Encoding, Refusal> {
    let Some(field) = fields.with(Role::Encoding).next() else { return Ok(Encoding::Json) };
    let is_few = inputs(fields) <= INPUTS_MAX;
    match serde_json::from_slice::<String>(&body[field.value.clone()]).as_deref() {
        Ok("bytes") if !is_few => {
            let why =
                format!("`encoding_format` `bytes` takes at most {INPUTS_MAX} inputs: send fewer, or `bytes_only`");
            Err(Refusal::field(field.name, why))
        }
        Ok("bytes") => Ok(Encoding::Bytes),
        // Without the header the call costs what it holds.
        Ok("bytes_only") if is_few => Ok(Encoding::BytesOnly),
        _ => Ok(Encoding::Json),
    }
}

/// How many texts are embedded.
fn inputs(fields: &Fields) -> u64 {
    match fields.get("input") {
        // A list of numbers is one text in tokens.
        Some(Field { items, first: Some(first), .. }) if !first.is_ascii_digit() => *items,
        _ => 1,
    }
}

impl CallBody {
    /// Whether the caller gets the header that a replica puts beside bytes.
    pub(in crate::gateway) fn wants_metadata(&self) -> bool {
        self.encoding == Encoding::Bytes
    }
}
