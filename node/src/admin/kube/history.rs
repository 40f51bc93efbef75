//! The views that lists and watches were answered from, so that a watch can begin where a list ended without missing a deletion.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use raft::View;

/// How many views are remembered. Views share what did not change between them, and a watch follows its list within
/// moments; a client that comes later is told to list again.
const VIEWS_MAX: usize = 64;

/// Recent views by the log index of their last change to objects.
#[derive(Default)]
pub(super) struct History(Mutex<BTreeMap<u64, Arc<View>>>);

impl History {
    pub(super) fn note(&self, view: &Arc<View>) {
        let mut views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = views.get(&view.access_version);
        if known.is_none_or(|known| known.applied < view.applied) {
            views.insert(view.access_version, Arc::clone(view));
        }
        if views.len() > VIEWS_MAX {
            views.pop_first();
        }
    }

    /// A view of the objects exactly as they were at `resource_version`.
    pub(super) fn at(&self, resource_version: u64) -> Option<Arc<View>> {
        let views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, view) = views.range(..=resource_version).next_back()?;
        (resource_version <= view.applied).then(|| Arc::clone(view))
    }
}
