//! OpenAPI documents: as much as `kubectl` needs, no more.
//!
//! Version 3 says of every kind that writes take `fieldValidation` and `dryRun`, so that clients leave validation to this
//! server. No document offers schemas or strategic merge, so clients validate nothing themselves and apply with the merge
//! patch they know without us. Version 2, asked for by older clients, is a valid document that describes nothing.

use raft::resources::{Kind, Scope};
use serde_json::{Map, Value, json};

use super::target::group_versions;

/// The media type of version 2 in protobuf as most clients ask for it.
pub(super) const OPENAPI2_PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The same as answers say it: an `@` is no part of a media type, and clients that parse it would fail.
pub(super) const OPENAPI2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

const TITLE: &str = "Tollgate";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Version 2 as JSON.
pub(super) fn openapi2_json() -> Value {
    json!({"swagger": "2.0", "info": {"title": TITLE, "version": VERSION}, "paths": {}, "definitions": {}})
}

/// Version 2 as a protobuf `openapi.v2.Document`: swagger (1), info (2) with title (1) and version (2), paths (8).
pub(super) fn openapi2_protobuf() -> Vec<u8> {
    let mut info = Vec::new();
    put_bytes(&mut info, 1, TITLE.as_bytes());
    put_bytes(&mut info, 2, VERSION.as_bytes());
    let mut document = Vec::new();
    put_bytes(&mut document, 1, b"2.0");
    put_bytes(&mut document, 2, &info);
    put_bytes(&mut document, 8, b"");
    document
}

/// A length-delimited protobuf field of fewer than 128 bytes: both its tag and its length are one byte.
fn put_bytes(into: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    let length = u8::try_from(bytes.len()).ok().filter(|length| *length < 128);
    into.push(field << 3 | 2);
    into.push(length.expect("titles and versions are short"));
    into.extend_from_slice(bytes);
}

/// Where the documents of version 3 are.
pub(super) fn openapi3_index() -> Value {
    let paths: Map<String, Value> = group_versions()
        .into_iter()
        .map(|(group, version)| {
            let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            let link = json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={VERSION}")});
            (path, link)
        })
        .collect();
    json!({"paths": paths})
}

/// Version 3 of one group and version.
pub(super) fn openapi3(group: &str, version: &str) -> Value {
    let mut paths = Map::new();
    for kind in Kind::ALL.into_iter().filter(|kind| kind.group() == group && kind.version() == version) {
        let base = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let namespace = if kind.scope() == Scope::Namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{base}{namespace}/{}", kind.plural());
        paths.insert(collection.clone(), json!({"post": operation(kind, "post", &["application/json"])}));
        let object = json!({
            "put": operation(kind, "put", &["application/json"]),
            "patch": operation(kind, "patch", super::patch::MEDIA_TYPES_OF_ALL_KINDS),
        });
        paths.insert(format!("{collection}/{{name}}"), object);
    }
    json!({"openapi": "3.0.0", "info": {"title": TITLE, "version": VERSION}, "paths": paths, "components": {"schemas": {}}})
}

fn operation(kind: Kind, action: &str, media_types: &[&str]) -> Value {
    let query = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let content: Map<String, Value> = media_types.iter().map(|media| ((*media).to_owned(), json!({}))).collect();
    json!({
        "operationId": format!("{action}{}", kind.name()),
        "parameters": [query("dryRun"), query("fieldManager"), query("fieldValidation")],
        "requestBody": {"content": content},
        "responses": {"200": {"description": "OK"}, "401": {"description": "Unauthorized"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": kind.group(), "version": kind.version(), "kind": kind.name()},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protobuf_document_has_these_bytes() {
        let expected =
            [b"\x0a\x032.0\x12\x0f\x0a\x08Tollgate\x12\x05".as_slice(), VERSION.as_bytes(), b"\x42\x00".as_slice()]
                .concat();
        // The info message is as long as both of its fields: 10 bytes of title, 2 + 5 of version.
        let expected: Vec<u8> =
            expected.iter().enumerate().map(|(at, byte)| if at == 6 { 10 + 2 + 5 } else { *byte }).collect();
        assert_eq!(openapi2_protobuf(), expected);
    }
}
