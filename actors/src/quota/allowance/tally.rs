//! What calls used that the ledger has not been told of, by whom.

use std::collections::HashMap;
use std::sync::Arc;

use raft::Timestamp;
use raft::journal::CallPart;
use raft::state::{UsageLabels, UsageRow, UsageSum};

use crate::routing::Permit;

/// Numbers of one row, at most, and the id of a key.
const FIXED_BYTES: usize = 128;

/// See the module. Bounded by the calls that ended since the last batch.
#[derive(Default)]
pub(crate) struct Tally {
    /// By the addresses of caller and subscription, which a call need not be looked at for. Rows of equal labels are one in a batch.
    rows: HashMap<(usize, usize), Row>,
    /// Parts of calls that are accounted with another part.
    other_parts: Vec<CallPart>,
}

struct Row {
    /// Keeps what is at the addresses.
    permit: Permit,
    sum: UsageSum,
    /// The calls whose sum it is.
    parts: Vec<CallPart>,
}

impl Tally {
    /// Adds a call of `permit` that was refused.
    pub(super) fn add_limited(&mut self, permit: &Permit) {
        let limited = UsageSum { limited: 1, ..UsageSum::default() };
        self.row(permit).sum.add(&limited);
    }

    /// Adds a part of a call of `permit` that used `sum`. Its first part is the one that accounts for it.
    pub(super) fn add(&mut self, permit: &Permit, sum: &UsageSum, (call, part): CallPart) {
        if part == 0 {
            let row = self.row(permit);
            row.sum.add(sum);
            row.parts.push((call, part));
        } else {
            self.other_parts.push((call, part));
        }
    }

    fn row(&mut self, permit: &Permit) -> &mut Row {
        let key = (permit.caller().address(), Arc::as_ptr(permit.subscription()).addr());
        let new = || Row { permit: permit.clone(), sum: UsageSum::default(), parts: Vec::new() };
        self.rows.entry(key).or_insert_with(new)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.other_parts.is_empty()
    }

    /// Takes rows as of `at` until they have `max` bytes, about, or none are left.
    pub(crate) fn take(&mut self, max: usize, at: Timestamp) -> Taken {
        let mut taken = Taken::default();
        for (key, row) in std::mem::take(&mut self.rows) {
            if taken.bytes < max {
                let labels = labels(&row.permit);
                taken.bytes += label_bytes(&labels);
                taken.rows.push(UsageRow { at, labels, sum: row.sum });
                taken.parts.extend(row.parts);
            } else {
                self.rows.insert(key, row);
            }
        }
        if self.rows.is_empty() {
            taken.parts.append(&mut self.other_parts);
        }
        // Maps have an order of their own, and batches do not depend on chance.
        taken.rows.sort_by(|a, b| a.labels.cmp(&b.labels));
        taken.rows.dedup_by(|next, row| {
            let is_same = next.labels == row.labels;
            if is_same {
                row.sum.add(&next.sum);
            }
            is_same
        });
        taken.parts.sort_unstable();
        taken
    }
}

/// What goes into a batch.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) rows: Vec<UsageRow>,
    /// The calls that this is all of.
    pub(crate) parts: Vec<CallPart>,
    /// The size of the rows, about.
    pub(crate) bytes: usize,
}

/// Under which names a permit's calls are accounted.
pub(super) fn labels(permit: &Permit) -> UsageLabels {
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

/// The size of a row, about.
pub(crate) fn label_bytes(labels: &UsageLabels) -> usize {
    let UsageLabels { user, key: _, subscription, model, organization, cost_center } = labels;
    let texts = [user, &subscription.0, &subscription.1, &model.0, &model.1, organization, cost_center];
    FIXED_BYTES + texts.iter().map(|text| text.len()).sum::<usize>()
}
