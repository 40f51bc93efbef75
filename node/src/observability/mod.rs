//! Metrics and logs.

pub mod logging;

mod metrics;

pub(crate) use metrics::{CallMetrics, PROVIDER, Took};
pub use metrics::{Metrics, PortMetrics};
