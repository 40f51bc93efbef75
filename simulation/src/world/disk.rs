//! A disk that does what disks do: it forgets what was not synced, from the end and in the middle of a batch, and what was removed may be
//! there again; it stalls, fills up, fails to read and to sync, and rots. It is the product's storage door, so the records, their checksums and the order of writes are
//! the real ones.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use raft::doors::BoxFuture;
use raft::storage::{Contents, Disk, Key, MakeBytes, Write};
use tokio::time::sleep;

use crate::chance::Chance;
use crate::trace;

/// A sync takes so long, in microseconds.
const SYNC_MICROS: (u64, u64) = (200, 4_000);
/// While a disk stalls it is looked at this often.
const STALL_STEP: Duration = Duration::from_millis(20);

/// Of a failing disk's reads and syncs, so many in a hundred fail.
const READ_FAILS_PERCENT: u64 = 20;
const SYNC_FAILS_PERCENT: u64 = 60;

/// A node's disk. It outlives the node.
pub(crate) struct SimDisk {
    name: String,
    inner: Mutex<Inner>,
}

struct Inner {
    chance: Chance,
    /// What a power cut leaves.
    durable: Contents,
    /// What is read.
    current: Contents,
    /// The difference, oldest first.
    unsynced: VecDeque<Write>,
    /// Snapshots that were removed, and that a power cut may bring back.
    removed: Vec<u64>,
    /// So much of the journal survives a power cut.
    journal_synced: usize,
    /// Power cuts.
    cuts: u128,
    /// How many changes have ever been made, and made durable.
    written: u64,
    synced: u64,
    /// How many of them were votes.
    votes: u64,
    /// How often it was begun to write a snapshot of what the log does not have: one that another node made.
    installs: u64,
    ill: Illness,
    /// Indices of log records of which a bit has turned over.
    rotten: BTreeSet<u64>,
    /// Counts, to prove that a fault happened.
    lost: u64,
    failed: u64,
    stalled: u64,
}

/// What is wrong with a disk.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Illness {
    /// Nothing is ever done.
    pub(crate) stalls: bool,
    /// Writes fail for want of space.
    pub(crate) is_full: bool,
    /// Reads and syncs fail, many of them.
    pub(crate) fails: bool,
    /// Reads fail, many of them, and nothing else does.
    pub(crate) is_unreadable: bool,
}

