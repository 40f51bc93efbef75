//! The state machine: applies committed proposals to [`State`], publishes views, makes and takes snapshots.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::watch;

use super::convert::{self, LogId, SnapshotMeta, StoredMembership};
use super::{Answer, TypeConfig};
use crate::cluster::Membership;
use crate::codec;
use crate::command::Command;
use crate::state::{State, View};
use crate::storage::records::{self, Sealed};
use crate::storage::{Disk, SNAPSHOTS_KEPT, decode_snapshot};

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, Bytes>;

/// What the state machine shows to the rest of the node.
#[derive(Clone)]
pub(crate) struct Published {
    /// The newest view.
    pub(crate) view: watch::Receiver<Arc<View>>,
    /// The index of the last entry in it, whatever its kind.
    pub(crate) applied: watch::Receiver<u64>,
    /// Who is in the cluster, by the entries applied.
    pub(crate) membership: watch::Receiver<Arc<Membership>>,
}

/// The state machine. Its snapshot builder is a frozen clone.
pub(crate) struct Machine {
    state: State,
    last: Option<LogId>,
    membership: StoredMembership,
    view: watch::Sender<Arc<View>>,
    applied: watch::Sender<u64>,
    members: watch::Sender<Arc<Membership>>,
    disk: Arc<dyn Disk>,
    /// The newest snapshot's number.
    newest: Arc<Mutex<Option<u64>>>,
}

impl Machine {
    /// A state machine that begins with `snapshot`, or empty. Errors: the snapshot's membership is none.
    pub(crate) fn new(
        snapshot: Option<(records::SnapshotMeta, State)>,
        disk: Arc<dyn Disk>,
    ) -> io::Result<(Machine, Published)> {
        let number = snapshot.as_ref().map(|(meta, _)| number(meta));
        let (meta, state) = snapshot.unwrap_or_default();
        let SnapshotMeta { last_log_id: last, last_membership: membership } = convert::snapshot_meta(meta)?;
        let (view, view_seen) = watch::channel(Arc::new(View::of(&state)));
        let (applied, applied_seen) = watch::channel(last.map_or(0, |last| last.index));
        let (members, members_seen) = watch::channel(Arc::new(convert::members(&membership)));
        let newest = Arc::new(Mutex::new(number));
        let machine = Machine { state, last, membership, view, applied, members, disk, newest };
        Ok((machine, Published { view: view_seen, applied: applied_seen, membership: members_seen }))
    }

    fn apply_one(&mut self, index: u64, sealed: &Sealed) -> io::Result<Answer> {
        let command: Command = codec::from_payload(&sealed.command).map_err(|error| {
            // Going on would make this node's state another than the others'.
            let message = format!("entry {index} holds a command this version does not know: {error}");
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        let outcome = self.state.apply(index, sealed.request, sealed.time, command);
        Ok(Answer(Some(outcome.reply)))
    }

    fn change_members(&mut self, membership: StoredMembership) {
        self.members.send_replace(Arc::new(convert::members(&membership)));
        self.membership = membership;
    }

    /// Shows the state as it is now. The view comes first: who waits for an index finds it in the view.
    fn publish(&self) {
        self.view.send_replace(Arc::new(View::of(&self.state)));
        self.applied.send_replace(self.last.map_or(0, |last| last.index));
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut answers = Vec::new();
        while let Some((entry, responder)) = entries.try_next().await? {
            let answer = match &entry.payload {
                EntryPayload::Blank => Answer(None),
                EntryPayload::Normal(sealed) => self.apply_one(entry.log_id.index, sealed)?,
                EntryPayload::Membership(membership) => {
                    self.change_members(StoredMembership::new(Some(entry.log_id), membership.clone()));
                    Answer(None)
                }
            };
            self.last = Some(entry.log_id);
            answers.extend(responder.map(|responder| (responder, answer)));
        }
        self.publish();
        for (responder, answer) in answers {
            responder.send(answer);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            state: self.state.clone(),
            meta: convert::our_snapshot_meta(self.last.as_ref(), &self.membership),
            disk: Arc::clone(&self.disk),
            newest: Arc::clone(&self.newest),
        }
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, bytes: Bytes) -> io::Result<()> {
        let (meta, state) = decode_snapshot(&bytes)?;
        store(&*self.disk, &self.newest, number(&meta), Box::new(move || bytes)).await?;
        let SnapshotMeta { last_log_id, last_membership } = convert::snapshot_meta(meta)?;
        self.state = state;
        self.last = last_log_id;
        self.change_members(last_membership);
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let newest = *self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(newest) = newest else { return Ok(None) };
        let snapshot = self.disk.read_snapshot(newest).await?;
        let (meta, _) = records::snapshot_parts(&snapshot)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("snapshot {newest}: {error}")))?;
        Ok(Some(Snapshot { meta: convert::snapshot_meta(meta)?, snapshot }))
    }
}

/// The state as it was when the snapshot began. Cloning it shared everything, so nobody waited.
pub(crate) struct Builder {
    state: State,
    meta: records::SnapshotMeta,
    disk: Arc<dyn Disk>,
    newest: Arc<Mutex<Option<u64>>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (state, meta) = (self.state.clone(), self.meta.clone());
        let make = Box::new(move || Bytes::from(records::snapshot_bytes(&meta, &state.to_bytes())));
        let snapshot = store(&*self.disk, &self.newest, number(&self.meta), make).await?;
        Ok(Snapshot { meta: convert::snapshot_meta(self.meta.clone())?, snapshot })
    }
}

/// A snapshot's number on disk: how many entries it stands for.
fn number(meta: &records::SnapshotMeta) -> u64 {
    meta.last.map_or(0, |last| last.index + 1)
}

async fn store(
    disk: &dyn Disk,
    newest: &Mutex<Option<u64>>,
    number: u64,
    make: crate::storage::MakeBytes,
) -> io::Result<Bytes> {
    let bytes = disk.write_snapshot(number, make).await?;
    {
        let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = (*newest).max(Some(number));
    }
    let numbers = disk.snapshots().await?;
    for old in numbers.iter().rev().skip(SNAPSHOTS_KEPT) {
        disk.remove_snapshot(*old).await?;
    }
    Ok(bytes)
}
