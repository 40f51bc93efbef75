//! What this API serves, in the documents clients discover it by.

use raft::resources::{Kind, Scope};
use serde_json::{Value, json};

use super::target::{Document, Review, group_versions, has_status};
use super::tokens;

/// The Kubernetes version whose wire forms these are. Clients compare it with their own.
const KUBERNETES_MINOR: &str = "32";

/// Every verb of every kind.
const VERBS: [&str; 7] = ["create", "delete", "get", "list", "patch", "update", "watch"];

/// A discovery document; `None` for the OpenAPI ones.
pub(super) fn document(document: &Document) -> Option<Value> {
    match document {
        Document::Version => Some(version()),
        Document::CoreVersions => Some(json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        })),
        Document::Groups => {
            let groups: Vec<Value> = group_versions()
                .into_iter()
                .filter(|(group, _)| !group.is_empty())
                .map(|(group, _)| group_entry(group))
                .collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        Document::Group(group) => {
            let mut entry = group_entry(group);
            entry["kind"] = json!("APIGroup");
            entry["apiVersion"] = json!("v1");
            Some(entry)
        }
        Document::Resources(group, version) => Some(resources(group, version)),
        Document::OpenApi2 | Document::OpenApi3Index | Document::OpenApi3(..) => None,
    }
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": KUBERNETES_MINOR,
        "gitVersion": format!("v1.{KUBERNETES_MINOR}.0+tollgate-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

fn group_entry(group: &str) -> Value {
    let versions: Vec<Value> = group_versions()
        .into_iter()
        .filter(|(known, _)| *known == group)
        .map(|(group, version)| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions[0]})
}

fn resources(group: &str, version: &str) -> Value {
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.group() == group && kind.version() == version);
    let mut listed: Vec<Value> = kinds.flat_map(kind_entries).collect();
    listed.extend(Review::ALL.into_iter().filter(|review| review.group() == group).map(|review| {
        json!({
            "name": review.plural(),
            "singularName": review.kind().to_ascii_lowercase(),
            "namespaced": false,
            "kind": review.kind(),
            "verbs": ["create"],
        })
    }));
    if (group, version) == (tokens::GROUP, tokens::VERSION) {
        listed.push(json!({
            "name": tokens::PLURAL,
            "singularName": "token",
            "namespaced": false,
            "kind": tokens::KIND,
            "verbs": ["delete", "get", "list"],
        }));
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed})
}

fn kind_entries(kind: Kind) -> Vec<Value> {
    let namespaced = kind.scope() == Scope::Namespaced;
    let mut entry = json!({
        "name": kind.plural(),
        "singularName": kind.singular(),
        "namespaced": namespaced,
        "kind": kind.name(),
        "verbs": VERBS,
    });
    if !kind.short_names().is_empty() {
        entry["shortNames"] = json!(kind.short_names());
    }
    let mut entries = vec![entry];
    if has_status(kind) {
        entries.push(json!({
            "name": format!("{}/status", kind.plural()),
            "singularName": "",
            "namespaced": namespaced,
            "kind": kind.name(),
            "verbs": ["get"],
        }));
    }
    if kind == Kind::ServiceAccount {
        entries.push(json!({
            "name": "serviceaccounts/token",
            "singularName": "",
            "namespaced": true,
            "group": "authentication.k8s.io",
            "version": "v1",
            "kind": "TokenRequest",
            "verbs": ["create"],
        }));
    }
    entries
}
