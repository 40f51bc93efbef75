//! What a disk says when a node starts, and when that is a reason not to start.
//!
//! The node refuses to start on another cluster's or node's disk, on another format, on a damaged or missing
//! record: it would otherwise take back promises it made before. A damaged snapshot is passed over if the log
//! still holds everything since the one before it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::records::{
    DISK_FORMAT, Entry, Identity, Incarnation, LogId, LogPointer, PeerDisks, SnapshotMeta, Vote, snapshot_parts,
};
use super::{DecodeError, Disk, Key, SNAPSHOTS_KEPT, Write};
use crate::state::State;

/// How many entries are checked at a time.
const SCAN: u64 = 256;

/// What was found on the disk, after this start was recorded there.
pub(crate) struct Opened {
    /// How often the disk was started, this time included.
    pub(crate) incarnation: u64,
    /// The disk's own number.
    pub(crate) disk: u128,
    /// The disks of other nodes.
    pub(crate) peer_disks: BTreeMap<u64, u128>,
    /// The last vote.
    pub(crate) vote: Option<Vote>,
    /// The last entry known to be committed.
    pub(crate) committed: Option<LogId>,
    /// The last entry that was purged.
    pub(crate) purged: Option<LogId>,
    /// The last entry, or the last purged one if there is none.
    pub(crate) last: Option<LogId>,
    /// The newest snapshot that can be used.
    pub(crate) snapshot: Option<(SnapshotMeta, State)>,
}

/// Reads and checks the disk, and counts this start. A new disk gets the number `fresh`.
/// Errors: the disk, or a reason not to start.
pub(crate) async fn open(disk: &Arc<dyn Disk>, cluster: &str, node: u64, fresh: u128) -> io::Result<Opened> {
    let bounds = disk.bounds().await?;
    let found = check_identity(&**disk, cluster, node, bounds.is_some()).await?;
    let cluster = cluster.to_owned();
    let identity = found.unwrap_or(Identity { format: DISK_FORMAT, cluster, node, disk: fresh });
    let incarnation = count_start(&**disk, &identity).await?;
    let peer_disks =
        value(&**disk, Key::PeerDisks, PeerDisks::from_bytes).await?.map_or_else(BTreeMap::new, |met| met.0);
    let vote = value(&**disk, Key::Vote, Vote::from_bytes).await?;
    let committed = value(&**disk, Key::Committed, LogPointer::from_bytes).await?.and_then(|pointer| pointer.0);
    let purged = value(&**disk, Key::Purged, LogPointer::from_bytes).await?.and_then(|pointer| pointer.0);
    let last = scan_log(&**disk, bounds, purged).await?;
    let snapshot = newest_snapshot(&**disk, purged).await?;
    // The commit position is written without a sync of its own, so it may be ahead of what was synced of the log.
    let committed = committed.min(last);
    Ok(Opened { incarnation, disk: identity.disk, peer_disks, vote, committed, purged, last, snapshot })
}

fn refuse(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

async fn value<T>(disk: &dyn Disk, key: Key, from: fn(&[u8]) -> Result<T, DecodeError>) -> io::Result<Option<T>> {
    let Some(bytes) = disk.get(key).await? else { return Ok(None) };
    from(&bytes).map(Some).map_err(|error| refuse(format!("the disk's `{key}` is damaged: {error}")))
}

async fn check_identity(disk: &dyn Disk, cluster: &str, node: u64, used: bool) -> io::Result<Option<Identity>> {
    let Some(found) = value(disk, Key::Identity, Identity::from_bytes).await? else {
        return if used { Err(refuse("the disk has a log but does not say whose it is".into())) } else { Ok(None) };
    };
    if found.format != DISK_FORMAT {
        let format = found.format;
        return Err(refuse(format!("the disk has format {format}, this version reads format {DISK_FORMAT}")));
    }
    if (found.cluster.as_str(), found.node) != (cluster, node) {
        return Err(refuse(format!(
            "the disk belongs to node {} of cluster `{}`, this is node {node} of cluster `{cluster}`",
            found.node, found.cluster
        )));
    }
    Ok(Some(found))
}

async fn count_start(disk: &dyn Disk, identity: &Identity) -> io::Result<u64> {
    let before = value(disk, Key::Incarnation, Incarnation::from_bytes).await?.map_or(0, |count| count.0);
    let incarnation = before + 1;
    disk.write(vec![
        Write::Put { key: Key::Identity, record: identity.to_bytes().into() },
        Write::Put { key: Key::Incarnation, record: Incarnation(incarnation).to_bytes().into() },
    ])
    .await?;
    disk.sync().await?;
    Ok(incarnation)
}

/// Checks every entry, and returns the last. Entries at or before `purged` may be left over from a crash.
async fn scan_log(disk: &dyn Disk, bounds: Option<(u64, u64)>, purged: Option<LogId>) -> io::Result<Option<LogId>> {
    let mut next = purged.map_or(0, |purged| purged.index + 1);
    let mut last = purged;
    let Some((first, end)) = bounds else { return Ok(last) };
    if first > next {
        return Err(refuse(format!("the log begins at {first} but should begin at {next}: entries are missing")));
    }
    while next <= end {
        let from = next;
        for (index, record) in disk.read(next, next.saturating_add(SCAN)).await? {
            let entry =
                Entry::from_bytes(&record).map_err(|error| refuse(format!("log entry {index} is damaged: {error}")))?;
            if index != next || entry.id.index != index || last.is_some_and(|last| last.term > entry.id.term) {
                return Err(refuse(format!("log entry {next} is missing: {} was found in its place", entry.id)));
            }
            last = Some(entry.id);
            next += 1;
        }
        if next == from {
            return Err(refuse(format!("log entry {next} is missing")));
        }
    }
    Ok(last)
}

async fn newest_snapshot(disk: &dyn Disk, purged: Option<LogId>) -> io::Result<Option<(SnapshotMeta, State)>> {
    let mut damaged = Vec::new();
    let mut found = None;
    let numbers = disk.snapshots().await?;
    for (at, number) in numbers.iter().copied().enumerate().rev() {
        match decode_snapshot(&disk.read_snapshot(number).await?) {
            Ok(snapshot) => {
                found = Some(snapshot);
                // A power cut may have brought back what was removed.
                for old in numbers[..at].iter().rev().skip(SNAPSHOTS_KEPT - 1) {
                    disk.remove_snapshot(*old).await?;
                }
                break;
            }
            Err(error) => {
                tracing::error!(snapshot = number, %error, "a snapshot is damaged: trying the one before it");
                damaged.push(format!("snapshot {number} is damaged: {error}"));
            }
        }
    }
    let covered = found.as_ref().and_then(|(meta, _)| meta.last);
    if covered < purged {
        let purged = purged.map_or(0, |purged| purged.index);
        let why = if damaged.is_empty() { "there is no snapshot".into() } else { damaged.join("; ") };
        return Err(refuse(format!(
            "the log before entry {} is gone and no snapshot replaces it ({why}): remove this disk and start the node \
             under a new number",
            purged + 1
        )));
    }
    Ok(found)
}

/// What a snapshot's bytes hold.
pub(crate) fn decode_snapshot(bytes: &[u8]) -> io::Result<(SnapshotMeta, State)> {
    let (meta, state) = snapshot_parts(bytes).map_err(|error| refuse(error.to_string()))?;
    let state = State::from_bytes(state).map_err(|error| refuse(error.to_string()))?;
    Ok((meta, state))
}
