//! What calls used that the ledger has not been told of, by whom.

use std::collections::HashMap;

use raft::Timestamp;
use raft::state::{UsageLabels, UsageRow, UsageSum};

use crate::routing::Permit;

/// Numbers of one row, at most, and the id of a key.
const FIXED_BYTES: usize = 128;

/// See the module. Bounded by the users and keys whose calls ended since the last batch.
#[derive(Default)]
pub(super) struct Tally(HashMap<UsageLabels, UsageSum>);

impl Tally {
    /// Adds what a call of `permit` used.
    pub(super) fn add(&mut self, permit: &Permit, sum: &UsageSum) {
        self.0.entry(labels(permit)).or_default().add(sum);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes rows as of `at` until they have `max` bytes, about, or none are left; and how many bytes they have.
    pub(super) fn take(&mut self, max: usize, at: Timestamp) -> (Vec<UsageRow>, usize) {
        let mut rows: Vec<UsageRow> = Vec::new();
        let mut bytes = 0;
        for (labels, sum) in std::mem::take(&mut self.0) {
            if bytes < max {
                bytes += size(&labels);
                rows.push(UsageRow { at, labels, sum });
            } else {
                self.0.insert(labels, sum);
            }
        }
        // Maps have an order of their own, and batches do not depend on chance.
        rows.sort_by(|a, b| a.labels.cmp(&b.labels));
        (rows, bytes)
    }
}

fn labels(permit: &Permit) -> UsageLabels {
    let (caller, access, model) = (permit.caller(), permit.subscription(), &permit.model().id);
    UsageLabels {
        user: caller.user().to_owned(),
        key: caller.key_id(),
        subscription: (access.id.namespace.to_string(), access.id.name.to_string()),
        model: (model.namespace.to_string(), model.name.to_string()),
        organization: access.metadata.organization_id.clone(),
        cost_center: access.metadata.cost_center.clone(),
    }
}

fn size(labels: &UsageLabels) -> usize {
    let UsageLabels { user, key: _, subscription, model, organization, cost_center } = labels;
    let texts = [user, &subscription.0, &subscription.1, &model.0, &model.1, organization, cost_center];
    FIXED_BYTES + texts.iter().map(|text| text.len()).sum::<usize>()
}
