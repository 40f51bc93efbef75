//! Metrics and logs.

pub mod logging;

mod metrics;

pub use metrics::Metrics;
pub(crate) use metrics::{CallMetrics, PROVIDER, Took};
