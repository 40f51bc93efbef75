//! The one writer of a disk: it takes what is queued, writes it as one batch, syncs once, and only then says
//! so to everybody who waits (group commit). Order is kept: nothing overtakes an earlier write.

use std::io;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::{Disk, Write};

/// Jobs that wait for the disk. One per append, vote or purge of the consensus core, which has at most a few dozen
/// in flight; beyond that it waits, which slows the proposers, as intended.
const QUEUE: usize = 256;

/// What to call when a job is done.
pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Changes that belong together.
pub(crate) struct Job {
    /// In order.
    pub(crate) changes: Vec<Write>,
    /// Whether `done` waits for the sync. What is not worth one is made durable by the next that is.
    pub(crate) sync: bool,
    /// Called once, in order of the jobs.
    pub(crate) done: Done,
}

/// Where jobs are queued. The writer ends with the last clone.
#[derive(Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the writer of `disk`; the handle stops it without waiting for anything.
    pub(crate) fn start(disk: Arc<dyn Disk>) -> (Writer, AbortHandle) {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let task = tokio::spawn(run(disk, jobs));
        (Writer { queue }, task.abort_handle())
    }

    /// Queues a job. Errors: the writer has ended.
    pub(crate) async fn submit(&self, job: Job) -> io::Result<()> {
        self.queue.send(job).await.map_err(|_| stopped())
    }

    /// Makes `changes` and returns when they are durable, with all that was queued before.
    pub(crate) async fn commit(&self, changes: Vec<Write>) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        let done: Done = Box::new(move |result| drop(done.send(result)));
        self.submit(Job { changes, sync: true, done }).await?;
        wait.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> io::Error {
    io::Error::other("the disk writer has stopped")
}

async fn run(disk: Arc<dyn Disk>, mut jobs: mpsc::Receiver<Job>) {
    let mut batch = Vec::new();
    let mut broken: Option<String> = None;
    while jobs.recv_many(&mut batch, QUEUE).await > 0 {
        if broken.is_none() {
            broken = write(&*disk, &mut batch).await.err().map(|error| error.to_string());
            if let Some(error) = &broken {
                // After a failed sync nobody knows what the disk holds; trying again would hide the loss.
                tracing::error!(%error, "the disk failed: this node stops");
            }
        }
        for job in batch.drain(..) {
            (job.done)(match &broken {
                None => Ok(()),
                Some(error) => Err(io::Error::other(format!("the disk failed: {error}"))),
            });
        }
    }
}

async fn write(disk: &dyn Disk, batch: &mut [Job]) -> io::Result<()> {
    let changes: Vec<Write> = batch.iter_mut().flat_map(|job| std::mem::take(&mut job.changes)).collect();
    if !changes.is_empty() {
        disk.write(changes).await?;
    }
    if batch.iter().any(|job| job.sync) {
        disk.sync().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::doors::BoxFuture;
    use crate::storage::{Key, MakeBytes, MemoryDisk};

    /// Counts writes and syncs; fails from the nth sync on.
    #[derive(Default)]
    struct Counting {
        memory: MemoryDisk,
        writes: AtomicU32,
        syncs: AtomicU32,
        fails_from: u32,
    }

    impl Disk for Counting {
        fn get(&self, key: Key) -> BoxFuture<'_, io::Result<Option<Bytes>>> {
            self.memory.get(key)
        }
        fn bounds(&self) -> BoxFuture<'_, io::Result<Option<(u64, u64)>>> {
            self.memory.bounds()
        }
        fn read(&self, from: u64, to: u64) -> BoxFuture<'_, io::Result<Vec<(u64, Bytes)>>> {
            self.memory.read(from, to)
        }
        fn write(&self, changes: Vec<Write>) -> BoxFuture<'_, io::Result<()>> {
            self.writes.fetch_add(1, Ordering::SeqCst);
            self.memory.write(changes)
        }
        fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
            let nth = self.syncs.fetch_add(1, Ordering::SeqCst) + 1;
            let failed = self.fails_from > 0 && nth >= self.fails_from;
            Box::pin(async move { if failed { Err(io::Error::other("no space left")) } else { Ok(()) } })
        }
        fn snapshots(&self) -> BoxFuture<'_, io::Result<Vec<u64>>> {
            self.memory.snapshots()
        }
        fn write_snapshot(&self, number: u64, make: MakeBytes) -> BoxFuture<'_, io::Result<Bytes>> {
            self.memory.write_snapshot(number, make)
        }
        fn read_snapshot(&self, number: u64) -> BoxFuture<'_, io::Result<Bytes>> {
            self.memory.read_snapshot(number)
        }
        fn remove_snapshot(&self, number: u64) -> BoxFuture<'_, io::Result<()>> {
            self.memory.remove_snapshot(number)
        }

        fn read_journal(&self) -> BoxFuture<'_, io::Result<Bytes>> {
            self.memory.read_journal()
        }

        fn append_journal(&self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
            self.memory.append_journal(bytes)
        }

        fn replace_journal(&self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
            self.memory.replace_journal(bytes)
        }

        fn machine_run(&self) -> Option<u128> {
            self.memory.machine_run()
        }
    }

    fn append(index: u64) -> Vec<Write> {
        vec![Write::Append { index, record: Bytes::from_static(b"entry") }]
    }

    #[tokio::test]
    async fn what_is_queued_together_shares_one_write_and_one_sync() {
        let disk = Arc::new(Counting::default());
        let (writer, _) = Writer::start(disk.clone());
        let order = Arc::new(Mutex::new(Vec::new()));
        // The test's runtime has one thread: the writer starts when we first wait for something it does.
        for index in 0..100 {
            let order = order.clone();
            let done: Done = Box::new(move |result| order.lock().unwrap().push((index, result.is_ok())));
            writer.submit(Job { changes: append(index), sync: true, done }).await.unwrap();
        }
        writer.commit(Vec::new()).await.unwrap();
        assert_eq!(*order.lock().unwrap(), (0..100).map(|index| (index, true)).collect::<Vec<_>>());
        assert_eq!((disk.writes.load(Ordering::SeqCst), disk.syncs.load(Ordering::SeqCst)), (1, 1));
        assert_eq!(disk.bounds().await.unwrap(), Some((0, 99)));
    }

    #[tokio::test]
    async fn after_a_failed_sync_nothing_succeeds_and_nothing_is_written() {
        let disk = Arc::new(Counting { fails_from: 2, ..Counting::default() });
        let (writer, _) = Writer::start(disk.clone());
        writer.commit(append(0)).await.unwrap();
        assert!(writer.commit(append(1)).await.unwrap_err().to_string().contains("no space left"));
        assert!(writer.commit(append(2)).await.is_err());
        assert_eq!(disk.writes.load(Ordering::SeqCst), 2, "the third was not tried");
    }
}
