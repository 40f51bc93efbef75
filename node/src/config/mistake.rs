//! What is wrong with a configuration, said to the person who wrote it.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// The key as it was written: `gateway.listen`, or `TOLLGATE_GATEWAY_LISTEN`; empty if the whole file is meant.
    pub place: String,
    /// What is wrong, with the value, and what would be right.
    pub message: String,
}

impl Mistake {
    pub(super) fn new(place: impl Into<String>, message: impl Into<String>) -> Mistake {
        Mistake { place: place.into(), message: message.into() }
    }

    pub(super) fn whole(message: impl Into<String>) -> Mistake {
        Mistake::new("", message)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.place, self.message) }
    }
}

/// Everything wrong with one file, one line each.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Mistakes {
    /// The file.
    pub file: String,
    /// At least one.
    pub mistakes: Vec<Mistake>,
}

impl Mistakes {
    pub(super) fn new(file: String, mistakes: Vec<Mistake>) -> Mistakes {
        Mistakes { file, mistakes }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.mistakes.len();
        writeln!(f, "{}: {count} {} in the configuration", self.file, if count == 1 { "mistake" } else { "mistakes" })?;
        for mistake in &self.mistakes {
            writeln!(f, "  {mistake}")?;
        }
        Ok(())
    }
}
