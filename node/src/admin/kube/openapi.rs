//! OpenAPI documents: as much as `kubectl` needs, no more.
//!
//! Version 3 says of every kind that writes take `fieldValidation` and `dryRun`, so that clients leave validation to this
//! server. No document offers schemas or strategic merge, so clients validate nothing themselves and apply with the merge
//! patch they know without us. Version 2, asked for by clients before 1.27, says the same in protobuf.

use raft::resources::{Kind, Scope};
use serde_json::{Map, Value, json};

use super::target::group_versions;

/// The media type of version 2 in protobuf as most clients ask for it.
pub(super) const OPENAPI2_PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The same as answers say it: an `@` is no part of a media type, and clients that parse it would fail.
pub(super) const OPENAPI2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Says of which kind an operation is.
const GVK_EXTENSION: &str = "x-kubernetes-group-version-kind";

const TITLE: &str = "Tollgate";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Parameters that every write takes.
const WRITE_PARAMETERS: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];

/// Version 2 as JSON, for people: version 3 says more.
pub(super) fn openapi2_json() -> Value {
    json!({"swagger": "2.0", "info": {"title": TITLE, "version": VERSION}, "paths": {}, "definitions": {}})
}

/// Version 2 as a protobuf `openapi.v2.Document`: swagger (1), info (2) with title (1) and version (2), paths (8) with a path
/// (2) for each kind.
pub(super) fn openapi2_protobuf() -> Vec<u8> {
    let info = [field(1, TITLE.as_bytes()), field(2, VERSION.as_bytes())].concat();
    let paths: Vec<Vec<u8>> = Kind::ALL.into_iter().map(|kind| field(2, &openapi2_path(kind))).collect();
    [field(1, b"2.0"), field(2, &info), field(8, &paths.concat())].concat()
}

/// A `NamedPathItem`: its name (1) and the item (2) with its patch operation (8), which has parameters (8) and says of
/// which kind it is in an extension (13).
fn openapi2_path(kind: Kind) -> Vec<u8> {
    let parameters: Vec<Vec<u8>> =
        WRITE_PARAMETERS.iter().map(|name| field(8, &openapi2_query_parameter(name))).collect();
    let yaml = gvk(kind).to_string();
    let extension = [field(1, GVK_EXTENSION.as_bytes()), field(2, &field(2, yaml.as_bytes()))].concat();
    let patch = [parameters.concat(), field(13, &extension)].concat();
    [field(1, object_path(kind).as_bytes()), field(2, &field(8, &patch))].concat()
}

/// A `ParametersItem`: a parameter (1) not in the body (2) but in the query (3), with its place (2), name (4) and type (6).
fn openapi2_query_parameter(name: &str) -> Vec<u8> {
    let query = [field(2, b"query"), field(4, name.as_bytes()), field(6, b"string")].concat();
    field(1, &field(2, &field(3, &query)))
}

/// A length-delimited protobuf field with a number below 16.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut encoded = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        encoded.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    encoded.push(length as u8);
    encoded.extend_from_slice(bytes);
    encoded
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
        paths.insert(collection_path(kind), json!({"post": operation(kind, "post", &["application/json"])}));
        let object = json!({
            "put": operation(kind, "put", &["application/json"]),
            "patch": operation(kind, "patch", super::patch::MEDIA_TYPES_OF_ALL_KINDS),
        });
        paths.insert(object_path(kind), object);
    }
    json!({"openapi": "3.0.0", "info": {"title": TITLE, "version": VERSION}, "paths": paths, "components": {"schemas": {}}})
}

fn operation(kind: Kind, action: &str, media_types: &[&str]) -> Value {
    let query = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let content: Map<String, Value> = media_types.iter().map(|media| ((*media).to_owned(), json!({}))).collect();
    json!({
        "operationId": format!("{action}{}", kind.name()),
        "parameters": WRITE_PARAMETERS.map(query),
        "requestBody": {"content": content},
        "responses": {"200": {"description": "OK"}, "401": {"description": "Unauthorized"}},
        "x-kubernetes-action": action,
        GVK_EXTENSION: gvk(kind),
    })
}

fn gvk(kind: Kind) -> Value {
    json!({"group": kind.group(), "version": kind.version(), "kind": kind.name()})
}

fn collection_path(kind: Kind) -> String {
    let root = if kind.group().is_empty() { "/api" } else { "/apis" };
    let namespace = if kind.scope() == Scope::Namespaced { "/namespaces/{namespace}" } else { "" };
    format!("{root}/{}{namespace}/{}", kind.api_version(), kind.plural())
}

fn object_path(kind: Kind) -> String {
    collection_path(kind) + "/{name}"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protobuf_fields_have_these_bytes() {
        assert_eq!(field(1, b"2.0"), b"\x0a\x032.0");
        assert_eq!(field(13, b""), b"\x6a\x00");
        assert_eq!(field(8, &[7; 300])[..4], [0x42, 0xac, 0x02, 7]);
        assert_eq!(
            openapi2_query_parameter("dryRun"),
            b"\x0a\x1b\x12\x19\x1a\x17\x12\x05query\x22\x06dryRun\x32\x06string"
        );
    }

    #[test]
    fn paths_are_those_of_kubernetes() {
        let cases = [
            (Kind::Namespace, "/api/v1/namespaces/{name}"),
            (Kind::Group, "/apis/user.openshift.io/v1/groups/{name}"),
            (Kind::Tenant, "/apis/maas.opendatahub.io/v1alpha1/namespaces/{namespace}/tenants/{name}"),
        ];
        for (kind, path) in cases {
            assert_eq!(object_path(kind), path);
        }
    }
}
