//! What came of the calls, and the JSON that says so.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::Run;
use super::answer::{Answer, Content};
use super::failure::Failure;

/// As much of the first wrong answer is shown.
const SAMPLE_BYTES_MAX: usize = 300;

/// What came of the calls so far. Times are in microseconds, one number for each call or gap.
#[derive(Default)]
pub(super) struct Tally {
    good: u64,
    /// Of the good ones, those that were complete before the run's end.
    good_in_time: u64,
    failures: BTreeMap<String, u64>,
    failure_sample: Option<String>,
    latency_us: Vec<u32>,
    first_event_us: Vec<u32>,
    gap_us: Vec<u32>,
    /// Calls that were given up when the run's deadline came.
    pub(super) unfinished: usize,
}

impl Tally {
    /// An answer has come to a call that began at `began`. Returns whether it was a good one.
    pub(super) fn record(&mut self, answer: Answer, run: &Run, began: Instant) -> bool {
        let end = answer.end;
        match answer.check(run.stream) {
            Err((failure, content)) => {
                self.fail(&failure);
                if let Content::Whole(body) = content {
                    let sample = String::from_utf8_lossy(&body[..body.len().min(SAMPLE_BYTES_MAX)]).into_owned();
                    self.failure_sample.get_or_insert(sample);
                }
                return false;
            }
            Ok(Content::Whole(_)) => {}
            Ok(Content::Events(mut events)) => {
                self.first_event_us.extend(events.first.map(|first| microseconds(first - began)));
                self.gap_us.append(&mut events.gaps_us);
            }
        }
        self.good += 1;
        self.good_in_time += u64::from(end <= run.end);
        self.latency_us.push(microseconds(end - began));
        true
    }

    /// A call has no good answer.
    pub(super) fn fail(&mut self, failure: &Failure) {
        *self.failures.entry(failure.to_string()).or_default() += 1;
    }

    /// The result of a run of `seconds` seconds.
    pub(super) fn report(&mut self, seconds: f64, processor_seconds: f64) -> Value {
        #[expect(clippy::cast_precision_loss, reason = "millions of calls at most")]
        let rate = self.good_in_time as f64 / seconds;
        json!({
            "seconds": seconds,
            "good": self.good,
            "requests_per_second": rate,
            "failed": self.failures.values().sum::<u64>(),
            "failures": self.failures,
            "failure_sample": self.failure_sample,
            "unfinished": self.unfinished,
            "latency_ms": quantiles(&mut self.latency_us),
            "first_event_ms": quantiles(&mut self.first_event_us),
            "gap_ms": quantiles(&mut self.gap_us),
            "driver_cpu_seconds": processor_seconds,
        })
    }
}

/// At most 71 minutes; longer is as long.
pub(super) fn microseconds(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// Exact quantiles in milliseconds; `null` of nothing.
fn quantiles(times_us: &mut [u32]) -> Value {
    times_us.sort_unstable();
    let Some(longest) = times_us.last() else { return Value::Null };
    let ms = |time_us: u32| f64::from(time_us) / 1000.0;
    let at = |percent: usize| ms(times_us[(times_us.len() * percent / 100).min(times_us.len() - 1)]);
    json!({"p50": at(50), "p90": at(90), "p99": at(99), "max": ms(*longest)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_occurred() {
        assert_eq!(quantiles(&mut []), Value::Null);
        assert_eq!(quantiles(&mut [7000]), json!({"p50": 7.0, "p90": 7.0, "p99": 7.0, "max": 7.0}));
        let mut hundred: Vec<u32> = (0..100).rev().map(|number| number * 1000).collect();
        assert_eq!(quantiles(&mut hundred), json!({"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 99.0}));
    }
}
