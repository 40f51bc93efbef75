//! Usage: who used how much of which model through which subscription, by the hour, and by the day once that is a while ago.
//!
//! Rows arrive in the quota batch that charges the meters for the same calls, so they count exactly once, and what callers were charged and
//! what this says are one number.

use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::State;
use crate::ids::Timestamp;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Hours are added up to days after this.
pub const USAGE_HOURS_KEPT: Duration = Duration::from_secs(8 * 24 * 3600);
/// Days are forgotten after this: whoever wants to keep them exports them before.
pub const USAGE_DAYS_KEPT: Duration = Duration::from_secs(100 * 24 * 3600);
/// Rows of hours, and rows of days, that are kept at most. Beyond it the oldest hours become days, and the oldest days go, before their time.
const ROWS_MAX: usize = 500_000;
/// Rows looked at by every batch, beside two for each of its own, so that what is too old cannot pile up.
const SWEPT_MIN: usize = 16;

/// Who used what, and under which names it is accounted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct UsageLabels {
    /// The user.
    pub user: String,
    /// The API key, if the call showed one. A key that the cluster has forgotten since has no part in the sums of days.
    pub key: Option<Uuid>,
    /// The MaaSSubscription's namespace and name.
    pub subscription: (String, String),
    /// The MaaSModelRef's namespace and name.
    pub model: (String, String),
    /// `tokenMetadata.organizationId` at the time of the call.
    pub organization: String,
    /// `tokenMetadata.costCenter` at the time of the call.
    pub cost_center: String,
}

/// What some calls used. All are tokens but where it says calls.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct UsageSum {
    /// Calls that reached a replica.
    pub calls: u64,
    /// Calls refused with 429.
    pub limited: u64,
    /// Of prompts, cached ones included.
    pub input: u64,
    /// The part of `input` that a replica had in its cache, as far as replicas say.
    pub cached: u64,
    /// Of answers, reasoning included.
    pub output: u64,
    /// The part of `output` that was reasoning, as far as replicas say.
    pub reasoning: u64,
    /// Calls whose tokens no replica reported: counted from what was streamed.
    pub counted_calls: u64,
    /// Input and output of those.
    pub counted: u64,
    /// Calls of which nothing is known but what was reserved for them.
    pub estimated_calls: u64,
    /// Input and output of those.
    pub estimated: u64,
    /// Calls for which a replica reported what cannot be true.
    pub absurd_calls: u64,
}

impl UsageSum {
    /// What was charged.
    pub fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// Adds what `other` calls used.
    pub fn add(&mut self, other: &UsageSum) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.calls, other.calls);
        add(&mut self.limited, other.limited);
        add(&mut self.input, other.input);
        add(&mut self.cached, other.cached);
        add(&mut self.output, other.output);
        add(&mut self.reasoning, other.reasoning);
        add(&mut self.counted_calls, other.counted_calls);
        add(&mut self.counted, other.counted);
        add(&mut self.estimated_calls, other.estimated_calls);
        add(&mut self.estimated, other.estimated);
        add(&mut self.absurd_calls, other.absurd_calls);
    }
}

/// A node's sum of calls that have just ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct UsageRow {
    /// When the node told of them, by its own knowledge of the time.
    pub at: Timestamp,
    /// Whose they were.
    pub labels: UsageLabels,
    /// What they used.
    pub sum: UsageSum,
}

/// Begins and labels.
pub type UsageKey = (Timestamp, Arc<UsageLabels>);

/// All usage that is kept.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Usage {
    /// By the beginning of the hour.
    pub hours: OrdMap<UsageKey, UsageSum>,
    /// By the beginning of the day.
    pub days: OrdMap<UsageKey, UsageSum>,
}

impl Usage {
    /// What begins at or after `from` and before `to`: begin, length, labels, sum. Days first, each by time.
    pub fn between(
        &self,
        from: Timestamp,
        to: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, Duration, &Arc<UsageLabels>, &UsageSum)> {
        let of = |rows, length| range(rows, from, to).map(move |((begin, labels), sum)| (*begin, length, labels, sum));
        of(&self.days, DAY).chain(of(&self.hours, HOUR))
    }
}

