//! The production disk: sled for the log and the single values, plain files for snapshots and the journal.
//!
//! sled's `flush` asks the kernel to start writing but does not wait for the device, so durability here is
//! `flush` and then `sync_all` on a second handle of sled's own file. Directories are synced when a file in
//! them is made. sled's cache is kept small: the node reads recent entries from its own memory.
//!
//! sled puts a page above 128 KiB into a file of its own that nobody syncs, and a page holds up to 17 values whatever
//! their size. So an entry is cut into pieces of [`PIECE`] bytes, each under a key of its own, and no page gets there.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Disk, Key, MakeBytes, Write};
use crate::doors::BoxFuture;

/// sled's page cache. Entries that followers and the state machine need are in our own memory, so this serves
/// only restarts and followers that are far behind.
const CACHE_BYTES: u64 = 2 << 20;

/// The largest value: with 17 or a few more in a page, and their keys, a page stays well below 128 KiB.
const PIECE: usize = 4 << 10;
/// A key of the log: the entry's index and the piece's number, big-endian, so that keys sort as entries do.
type LogKey = [u8; 10];

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
    journal_path: PathBuf,
    /// Where it is appended to.
    journal: Mutex<File>,
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
        let journal_path = directory.join("journal");
        let journal = Mutex::new(OpenOptions::new().append(true).create(true).open(&journal_path)?);
        let inner = Inner { db, log, values, file, snapshots, journal_path, journal, _lock: lock };
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
            let mut entries: Vec<(u64, Vec<u8>)> = Vec::new();
            for piece in inner.log.range(log_key(from, 0)..log_key(to.max(from), 0)) {
                let (key, piece) = piece?;
                let index = index_of(&key)?;
                match entries.last_mut() {
                    Some((last, record)) if *last == index => record.extend_from_slice(&piece),
                    _ => entries.push((index, piece.to_vec())),
                }
            }
            Ok(entries.into_iter().map(|(index, record)| (index, Bytes::from(record))).collect())
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

    fn read_journal(&self) -> BoxFuture<'_, io::Result<Bytes>> {
        self.run(|inner| fs::read(&inner.journal_path).map(Bytes::from))
    }

    /// Where it is called: the bytes go no further than the kernel's memory, which takes a few microseconds. Two changes of the thread
    /// would cost every call several times that.
    fn append_journal(&self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(std::future::ready(self.inner.journal().write_all(&bytes)))
    }

    fn replace_journal(&self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        self.run(move |inner| {
            let mut journal = inner.journal();
            let unfinished = inner.journal_path.with_extension("unfinished");
            let mut file = File::create(&unfinished)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&unfinished, &inner.journal_path)?;
            sync_directory(inner.journal_path.parent().unwrap_or(Path::new("/")))?;
            *journal = file;
            Ok(())
        })
    }

    /// The kernel's name for the time since it was booted.
    fn machine_run(&self) -> Option<u128> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(uuid::Uuid::try_parse(boot.trim()).ok()?.as_u128())
    }
}

