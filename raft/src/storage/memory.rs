//! A disk that is lost with the process: for tests and for trying things out.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Disk, Key, MakeBytes, Write};
use crate::doors::BoxFuture;

/// A disk in memory. Nothing survives the process; a clone of the `Arc` around it survives a node.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    contents: Mutex<Contents>,
}

/// What is on a disk, for disks that are in memory.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// The single values.
    pub values: BTreeMap<Key, Bytes>,
    /// The log's records, by index.
    pub log: BTreeMap<u64, Bytes>,
    /// The snapshots, by number.
    pub snapshots: BTreeMap<u64, Bytes>,
    /// The journal.
    pub journal: Vec<u8>,
}

impl Contents {
    /// Makes a change.
    pub fn make(&mut self, change: Write) {
        match change {
            Write::Append { index, record } => drop(self.log.insert(index, record)),
            Write::Truncate { from } => drop(self.log.split_off(&from)),
            Write::Purge { upto } => self.log = self.log.split_off(&upto.saturating_add(1)),
            Write::Put { key, record } => drop(self.values.insert(key, record)),
        }
    }
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// A disk with the same contents: what would be found if the process were killed now.
    pub fn copy(&self) -> MemoryDisk {
        MemoryDisk { contents: Mutex::new(self.contents().clone()) }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, io::Result<T>> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Disk for MemoryDisk {
    fn get(&self, key: Key) -> BoxFuture<'_, io::Result<Option<Bytes>>> {
        ready(self.contents().values.get(&key).cloned())
    }

    fn bounds(&self) -> BoxFuture<'_, io::Result<Option<(u64, u64)>>> {
        let contents = self.contents();
        let bounds = contents.log.first_key_value().zip(contents.log.last_key_value());
        ready(bounds.map(|((first, _), (last, _))| (*first, *last)))
    }

    fn read(&self, from: u64, to: u64) -> BoxFuture<'_, io::Result<Vec<(u64, Bytes)>>> {
        let contents = self.contents();
        ready(contents.log.range(from..to.max(from)).map(|(index, record)| (*index, record.clone())).collect())
    }

    fn write(&self, changes: Vec<Write>) -> BoxFuture<'_, io::Result<()>> {
        let mut contents = self.contents();
        changes.into_iter().for_each(|change| contents.make(change));
        ready(())
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        ready(())
    }

    fn snapshots(&self) -> BoxFuture<'_, io::Result<Vec<u64>>> {
        ready(self.contents().snapshots.keys().copied().collect())
    }

    fn write_snapshot(&self, number: u64, make: MakeBytes) -> BoxFuture<'_, io::Result<Bytes>> {
        let bytes = make();
        self.contents().snapshots.insert(number, bytes.clone());
        ready(bytes)
    }

    fn read_snapshot(&self, number: u64) -> BoxFuture<'_, io::Result<Bytes>> {
        let found = self.contents().snapshots.get(&number).cloned();
        Box::pin(std::future::ready(found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))))
    }

    fn remove_snapshot(&self, number: u64) -> BoxFuture<'_, io::Result<()>> {
        self.contents().snapshots.remove(&number);
        ready(())
    }

    fn read_journal(&self) -> BoxFuture<'_, io::Result<Bytes>> {
        ready(Bytes::from(self.contents().journal.clone()))
    }

    fn append_journal(&self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        self.contents().journal.extend_from_slice(&bytes);
        ready(())
    }

    fn replace_journal(&self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        self.contents().journal = bytes.into();
        ready(())
    }

    fn machine_run(&self) -> Option<u128> {
        Some(1)
    }
}
