//! What `kubectl get` prints: the columns of each kind and an object's cells.

use std::time::Duration;

use serde_json::{Value, json};

use super::kind::Column;
use super::{
    Kind, Object, Spec, Status, auth_policy, group, inference_service, model_ref, plain, subscription, tenant,
};
use crate::ids::Timestamp;

impl Kind {
    /// The columns of a table of this kind, after the name.
    pub fn columns(self) -> &'static [Column] {
        match self {
            Kind::Namespace => plain::NAMESPACE_COLUMNS,
            Kind::ServiceAccount => plain::SERVICE_ACCOUNT_COLUMNS,
            Kind::Group => group::COLUMNS,
            Kind::Tenant => tenant::COLUMNS,
            Kind::InferenceService => inference_service::COLUMNS,
            Kind::ModelRef => model_ref::COLUMNS,
            Kind::Subscription => subscription::COLUMNS,
            Kind::AuthPolicy => auth_policy::COLUMNS,
        }
    }
}

/// The cells of `object` under [`Kind::columns`], the name left out. Ages are as of `now`, in the words of kubectl: `3d4h`.
pub fn row(object: &Object, status: &Status, now: Timestamp) -> Vec<Value> {
    let kind = object.key.kind;
    let mut cells = match (kind, &object.spec) {
        (Kind::Namespace, _) => plain::namespace_cells(status),
        (Kind::ServiceAccount, _) => plain::service_account_cells(),
        (Kind::Group, Spec::Group(spec)) => group::cells(spec),
        (Kind::Group, _) => vec![json!("")],
        (Kind::Tenant, _) => tenant::cells(status),
        (Kind::InferenceService, _) => inference_service::cells(status),
        (Kind::ModelRef, _) => model_ref::cells(status),
        (Kind::Subscription, Spec::Subscription(spec)) => subscription::cells(Some(spec), status),
        (Kind::Subscription, _) => subscription::cells(None, status),
        (Kind::AuthPolicy, Spec::AuthPolicy(spec)) => auth_policy::cells(Some(spec), status),
        (Kind::AuthPolicy, _) => auth_policy::cells(None, status),
    };
    if let Some(at) = kind.columns().iter().position(|column| *column == Column::AGE) {
        cells.insert(at, json!(age(now.since(object.created))));
    }
    cells
}

/// A duration in at most two units, as kubectl prints it: the longer, the coarser.
pub fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |most: u64, unit: char, rest: u64, small: char| match rest {
        0 => format!("{most}{unit}"),
        rest => format!("{most}{unit}{rest}{small}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_written_as_kubectl_writes_them() {
        for (seconds, wanted) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (176_400, "2d1h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), wanted, "{seconds} seconds");
        }
    }
}
