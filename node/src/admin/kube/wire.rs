//! Objects as they travel: what is read from a manifest, what is written into an answer.

use std::collections::BTreeMap;

use raft::resources::{FieldError, Kind, NewObject, Object, ObjectKey, Scope, Status};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::error::Failure;

/// An object as a client sent it.
#[derive(Debug)]
pub(super) struct Incoming {
    /// What it wants the object to be. The name may still be empty.
    pub(super) object: NewObject,
    /// `metadata.generateName`; empty if absent.
    pub(super) generate_name: String,
    /// `metadata.resourceVersion`, if it has one in mind.
    pub(super) resource_version: Option<u64>,
    /// `metadata.uid`, if it has one in mind.
    pub(super) uid: Option<Uuid>,
}

/// Reads a manifest that was sent to the path of `key` (whose name is empty for a collection).
/// `status` and metadata that this server keeps itself are ignored. Errors: it is no such object, or it belongs elsewhere.
pub(super) fn read(key: &ObjectKey, value: Value) -> Result<Incoming, Failure> {
    let Value::Object(mut map) = value else {
        return Err(Failure::bad_request("the body is not a JSON object"));
    };
    check_type(key.kind, &mut map)?;
    let metadata = match map.shift_remove("metadata") {
        Some(Value::Object(metadata)) => metadata,
        None | Some(Value::Null) => Map::new(),
        Some(_) => return Err(Failure::bad_request("metadata is not an object")),
    };
    map.shift_remove("status");
    let metadata = Metadata { map: metadata };
    let incoming = Incoming {
        object: NewObject {
            key: metadata.key(key)?,
            labels: metadata.texts("labels")?,
            annotations: metadata.texts("annotations")?,
            body: Value::Object(map).to_string(),
        },
        generate_name: metadata.text("generateName")?.to_owned(),
        resource_version: metadata.resource_version()?,
        uid: metadata.uid()?,
    };
    Ok(incoming)
}

fn check_type(kind: Kind, map: &mut Map<String, Value>) -> Result<(), Failure> {
    for (field, expected) in [("apiVersion", kind.api_version()), ("kind", kind.name().to_owned())] {
        let found = map.shift_remove(field).unwrap_or_default();
        if found != expected.as_str() {
            let found = if found.is_null() { "nothing".to_owned() } else { found.to_string() };
            return Err(Failure::bad_request(format!("{field} is {found}: this path takes {expected:?}")));
        }
    }
    Ok(())
}

struct Metadata {
    map: Map<String, Value>,
}

impl Metadata {
    fn text(&self, field: &str) -> Result<&str, Failure> {
        match self.map.get(field) {
            None | Some(Value::Null) => Ok(""),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(Failure::bad_request(format!("metadata.{field} is not a string"))),
        }
    }

    fn texts(&self, field: &str) -> Result<BTreeMap<String, String>, Failure> {
        let wrong = || Failure::bad_request(format!("metadata.{field} is not a map of strings"));
        match self.map.get(field) {
            None | Some(Value::Null) => Ok(BTreeMap::new()),
            Some(Value::Object(map)) => map
                .iter()
                .map(|(name, value)| Ok((name.clone(), value.as_str().ok_or_else(wrong)?.to_owned())))
                .collect(),
            Some(_) => Err(wrong()),
        }
    }

    fn key(&self, path: &ObjectKey) -> Result<ObjectKey, Failure> {
        let name = self.text("name")?;
        if !path.name.is_empty() && !name.is_empty() && name != path.name {
            let message = format!("the name of the object ({name}) does not match the name on the URL ({})", path.name);
            return Err(Failure::bad_request(message));
        }
        let namespace = self.text("namespace")?;
        if path.kind.scope() == Scope::Namespaced && !namespace.is_empty() && namespace != path.namespace {
            let message = format!(
                "the namespace of the provided object does not match the namespace sent on the request: {namespace:?} and {:?}",
                path.namespace
            );
            return Err(Failure::bad_request(message));
        }
        let name = if name.is_empty() { &path.name } else { name };
        Ok(ObjectKey::new(path.kind, path.namespace.clone(), name))
    }

    fn resource_version(&self) -> Result<Option<u64>, Failure> {
        match self.text("resourceVersion")? {
            "" | "0" => Ok(None),
            text => {
                text.parse().map(Some).map_err(|_| Failure::bad_request("metadata.resourceVersion is not one of ours"))
            }
        }
    }

    fn uid(&self) -> Result<Option<Uuid>, Failure> {
        match self.text("uid")? {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| Failure::bad_request("metadata.uid is not a UUID")),
        }
    }
}

/// `generate_name` and five random characters, as Kubernetes does it: no vowels, no digits that look like letters.
pub(super) fn generated(generate_name: &str, chance: &dyn raft::doors::Chance) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const BASE_MAX: usize = 248;
    let base: String = generate_name.chars().take(BASE_MAX).collect();
    let suffix = (0..5).map(|_| char::from(ALPHABET[chance.below(ALPHABET.len() as u64) as usize]));
    base.chars().chain(suffix).collect()
}

/// An object as it is sent.
pub(super) fn write(object: &Object, status: &Status) -> Value {
    let mut map = Map::new();
    map.insert("apiVersion".to_owned(), json!(object.key.kind.api_version()));
    map.insert("kind".to_owned(), json!(object.key.kind.name()));
    map.insert("metadata".to_owned(), metadata(object));
    map.extend(body(&object.body));
    if !status.json.is_null() {
        map.insert("status".to_owned(), status.json.clone());
    }
    Value::Object(map)
}

/// An object's `metadata` as it is sent.
pub(super) fn metadata(object: &Object) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(object.key.name));
    if !object.key.namespace.is_empty() {
        metadata.insert("namespace".to_owned(), json!(object.key.namespace));
    }
    metadata.insert("uid".to_owned(), json!(object.uid.to_string()));
    metadata.insert("resourceVersion".to_owned(), json!(object.resource_version.to_string()));
    metadata.insert("generation".to_owned(), json!(object.generation));
    metadata.insert("creationTimestamp".to_owned(), json!(object.created.to_string()));
    for (field, texts) in [("labels", &object.labels), ("annotations", &object.annotations)] {
        if !texts.is_empty() {
            metadata.insert(field.to_owned(), json!(texts));
        }
    }
    Value::Object(metadata)
}

/// The body's fields. A stored body is JSON: it was checked before it was proposed.
pub(super) fn body(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
}

/// A mistake in the metadata that only this layer sees.
pub(super) fn name_required() -> FieldError {
    FieldError { path: "metadata.name".to_owned(), message: "name or generateName is required".to_owned() }
}
