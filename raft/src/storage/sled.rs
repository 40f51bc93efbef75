//! The production disk: sled for the log and the single values, plain files for snapshots.
//!
//! sled's `flush` asks the kernel to start writing but does not wait for the device, so durability here is
//! `flush` and then `sync_all` on a second handle of sled's own file. Directories are synced when a file in
//! them is made. sled's cache is kept small: the node reads recent entries from its own memory.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{Disk, Key, MakeBytes, Write};
use crate::doors::BoxFuture;

/// sled's page cache. Entries that followers and the state machine need are in our own memory, so this serves
/// only restarts and followers that are far behind.
const CACHE_BYTES: u64 = 2 << 20;

/// A disk in a directory of the file system. Holds the directory's lock until dropped.
pub struct SledDisk {
    inner: Arc<Inner>,
}

struct Inner {
    db: sled::Db,
    log: sled::Tree,
    values: sled::Tree,
    /// A second handle on sled's file, to sync it.
    file: File,
    snapshots: PathBuf,
    /// Held, not read: its lock says that the directory is in use.
    _lock: File,
}

impl SledDisk {
    /// Opens the data directory, creating it if need be. It blocks: call it before the node runs.
    /// Errors: another process has it (the message says which), or it cannot be read.
    pub fn open(directory: impl AsRef<Path>) -> io::Result<SledDisk> {
        let directory = directory.as_ref();
        let snapshots = directory.join("snapshots");
        let database = directory.join("log");
        fs::create_dir_all(&snapshots)?;
        let lock = lock(directory)?;
        let db = open_database(&database)?;
        let log = db.open_tree("log").map_err(io::Error::from)?;
        let values = db.open_tree("values").map_err(io::Error::from)?;
        let file = OpenOptions::new().write(true).open(database.join("db"))?;
        let inner = Inner { db, log, values, file, snapshots, _lock: lock };
        inner.sync()?;
        for made in [&inner.snapshots, &database, directory, directory.parent().unwrap_or(Path::new("/"))] {
            sync_directory(made)?;
        }
        remove_unfinished(&inner.snapshots)?;
        Ok(SledDisk { inner: Arc::new(inner) })
    }

    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'_, io::Result<T>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || work(&inner)).await;
            done.unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
        })
    }
}

impl Disk for SledDisk {
    fn get(&self, key: Key) -> BoxFuture<'_, io::Result<Option<Bytes>>> {
        self.run(move |inner| Ok(inner.values.get(key.name())?.map(|value| Bytes::copy_from_slice(&value))))
    }

    fn bounds(&self) -> BoxFuture<'_, io::Result<Option<(u64, u64)>>> {
        self.run(|inner| match (inner.log.first()?, inner.log.last()?) {
            (Some((first, _)), Some((last, _))) => Ok(Some((index_of(&first)?, index_of(&last)?))),
            _ => Ok(None),
        })
    }

    fn read(&self, from: u64, to: u64) -> BoxFuture<'_, io::Result<Vec<(u64, Bytes)>>> {
        self.run(move |inner| {
            let entries = inner.log.range(from.to_be_bytes()..to.max(from).to_be_bytes());
            entries
                .map(|entry| {
                    let (key, record) = entry?;
                    Ok((index_of(&key)?, Bytes::copy_from_slice(&record)))
                })
                .collect()
        })
    }

    fn write(&self, changes: Vec<Write>) -> BoxFuture<'_, io::Result<()>> {
        self.run(move |inner| inner.write(changes))
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        self.run(Inner::sync)
    }

    fn snapshots(&self) -> BoxFuture<'_, io::Result<Vec<u64>>> {
        self.run(|inner| {
            let mut numbers = Vec::new();
            for file in fs::read_dir(&inner.snapshots)? {
                let path = file?.path();
                let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
                if path.extension().is_some_and(|extension| extension == "snapshot") {
                    numbers.extend(number);
                }
            }
            numbers.sort_unstable();
            Ok(numbers)
        })
    }

    fn write_snapshot(&self, number: u64, make: MakeBytes) -> BoxFuture<'_, io::Result<Bytes>> {
        self.run(move |inner| {
            let bytes = make();
            let unfinished = inner.snapshots.join(format!("{number:020}.unfinished"));
            let mut file = File::create(&unfinished)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&unfinished, inner.snapshot(number))?;
            sync_directory(&inner.snapshots)?;
            Ok(bytes)
        })
    }

    fn read_snapshot(&self, number: u64) -> BoxFuture<'_, io::Result<Bytes>> {
        self.run(move |inner| Ok(Bytes::from(fs::read(inner.snapshot(number))?)))
    }

    fn remove_snapshot(&self, number: u64) -> BoxFuture<'_, io::Result<()>> {
        self.run(move |inner| match fs::remove_file(inner.snapshot(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }
}

impl Inner {
    /// Values before entries: a vote is never behind the entries that were written after it, and an entry that is
    /// missing behind a value was not acknowledged, because nothing is before the sync.
    fn write(&self, changes: Vec<Write>) -> io::Result<()> {
        let mut values = sled::Batch::default();
        let mut entries: BTreeMap<u64, Option<Bytes>> = BTreeMap::new();
        for change in changes {
            match change {
                Write::Put { key, record } => values.insert(key.name(), record.as_ref()),
                Write::Append { index, record } => drop(entries.insert(index, Some(record))),
                Write::Truncate { from } => {
                    entries.split_off(&from);
                    self.remove(from..=u64::MAX, &mut entries)?;
                }
                Write::Purge { upto } => {
                    entries = entries.split_off(&upto.saturating_add(1));
                    self.remove(0..=upto, &mut entries)?;
                }
            }
        }
        self.values.apply_batch(values)?;
        let mut batch = sled::Batch::default();
        for (index, record) in entries {
            match record {
                Some(record) => batch.insert(&index.to_be_bytes(), record.as_ref()),
                None => batch.remove(&index.to_be_bytes()),
            }
        }
        Ok(self.log.apply_batch(batch)?)
    }

    fn remove(
        &self,
        range: std::ops::RangeInclusive<u64>,
        entries: &mut BTreeMap<u64, Option<Bytes>>,
    ) -> io::Result<()> {
        for key in self.log.range(range.start().to_be_bytes()..=range.end().to_be_bytes()).keys() {
            entries.insert(index_of(&key?)?, None);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.db.flush()?;
        self.file.sync_all()
    }

    fn snapshot(&self, number: u64) -> PathBuf {
        self.snapshots.join(format!("{number:020}.snapshot"))
    }
}

fn open_database(path: &Path) -> io::Result<sled::Db> {
    sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None)
        .open()
        .map_err(|error| io::Error::other(format!("cannot open the log in {}: {error}", path.display())))
}

/// Takes the directory for this process, and leaves its number there for whoever is refused.
fn lock(directory: &Path) -> io::Result<File> {
    let path = directory.join("LOCK");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder)?;
            let message = format!(
                "data directory {} is in use by process {}: two nodes cannot share one",
                directory.display(),
                holder.trim()
            );
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
        }
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

/// Snapshots that a crash interrupted.
fn remove_unfinished(snapshots: &Path) -> io::Result<()> {
    for file in fs::read_dir(snapshots)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "unfinished") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

fn index_of(key: &[u8]) -> io::Result<u64> {
    let bytes = key.try_into().map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, format!("log key of {} bytes instead of 8", key.len()))
    })?;
    Ok(u64::from_be_bytes(bytes))
}