fn range(
    rows: &OrdMap<UsageKey, UsageSum>,
    from: Timestamp,
    to: Timestamp,
) -> impl Iterator<Item = (&UsageKey, &UsageSum)> {
    rows.range(first_of(from)..).take_while(move |((begin, _), _)| *begin < to)
}

/// What no row of `begin` comes before.
fn first_of(begin: Timestamp) -> UsageKey {
    let blank = || (String::new(), String::new());
    let labels = UsageLabels {
        user: String::new(),
        key: None,
        subscription: blank(),
        model: blank(),
        organization: String::new(),
        cost_center: String::new(),
    };
    (begin, Arc::new(labels))
}

/// The beginning of the hour or day (`length`) that `time` is in, in UTC.
fn begin(time: Timestamp, length: Duration) -> Timestamp {
    let length = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    Timestamp(time.0 - time.0 % length)
}

fn add(rows: &mut OrdMap<UsageKey, UsageSum>, key: UsageKey, sum: &UsageSum) {
    rows.entry(key).or_default().add(sum);
}

impl State {
    /// Adds a node's rows. None is dropped for its age: what comes late goes where it still counts.
    pub(super) fn add_usage(&mut self, rows: &[UsageRow]) {
        for row in rows {
            let labels = Arc::new(row.labels.clone());
            // A node's clock may be ahead of the cluster's.
            let at = row.at.min(self.time);
            let hour = begin(at, HOUR);
            if self.has_passed(hour, USAGE_HOURS_KEPT) {
                let oldest = Timestamp(self.time.0.saturating_sub(millis(USAGE_DAYS_KEPT - DAY)));
                add(&mut self.usage.days, (begin(at.max(oldest), DAY), labels), &row.sum);
            } else {
                add(&mut self.usage.hours, (hour, labels), &row.sum);
            }
        }
        self.sweep_usage(SWEPT_MIN + 2 * rows.len());
    }

    /// Adds up to `max` hours that are a while ago to their days, and forgets as many days.
    fn sweep_usage(&mut self, max: usize) {
        for _ in 0..max {
            let Some(((hour, labels), sum)) = self.usage.hours.get_min().cloned() else { break };
            if !self.has_passed(hour, USAGE_HOURS_KEPT) && self.usage.hours.len() <= ROWS_MAX {
                break;
            }
            self.usage.hours.remove(&(hour, labels.clone()));
            let labels = match labels.key {
                // Keys that come and go by the hour would leave a row a day each.
                Some(id) if !self.keys.contains_key(&id) => {
                    Arc::new(UsageLabels { key: None, ..UsageLabels::clone(&labels) })
                }
                _ => labels,
            };
            add(&mut self.usage.days, (begin(hour, DAY), labels), &sum);
        }
        for _ in 0..max {
            let Some(((day, labels), _)) = self.usage.days.get_min().cloned() else { break };
            if !self.has_passed(day, USAGE_DAYS_KEPT) && self.usage.days.len() <= ROWS_MAX {
                break;
            }
            self.usage.days.remove(&(day, labels));
        }
    }

    fn has_passed(&self, begin: Timestamp, kept: Duration) -> bool {
        begin.plus(kept) <= self.time
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, EarlierIncarnations, QuotaBatch};
    use crate::ids::NodeId;
    use crate::state::testing::Log;

    const DAY_MILLIS: u64 = 24 * 3600 * 1000;

    fn labels(user: &str, key: Option<u128>) -> UsageLabels {
        let name = |name: &str| ("ns".to_owned(), name.to_owned());
        UsageLabels {
            user: user.to_owned(),
            key: key.map(Uuid::from_u128),
            subscription: name("s"),
            model: name("m"),
            organization: "o".to_owned(),
            cost_center: "c".to_owned(),
        }
    }

