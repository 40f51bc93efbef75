//! Paths: split first, then each segment decoded exactly once and checked, so that `%2f` or `..` never moves a request elsewhere.

use percent_encoding::percent_decode_str;

/// The segments of a URI's path. `None` if a segment is empty (one slash at the end aside), is `.` or `..`, is not UTF-8,
/// or contains a slash, a backslash or a control character once decoded.
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
    let is_plain =
        !matches!(&*decoded, "" | "." | "..") && !decoded.contains(|c: char| c == '/' || c == '\\' || c.is_control());
    is_plain.then(|| decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_decoded_once_and_never_leads_elsewhere() {
        let cases: [(&str, Option<&[&str]>); 12] = [
            ("/", Some(&[])),
            ("/api", Some(&["api"])),
            ("/api/", Some(&["api"])),
            ("/apis/a.b/v1", Some(&["apis", "a.b", "v1"])),
            ("/x/kube%3Aadmin", Some(&["x", "kube:admin"])),
            ("/x/%252f", Some(&["x", "%2f"])),
            ("/x//y", None),
            ("/x/..%2f..%2fadmin", None),
            ("/x/%2e%2e/y", None),
            ("/x/a%00b", None),
            ("/x/%ff", None),
            ("x", None),
        ];
        for (path, expected) in cases {
            let expected = expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
            assert_eq!(segments(path), expected, "{path}");
        }
    }
}
