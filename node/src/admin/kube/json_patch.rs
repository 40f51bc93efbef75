//! Patches as data: RFC 6902 (JSON Patch) and RFC 7386 (JSON Merge Patch), on JSON values, without I/O.

use serde_json::{Map, Value};

/// Operations one patch may have. A patch is applied once per attempt, so its work must be bounded.
const OPERATIONS_MAX: usize = 10_000;
/// What the `copy` operations of one patch may copy together: each could double the document.
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Applies a JSON Merge Patch: objects are merged, `null` removes, anything else replaces.
pub(super) fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        patch.clone_into(into);
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let Value::Object(map) = into else { return };
    for (name, value) in patch {
        if value.is_null() {
            map.shift_remove(name);
        } else {
            merge(map.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Applies a JSON Patch: all of its operations or, on an error, to be thrown away. Errors: which operation cannot be done, and why.
pub(super) fn apply(document: &mut Value, patch: &Value) -> Result<(), String> {
    let Value::Array(operations) = patch else { return Err("a JSON patch is a list of operations".to_owned()) };
    if operations.len() > OPERATIONS_MAX {
        return Err(format!("the patch has {} operations: at most {OPERATIONS_MAX} are done", operations.len()));
    }
    let mut copied_bytes = 0;
    for (at, operation) in operations.iter().enumerate() {
        perform(document, operation, &mut copied_bytes).map_err(|why| format!("operation {at}: {why}"))?;
    }
    Ok(())
}

fn perform(document: &mut Value, operation: &Value, copied_bytes: &mut usize) -> Result<(), String> {
    let text = |name: &str| {
        operation.get(name).and_then(Value::as_str).ok_or_else(|| format!("{name} is missing or not a string"))
    };
    let value = || operation.get("value").cloned().ok_or_else(|| "value is missing".to_owned());
    let path = pointer(text("path")?)?;
    match text("op")? {
        "add" => add(document, &path, value()?),
        "remove" => remove(document, &path).map(drop),
        "replace" => {
            *find(document, &path)? = value()?;
            Ok(())
        }
        "move" => {
            let from = pointer(text("from")?)?;
            if path.len() > from.len() && path.starts_with(&from) {
                return Err("a value cannot be moved into itself".to_owned());
            }
            let value = remove(document, &from)?;
            add(document, &path, value)
        }
        "copy" => {
            let value = find(document, &pointer(text("from")?)?)?.clone();
            *copied_bytes += value.to_string().len();
            if *copied_bytes > COPIED_BYTES_MAX {
                return Err(format!("the patch copies more than {COPIED_BYTES_MAX} bytes"));
            }
            add(document, &path, value)
        }
        "test" => {
            let wanted = value()?;
            if *find(document, &path)? == wanted {
                Ok(())
            } else {
                Err(format!("the value at {:?} is another", text("path")?))
            }
        }
        other => Err(format!("{other:?} is not an operation")),
    }
}

/// The tokens of an RFC 6901 pointer.
fn pointer(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let rest = text.strip_prefix('/').ok_or_else(|| format!("{text:?} does not begin with a slash"))?;
    Ok(rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect())
}

fn find<'a>(document: &'a mut Value, path: &[String]) -> Result<&'a mut Value, String> {
    path.iter().try_fold(document, |value, token| match value {
        Value::Object(map) => map.get_mut(token).ok_or_else(|| format!("there is no {token:?}")),
        Value::Array(items) => {
            let at = index(token)?;
            items.get_mut(at).ok_or_else(|| format!("the list has no entry {at}"))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(format!("there is no {token:?}")),
    })
}

fn add(document: &mut Value, path: &[String], value: Value) -> Result<(), String> {
    let Some((last, parents)) = path.split_last() else {
        *document = value;
        return Ok(());
    };
    match find(document, parents)? {
        Value::Object(map) => {
            map.insert(last.clone(), value);
            Ok(())
        }
        Value::Array(items) => {
            let at = if last == "-" { items.len() } else { index(last)? };
            if at > items.len() {
                return Err(format!("the list has no entry {at}"));
            }
            items.insert(at, value);
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Err(format!("nothing can be added at {last:?}"))
        }
    }
}

fn remove(document: &mut Value, path: &[String]) -> Result<Value, String> {
    let Some((last, parents)) = path.split_last() else { return Ok(document.take()) };
    match find(document, parents)? {
        Value::Object(map) => map.shift_remove(last).ok_or_else(|| format!("there is no {last:?}")),
        Value::Array(items) => {
            let at = index(last)?;
            if at < items.len() { Ok(items.remove(at)) } else { Err(format!("the list has no entry {at}")) }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(format!("there is no {last:?}")),
    }
}

/// An array index: digits without leading zeros.
fn index(token: &str) -> Result<usize, String> {
    let is_index =
        !token.is_empty() && token.bytes().all(|b| b.is_ascii_digit()) && (token == "0" || !token.starts_with('0'));
    token.parse().ok().filter(|_| is_index).ok_or_else(|| format!("{token:?} is not a list index"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merge_patches_do_what_the_rfc_lists() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (mut document, patch, expected) in cases {
            merge(&mut document, &patch);
            assert_eq!(document, expected, "{patch}");
        }
    }

    #[test]
    fn json_patches_do_what_the_rfc_lists() {
        let cases = [
            (json!({"a": 1}), json!([{"op": "add", "path": "/b", "value": 2}]), Ok(json!({"a": 1, "b": 2}))),
            (json!({"a": [1, 3]}), json!([{"op": "add", "path": "/a/1", "value": 2}]), Ok(json!({"a": [1, 2, 3]}))),
            (json!({"a": [1]}), json!([{"op": "add", "path": "/a/-", "value": 2}]), Ok(json!({"a": [1, 2]}))),
            (json!({"a": [1]}), json!([{"op": "add", "path": "/a/3", "value": 2}]), Err(())),
            (json!({"a": [1]}), json!([{"op": "add", "path": "/a/01", "value": 2}]), Err(())),
            (json!({"a": 1}), json!([{"op": "add", "path": "/b/c", "value": 2}]), Err(())),
            (json!({"a": 1, "b": 2}), json!([{"op": "remove", "path": "/a"}]), Ok(json!({"b": 2}))),
            (json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/0"}]), Ok(json!({"a": [2]}))),
            (json!({"a": 1}), json!([{"op": "remove", "path": "/b"}]), Err(())),
            (json!({"a": 1}), json!([{"op": "replace", "path": "/a", "value": null}]), Ok(json!({"a": null}))),
            (json!({"a": 1}), json!([{"op": "replace", "path": "/b", "value": 1}]), Err(())),
            (
                json!({"a": {"b": 1}, "c": {}}),
                json!([{"op": "move", "from": "/a/b", "path": "/c/d"}]),
                Ok(json!({"a": {}, "c": {"d": 1}})),
            ),
            (json!({"a": {"b": 1}}), json!([{"op": "move", "from": "/a", "path": "/a/b"}]), Err(())),
            (json!({"a": [1]}), json!([{"op": "copy", "from": "/a", "path": "/b"}]), Ok(json!({"a": [1], "b": [1]}))),
            (
                json!({"a/b": 1, "c~d": 2}),
                json!([{"op": "test", "path": "/a~1b", "value": 1}, {"op": "test", "path": "/c~0d", "value": 2}]),
                Ok(json!({"a/b": 1, "c~d": 2})),
            ),
            (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 2}]), Err(())),
            (json!({"a": 1}), json!([{"op": "replace", "path": "", "value": 7}]), Ok(json!(7))),
            (json!({"a": 1}), json!([{"op": "turn", "path": "/a"}]), Err(())),
            (json!({"a": 1}), json!([{"op": "add", "path": "/a"}]), Err(())),
            (json!({"a": 1}), json!({"op": "add"}), Err(())),
        ];
        for (mut document, patch, expected) in cases {
            let result = apply(&mut document, &patch).map(|()| document).map_err(drop);
            assert_eq!(result, expected, "{patch}");
        }
    }

    #[test]
    fn a_patch_cannot_double_a_document_for_ever() {
        let mut document = json!({"a": ["x".repeat(1000)]});
        let operations: Vec<Value> = (0..40).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"})).collect();
        assert!(apply(&mut document, &Value::Array(operations)).unwrap_err().contains("copies more"));
    }
}
