//! What earlier incarnations of a node left in its journal, and what of it the ledger does not know.
//!
//! A batch is noted before it is proposed, so whoever knows which batches the ledger has counted knows which calls. After a power cut the
//! end of the journal may be missing. If the ledger has counted batches that are not noted, nobody knows which calls were in them:
//! then none is told again. What is charged twice would be worse than what is not accounted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::{CallHold, CallId, CallPart, EndedCall, Note, OpenedCall, Unknown};
use crate::codec::{self, DecodeError};
use crate::state::{NodeLedger, UsageLabels, UsageSum};

/// See the module.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Past {
    /// Nothing is missing: what no call holds, nobody has used.
    pub is_whole: bool,
    /// What was unknown already.
    pub unknown: Vec<Unknown>,
    opened: BTreeMap<CallId, OpenedCall>,
    ended: BTreeMap<CallId, EndedCall>,
    told: BTreeMap<(u64, u64), Vec<CallPart>>,
}

/// Calls of earlier incarnations of which the ledger does not know everything.
#[derive(Clone, PartialEq, Debug)]
pub struct Untold {
    /// Those that can be told, oldest first.
    pub calls: Vec<PastCall>,
    /// How many cannot be told, because the ledger may have them.
    pub lost: usize,
}

/// A call of an earlier incarnation of which the ledger does not know everything.
#[derive(Clone, PartialEq, Debug)]
pub struct PastCall {
    /// The call.
    pub call: CallId,
    /// How it is accounted, unless the ledger has that.
    pub usage: Option<(UsageLabels, UsageSum)>,
    /// What it used of each meter, `held` being that: holds of parts that the ledger does not have.
    pub used: Vec<CallHold>,
    /// Those parts.
    pub parts: Vec<u8>,
}

impl Past {
    /// What `bytes` say to the incarnation `now` on a machine that runs since `run`. Errors: they are of another version.
    pub(super) fn read(bytes: &[u8], now: u64, run: Option<u128>) -> io::Result<Past> {
        // Without a journal nothing is known, unless nothing has ever been.
        let mut past = Past { is_whole: now == 1, ..Past::default() };
        let mut rest = bytes;
        while let Some((note, after)) = next(rest)? {
            rest = after;
            match note {
                Note::Incarnation { run: before, is_whole, .. } => {
                    past.is_whole = is_whole && run.is_some() && run == before
                }
                Note::Unknown(unknown) => past.unknown = unknown,
                Note::Opened(opened) => drop(past.opened.insert(opened.call, opened)),
                Note::Ended(ended) if ended.sum.is_none() => drop(past.opened.remove(&ended.call)),
                Note::Ended(ended) => drop(past.ended.insert(ended.call, ended)),
                Note::Told { incarnation, sequence, parts } => drop(past.told.insert((incarnation, sequence), parts)),
            }
        }
        past.ended.retain(|call, _| past.opened.contains_key(call));
        Ok(past)
    }

    /// All that is in it but what begins a file.
    pub(super) fn notes(&self) -> impl Iterator<Item = Note> {
        let opened = self.opened.values().cloned().map(Note::Opened);
        let ended = self.ended.values().cloned().map(Note::Ended);
        let told = self.told.iter();
        let told = told.map(|((incarnation, sequence), parts)| Note::Told {
            incarnation: *incarnation,
            sequence: *sequence,
            parts: parts.clone(),
        });
        opened.chain(ended).chain(told)
    }

    /// What the ledger does not know, by what it says of the node.
    pub fn untold(&self, ledger: &NodeLedger) -> Untold {
        let counted = |(incarnation, sequence): (u64, u64)| match ledger.last_of(incarnation) {
            Some(last) => sequence <= last,
            None => incarnation < ledger.earlier_from,
        };
        let told: BTreeSet<CallPart> =
            self.told.iter().filter(|(batch, _)| counted(**batch)).flat_map(|(_, parts)| parts).copied().collect();
        let is_unknown = |(incarnation, last): &(&u64, &u64)| {
            let noted = self.told.range((**incarnation, 0)..=(**incarnation, u64::MAX)).next_back();
            noted.map_or(0, |((_, sequence), _)| *sequence) < **last
        };
        // A batch that is not noted may have told of calls of its own incarnation and of every earlier one.
        let known_from =
            ledger.earlier.iter().filter(is_unknown).map(|(incarnation, _)| incarnation + 1).max().unwrap_or(0);
        let known_from = known_from.max(ledger.earlier_from);
        let rest = self.opened.values().filter_map(|opened| self.rest_of(opened, &told));
        let (calls, lost): (Vec<PastCall>, Vec<PastCall>) = rest.partition(|call| call.call.incarnation >= known_from);
        Untold { calls, lost: lost.len() }
    }

    /// What is to be told of a call.
    fn rest_of(&self, opened: &OpenedCall, told: &BTreeSet<CallPart>) -> Option<PastCall> {
        let ended = self.ended.get(&opened.call);
        let sum = ended.map_or(Some(opened.if_lost), |ended| ended.sum)?;
        let is_told = |part: u8| told.contains(&(opened.call, part));
        let used_of = |(at, hold): (usize, &CallHold)| {
            let used = ended.map_or(Some(hold.held), |ended| ended.used.get(at).copied());
            CallHold { held: used.unwrap_or(0), ..hold.clone() }
        };
        let used: Vec<CallHold> =
            opened.holds.iter().enumerate().filter(|(_, hold)| !is_told(hold.part)).map(used_of).collect();
        let mut parts: Vec<u8> = used.iter().map(|hold| hold.part).collect();
        parts.dedup();
        let usage = (!is_told(0)).then(|| (opened.labels.clone(), sum));
        (!parts.is_empty()).then_some(PastCall { call: opened.call, usage, used, parts })
    }
}

/// The first note of `bytes`, and what comes after it. What is cut off or damaged ends the journal: only its end was being written.
/// Errors: it is of another version.
fn next(bytes: &[u8]) -> io::Result<Option<(Note, &[u8])>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let length = match codec::header(bytes) {
        Ok(header) => codec::HEADER + header.length,
        Err(error @ DecodeError::Format(_)) => return Err(invalid(&error)),
        Err(error) => return ended(bytes, &error),
    };
    let Some((record, rest)) = bytes.split_at_checked(length) else {
        return ended(bytes, &DecodeError::Short { have: bytes.len(), want: length });
    };
    match codec::decode(record) {
        Ok(note) => Ok(Some((note, rest))),
        Err(error @ (DecodeError::Version { .. } | DecodeError::Type { .. } | DecodeError::Malformed(_))) => {
            Err(invalid(&error))
        }
        Err(error) => ended(bytes, &error),
    }
}

fn ended<T>(bytes: &[u8], error: &DecodeError) -> io::Result<Option<T>> {
    tracing::warn!(bytes = bytes.len(), %error, "the end of the usage journal cannot be read");
    Ok(None)
}

fn invalid(error: &DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the usage journal: {error}"))
}
