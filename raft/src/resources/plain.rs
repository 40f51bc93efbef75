//! Namespace and ServiceAccount: nothing of their bodies means anything here beyond being kept.

use serde_json::{Value, json};

use super::Object;
use super::kind::Column;
use super::status::{self, Phase, Status};

/// Columns of `kubectl get namespaces`, after the name.
pub(super) const NAMESPACE_COLUMNS: &[Column] = &[Column::text("Status", "Active"), Column::AGE];
/// Columns of `kubectl get serviceaccounts`, after the name.
pub(super) const SERVICE_ACCOUNT_COLUMNS: &[Column] = &[Column::integer("Secrets", "secrets it holds"), Column::AGE];

/// A namespace is active as long as it exists: its deletion takes its objects with it in one step.
pub(super) fn namespace_status(object: &Object) -> Status {
    let mut status = status::assemble(object, Some(Phase::Active), Vec::new(), json!({}));
    status.json = json!({ "phase": status.phase });
    status
}

pub(super) fn namespace_cells(status: &Status) -> Vec<Value> {
    vec![json!(status.phase)]
}

/// Tokens are drawn on request and never kept as secrets.
pub(super) fn service_account_cells() -> Vec<Value> {
    vec![json!(0)]
}
