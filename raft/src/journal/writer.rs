//! The one writer of the journal: appends what is queued in one write, and writes the file anew when most of it is no longer needed.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::past::Past;
use super::{CallId, CallPart, Counts, Job, JournalError, Note, Progress, Unknown};
use crate::codec;
use crate::storage::Disk;

/// Jobs of one write.
const BATCH: usize = 256;
/// A file is written anew when it is larger than this, and three times as large as what is needed of it.
const REWRITE_AT: usize = 4 << 20;

pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    incarnation: u64,
    run: Option<u128>,
    is_whole: bool,
    unknown: Vec<Unknown>,
    /// What the ledger may not know.
    calls: BTreeMap<CallId, Kept>,
    /// Batches that are not confirmed, those of earlier incarnations among them.
    told: BTreeMap<(u64, u64), Vec<CallPart>>,
    size: usize,
    counts: Arc<Counts>,
}

/// A call in the file.
struct Kept {
    bytes: Vec<u8>,
    /// Those that the ledger does not have, a bit for each.
    parts: u8,
}

impl Writer {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        incarnation: u64,
        run: Option<u128>,
        past: &Past,
        counts: Arc<Counts>,
    ) -> Writer {
        let (is_whole, unknown) = (past.is_whole, past.unknown.clone());
        let mut writer = Writer {
            disk,
            incarnation,
            run,
            is_whole,
            unknown,
            calls: BTreeMap::new(),
            told: BTreeMap::new(),
            size: 0,
            counts,
        };
        past.notes().for_each(|note| writer.keep(&note, &codec::encode(&note)));
        writer
    }

    /// Ends when nobody can queue anything any more, or the disk fails.
    pub(super) async fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>, progress: watch::Sender<Progress>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut written = 0;
        while jobs.recv_many(&mut batch, BATCH).await > 0 {
            let mut bytes = Vec::new();
            let mut ended = 0;
            let mut must_rewrite = false;
            for job in batch.drain(..) {
                let note = match job {
                    Job::Open(opened) => Note::Opened(opened()),
                    Job::Append(note) => note,
                    Job::Confirm(sequence) => {
                        self.confirm(sequence);
                        continue;
                    }
                    Job::Forget(unknown) => {
                        self.forget(unknown);
                        must_rewrite = true;
                        continue;
                    }
                };
                let start = bytes.len();
                codec::append(&note, &mut bytes);
                ended += u64::from(matches!(note, Note::Ended(_)));
                written += 1;
                self.keep(&note, &bytes[start..]);
            }
            if let Err(error) = self.write(bytes, must_rewrite).await {
                // What is in the file now nobody knows; writing on would hide it.
                tracing::error!(%error, "the usage journal failed: this node stops");
                drop(progress.send_replace(Err(JournalError(error.to_string().into()))));
                return;
            }
            self.counts.written.fetch_add(ended, Ordering::Relaxed);
            drop(progress.send_replace(Ok(written)));
        }
    }

    async fn write(&mut self, bytes: Vec<u8>, must_rewrite: bool) -> io::Result<()> {
        self.size += bytes.len();
        let needed = || self.calls.values().map(|kept| kept.bytes.len()).sum::<usize>();
        if must_rewrite || (self.size > REWRITE_AT && self.size > 3 * needed()) {
            return self.rewrite().await;
        }
        if bytes.is_empty() { Ok(()) } else { self.disk.append_journal(bytes.into()).await }
    }

    /// Puts what is needed in the place of the file.
    pub(super) async fn rewrite(&mut self) -> io::Result<()> {
        let mut bytes =
            codec::encode(&Note::Incarnation { incarnation: self.incarnation, run: self.run, is_whole: self.is_whole });
        if !self.unknown.is_empty() {
            codec::append(&Note::Unknown(self.unknown.clone()), &mut bytes);
        }
        self.calls.values().for_each(|kept| bytes.extend_from_slice(&kept.bytes));
        for ((incarnation, sequence), parts) in &self.told {
            codec::append(
                &Note::Told { incarnation: *incarnation, sequence: *sequence, parts: parts.clone() },
                &mut bytes,
            );
        }
        self.size = bytes.len();
        self.disk.replace_journal(Bytes::from(bytes)).await
    }

    fn keep(&mut self, note: &Note, record: &[u8]) {
        match note {
            Note::Incarnation { .. } | Note::Unknown(_) => {}
            // A call that is opened again holds less than before.
            Note::Opened(opened) => {
                let parts = opened.holds.iter().fold(0, |parts, hold| parts | bit(hold.part));
                self.calls.insert(opened.call, Kept { bytes: record.to_vec(), parts });
            }
            // Nothing will be told of it.
            Note::Ended(ended) if ended.sum.is_none() => drop(self.calls.remove(&ended.call)),
            Note::Ended(ended) => {
                if let Some(kept) = self.calls.get_mut(&ended.call) {
                    kept.bytes.extend_from_slice(record);
                }
            }
            Note::Told { incarnation, sequence, parts } => {
                drop(self.told.insert((*incarnation, *sequence), parts.clone()))
            }
        }
    }

    /// What was told need not be kept. That it was is: a journal without its last batch looks as if it had lost it.
    fn confirm(&mut self, sequence: u64) {
        let incarnation = self.incarnation;
        self.told.retain(|(of, told), _| (*of, *told) >= (incarnation, sequence) || *of < incarnation);
        for (call, part) in self.told.insert((incarnation, sequence), Vec::new()).unwrap_or_default() {
            let Some(kept) = self.calls.get_mut(&call) else { continue };
            kept.parts &= !bit(part);
            if kept.parts == 0 {
                self.calls.remove(&call);
            }
        }
    }

    fn forget(&mut self, unknown: Vec<Unknown>) {
        let incarnation = self.incarnation;
        self.calls.retain(|call, _| call.incarnation == incarnation);
        self.told.retain(|(of, _), _| *of == incarnation);
        (self.unknown, self.is_whole) = (unknown, true);
    }
}

/// A call has a part for each scope of limits, so no more than a byte has bits.
fn bit(part: u8) -> u8 {
    1 << part
}
