//! The journal: what calls in progress hold and what ended ones used, until the ledger knows it. A process that is killed leaves it to
//! its next incarnation, which tells the ledger instead.
//!
//! It is one file of records in order. What is appended survives the process at once; a power cut may take its end away, so nothing here
//! relies on that end being there: see [`Past`].

mod past;
mod writer;

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::codec::Record;
use crate::state::{MeterId, UsageLabels, UsageSum};
use crate::storage::Disk;

pub use past::{Past, PastCall, Untold};
use writer::Writer;

/// Names a call, in all incarnations of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct CallId {
    /// The node's incarnation.
    pub incarnation: u64,
    /// Counts its calls.
    pub number: u64,
}

/// A part of a call: what one limit subject pays for it. The ledger hears of parts one by one.
pub type CallPart = (CallId, u8);

/// A call that is about to be sent to a replica.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OpenedCall {
    /// The call.
    pub call: CallId,
    /// Under which names it is accounted, with part 0.
    pub labels: UsageLabels,
    /// How it is accounted if nothing else is ever known of it.
    pub if_lost: UsageSum,
    /// What it holds.
    pub holds: Vec<CallHold>,
}

/// What a call holds of one meter.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CallHold {
    /// Of which part.
    pub part: u8,
    /// The meter.
    pub meter: Arc<MeterId>,
    /// Its window.
    pub window: u64,
    /// How much, in the limit's unit; nothing of what comes back with the end of the call, however that ends.
    pub held: u64,
}

/// A call that has ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EndedCall {
    /// The call.
    pub call: CallId,
    /// How it is accounted; `None` if it never reached a replica.
    pub sum: Option<UsageSum>,
    /// What it used of each hold, in order.
    pub used: SmallVec<[u64; 4]>,
}

/// What stays held of one window, because nobody knows whether it was used.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Unknown {
    /// The meter.
    pub meter: MeterId,
    /// Its window.
    pub window: u64,
    /// How much.
    pub amount: u64,
}

/// One record.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
enum Note {
    /// An incarnation of the node begins. It is also the first note of a file that was written anew.
    Incarnation {
        incarnation: u64,
        /// See [`Disk::machine_run`].
        run: Option<u128>,
        /// Nothing is missing before this note that the ledger does not know.
        is_whole: bool,
    },
    Unknown(Vec<Unknown>),
    Opened(OpenedCall),
    Ended(EndedCall),
    /// These parts are in the incarnation's batch of that number.
    Told {
        incarnation: u64,
        sequence: u64,
        parts: Vec<CallPart>,
    },
}

impl Record for Note {
    const TYPE: u16 = 9;
    const VERSION: u16 = 1;
}

/// How many calls' ends this incarnation has noted, and how many of earlier incarnations it could not tell of.
#[derive(Default)]
struct Counts {
    written: AtomicU64,
    lost: AtomicU64,
}

/// The handle. Cloning is cheap.
#[derive(Clone)]
pub struct Journal {
    incarnation: u64,
    counts: Arc<Counts>,
    calls: Arc<AtomicU64>,
    past: Arc<Mutex<Option<Arc<Past>>>>,
    queue: Arc<Mutex<Queue>>,
    progress: watch::Receiver<Progress>,
}

/// How many notes are written; once one could not be, none is any more.
type Progress = Result<u64, JournalError>;

/// What the writer is to do.
struct Queue {
    jobs: mpsc::UnboundedSender<Job>,
    /// How many notes are among what was ever queued.
    notes: u64,
}

/// What the writer does, in order. Bounded: two for each call in progress, and three for each batch.
#[expect(clippy::large_enum_variant, reason = "the largest is the end of a call: one job in two")]
enum Job {
    /// Note that a call is opened. Its note is made by the writer: callers are in a hurry.
    Open(Box<dyn FnOnce() -> OpenedCall + Send>),
    Append(Note),
    /// The ledger has the batch of this number.
    Confirm(u64),
    /// The ledger has all that earlier incarnations left, but for this.
    Forget(Vec<Unknown>),
}

/// The place of a note in the journal of this incarnation. [`Journal::written`] waits for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NoteNumber(u64);

