//! `stream_options`: read as the replica reads it, and written with what the gateway needs.

use serde_json::{Map, Value};

use super::values::{Misread, flag};

/// A larger object has something else in it than options.
const BYTES_MAX: usize = 4096;

/// The options of a stream. The default is what a body without them means.
#[derive(Debug, Default)]
pub(super) struct StreamOptions {
    /// As they were, the flags of the two below as JSON has them.
    all: Map<String, Value>,
    /// Usage in a last chunk of its own.
    pub(super) include_usage: bool,
    /// And usage in every other chunk, which a replica only heeds together with it.
    pub(super) continuous_usage_stats: bool,
}

const INCLUDE_USAGE: &str = "include_usage";
const CONTINUOUS_USAGE_STATS: &str = "continuous_usage_stats";

impl StreamOptions {
    /// Reads the field's value. Errors: a sentence about `stream_options`.
    pub(super) fn read(json: &str) -> Result<StreamOptions, String> {
        if json.len() > BYTES_MAX {
            return Err(format!("has more than {BYTES_MAX} bytes"));
        }
        // Of two members of one name the last counts, as it does for Python.
        let mut all = serde_json::from_str::<Option<Map<String, Value>>>(json)
            .map_err(|_| "must be an object".to_owned())?
            .unwrap_or_default();
        let mut read = |name: &str| -> Result<bool, String> {
            let Some(value) = all.get_mut(name) else { return Ok(false) };
            let read = flag(&value.to_string()).map_err(|why: Misread| format!("is wrong: `{name}` {why}"))?;
            *value = read.map_or(Value::Null, Value::Bool);
            Ok(read == Some(true))
        };
        let include_usage = read(INCLUDE_USAGE)?;
        let continuous_usage_stats = read(CONTINUOUS_USAGE_STATS)?;
        Ok(StreamOptions { all, include_usage, continuous_usage_stats })
    }

    /// The same from the fields of a form.
    pub(super) fn flat(include_usage: bool, continuous_usage_stats: bool) -> StreamOptions {
        StreamOptions { include_usage, continuous_usage_stats, ..StreamOptions::default() }
    }

    /// The JSON object, with usage on if a replica shall be asked for it.
    pub(super) fn with_usage(&self, asks: bool) -> String {
        let mut all = self.all.clone();
        if asks {
            all.extend([INCLUDE_USAGE, CONTINUOUS_USAGE_STATS].map(|name| (name.to_owned(), true.into())));
        }
        Value::Object(all).to_string()
    }
}