impl SimDisk {
    /// An empty disk.
    pub(crate) fn new(name: &str, seed: u64) -> SimDisk {
        let inner = Inner {
            chance: Chance::of(seed, &format!("disk of {name}")),
            durable: Contents::default(),
            current: Contents::default(),
            unsynced: VecDeque::new(),
            removed: Vec::new(),
            journal_synced: 0,
            cuts: 0,
            written: 0,
            synced: 0,
            votes: 0,
            installs: 0,
            ill: Illness::default(),
            rotten: BTreeSet::new(),
            lost: 0,
            failed: 0,
            stalled: 0,
        };
        SimDisk { name: name.to_owned(), inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power is cut: of what was not synced, a random part from the beginning survives.
    pub(crate) fn cut_power(&self) {
        let mut inner = self.inner();
        let unsynced = inner.unsynced.len() as u64;
        let kept = inner.chance.between(0, unsynced);
        for _ in 0..kept {
            if let Some(change) = inner.unsynced.pop_front() {
                inner.durable.make(change);
            }
        }
        inner.unsynced.clear();
        for number in std::mem::take(&mut inner.removed) {
            if inner.chance.percent(50) {
                inner.durable.snapshots.remove(&number);
            }
        }
        let (synced, appended) = (inner.journal_synced as u64, inner.current.journal.len() as u64);
        inner.journal_synced = inner.chance.between(synced, appended) as usize;
        let mut journal = std::mem::take(&mut inner.current.journal);
        journal.truncate(inner.journal_synced);
        inner.durable.journal = journal;
        inner.cuts += 1;
        inner.lost += unsynced - kept;
        inner.synced = inner.written;
        inner.current = inner.durable.clone();
        let text = format!("power cut: {} of {unsynced} unsynced writes lost", unsynced - kept);
        drop(inner);
        trace::event(&self.name, &text);
    }

    /// Makes it ill, or well.
    pub(crate) fn set_ill(&self, ill: Illness) {
        self.inner().ill = ill;
    }

    /// Whether something is wrong with it at this moment.
    pub(crate) fn is_ill(&self) -> bool {
        self.inner().ill != Illness::default()
    }

    /// One bit of a log record, durable and current, turns over. Whether there was one.
    pub(crate) fn rot(&self) -> bool {
        let mut inner = self.inner();
        let indices: Vec<u64> = inner.durable.log.keys().copied().collect();
        if indices.is_empty() {
            return false;
        }
        let index = *inner.chance.pick(&indices);
        let Some(record) = inner.durable.log.get(&index) else { return false };
        let mut bytes = record.to_vec();
        let bit = inner.chance.between(0, bytes.len() as u64 * 8 - 1);
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        let bytes = Bytes::from(bytes);
        inner.durable.log.insert(index, bytes.clone());
        inner.current.log.insert(index, bytes);
        inner.rotten.insert(index);
        drop(inner);
        trace::event(&self.name, &format!("bit {bit} of the record of log index {index} turned over"));
        true
    }

    /// The log records from `from` on, as they were written: without those that have rotted, which the node notices when it reads
    /// them, and not before.
    pub(crate) fn log_from(&self, from: u64) -> Vec<(u64, Bytes)> {
        let inner = self.inner();
        let sound = inner.current.log.range(from..).filter(|(index, _)| !inner.rotten.contains(*index));
        sound.map(|(index, record)| (*index, record.clone())).collect()
    }

    /// How many entries the newest snapshot stands for.
    pub(crate) fn in_snapshot(&self) -> u64 {
        self.inner().current.snapshots.last_key_value().map_or(0, |(number, _)| *number)
    }

    /// The index of the first log record, if there is one.
    pub(crate) fn log_begins(&self) -> Option<u64> {
        self.inner().current.log.first_key_value().map(|(index, _)| *index)
    }

    /// How often a vote was written.
    pub(crate) fn votes(&self) -> u64 {
        self.inner().votes
    }

    /// How often it was begun to install a snapshot.
    pub(crate) fn installs(&self) -> u64 {
        self.inner().installs
    }

    /// Entries in the log, and snapshots.
    pub(crate) fn size(&self) -> (usize, usize) {
        let inner = self.inner();
        (inner.current.log.len(), inner.current.snapshots.len())
    }

    /// Writes lost by power cuts, operations failed, operations stalled.
    pub(crate) fn harm(&self) -> (u64, u64, u64) {
        let inner = self.inner();
        (inner.lost, inner.failed, inner.stalled)
    }

    /// Waits as long as the disk stalls.
    async fn turn(&self) {
        let mut waited = false;
        while self.inner().ill.stalls {
            if !std::mem::replace(&mut waited, true) {
                self.inner().stalled += 1;
            }
            sleep(STALL_STEP).await;
        }
    }

    fn check_space(&self) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.ill.is_full {
            inner.failed += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn check_read(&self) -> io::Result<()> {
        let mut inner = self.inner();
        let fails = inner.ill.fails || inner.ill.is_unreadable;
        inner.check_often(fails, READ_FAILS_PERCENT)
    }

    fn check_sync(&self) -> io::Result<()> {
        let mut inner = self.inner();
        let fails = inner.ill.fails;
        inner.check_often(fails, SYNC_FAILS_PERCENT)
    }

    async fn sync_all(&self) -> io::Result<()> {
        let (mark, pause) = {
            let mut inner = self.inner();
            (inner.written, inner.chance.between(SYNC_MICROS.0, SYNC_MICROS.1))
        };
        sleep(Duration::from_micros(pause)).await;
        self.turn().await;
        self.check_sync()?;
        let mut inner = self.inner();
        for number in std::mem::take(&mut inner.removed) {
            inner.durable.snapshots.remove(&number);
        }
        while inner.synced < mark {
            let Some(change) = inner.unsynced.pop_front() else { break };
            inner.durable.make(change);
            inner.synced += 1;
        }
        drop(inner);
        trace::bytes(&self.name, "sync", &mark.to_le_bytes());
        Ok(())
    }
}

impl Inner {
    fn note_snapshot(&mut self, number: u64) {
        let newest = self.current.log.last_key_value().map(|(index, _)| *index);
        self.installs += u64::from(newest.is_none_or(|newest| newest < number.saturating_sub(1)));
    }

    /// A disk that fails does not fail each time.
    fn check_often(&mut self, fails: bool, percent: u64) -> io::Result<()> {
        if fails && self.chance.percent(percent) {
            self.failed += 1;
            return Err(io::ErrorKind::Other.into());
        }
        Ok(())
    }
}

impl Disk for SimDisk {
    fn get(&self, key: Key) -> BoxFuture<'_, io::Result<Option<Bytes>>> {
        Box::pin(async move {
            self.check_read()?;
            Ok(self.inner().current.values.get(&key).cloned())
        })
    }

    fn bounds(&self) -> BoxFuture<'_, io::Result<Option<(u64, u64)>>> {
        Box::pin(async move {
            self.check_read()?;
            let inner = self.inner();
            let log = &inner.current.log;
            Ok(log.first_key_value().zip(log.last_key_value()).map(|((first, _), (last, _))| (*first, *last)))
        })
    }

    fn read(&self, from: u64, to: u64) -> BoxFuture<'_, io::Result<Vec<(u64, Bytes)>>> {
        Box::pin(async move {
            self.check_read()?;
            let inner = self.inner();
            Ok(inner.current.log.range(from..to.max(from)).map(|(index, record)| (*index, record.clone())).collect())
        })
    }