    fn row(at: u64, user: &str, key: Option<u128>, input: u64) -> UsageRow {
        let sum = UsageSum { calls: 1, input, output: 1, ..UsageSum::default() };
        UsageRow { at: Timestamp(at), labels: labels(user, key), sum }
    }

    /// One node's batches, one after the other.
    #[derive(Default)]
    struct Node {
        log: Log,
        sequence: u64,
    }

    impl Node {
        fn tell(&mut self, at: u64, usage: Vec<UsageRow>) {
            self.sequence += 1;
            self.repeat(at, usage);
        }

        fn repeat(&mut self, at: u64, usage: Vec<UsageRow>) {
            self.log.time = Timestamp(at);
            let batch = QuotaBatch {
                node: NodeId(1),
                incarnation: 1,
                sequence: self.sequence,
                entries: Vec::new(),
                usage,
                earlier: EarlierIncarnations::default(),
            };
            self.log.apply(Command::Quota(batch));
        }

        /// `hours since the epoch, or d and days: user key input`, in order.
        fn shown(&self) -> Vec<String> {
            let all = self.log.state.usage.between(Timestamp(0), Timestamp(u64::MAX));
            let show = |(begin, length, labels, sum): (Timestamp, Duration, &Arc<UsageLabels>, &UsageSum)| {
                let number = begin.0 / millis(length);
                let what = if length == DAY { format!("d{number}") } else { format!("{number}") };
                let key = labels.key.map_or(String::new(), |key| format!("/{}", key.as_u128()));
                format!("{what} {}{key} {} {}", labels.user, sum.calls, sum.input)
            };
            all.map(show).collect()
        }
    }

    #[test]
    fn what_nodes_tell_is_added_up_once_by_the_hour() {
        let mut node = Node::default();
        let hour = 3_600_000;
        node.tell(5 * hour + 1, vec![row(5 * hour, "ann", None, 10), row(4 * hour, "bob", None, 1)]);
        node.repeat(5 * hour + 2, vec![row(5 * hour, "ann", None, 10)]);
        node.tell(5 * hour + 3, vec![row(5 * hour + 3, "ann", None, 5), row(5 * hour + 3, "ann", Some(1), 7)]);
        // A clock that is ahead does not put calls into a future hour.
        node.tell(5 * hour + 4, vec![row(9 * hour, "ann", None, 100)]);
        assert_eq!(node.shown(), ["4 bob 1 1", "5 ann 3 115", "5 ann/1 1 7"]);
        let stored = State::from_bytes(&node.log.state.to_bytes()).unwrap();
        assert_eq!(stored, node.log.state);
    }

    #[test]
    fn hours_become_days_days_go_and_what_comes_late_still_counts() {
        let mut node = Node::default();
        let start = 1000 * DAY_MILLIS;
        node.tell(start, vec![row(start, "ann", Some(1), 10), row(start - 3_600_000, "ann", Some(2), 1)]);
        node.tell(start + 8 * DAY_MILLIS - 1, Vec::new());
        assert_eq!(node.shown(), ["d999 ann 1 1", "24000 ann/1 1 10"]);
        // The keys are unknown to the cluster, as ephemeral ones are after a while.
        node.tell(start + 8 * DAY_MILLIS, Vec::new());
        assert_eq!(node.shown(), ["d999 ann 1 1", "d1000 ann 1 10"]);
        // A node that was away for long tells.
        let late = start + 50 * DAY_MILLIS;
        node.tell(late, vec![row(start, "ann", None, 5), row(1, "ann", None, 7)]);
        assert_eq!(node.shown(), ["d951 ann 1 7", "d999 ann 1 1", "d1000 ann 2 15"]);
        node.tell(start + 99 * DAY_MILLIS, Vec::new());
        assert_eq!(node.shown(), ["d1000 ann 2 15"]);
        node.tell(start + 100 * DAY_MILLIS, Vec::new());
        assert!(node.shown().is_empty());
    }
}
