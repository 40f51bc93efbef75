//! The source tree as files of text.

use std::fs;
use std::path::Path;

/// What is made, not written.
const PASSED_OVER: [&str; 8] =
    [".git", ".tollgate", ".venv", ".pytest_cache", "__pycache__", "node_modules", "target", "LICENSE"];

/// A file.
pub(crate) struct Source {
    /// From the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it is the manifest of a crate, and not of the workspace.
    pub(crate) fn is_manifest(&self) -> bool {
        self.path.ends_with("/Cargo.toml")
    }

    /// Its lines with their numbers.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }
}

/// Every file that is text, in order.
pub(crate) fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above");
    let mut sources = Vec::new();
    walk(root, "", &mut sources);
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(sources.iter().any(|source| source.path == "raft/src/lib.rs"), "this is not the workspace");
    sources
}

fn walk(directory: &Path, prefix: &str, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).expect("a directory can be listed") {
        let entry = entry.expect("a directory can be listed");
        let name = entry.file_name().to_string_lossy().into_owned();
        if PASSED_OVER.contains(&name.as_str()) {
            continue;
        }
        let path = format!("{prefix}{name}");
        // A file may go away while this runs; one that is not text is none of ours.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), &format!("{path}/"), sources);
        } else if let Ok(text) = fs::read_to_string(entry.path()) {
            sources.push(Source { path, text });
        }
    }
}
