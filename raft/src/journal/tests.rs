use std::io;

use bytes::Bytes;
use smallvec::smallvec;

use super::*;
use crate::doors::BoxFuture;
use crate::resources::{LimitKind, LimitScope, Unit};
use crate::state::{NodeLedger, Subject};
use crate::storage::{Disk, Key, MakeBytes, MemoryDisk, Write};

const RUN: Option<u128> = Some(1);

fn sum(output: u64) -> UsageSum {
    UsageSum { calls: 1, output, ..UsageSum::default() }
}

fn labels() -> UsageLabels {
    UsageLabels {
        user: "ann".to_owned(),
        key: None,
        subscription: ("s".to_owned(), "s".to_owned()),
        model: ("m".to_owned(), "m".to_owned()),
        organization: String::new(),
        cost_center: String::new(),
    }
}

/// Holds 10 of the user's tokens, and 1 of the subscription's requests.
fn opened(call: CallId) -> OpenedCall {
    let hold = |part, unit, scope, subject, held| {
        let limit = LimitKind { window_seconds: 60, unit, scope };
        let meter = MeterId { subscription: labels().subscription, model: labels().model, limit, subject };
        CallHold { part, meter: Arc::new(meter), window: 7, held }
    };
    let user = hold(0, Unit::Total, LimitScope::User, Subject::User("ann".to_owned()), 10);
    let all = hold(1, Unit::Requests, LimitScope::Subscription, Subject::Everybody, 1);
    OpenedCall { call, labels: labels(), if_lost: sum(10), holds: vec![user, all] }
}

fn open(call: CallId) -> impl FnOnce() -> OpenedCall {
    move || opened(call)
}

fn ended(call: CallId, output: u64) -> EndedCall {
    EndedCall { call, sum: Some(sum(output)), used: smallvec![output, 1] }
}

/// What the ledger knows of a node in its `incarnation`; the last batches of `earlier` ones.
fn ledger(incarnation: u64, earlier: &[(u64, u64)]) -> NodeLedger {
    let earlier = earlier.iter().copied().collect();
    NodeLedger { incarnation, sequence: 1, reply: Vec::new(), earlier, earlier_from: 0 }
}

/// number: usage / used of each meter.
fn shown(calls: &[PastCall]) -> Vec<String> {
    let show = |call: &PastCall| {
        let usage = call.usage.as_ref().map_or("-".to_owned(), |(_, sum)| sum.output.to_string());
        let used: Vec<String> = call.used.iter().map(|hold| hold.held.to_string()).collect();
        format!("{}.{}: {usage}/{}", call.call.incarnation, call.call.number, used.join(","))
    };
    calls.iter().map(show).collect()
}

async fn start(disk: &Arc<MemoryDisk>, incarnation: u64) -> Journal {
    Journal::start(disk.clone(), incarnation).await.unwrap().0
}

async fn noted(journal: &Journal, note: NoteNumber) {
    journal.written(note).await.unwrap();
}

