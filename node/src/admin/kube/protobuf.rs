//! Kubernetes' protobuf, as far as `kubectl` sends it: `create namespace`, `create serviceaccount`, `create token`, `auth`.
//!
//! Answers are always JSON, which such clients accept. What cannot be read is refused, not dropped.

use serde_json::{Map, Value, json};

/// The media type.
pub(super) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What such a body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// A field of a message: its number, its JSON name, and how its bytes read. A number without a name is skipped.
type Schema = &'static [(u64, &'static str, Reading)];

#[derive(Clone, Copy)]
enum Reading {
    Text,
    Texts,
    Number,
    Flag,
    TextMap,
    Message(Schema),
    Messages(Schema),
    Skip,
}

use Reading::{Flag, Message, Messages, Number, Skip, Text, TextMap, Texts};

const UNKNOWN: Schema = &[(1, "typeMeta", Message(TYPE_META)), (3, "contentEncoding", Text), (4, "contentType", Text)];
const TYPE_META: Schema = &[(1, "apiVersion", Text), (2, "kind", Text)];
const OBJECT_META: Schema = &[
    (1, "name", Text),
    (2, "generateName", Text),
    (3, "namespace", Text),
    (4, "", Skip),
    (5, "uid", Text),
    (6, "resourceVersion", Text),
    (7, "", Skip),
    (8, "", Skip),
    (9, "", Skip),
    (10, "", Skip),
    (11, "labels", TextMap),
    (12, "annotations", TextMap),
    (13, "", Skip),
    (14, "", Skip),
    (17, "", Skip),
];
const NAMED: Schema = &[(1, "name", Text)];
const REFERENCE: Schema = &[(1, "kind", Text), (2, "namespace", Text), (3, "name", Text)];
const BOUND_REFERENCE: Schema = &[(1, "kind", Text), (2, "apiVersion", Text), (3, "name", Text), (4, "uid", Text)];

const NAMESPACE: Schema =
    &[(1, "metadata", Message(OBJECT_META)), (2, "spec", Message(&[(1, "finalizers", Texts)])), (3, "", Skip)];
const SERVICE_ACCOUNT: Schema = &[
    (1, "metadata", Message(OBJECT_META)),
    (2, "secrets", Messages(REFERENCE)),
    (3, "imagePullSecrets", Messages(NAMED)),
    (4, "automountServiceAccountToken", Flag),
];
const TOKEN_REQUEST: Schema =
    &[(1, "metadata", Message(OBJECT_META)), (2, "spec", Message(TOKEN_REQUEST_SPEC)), (3, "", Skip)];
const TOKEN_REQUEST_SPEC: Schema =
    &[(1, "audiences", Texts), (3, "boundObjectRef", Message(BOUND_REFERENCE)), (4, "expirationSeconds", Number)];
const ACCESS_REVIEW: Schema = &[
    (1, "metadata", Message(OBJECT_META)),
    (
        2,
        "spec",
        Message(&[(1, "resourceAttributes", Message(RESOURCE)), (2, "nonResourceAttributes", Message(NON_RESOURCE))]),
    ),
    (3, "", Skip),
];
const RESOURCE: Schema = &[
    (1, "namespace", Text),
    (2, "verb", Text),
    (3, "group", Text),
    (4, "version", Text),
    (5, "resource", Text),
    (6, "subresource", Text),
    (7, "name", Text),
];
const NON_RESOURCE: Schema = &[(1, "path", Text), (2, "verb", Text)];
const RULES_REVIEW: Schema =
    &[(1, "metadata", Message(OBJECT_META)), (2, "spec", Message(&[(1, "namespace", Text)])), (3, "", Skip)];
const SUBJECT_REVIEW: Schema = &[(1, "metadata", Message(OBJECT_META)), (2, "", Skip)];
const DELETE_OPTIONS: Schema = &[
    (1, "", Skip),
    (2, "preconditions", Message(&[(1, "uid", Text), (2, "resourceVersion", Text)])),
    (3, "", Skip),
    (4, "", Skip),
    (5, "dryRun", Texts),
];

/// The object that `bytes` hold, as JSON. Errors: one line why not.
pub(super) fn read(bytes: &[u8]) -> Result<Value, String> {
    let enveloped = bytes.strip_prefix(MAGIC).ok_or("it does not begin with k8s")?;
    let mut raw: &[u8] = &[];
    let mut envelope = Map::new();
    for field in Fields(enveloped) {
        match field? {
            (2, Wire::Bytes(bytes)) => raw = bytes,
            (number, wire) => put(&mut envelope, UNKNOWN, number, wire)?,
        }
    }
    let type_meta = envelope.remove("typeMeta").unwrap_or_default();
    let schema = match type_meta["kind"].as_str().unwrap_or_default() {
        "Namespace" => NAMESPACE,
        "ServiceAccount" => SERVICE_ACCOUNT,
        "TokenRequest" => TOKEN_REQUEST,
        "SelfSubjectAccessReview" => ACCESS_REVIEW,
        "SelfSubjectRulesReview" => RULES_REVIEW,
        "SelfSubjectReview" => SUBJECT_REVIEW,
        "DeleteOptions" => DELETE_OPTIONS,
        other => return Err(format!("kind {other:?} is read as JSON only")),
    };
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), type_meta["apiVersion"].clone());
    object.insert("kind".to_owned(), type_meta["kind"].clone());
    object.extend(message(raw, schema)?);
    Ok(Value::Object(object))
}