/// The journal cannot be written: its disk failed. The node must not go on.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the usage journal cannot be written: {0}")]
pub struct JournalError(Arc<str>);

impl Journal {
    /// Reads what earlier incarnations left, and begins the journal of this one. The handle stops the writer without waiting for anything.
    /// Errors: the disk, or what is there is another version's.
    pub(crate) async fn start(disk: Arc<dyn Disk>, incarnation: u64) -> io::Result<(Journal, AbortHandle)> {
        let run = disk.machine_run();
        let past = Past::read(&disk.read_journal().await?, incarnation, run)?;
        let counts = Arc::new(Counts::default());
        let mut writer = Writer::new(disk, incarnation, run, &past, counts.clone());
        writer.rewrite().await?;
        let (tell_progress, progress) = watch::channel(Ok(0));
        #[expect(
            clippy::disallowed_methods,
            reason = "jobs are bounded by the calls in progress, and whoever ends a call cannot wait"
        )]
        let (queue, jobs) = mpsc::unbounded_channel();
        let task = tokio::spawn(writer.run(jobs, tell_progress));
        let past = Arc::new(Mutex::new(Some(Arc::new(past))));
        let queue = Arc::new(Mutex::new(Queue { jobs: queue, notes: 0 }));
        Ok((Journal { incarnation, counts, calls: Arc::default(), past, queue, progress }, task.abort_handle()))
    }

    /// A number for a call.
    pub fn next_call(&self) -> CallId {
        CallId { incarnation: self.incarnation, number: self.calls.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    /// Notes that a call begins, or that it holds less than was noted before. It may be sent to a replica once that is written.
    /// `opened` is called by the writer.
    pub fn open(&self, opened: impl FnOnce() -> OpenedCall + Send + 'static) -> NoteNumber {
        self.queue(Job::Open(Box::new(opened)))
    }

    /// Notes that a call has ended: before anybody else gets what it held, because whoever does is noted after it.
    pub fn end(&self, ended: EndedCall) -> NoteNumber {
        self.queue(Job::Append(Note::Ended(ended)))
    }

    /// Notes what a batch says. It may be proposed once that is written.
    pub fn tell(&self, sequence: u64, parts: Vec<CallPart>) -> NoteNumber {
        self.queue(Job::Append(Note::Told { incarnation: self.incarnation, sequence, parts }))
    }

    /// Ready when `note` survives the process: what was noted before it does too.
    pub fn written(&self, note: NoteNumber) -> impl Future<Output = Result<(), JournalError>> + Send + use<> {
        let mut progress = self.progress.clone();
        async move {
            let is_told = |progress: &Progress| progress.as_ref().map_or(true, |written| *written >= note.0);
            match progress.wait_for(is_told).await {
                Ok(progress) => progress.clone().map(drop),
                Err(_) => Err(JournalError("the node is stopping".into())),
            }
        }
    }

    /// The ledger has the batch: what it says need not be kept.
    pub fn confirm(&self, sequence: u64) {
        self.queue(Job::Confirm(sequence));
    }

    /// What earlier incarnations left, as long as the ledger has not been told.
    pub fn past(&self) -> Option<Arc<Past>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The ledger has all that earlier incarnations left, but for what is `unknown`.
    pub fn forget_past(&self, unknown: Vec<Unknown>) {
        *self.past.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.queue(Job::Forget(unknown));
    }

    /// The ledger may have so many calls of earlier incarnations, and nobody knows whether it does.
    pub fn note_lost(&self, calls: usize) {
        self.counts.lost.fetch_add(calls as u64, Ordering::Relaxed);
    }

    /// How many ended calls were noted since this incarnation began.
    pub fn calls_written(&self) -> u64 {
        self.counts.written.load(Ordering::Relaxed)
    }

    /// How many calls of earlier incarnations could not be told of: they are in usage only if they had been told before.
    pub fn calls_lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// Returns the number of the last note that is queued. A writer that has gone does nothing: whoever waits is told that the node is stopping.
    fn queue(&self, job: Job) -> NoteNumber {
        let is_note = matches!(job, Job::Open(_) | Job::Append(_));
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.notes += u64::from(is_note);
        let _ = queue.jobs.send(job);
        NoteNumber(queue.notes)
    }
}

#[cfg(test)]
mod tests;
