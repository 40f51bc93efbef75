//! The log as the consensus library sees it: recent entries in memory, all of them on disk.
//!
//! An append is readable when it returns and acknowledged when it is synced. Entries leave memory, oldest first,
//! once they are on disk and the newer ones fill [`CACHE_BYTES`]; a follower that is further behind, or a
//! restart, reads the disk.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use openraft::entry::EntryPayload;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};

use super::TypeConfig;
use super::convert::{self, Entry, LogId, Vote};
use crate::storage::records::{self, LogPointer};
use crate::storage::{Disk, Job, Key, Opened, Write, Writer};

/// Entries kept in memory beyond those that are not on disk yet, measured by their commands: a few seconds of a
/// busy cluster, so that followers that are up to date never cause a read.
const CACHE_BYTES: usize = 4 << 20;
/// What an entry costs beside its command.
const ENTRY_BYTES: usize = 128;

/// The log. Clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    tail: Arc<Mutex<Tail>>,
    disk: Arc<dyn Disk>,
    writer: Writer,
}

struct Tail {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// The index of the first entry, or of the next if there is none.
    first: u64,
    /// The newest entries, consecutive up to `last`.
    recent: VecDeque<Entry>,
    recent_bytes: usize,
    /// The first index that is not on disk yet.
    unwritten: u64,
    /// Counts truncations: a write that was queued before one says nothing about the entries after it.
    epoch: u64,
}

impl Tail {
    fn first_recent(&self) -> u64 {
        self.recent.front().map_or_else(|| next(self.last.as_ref()), |entry| entry.log_id.index)
    }

    fn push(&mut self, entry: Entry) {
        if self.last == self.purged {
            self.first = entry.log_id.index;
        }
        self.last = Some(entry.log_id);
        self.recent_bytes += size(&entry);
        self.recent.push_back(entry);
    }

    fn drop_oldest(&mut self) {
        if let Some(entry) = self.recent.pop_front() {
            self.recent_bytes -= size(&entry);
        }
    }

    /// A write that was queued in `epoch` is done: everything before `unwritten` is on disk.
    fn written(&mut self, epoch: u64, unwritten: u64) {
        if epoch == self.epoch {
            self.unwritten = self.unwritten.max(unwritten);
        }
        while self.recent_bytes > CACHE_BYTES && self.first_recent() < self.unwritten {
            self.drop_oldest();
        }
    }

    fn truncate(&mut self, last: Option<LogId>) {
        let from = next(last.as_ref());
        while self.recent.back().is_some_and(|entry| entry.log_id.index >= from) {
            let entry = self.recent.pop_back().expect("it was there just now");
            self.recent_bytes -= size(&entry);
        }
        self.last = self.last.min(last);
        self.first = self.first.min(from);
        self.epoch += 1;
        self.unwritten = self.unwritten.min(from);
    }

    fn purge(&mut self, upto: LogId) {
        while self.recent.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
            self.drop_oldest();
        }
        self.purged = self.purged.max(Some(upto));
        if self.last < Some(upto) {
            self.last = Some(upto);
        }
        self.first = self.first.max(upto.index + 1);
        self.unwritten = self.unwritten.max(upto.index + 1);
    }
}

fn next(last: Option<&LogId>) -> u64 {
    last.map_or(0, |last| last.index + 1)
}

