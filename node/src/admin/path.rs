//! Paths: split first, then each segment decoded exactly once and checked, so that `%2f` or `..` never moves a request elsewhere.
//!
//! Which names may be created is decided elsewhere (`raft/src/resources/names.rs`). What exists can be named here whatever it is
//! called, so that it can be deleted.

use percent_encoding::percent_decode_str;

/// The segments of a URI's path. `None` if a segment is empty (one slash at the end aside), is `.` or `..`, is not UTF-8,
/// or contains a slash once decoded.
pub(super) fn segments(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/')?;
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Some(Vec::new());
    }
    path.split('/').map(segment).collect()
}

fn segment(encoded: &str) -> Option<String> {
    let decoded = percent_decode_str(encoded).decode_utf8().ok()?;
    let is_name = !matches!(&*decoded, "" | "." | "..") && !decoded.contains('/');
    is_name.then(|| decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_decoded_once_and_never_leads_elsewhere() {
        let cases: [(&str, Option<&[&str]>); 13] = [
            ("/", Some(&[])),
            ("/api", Some(&["api"])),
            ("/api/", Some(&["api"])),
            ("/apis/a.b/v1", Some(&["apis", "a.b", "v1"])),
            ("/x/kube%3Aadmin", Some(&["x", "kube:admin"])),
            ("/x/%252f", Some(&["x", "%2f"])),
            ("/x//y", None),
            ("/x/..%2f..%2fadmin", None),
            ("/x/%2e%2e/y", None),
            ("/x/a%00b", Some(&["x", "a\0b"])),
            ("/x/CORP%5Cdev", Some(&["x", "CORP\\dev"])),
            ("/x/%ff", None),
            ("x", None),
        ];
        for (path, expected) in cases {
            let expected = expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
            assert_eq!(segments(path), expected, "{path}");
        }
    }
}