#[tokio::test]
async fn what_an_incarnation_left_is_what_its_counted_batches_do_not_say() {
    let disk = Arc::new(MemoryDisk::new());
    let journal = start(&disk, 1).await;
    let past = journal.past().unwrap();
    assert_eq!((past.is_whole, past.untold(&ledger(1, &[])).calls), (true, vec![]), "a new disk");
    let [in_progress, whole, half, unsent, counted] = [(); 5].map(|()| journal.next_call());
    for call in [in_progress, whole, half, unsent, counted] {
        noted(&journal, journal.open(open(call))).await;
    }
    noted(&journal, journal.end(ended(whole, 4))).await;
    noted(&journal, journal.end(ended(half, 6))).await;
    noted(&journal, journal.end(EndedCall { call: unsent, sum: None, used: smallvec![0, 0] })).await;
    noted(&journal, journal.end(ended(counted, 8))).await;
    noted(&journal, journal.tell(1, vec![(counted, 0), (counted, 1)])).await;
    journal.confirm(1);
    noted(&journal, journal.tell(2, vec![(half, 0)])).await;
    noted(&journal, journal.tell(3, vec![(half, 1)])).await;
    drop(journal);

    let journal = start(&disk, 2).await;
    let past = journal.past().unwrap();
    assert!(past.is_whole, "the process was killed, and nothing else");
    let table = [
        ("none of two batches was counted", ledger(2, &[(1, 1)]), vec!["1.1: 10/10,1", "1.2: 4/4,1", "1.3: 6/6,1"]),
        ("one was", ledger(2, &[(1, 2)]), vec!["1.1: 10/10,1", "1.2: 4/4,1", "1.3: -/1"]),
        ("both were", ledger(2, &[(1, 3)]), vec!["1.1: 10/10,1", "1.2: 4/4,1"]),
        ("one was that is not noted: the journal's end is missing", ledger(2, &[(1, 4)]), vec![]),
        ("so it is of a later incarnation that told of this one", ledger(3, &[(1, 3), (2, 1)]), vec![]),
        ("the ledger has forgotten that incarnation", NodeLedger { earlier_from: 2, ..ledger(2, &[]) }, vec![]),
    ];
    for (what, ledger, expected) in table {
        assert_eq!(shown(&past.untold(&ledger).calls), expected, "{what}");
    }

    assert_eq!(past.untold(&ledger(2, &[(1, 4)])).lost, 2);

    // The next incarnation tells of it, and is killed before it knows that it was counted.
    noted(&journal, journal.tell(1, Vec::new())).await;
    noted(&journal, journal.tell(2, vec![(in_progress, 0), (in_progress, 1), (half, 1)])).await;
    drop(journal);
    let journal = start(&disk, 3).await;
    let past = journal.past().unwrap();
    assert_eq!(shown(&past.untold(&ledger(3, &[(1, 2), (2, 2)])).calls), ["1.2: 4/4,1"]);
    assert_eq!(shown(&past.untold(&ledger(3, &[(1, 2), (2, 1)])).calls), ["1.1: 10/10,1", "1.2: 4/4,1", "1.3: -/1"]);

    // All was told, but for what nobody knows, and the journal is written anew: it still says which batch was the last.
    let unknown = vec![Unknown { meter: (*opened(whole).holds[0].meter).clone(), window: 7, amount: 5 }];
    noted(&journal, journal.open(open(journal.next_call()))).await;
    noted(&journal, journal.tell(3, Vec::new())).await;
    journal.confirm(3);
    journal.forget_past(unknown.clone());
    noted(&journal, journal.open(open(journal.next_call()))).await;
    assert_eq!(journal.past(), None);
    drop(journal);
    let past = start(&disk, 4).await.past().unwrap();
    assert_eq!((past.is_whole, &past.unknown), (true, &unknown));
    let untold = past.untold(&ledger(4, &[(3, 3)]));
    assert_eq!((shown(&untold.calls), untold.lost), (vec!["3.1: 10/10,1".to_owned(), "3.2: 10/10,1".to_owned()], 0));
}

#[tokio::test]
async fn a_journal_that_lost_its_end_says_so_and_what_is_left_is_read() {
    let disk = Arc::new(MemoryDisk::new());
    let journal = start(&disk, 1).await;
    let first = journal.next_call();
    noted(&journal, journal.open(open(first))).await;
    let kept = disk.read_journal().await.unwrap();
    noted(&journal, journal.open(open(journal.next_call()))).await;
    let all = disk.read_journal().await.unwrap();
    drop(journal);
    for length in [kept.len(), kept.len() + 1, kept.len() + 14, kept.len() + 15, all.len() - 1] {
        let past = Past::read(&all[..length], 2, RUN).unwrap();
        assert_eq!(shown(&past.untold(&ledger(2, &[])).calls), ["1.1: 10/10,1"], "{length} of {} bytes", all.len());
    }
    let mut rotten = all.to_vec();
    rotten[kept.len() + 30] ^= 1;
    assert_eq!(shown(&Past::read(&rotten, 2, RUN).unwrap().untold(&ledger(2, &[])).calls), ["1.1: 10/10,1"]);

    let table = [
        ("killed", Past::read(&all, 2, RUN), true),
        ("the machine was started anew", Past::read(&all, 2, Some(2)), false),
        ("nobody knows whether it was", Past::read(&all, 2, None), false),
        ("a journal that is gone", Past::read(&[], 2, RUN), false),
        ("a new disk", Past::read(&[], 1, None), true),
    ];
    for (what, past, is_whole) in table {
        assert_eq!(past.unwrap().is_whole, is_whole, "{what}");
    }
    let mut newer = all.to_vec();
    newer[2] = 9;
    let error = Past::read(&newer, 2, RUN).unwrap_err().to_string();
    assert_eq!(error, "the usage journal: record format 9 is unknown to this version");
}

