//! What an administrator makes before anybody can call: a model on all engines, an account for each user, a subscription, a policy.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::engine;
use crate::plan::Plan;

/// The administrator's token, the same for every node.
pub(crate) const ADMIN_TOKEN: &str = "simulated-administrators-token-0123456789abcdef";
/// The model, in the data plane's path.
pub(crate) const MODEL_PATH: &str = "/llm/sim";
const TENANT: &str = "models-as-a-service";
/// The group of those who will leave.
pub(crate) const LEAVERS: &str = "leavers";
const MAAS: &str = "maas.opendatahub.io/v1alpha1";

/// A file with the administrator's token: the one file that a node reads with its own hands. It is gone after the run.
pub(crate) struct TokenFile(PathBuf);

impl TokenFile {
    /// Writes it. If that fails, nodes say so when they read it.
    pub(crate) fn write() -> TokenFile {
        let file = std::env::temp_dir().join(format!("tollgate-simulation-{}.token", std::process::id()));
        let _ = fs::write(&file, ADMIN_TOKEN);
        TokenFile(file)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.clone()
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The account of a user.
pub(crate) fn account(user: usize) -> String {
    format!("user-{user}")
}

/// The name by which a user is counted.
pub(crate) fn username(user: usize) -> String {
    user_of(&account(user))
}

/// The user that an account stands for.
pub(crate) fn user_of(account: &str) -> String {
    format!("system:serviceaccount:{TENANT}:{account}")
}

/// Where accounts are.
pub(crate) fn accounts_path() -> String {
    format!("/api/v1/namespaces/{TENANT}/serviceaccounts")
}

/// Where a token for a user is asked for.
pub(crate) fn token_path(user: usize) -> String {
    format!("{}/{}/token", accounts_path(), account(user))
}

/// What a group is called.
pub(crate) fn group_name(group: usize) -> String {
    format!("group-{group}")
}

/// Where it is.
pub(crate) fn group_path(group: usize) -> String {
    format!("/apis/user.openshift.io/v1/groups/{}", group_name(group))
}

/// Paths and objects to create, in order.
pub(crate) fn objects(plan: &Plan, groups: usize) -> Vec<(String, Value)> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "llm"}});
    let mut objects = vec![("/api/v1/namespaces".to_owned(), namespace)];
    objects.extend((1..=plan.users).map(|user| {
        let metadata = json!({"name": account(user), "namespace": TENANT});
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
        (accounts_path(), object)
    }));
    objects.extend((1..=groups).map(|group| {
        let name = group_name(group);
        let object =
            json!({"apiVersion": "user.openshift.io/v1", "kind": "Group", "metadata": {"name": name}, "users": ["v0"]});
        ("/apis/user.openshift.io/v1/groups".to_owned(), object)
    }));
    objects.push((
        "/apis/serving.kserve.io/v1alpha1/namespaces/llm/llminferenceservices".to_owned(),
        json!({
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "LLMInferenceService",
            "metadata": {
                "name": "sim", "namespace": "llm",
                "annotations": {"tollgate.dev/replicas": engine::urls(plan.engines)},
            },
            "spec": {"model": {"uri": "hf://openai/gpt-oss-20b", "name": "openai/gpt-oss-20b"}, "replicas": plan.engines},
        }),
    ));
    objects.push(maas(
        "llm",
        "MaaSModelRef",
        "maasmodelrefs",
        "sim",
        json!({
            "modelRef": {"kind": "LLMInferenceService", "name": "sim"},
        }),
    ));
    let users: Vec<String> = (1..=plan.users).map(username).collect();
    objects.push(maas(
        TENANT,
        "MaaSSubscription",
        "maassubscriptions",
        "sim",
        json!({
            "owner": {"users": users, "groups": [{"name": LEAVERS}]},
            "modelRefs": [limited(plan)],
        }),
    ));
    objects.push(maas(
        TENANT,
        "MaaSAuthPolicy",
        "maasauthpolicies",
        "sim",
        json!({
            "subjects": {"users": users, "groups": [{"name": LEAVERS}]},
            "modelRefs": [{"name": "sim", "namespace": "llm"}],
        }),
    ));
    objects
}

/// Working keys that one user may have: few, so that users come to the bound.
pub(crate) const KEYS_MAX: usize = 3;

/// The Tenant's path, and what is changed there once every user has a key: what a key costs the cluster is bounded, and ended ones are
/// forgotten while the run lasts.
pub(crate) fn tenant_patch() -> (String, Value) {
    let bounds = json!({"maxPerUser": KEYS_MAX, "maxCreationsPerMinute": 1_000_000, "retention": "4s"});
    let path = format!("/apis/maas.opendatahub.io/v1alpha1/namespaces/{TENANT}/tenants/default-tenant");
    (path, json!({"spec": {"apiKeys": bounds}}))
}

/// What tokens cost, in thousandths of the currency: of prompts, of answers.
pub(crate) const PRICE: (u64, u64) = (1, 2);

/// The model with its limits.
fn limited(plan: &Plan) -> Value {
    let mut reference = json!({"name": "sim", "namespace": "llm", "tokenRateLimits": limits(plan)});
    if plan.has_many_limits {
        reference["concurrency"] = json!({"user": 3, "subscription": 2 * plan.users});
        let price = |thousandths: u64| format!("0.{thousandths:03}");
        reference["billingRate"] = json!({"perInputToken": price(PRICE.0), "perOutputToken": price(PRICE.1)});
        // What all users together may use costs as much, if half of it are answers.
        let thousandths = plan.limit * plan.users as u64 * (PRICE.0 + PRICE.1) / 2;
        let limit = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
        reference["budget"] = json!({"limit": limit, "enforcement": if plan.is_hard { "hard" } else { "reserve" }});
    }
    reference
}

/// What can be used up by itself before the limit of tokens is, and after.
fn limits(plan: &Plan) -> Vec<Value> {
    let window = format!("{}s", plan.window_seconds);
    let mut limits = vec![json!({"limit": plan.limit, "window": window})];
    if plan.is_hard {
        limits[0]["enforcement"] = "hard".into();
    }
    if plan.has_many_limits {
        limits.extend([
            json!({"limit": plan.limit / 2, "window": window, "unit": "input"}),
            json!({"limit": (plan.limit / 50).max(1), "window": window, "unit": "requests", "scope": "key"}),
            json!({"limit": plan.limit, "window": window, "unit": "output", "scope": "subscription"}),
        ]);
    }
    limits
}

fn maas(namespace: &str, kind: &str, plural: &str, name: &str, spec: Value) -> (String, Value) {
    let metadata = json!({"name": name, "namespace": namespace});
    let object = json!({"apiVersion": MAAS, "kind": kind, "metadata": metadata, "spec": spec});
    (format!("/apis/{MAAS}/namespaces/{namespace}/{plural}"), object)
}