fn size(entry: &Entry) -> usize {
    ENTRY_BYTES
        + match &entry.payload {
            EntryPayload::Normal(sealed) => sealed.command.len(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        }
}

impl LogStore {
    /// The log that was found on the disk.
    pub(crate) fn new(opened: &Opened, disk: Arc<dyn Disk>, writer: Writer) -> LogStore {
        let last = opened.last.map(convert::log_id);
        let tail = Tail {
            vote: opened.vote.map(convert::vote),
            committed: opened.committed.map(convert::log_id),
            purged: opened.purged.map(convert::log_id),
            last,
            first: opened.purged.map_or(0, |purged| purged.index + 1),
            recent: VecDeque::new(),
            recent_bytes: 0,
            unwritten: next(last.as_ref()),
            epoch: 0,
        };
        LogStore { tail: Arc::new(Mutex::new(tail)), disk, writer }
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries `from..to` of the disk. What was purged meanwhile is missing at the beginning; nothing else may be.
    async fn read_disk(&self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        let found = self.disk.read(from, to).await?;
        let first = from.max(self.tail().first);
        let mut entries = Vec::with_capacity(found.len());
        for (index, record) in found.into_iter().filter(|(index, _)| *index >= first) {
            let entry = records::Entry::from_bytes(&record).map_err(|error| damaged(index, &error.to_string()))?;
            if index != first + entries.len() as u64 || entry.id.index != index {
                return Err(damaged(first + entries.len() as u64, "it is missing"));
            }
            entries.push(convert::entry(entry)?);
        }
        if first + (entries.len() as u64) < to.max(first) {
            return Err(damaged(first + entries.len() as u64, "it is missing"));
        }
        Ok(entries)
    }
}

fn damaged(index: u64, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("log entry {index} is damaged: {why}"))
}

/// The half-open interval that `range` is, cut to what the log holds.
fn interval(range: &impl RangeBounds<u64>, tail: &Tail) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(to) => *to,
        Bound::Unbounded => u64::MAX,
    };
    let from = from.max(tail.first);
    (from, to.min(next(tail.last.as_ref())).max(from))
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        let (from, middle, recent) = {
            let tail = self.tail();
            let (from, to) = interval(&range, &tail);
            let first_recent = tail.first_recent();
            let middle = first_recent.clamp(from, to);
            let skip = usize::try_from(middle.saturating_sub(first_recent)).expect("entries in memory");
            let take = usize::try_from(to - middle).expect("entries in memory");
            let recent: Vec<Entry> = tail.recent.range(skip..skip + take).cloned().collect();
            (from, middle, recent)
        };
        if from == middle {
            return Ok(recent);
        }
        let mut entries = self.read_disk(from, middle).await?;
        entries.extend(recent);
        Ok(entries)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.tail().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let tail = self.tail();
        Ok(LogState { last_purged_log_id: tail.purged, last_log_id: tail.last })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.tail().vote = Some(*vote);
        let record = convert::our_vote(vote).to_bytes().into();
        self.writer.commit(vec![Write::Put { key: Key::Vote, record }]).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.tail().committed = committed;
        let record = pointer(committed.as_ref());
        // Not worth a sync: without it a restart waits for the leader to say how far it may apply.
        self.submit(vec![Write::Put { key: Key::Committed, record }], false).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.tail().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut changes = Vec::new();
        let (epoch, unwritten) = {
            let mut tail = self.tail();
            for entry in entries {
                let record = convert::our_entry(&entry).to_bytes().into();
                changes.push(Write::Append { index: entry.log_id.index, record });
                tail.push(entry);
            }
            (tail.epoch, next(tail.last.as_ref()))
        };
        let tail = Arc::clone(&self.tail);
        let done = Box::new(move |result: io::Result<()>| {
            if result.is_ok() {
                tail.lock().unwrap_or_else(PoisonError::into_inner).written(epoch, unwritten);
            }
            flushed.io_completed(result);
        });
        self.writer.submit(Job { changes, sync: true, done }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.tail().truncate(last);
        self.submit(vec![Write::Truncate { from: next(last.as_ref()) }], false).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.tail().purge(upto);
        let record = pointer(Some(&upto));
        // In this order: entries that are left over behind the pointer are ignored, a hole is not.
        let changes = vec![Write::Put { key: Key::Purged, record }, Write::Purge { upto: upto.index }];
        self.submit(changes, false).await
    }
}

impl LogStore {
    /// Queues changes that nobody waits for.
    async fn submit(&self, changes: Vec<Write>, sync: bool) -> io::Result<()> {
        self.writer.submit(Job { changes, sync, done: Box::new(drop) }).await
    }
}