    fn write(&self, changes: Vec<Write>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.turn().await;
            self.check_space()?;
            let mut inner = self.inner();
            for change in changes {
                let is_vote = matches!(change, Write::Put { key: Key::Vote, .. });
                inner.current.make(change.clone());
                inner.unsynced.push_back(change);
                inner.written += 1;
                inner.votes += u64::from(is_vote);
            }
            Ok(())
        })
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.sync_all())
    }

    fn snapshots(&self) -> BoxFuture<'_, io::Result<Vec<u64>>> {
        Box::pin(async move {
            self.check_read()?;
            Ok(self.inner().current.snapshots.keys().copied().collect())
        })
    }

    /// A crash before the end leaves nothing of it.
    fn write_snapshot(&self, number: u64, make: MakeBytes) -> BoxFuture<'_, io::Result<Bytes>> {
        Box::pin(async move {
            let bytes = make();
            self.inner().note_snapshot(number);
            self.turn().await;
            self.check_space()?;
            self.sync_all().await?;
            let mut inner = self.inner();
            inner.removed.retain(|removed| *removed != number);
            inner.durable.snapshots.insert(number, bytes.clone());
            inner.current.snapshots.insert(number, bytes.clone());
            Ok(bytes)
        })
    }

    fn read_snapshot(&self, number: u64) -> BoxFuture<'_, io::Result<Bytes>> {
        Box::pin(async move {
            self.check_read()?;
            let found = self.inner().current.snapshots.get(&number).cloned();
            found.ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    fn remove_snapshot(&self, number: u64) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.turn().await;
            self.check_sync()?;
            let mut inner = self.inner();
            inner.current.snapshots.remove(&number);
            inner.removed.push(number);
            Ok(())
        })
    }

    fn read_journal(&self) -> BoxFuture<'_, io::Result<Bytes>> {
        Box::pin(async move {
            self.check_read()?;
            Ok(Bytes::from(self.inner().current.journal.clone()))
        })
    }

    fn append_journal(&self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.turn().await;
            self.check_space()?;
            self.inner().current.journal.extend_from_slice(&bytes);
            trace::bytes(&self.name, "journal", &bytes);
            Ok(())
        })
    }

    fn replace_journal(&self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.turn().await;
            self.check_space()?;
            self.sync_all().await?;
            let mut inner = self.inner();
            inner.journal_synced = bytes.len();
            inner.current.journal = bytes.into();
            Ok(())
        })
    }

    fn machine_run(&self) -> Option<u128> {
        Some(self.inner().cuts)
    }
}
