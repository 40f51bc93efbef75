//! Stands in for the `base2histogram` package, with which openraft measures itself: batch sizes, budgets, stages of a log entry.
//!
//! Nothing reads those measurements: what returns them belongs to openraft's feature `runtime-stats`, which is off. But to make
//! even one histogram, the package computes lookup tables for all sixteen resolutions it has: 27 MB that stay resident, more
//! than the rest of an idle node together. Here is the surface that openraft compiles against, and nothing behind it. To be
//! deleted when the package computes a table only when it is asked for.

use std::fmt;
use std::marker::PhantomData;

/// A histogram that remembers nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Histogram<T = ()>(PhantomData<T>);

impl Histogram {
    /// One that remembers nothing.
    #[expect(clippy::new_without_default, reason = "openraft does not need it")]
    pub fn new() -> Histogram {
        Histogram(PhantomData)
    }

    /// Forgets `value`.
    pub fn record(&mut self, _value: u64) {}

    /// Forgets `value`, `count` times.
    pub fn record_n(&mut self, _value: u64, _count: u64) {}

    /// Of no samples.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

/// Percentiles of what was recorded: nothing.
#[expect(missing_docs, reason = "the names say which percentile each is")]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not measured")
    }
}

/// A chart of histograms that remember nothing.
#[derive(Debug)]
pub struct AsciiChart;

impl AsciiChart {
    /// An empty chart.
    #[expect(clippy::new_without_default, reason = "openraft does not need it")]
    pub fn new() -> AsciiChart {
        AsciiChart
    }

    /// The chart as it is.
    #[must_use]
    pub fn add(self, _name: &str, _histogram: Histogram) -> AsciiChart {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not measured")
    }
}