fn message(bytes: &[u8], schema: Schema) -> Result<Map<String, Value>, String> {
    let mut map = Map::new();
    for field in Fields(bytes) {
        let (number, wire) = field?;
        put(&mut map, schema, number, wire)?;
    }
    Ok(map)
}

fn put(map: &mut Map<String, Value>, schema: Schema, number: u64, wire: Wire<'_>) -> Result<(), String> {
    let Some((_, name, reading)) = schema.iter().find(|(known, ..)| *known == number) else {
        // Nothing is lost with an empty message.
        return if matches!(wire, Wire::Bytes([])) {
            Ok(())
        } else {
            Err(format!("field {number} is read as JSON only"))
        };
    };
    let name = (*name).to_owned();
    match (*reading, wire) {
        (Skip, _) => {}
        (Text, Wire::Bytes(bytes)) => drop(map.insert(name, json!(text(bytes)?))),
        (Texts, Wire::Bytes(bytes)) => push(map, name, json!(text(bytes)?)),
        (Number, Wire::Number(number)) => drop(map.insert(name, json!(number.cast_signed()))),
        (Flag, Wire::Number(number)) => drop(map.insert(name, json!(number != 0))),
        (Message(schema), Wire::Bytes(bytes)) => drop(map.insert(name, Value::Object(message(bytes, schema)?))),
        (Messages(schema), Wire::Bytes(bytes)) => push(map, name, Value::Object(message(bytes, schema)?)),
        (TextMap, Wire::Bytes(bytes)) => {
            let entry = message(bytes, &[(1, "key", Text), (2, "value", Text)])?;
            let part = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let texts = map.entry(name).or_insert_with(|| json!({}));
            texts[part("key")] = json!(part("value"));
        }
        (Text | Texts | TextMap | Message(_) | Messages(_), Wire::Number(_)) | (Number | Flag, Wire::Bytes(_)) => {
            return Err(format!("field {number} has another type"));
        }
    }
    Ok(())
}

fn push(map: &mut Map<String, Value>, name: String, value: Value) {
    match map.entry(name).or_insert_with(|| json!([])) {
        Value::Array(items) => items.push(value),
        other => *other = json!([value]),
    }
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "a text is not UTF-8".to_owned())
}

enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, one after the other. An error is the last item.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| "it is cut short or not protobuf".to_owned()))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Wire<'a>)> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Wire::Bytes(bytes)
            }
            _ => return None,
        };
        Some((tag >> 3, wire))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A length-delimited field of fewer than 128 bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn enveloped(kind: &str, raw: &[u8]) -> Vec<u8> {
        let type_meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC, &field(1, &type_meta), &field(2, raw), &field(3, b""), &field(4, b"")].concat()
    }

    fn namespace() -> Vec<u8> {
        let label = [field(1, b"team"), field(2, b"a")].concat();
        let metadata = [field(1, b"x"), field(2, b""), field(8, b""), field(11, &label)].concat();
        enveloped("Namespace", &[field(1, &metadata), field(2, b""), field(3, &field(1, b"Active"))].concat())
    }

    #[test]
    fn objects_read_as_json() {
        let expected = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "generateName": "", "labels": {"team": "a"}}, "spec": {}});
        assert_eq!(read(&namespace()), Ok(expected));
        let spec = [field(1, b"one"), field(1, b"two"), vec![4 << 3, 0xd8, 0x04]].concat();
        let expected = json!({"apiVersion": "v1", "kind": "TokenRequest", "spec": {"audiences": ["one", "two"], "expirationSeconds": 600}});
        assert_eq!(read(&enveloped("TokenRequest", &field(2, &spec))), Ok(expected));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let cases = [
            b"".to_vec(),
            b"{}".to_vec(),
            enveloped("Pod", b""),
            enveloped("Namespace", &field(9, b"x")),
            enveloped("Namespace", &[1 << 3, 7]),
            enveloped("Namespace", &field(1, &field(1, b"\xff"))),
            [MAGIC, &[0x0f]].concat(),
            [MAGIC, &[0xff; 12]].concat(),
        ];
        for bytes in cases {
            assert!(read(&bytes).is_err(), "{bytes:?}");
        }
        // However it is cut, it is either refused or another whole message, and nothing panics.
        let whole = namespace();
        for end in 0..whole.len() {
            let _ = read(&whole[..end]);
        }
    }
}
