//! Every metric this node exposes, names and units in one list.

/// The counters. Cloning is cheap.
#[derive(Clone)]
pub struct Metrics {}
