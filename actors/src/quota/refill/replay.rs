//! What earlier incarnations of this node left: the journal says what became of the calls they died with, the ledger is told, and what none of
//! them used comes free.

use std::collections::{BTreeMap, VecDeque};

use raft::command::{EarlierEntry, EarlierIncarnations};
use raft::journal::{Past, PastCall, Unknown};
use raft::state::{MeterId, UsageLabels, UsageRow, UsageSum};
use tracing::warn;

use super::batch::{self, Draft};
use super::ledger_snapshot::LedgerSnapshot;
use crate::quota::allowance;
use crate::quota::ledger::Ledger;

/// How far the ledger has been told.
pub(super) enum Replay {
    /// What earlier incarnations sent may still arrive, until the first batch of this one is counted.
    Waiting,
    /// These calls are left to be told.
    Calls(VecDeque<PastCall>),
    /// What of the rest comes free, and what does not.
    Rest(VecDeque<EarlierEntry>, Vec<Unknown>),
    Done,
}

/// What one batch tells of earlier incarnations.
#[derive(Default)]
pub(super) struct PastShare {
    pub(super) told: EarlierIncarnations,
    /// So many of the calls that are left.
    calls: usize,
}

impl PastShare {
    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.told.entries.is_empty() && !self.told.is_all && self.calls == 0
    }
}

impl Replay {
    pub(super) fn new(ledger: &Ledger) -> Replay {
        let is_first = ledger.incarnation() == 1;
        if is_first || ledger.journal().past().is_none() { Replay::Done } else { Replay::Waiting }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self, Replay::Done)
    }

    /// Goes on if what was told is counted: no batch is in flight. Whether there is something to tell.
    pub(super) fn advance(&mut self, ledger: &Ledger, snapshot: &LedgerSnapshot) -> bool {
        let Some(past) = ledger.journal().past().filter(|_| !self.is_done()) else { return false };
        if let Replay::Waiting = self {
            let known = snapshot.view.nodes.get(&snapshot.node);
            let Some(known) = known.filter(|known| known.incarnation == ledger.incarnation()) else {
                return false;
            };
            let untold = past.untold(known);
            if untold.lost > 0 {
                warn!(
                    calls = untold.lost,
                    "the journal lost its end in a power cut: calls of the last moments may be missing in usage"
                );
                ledger.journal().note_lost(untold.lost);
            }
            *self = Replay::Calls(untold.calls.into());
        }
        if let Replay::Calls(calls) = self
            && calls.is_empty()
        {
            *self = rest(&past, snapshot);
        }
        !self.is_done()
    }

    /// Adds to a batch what fits into it.
    pub(super) fn fill(&self, draft: &mut Draft, snapshot: &LedgerSnapshot) -> PastShare {
        match self {
            Replay::Waiting | Replay::Done => PastShare::default(),
            Replay::Calls(calls) => tell(calls, draft, snapshot),
            Replay::Rest(rest, _) => {
                let mut entries = Vec::new();
                for entry in rest {
                    if draft.is_full() {
                        break;
                    }
                    draft.add_bytes(batch::size(&entry.meter));
                    entries.push(entry.clone());
                }
                let is_all = entries.len() == rest.len();
                PastShare { told: EarlierIncarnations { entries, is_all }, calls: 0 }
            }
        }
    }

    /// The ledger has counted `share`.
    pub(super) fn confirmed(&mut self, share: &PastShare, ledger: &Ledger) {
        match self {
            Replay::Waiting | Replay::Done => {}
            Replay::Calls(calls) => drop(calls.drain(..share.calls)),
            Replay::Rest(rest, unknown) => {
                rest.drain(..share.told.entries.len());
                if share.told.is_all {
                    ledger.journal().forget_past(std::mem::take(unknown));
                    *self = Replay::Done;
                }
            }
        }
    }
}

/// Calls until the batch is full, added up.
fn tell(calls: &VecDeque<PastCall>, draft: &mut Draft, snapshot: &LedgerSnapshot) -> PastShare {
    let mut spent: BTreeMap<(MeterId, u64), u64> = BTreeMap::new();
    let mut used: BTreeMap<UsageLabels, UsageSum> = BTreeMap::new();
    let mut told = 0;
    for call in calls {
        if draft.is_full() {
            break;
        }
        told += 1;
        for hold in call.used.iter().filter(|hold| hold.held > 0) {
            draft.add_bytes(batch::size(&hold.meter));
            let sum = spent.entry(((*hold.meter).clone(), hold.window)).or_default();
            *sum = sum.saturating_add(hold.held);
        }
        if let Some((labels, sum)) = &call.usage {
            draft.add_bytes(allowance::label_bytes(labels));
            used.entry(labels.clone()).or_default().add(sum);
        }
        draft.parts.extend(call.parts.iter().map(|part| (call.call, *part)));
    }
    draft.usage.extend(used.into_iter().map(|(labels, sum)| UsageRow { at: snapshot.now, labels, sum }));
    let entry = |((meter, window), spent)| EarlierEntry { meter, window, spent, returned: 0 };
    let entries = spent.into_iter().map(entry).collect();
    PastShare { told: EarlierIncarnations { entries, is_all: false }, calls: told }
}

/// Of what is orphaned, what no call used. If something may be missing in the journal, nobody knows.
fn rest(past: &Past, snapshot: &LedgerSnapshot) -> Replay {
    let orphaned = snapshot.view.meters.iter().filter_map(|(id, meter)| {
        let window = meter.window.as_ref()?;
        Some((id, window.number, *window.orphaned.get(&snapshot.node)?))
    });
    if !past.is_whole {
        let unknown = |(id, window, amount): (&MeterId, u64, u64)| Unknown { meter: id.clone(), window, amount };
        return Replay::Rest(VecDeque::new(), orphaned.map(unknown).collect());
    }
    let (mut free, mut unknown) = (VecDeque::new(), Vec::new());
    for (id, window, amount) in orphaned {
        let known = past.unknown.iter().find(|unknown| (&unknown.meter, unknown.window) == (id, window));
        unknown.extend(known.cloned());
        let returned = amount.saturating_sub(known.map_or(0, |unknown| unknown.amount));
        if returned > 0 {
            free.push_back(EarlierEntry { meter: id.clone(), window, spent: 0, returned });
        }
    }
    Replay::Rest(free, unknown)
}
