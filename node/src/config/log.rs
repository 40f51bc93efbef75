//! `[log]`: what is written where.

use std::path::PathBuf;

use super::section::Reader;
use crate::observability::logging;

/// What is written where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// `filter`: levels by module, such as `info,node::gateway=debug`. Default: our own modules at `info`, the rest at `warn`.
    pub filter: String,
    /// `format`: `auto`, `text` or `json`.
    pub format: Format,
    /// `file`: everything goes there, and only warnings to standard error.
    pub file: Option<PathBuf>,
}

/// How a line looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Log {
    pub(super) fn read(reader: &Reader<'_>) -> Log {
        let section = reader.section("log");
        let filter = section.text("filter").unwrap_or_else(|| logging::DEFAULT_FILTER.to_owned());
        if let Err(error) = logging::check_filter(&filter) {
            section.mistake(
                "filter",
                format!("\"{filter}\" is not a filter: {error}; write levels such as \"info,node=debug\""),
            );
        }
        let words = [("auto", Format::Auto), ("text", Format::Text), ("json", Format::Json)];
        Log { filter, format: section.choice("format", Format::Auto, &words), file: section.path("file") }
    }
}
