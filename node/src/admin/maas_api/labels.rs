//! Labels of API keys: up to 50, keys as in Kubernetes, values free text; together no longer than the state keeps.

use raft::state::KEY_LABELS_BYTES_MAX;
use serde_json::{Map, Value};

/// Labels of one key.
pub(super) const LABELS_MAX: usize = 50;
const KEY_BYTES_MAX: usize = 128;
const VALUE_BYTES_MAX: usize = 1024;

/// Checks labels. Errors: the first thing that is wrong.
pub(super) fn check(labels: &Map<String, Value>) -> Result<Vec<(String, String)>, String> {
    if labels.len() > LABELS_MAX {
        return Err(format!("invalid labels: {} of them, at most {LABELS_MAX} are kept", labels.len()));
    }
    let bytes: usize = labels.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if bytes > KEY_LABELS_BYTES_MAX {
        return Err(format!("invalid labels: {bytes} bytes in all, at most {KEY_LABELS_BYTES_MAX} are kept"));
    }
    labels
        .iter()
        .map(|(key, value)| {
            if !is_key(key) {
                return Err(format!(
                    "invalid labels: {key:?} is not a key: use up to {KEY_BYTES_MAX} letters, digits, `-`, `_` or `.`, with a DNS prefix and `/` before them if you like"
                ));
            }
            let text = value.as_str().filter(|text| is_value(text)).ok_or_else(|| {
                format!("invalid labels: the value of {key:?} must be a string of 1 to {VALUE_BYTES_MAX} bytes without control characters")
            })?;
            Ok((key.clone(), text.to_owned()))
        })
        .collect()
}

fn is_key(key: &str) -> bool {
    let (prefix_fits, name) = match key.split_once('/') {
        Some((prefix, name)) => (
            prefix
                .split('.')
                .all(|part| is_word(part, |c| c == '-') && !part.contains(|c: char| c.is_ascii_uppercase())),
            name,
        ),
        None => (true, key),
    };
    key.len() <= KEY_BYTES_MAX && prefix_fits && is_word(name, |c| matches!(c, '-' | '_' | '.'))
}

/// Letters and digits, `between` them anything that fits.
fn is_word(text: &str, between: impl Fn(char) -> bool) -> bool {
    let is_edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    is_edge(text.chars().next())
        && is_edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || between(c))
}

fn is_value(text: &str) -> bool {
    (1..=VALUE_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels() {
        let long = "k".repeat(129);
        let cases = [
            (json!({}), true),
            (json!({"team": "a b/ö"}), true),
            (json!({"example.com/cost-center": "x"}), true),
            (json!({"a_b.c-d": "x"}), true),
            (json!({"": "x"}), false),
            (json!({"-a": "x"}), false),
            (json!({"a b": "x"}), false),
            (json!({"Example.com/a": "x"}), false),
            (json!({"a/b/c": "x"}), false),
            (json!({ long: "x" }), false),
            (json!({"a": ""}), false),
            (json!({"a": "x\n"}), false),
            (json!({"a": 1}), false),
            (json!({"a": "v".repeat(1025)}), false),
        ];
        for (labels, expected) in cases {
            assert_eq!(check(labels.as_object().unwrap()).is_ok(), expected, "{labels}");
        }
        let many: Map<String, Value> = (0..51).map(|at| (format!("k{at}"), json!("v"))).collect();
        assert!(check(&many).unwrap_err().contains("at most 50"));
        let long = |count| (0..count).map(|at| (format!("k{at}"), json!("v".repeat(1022)))).collect::<Map<_, _>>();
        assert!(check(&long(8)).is_ok());
        assert_eq!(check(&long(9)).unwrap_err(), "invalid labels: 9216 bytes in all, at most 8192 are kept");
    }
}