impl Inner {
    fn journal(&self) -> MutexGuard<'_, File> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Values before entries: a vote is never behind the entries that were written after it, and an entry that is
    /// missing behind a value was not acknowledged, because nothing is before the sync.
    fn write(&self, changes: Vec<Write>) -> io::Result<()> {
        let mut values: Vec<(Key, Bytes)> = Vec::new();
        let mut pieces: BTreeMap<LogKey, Option<Bytes>> = BTreeMap::new();
        let mut end = self.log.last()?.map_or(Ok(0), |(key, _)| index_of(&key).map(|last| last + 1))?;
        for change in changes {
            match change {
                Write::Put { key, record } => values.push((key, record)),
                Write::Append { index, record } => {
                    if index < end {
                        self.remove(index, Some(index + 1), &mut pieces)?;
                    }
                    end = end.max(index + 1);
                    for (number, from) in (0..record.len()).step_by(PIECE).enumerate() {
                        let key = log_key(index, piece_number(number)?);
                        pieces.insert(key, Some(record.slice(from..record.len().min(from + PIECE))));
                    }
                }
                Write::Truncate { from } => self.remove(from, None, &mut pieces)?,
                Write::Purge { upto } => self.remove(0, Some(upto.saturating_add(1)), &mut pieces)?,
            }
        }
        // An empty batch would cost a write as well.
        if !values.is_empty() {
            let mut batch = sled::Batch::default();
            values.iter().for_each(|(key, record)| batch.insert(key.name(), record.as_ref()));
            self.values.apply_batch(batch)?;
        }
        if pieces.is_empty() {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        for (key, piece) in pieces {
            match piece {
                Some(piece) => batch.insert(&key, piece.as_ref()),
                None => batch.remove(&key),
            }
        }
        Ok(self.log.apply_batch(batch)?)
    }

    /// Marks what is there and what is about to be there from index `from` to before index `to` as to be removed.
    fn remove(&self, from: u64, to: Option<u64>, pieces: &mut BTreeMap<LogKey, Option<Bytes>>) -> io::Result<()> {
        let from = log_key(from, 0);
        let to = to.map_or([u8::MAX; 10], |to| log_key(to, 0));
        pieces.range_mut(from..to).for_each(|(_, piece)| *piece = None);
        for key in self.log.range(from..to).keys() {
            let key = key?;
            index_of(&key)?;
            pieces.insert(key.as_ref().try_into().expect("its length was checked just now"), None);
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

fn log_key(index: u64, piece: u16) -> LogKey {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&index.to_be_bytes());
    key[8..].copy_from_slice(&piece.to_be_bytes());
    key
}

fn piece_number(number: usize) -> io::Result<u16> {
    u16::try_from(number).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a log entry is too large"))
}

fn index_of(key: &[u8]) -> io::Result<u64> {
    match key.first_chunk() {
        Some(index) if key.len() == size_of::<LogKey>() => Ok(u64::from_be_bytes(*index)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("log key of {} bytes instead of 10", key.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryDisk;

    /// A disk in a directory that is removed at the end.
    async fn on_disk<T>(name: &str, test: impl AsyncFnOnce(&SledDisk) -> T) -> T {
        let directory = std::env::temp_dir().join(format!("tollgate-sled-{}-{name}", std::process::id()));
        let result = test(&SledDisk::open(&directory).unwrap()).await;
        fs::remove_dir_all(directory).unwrap();
        result
    }

    fn append(index: u64, length: usize) -> Write {
        let record = (0..length).map(|at| (index as usize + at * 7) as u8).collect::<Vec<_>>();
        Write::Append { index, record: record.into() }
    }

    #[tokio::test]
    async fn entries_of_any_size_come_back_and_a_shorter_one_leaves_nothing_of_the_longer_it_replaces() {
        let memory = MemoryDisk::new();
        on_disk("sizes", async |sled| {
            let batches = [
                vec![append(0, 1), append(1, PIECE), append(2, PIECE + 1), append(3, 3 * PIECE), append(4, 1 << 20)],
                vec![append(3, 10), append(2, 5000), append(5, 9000)],
                vec![Write::Truncate { from: 4 }, append(4, 20_000), append(5, 7)],
                vec![append(6, 50_000), Write::Truncate { from: 5 }, append(5, 1), append(6, 1)],
                vec![append(7, 12_000), Write::Purge { upto: 2 }, append(8, 3)],
            ];
            for batch in batches {
                memory.write(batch.clone()).await.unwrap();
                sled.write(batch).await.unwrap();
                assert_eq!(sled.bounds().await.unwrap(), memory.bounds().await.unwrap());
                for (from, to) in [(0, 10), (2, 4), (5, 5), (6, 9)] {
                    assert_eq!(
                        sled.read(from, to).await.unwrap(),
                        memory.read(from, to).await.unwrap(),
                        "{from}..{to}"
                    );
                }
            }
        })
        .await;
    }

    #[tokio::test]
    async fn no_page_is_so_large_that_sled_puts_it_into_a_file_nobody_syncs() {
        on_disk("pages", async |sled| {
            for start in (0..600).step_by(20) {
                sled.write((start..start + 20).map(|index| append(index, 30_000)).collect()).await.unwrap();
                sled.sync().await.unwrap();
            }
            sled.write(vec![Write::Purge { upto: 300 }]).await.unwrap();
            sled.sync().await.unwrap();
            let blobs = fs::read_dir(sled.inner.snapshots.with_file_name("log").join("blobs")).unwrap().count();
            assert_eq!(blobs, 0);
        })
        .await;
    }
}
