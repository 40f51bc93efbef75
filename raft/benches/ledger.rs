//! What half a million live meters and as many rows of usage cost: `cargo bench -p tollgate-raft --bench ledger`.
//!
//! Prints the memory of each (Linux: resident memory of this process before and after), the time to apply a batch, and the size and time of a
//! snapshot.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement that cannot go on fails, and wants the machine's time"
)]

use std::collections::BTreeMap;
use std::time::Instant;

use raft::command::{Acquire, Command, EarlierIncarnations, QuotaBatch, QuotaEntry};
use raft::resources::{Kind, LimitKind, LimitScope, NewObject, ObjectKey, Unit};
use raft::state::{MeterId, Subject, UsageLabels, UsageRow, UsageSum};
use raft::{NodeId, RequestId, State, Timestamp};
use uuid::Uuid;

const METERS: u64 = 500_000;
/// Meters in one batch.
const BATCH: u64 = 500;

fn main() {
    let mut log = Log::default();
    let before = resident();
    let began = Instant::now();
    for first in (0..METERS).step_by(BATCH as usize) {
        log.quota((first..first + BATCH).map(entry).collect(), Vec::new());
    }
    let each = began.elapsed() / (METERS / BATCH) as u32;
    report("meters", log.state.meters.len(), before, each);
    let with_meters = log.state.clone();

    let before = resident();
    let began = Instant::now();
    for first in (0..METERS).step_by(BATCH as usize) {
        log.quota(Vec::new(), (first..first + BATCH).map(row).collect());
    }
    let each = began.elapsed() / (METERS / BATCH) as u32;
    report("rows of usage", log.state.usage.hours.len(), before, each);
    // Last: the memory that these leave free would be taken for that of the rows.
    snapshot("meters", &with_meters);
    snapshot("meters and rows", &log.state);
}

#[derive(Default)]
struct Log {
    state: State,
    index: u64,
}

impl Log {
    fn apply(&mut self, command: Command) {
        self.index += 1;
        let time = Timestamp(1_772_000_000_000 + self.index);
        self.state.apply(self.index, RequestId(u128::from(self.index)), time, command);
    }

    fn quota(&mut self, entries: Vec<QuotaEntry>, usage: Vec<UsageRow>) {
        if self.index == 0 {
            self.apply(Command::CreateObject { object: subscription(), uid: Uuid::from_u128(1) });
        }
        let batch = QuotaBatch {
            node: NodeId(1),
            incarnation: 1,
            sequence: self.index,
            entries,
            usage,
            earlier: EarlierIncarnations::default(),
        };
        self.apply(Command::Quota(batch));
    }
}

fn subscription() -> NewObject {
    let body = r#"{"spec":{"owner":{"groups":[{"name":"team"}]},"modelRefs":[{"name":"m","namespace":"n","tokenRateLimits":[{"limit":100000,"window":"720h"}]}]}}"#;
    NewObject {
        key: ObjectKey::new(Kind::Subscription, "models-as-a-service", "s"),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        body: body.to_owned(),
    }
}

fn user(number: u64) -> String {
    format!("user-{number:06}@example.com")
}

fn entry(number: u64) -> QuotaEntry {
    let meter = MeterId {
        subscription: ("models-as-a-service".to_owned(), "s".to_owned()),
        model: ("n".to_owned(), "m".to_owned()),
        limit: LimitKind { window_seconds: 720 * 3600, unit: Unit::Total, scope: LimitScope::User },
        subject: Subject::User(user(number)),
    };
    QuotaEntry {
        meter,
        window: 0,
        spent: 0,
        returned: 0,
        excess: 0,
        acquire: Some(Acquire { need: 1000, extra: 100, alone: false }),
    }
}

fn row(number: u64) -> UsageRow {
    let labels = UsageLabels {
        user: user(number),
        key: Some(Uuid::from_u128(u128::from(number))),
        subscription: ("models-as-a-service".to_owned(), "s".to_owned()),
        model: ("n".to_owned(), "m".to_owned()),
        organization: "organization".to_owned(),
        cost_center: "cost-center".to_owned(),
    };
    let sum = UsageSum { calls: 1, input: 900, output: 400, ..UsageSum::default() };
    UsageRow { at: Timestamp(1_772_000_000_000), labels, sum }
}

fn report(what: &str, count: usize, before: u64, batch: std::time::Duration) {
    let bytes = resident().saturating_sub(before) / count as u64;
    println!("{count} {what}: {bytes} bytes of memory each, {batch:.1?} to apply a batch of {BATCH}");
}

fn snapshot(what: &str, state: &State) {
    let began = Instant::now();
    let bytes = state.to_bytes();
    let written = began.elapsed();
    let began = Instant::now();
    let read = State::from_bytes(&bytes).unwrap();
    let took = began.elapsed();
    assert!(read == *state, "a snapshot is the state");
    println!("snapshot of {what}: {} MB, written in {written:.1?}, read in {took:.1?}", bytes.len() / 1_000_000);
}

/// Bytes of memory of this process.
fn resident() -> u64 {
    const PAGE: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE
}