#[tokio::test]
async fn a_journal_stays_as_large_as_what_is_needed_of_it() {
    let disk = Arc::new(MemoryDisk::new());
    let journal = start(&disk, 1).await;
    let stream = journal.next_call();
    noted(&journal, journal.open(open(stream))).await;
    for sequence in 1..=3_000 {
        let calls: Vec<CallId> = (0..10).map(|_| journal.next_call()).collect();
        for call in &calls {
            journal.open(open(*call));
            journal.end(ended(*call, 5));
        }
        let parts = calls.iter().flat_map(|call| [(*call, 0), (*call, 1)]).collect();
        noted(&journal, journal.tell(sequence, parts)).await;
        journal.confirm(sequence);
    }
    let size = disk.read_journal().await.unwrap().len();
    assert!((100..5 << 20).contains(&size), "{size} bytes");
    drop(journal);
    let past = start(&disk, 2).await.past().unwrap();
    assert_eq!(shown(&past.untold(&ledger(2, &[(1, 3_000)])).calls), ["1.1: 10/10,1"]);
}

/// Fails when its journal is appended to.
struct FullDisk(MemoryDisk);

impl Disk for FullDisk {
    fn get(&self, key: Key) -> BoxFuture<'_, io::Result<Option<Bytes>>> {
        self.0.get(key)
    }

    fn bounds(&self) -> BoxFuture<'_, io::Result<Option<(u64, u64)>>> {
        self.0.bounds()
    }

    fn read(&self, from: u64, to: u64) -> BoxFuture<'_, io::Result<Vec<(u64, Bytes)>>> {
        self.0.read(from, to)
    }

    fn write(&self, changes: Vec<Write>) -> BoxFuture<'_, io::Result<()>> {
        self.0.write(changes)
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        self.0.sync()
    }

    fn snapshots(&self) -> BoxFuture<'_, io::Result<Vec<u64>>> {
        self.0.snapshots()
    }

    fn write_snapshot(&self, number: u64, make: MakeBytes) -> BoxFuture<'_, io::Result<Bytes>> {
        self.0.write_snapshot(number, make)
    }

    fn read_snapshot(&self, number: u64) -> BoxFuture<'_, io::Result<Bytes>> {
        self.0.read_snapshot(number)
    }

    fn remove_snapshot(&self, number: u64) -> BoxFuture<'_, io::Result<()>> {
        self.0.remove_snapshot(number)
    }

    fn read_journal(&self) -> BoxFuture<'_, io::Result<Bytes>> {
        self.0.read_journal()
    }

    fn append_journal(&self, _: Bytes) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Err(io::ErrorKind::StorageFull.into()) })
    }

    fn replace_journal(&self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        self.0.replace_journal(bytes)
    }

    fn machine_run(&self) -> Option<u128> {
        self.0.machine_run()
    }
}

#[tokio::test]
async fn nothing_is_said_to_be_written_by_a_journal_that_has_failed() {
    let disk: Arc<dyn Disk> = Arc::new(FullDisk(MemoryDisk::new()));
    let (journal, _) = Journal::start(disk, 1).await.unwrap();
    for _ in 0..2 {
        let note = journal.open(open(journal.next_call()));
        let error = journal.written(note).await.unwrap_err().to_string();
        assert_eq!(error, "the usage journal cannot be written: no storage space");
    }
}
