//! Metrics and logs.

pub mod logging;

mod metrics;

pub(crate) use metrics::CallMetrics;
pub use metrics::Metrics;
