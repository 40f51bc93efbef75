//! Processor time of this process.

use std::io::{Error, ErrorKind, Result};

/// Seconds used so far, from the kernel's exact count. It is that of the first thread, which is the only one here.
pub(super) fn used() -> Result<f64> {
    let counts = std::fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds = counts.split_ascii_whitespace().next().and_then(|number| number.parse::<u64>().ok());
    let nanoseconds =
        nanoseconds.ok_or_else(|| Error::new(ErrorKind::InvalidData, "/proc/self/schedstat has no number"))?;
    Ok(std::time::Duration::from_nanos(nanoseconds).as_secs_f64())
}