fn pointer(to: Option<&LogId>) -> Bytes {
    LogPointer(to.map(convert::our_log_id)).to_bytes().into()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use openraft::StorageError;
    use openraft::testing::log::{StoreBuilder, Suite};

    use super::*;
    use crate::consensus::Machine;
    use crate::storage::{self, MemoryDisk, SledDisk};

    /// Makes an empty store for each case of the library's suite.
    struct Stores(Option<PathBuf>, AtomicU32);

    impl StoreBuilder<TypeConfig, LogStore, Machine> for Stores {
        async fn build(&self) -> Result<((), LogStore, Machine), StorageError<TypeConfig>> {
            let disk: Arc<dyn Disk> = match &self.0 {
                Some(path) => {
                    let path = path.join(self.1.fetch_add(1, Ordering::SeqCst).to_string());
                    Arc::new(SledDisk::open(path).unwrap())
                }
                None => Arc::new(MemoryDisk::new()),
            };
            let opened = storage::open(&disk, "suite", 1, 1).await.unwrap();
            let (writer, _) = Writer::start(disk.clone());
            let log = LogStore::new(&opened, disk.clone(), writer);
            Ok(((), log, Machine::new(opened.snapshot, disk).unwrap().0))
        }
    }

    #[test]
    fn the_librarys_own_suite_passes_in_memory() {
        run_suite(None);
    }

    #[test]
    fn the_librarys_own_suite_passes_on_sled() {
        let directory = std::env::temp_dir().join(format!("tollgate-suite-{}", std::process::id()));
        run_suite(Some(directory.clone()));
        std::fs::remove_dir_all(directory).unwrap();
    }

    fn run_suite(directory: Option<PathBuf>) {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(async {
            Suite::test_all(Stores(directory, AtomicU32::new(0))).await.unwrap();
        });
    }

    fn blank(term: u64, index: u64) -> Entry {
        let id = records::LogId { term, node: 1, index };
        convert::entry(records::Entry { id, payload: records::Payload::Blank }).unwrap()
    }

    #[tokio::test]
    async fn what_left_memory_is_read_from_the_disk_and_joins_without_a_seam() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let opened = storage::open(&disk, "test", 1, 1).await.unwrap();
        let (writer, _) = Writer::start(disk.clone());
        let mut log = LogStore::new(&opened, disk, writer.clone());
        log.append((0..100).map(|index| blank(1, index)), IOFlushed::noop()).await.unwrap();
        writer.commit(Vec::new()).await.unwrap();
        // As if the newer entries filled the memory: the first 60 leave.
        for _ in 0..60 {
            log.tail().drop_oldest();
        }
        for (from, to) in [(0, 100), (0, 60), (59, 61), (60, 100), (10, 20), (99, 100), (50, 500)] {
            let read = log.try_get_log_entries(from..to).await.unwrap();
            let indexes: Vec<u64> = read.iter().map(|entry| entry.log_id.index).collect();
            assert_eq!(indexes, (from..to.min(100)).collect::<Vec<_>>(), "{from}..{to}");
        }
    }

    #[tokio::test]
    async fn an_entry_does_not_leave_memory_before_it_is_on_disk_even_if_its_place_was_written_before() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let opened = storage::open(&disk, "test", 1, 1).await.unwrap();
        let (writer, _) = Writer::start(disk.clone());
        let mut log = LogStore::new(&opened, disk, writer);
        log.append((0..10).map(|index| blank(1, index)), IOFlushed::noop()).await.unwrap();
        let old_epoch = log.tail().epoch;
        log.truncate_after(Some(convert::log_id(records::LogId { term: 1, node: 1, index: 4 }))).await.unwrap();
        log.append((5..10).map(|index| blank(2, index)), IOFlushed::noop()).await.unwrap();
        // The first append is reported only now.
        log.tail().written(old_epoch, 10);
        assert!(log.tail().unwritten <= 5, "entries 5 to 9 of term 2 are still only in memory");
        let terms: Vec<u64> =
            log.try_get_log_entries(0..10).await.unwrap().iter().map(|entry| entry.log_id.leader_id.term).collect();
        assert_eq!(terms, [1, 1, 1, 1, 1, 2, 2, 2, 2, 2]);
    }
}
