//! What must survive: the log, the vote, snapshots. [`Disk`] is the door; the format of what goes through
//! it (`records`), the order of writes (`writer`) and what a damaged disk means (`open`) are on our side,
//! so they run in a simulation too.

mod memory;
mod open;
pub mod records;
mod sled;
mod writer;

use std::fmt;
use std::io;

use bytes::Bytes;

use crate::doors::BoxFuture;

pub use memory::{Contents, MemoryDisk};
pub use sled::SledDisk;

pub use crate::codec::DecodeError;
pub(crate) use open::{Opened, decode_snapshot, open};
pub(crate) use writer::{Job, Writer};

/// Snapshots kept on disk: if the newest turns out to be damaged, the one before may still do.
pub(crate) const SNAPSHOTS_KEPT: usize = 2;

/// One change to what is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Puts a log entry's record at `index`, replacing what was there.
    Append {
        /// Its place in the log.
        index: u64,
        /// A record of [`records::Entry`].
        record: Bytes,
    },
    /// Removes every entry at or after `from`.
    Truncate {
        /// The first to go.
        from: u64,
    },
    /// Removes every entry at or before `upto`.
    Purge {
        /// The last to go.
        upto: u64,
    },
    /// Puts one of the single values.
    Put {
        /// Which.
        key: Key,
        /// Its record.
        record: Bytes,
    },
}

/// The single values beside the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Whose disk this is and which format it has: [`records::Identity`].
    Identity,
    /// How often the disk was started: [`records::Incarnation`].
    Incarnation,
    /// The vote: [`records::Vote`].
    Vote,
    /// The last entry known to be committed: [`records::LogPointer`].
    Committed,
    /// The last entry purged from the log: [`records::LogPointer`].
    Purged,
    /// The disks of the nodes that this one met: [`records::PeerDisks`].
    PeerDisks,
}

impl Key {
    /// Every key.
    pub const ALL: [Key; 6] = [Key::Identity, Key::Incarnation, Key::Vote, Key::Committed, Key::Purged, Key::PeerDisks];

    /// Its name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Key::Identity => "identity",
            Key::Incarnation => "incarnation",
            Key::Vote => "vote",
            Key::Committed => "committed",
            Key::Purged => "purged",
            Key::PeerDisks => "peer-disks",
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Makes the bytes of a snapshot, on whatever thread the disk likes to do such work.
pub type MakeBytes = Box<dyn FnOnce() -> Bytes + Send>;

/// A node's durable storage: bytes in, the same bytes out. One node uses it at a time.
///
/// What `write` wrote can be read at once and survives a crash only after a later `sync` returned; unsynced
/// writes may be lost, but only from the end: never an earlier one without the later ones. Any error of `write`
/// or `sync` is final: the node stops and the disk is opened anew.
pub trait Disk: Send + Sync + 'static {
    /// One of the single values.
    fn get(&self, key: Key) -> BoxFuture<'_, io::Result<Option<Bytes>>>;

    /// The first and the last index in the log.
    fn bounds(&self) -> BoxFuture<'_, io::Result<Option<(u64, u64)>>>;

    /// The entries that are there from index `from` to before index `to`, in order.
    fn read(&self, from: u64, to: u64) -> BoxFuture<'_, io::Result<Vec<(u64, Bytes)>>>;

    /// Makes the changes in order.
    fn write(&self, changes: Vec<Write>) -> BoxFuture<'_, io::Result<()>>;

    /// Returns when all that was written before the call survives a power cut.
    fn sync(&self) -> BoxFuture<'_, io::Result<()>>;

    /// The numbers of the snapshots, ascending.
    fn snapshots(&self) -> BoxFuture<'_, io::Result<Vec<u64>>>;

    /// Stores a snapshot under `number`, whole or not at all; when it returns it survives a power cut.
    fn write_snapshot(&self, number: u64, make: MakeBytes) -> BoxFuture<'_, io::Result<Bytes>>;

    /// A snapshot's bytes.
    fn read_snapshot(&self, number: u64) -> BoxFuture<'_, io::Result<Bytes>>;

    /// Forgets a snapshot. It is no error if there is none.
    fn remove_snapshot(&self, number: u64) -> BoxFuture<'_, io::Result<()>>;

    /// The journal, empty if there is none.
    fn read_journal(&self) -> BoxFuture<'_, io::Result<Bytes>>;

    /// Appends to the journal. When it returns, `bytes` survive the process. They survive a power cut some time later, never without those
    /// that were appended before them. Its errors are final, too.
    fn append_journal(&self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>>;

    /// Puts `bytes` in the place of the journal, whole or not at all; when it returns they survive a power cut.
    fn replace_journal(&self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>>;

    /// Names the machine's boot: while it is the same one, nothing that was appended has been lost. `None`: nobody knows.
    fn machine_run(&self) -> Option<u128>;
}
