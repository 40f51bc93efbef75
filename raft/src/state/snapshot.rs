//! The whole state as bytes and back. What is derived is left out and built again.
//!
//! Another set of fields is another variant of [`Snapshot`]; `tests/frozen_commands.rs` holds the bytes of every format.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{ApiKey, Meter, MeterId, NodeLedger, State, Token, Usage, UsageKey, UsageLabels, UsageSum};
use crate::codec;
use crate::command::Reply;
use crate::ids::{NodeId, RequestId, Timestamp};
use crate::resources::Object;

/// The bytes are no snapshot, or one of a version that this one does not know.
#[derive(Debug, thiserror::Error)]
#[error("snapshot cannot be read: {0}")]
pub struct SnapshotError(#[from] codec::DecodeError);

/// The formats there have been since the first release, oldest first. Only the last one is written.
#[derive(Serialize, Deserialize)]
enum Snapshot {
    First(Stored),
}

#[derive(Serialize, Deserialize)]
struct Stored {
    applied: u64,
    time: Timestamp,
    access_version: u64,
    objects: Vec<Arc<Object>>,
    keys: Vec<Arc<ApiKey>>,
    tokens: Vec<Arc<Token>>,
    meters: Vec<(MeterId, Arc<Meter>)>,
    nodes: Vec<(NodeId, Arc<NodeLedger>)>,
    /// Oldest first.
    recent: Vec<(RequestId, u64, Reply)>,
    retired: BTreeSet<NodeId>,
    usage: StoredUsage,
}

/// The same labels come back every hour: they are written once.
#[derive(Serialize, Deserialize)]
struct StoredUsage {
    labels: Vec<Arc<UsageLabels>>,
    hours: Vec<StoredRow>,
    days: Vec<StoredRow>,
}

/// When it begins, the place of its labels, what was used.
type StoredRow = (Timestamp, u32, UsageSum);

impl State {
    /// The state as bytes. Equal states give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let recent = self.recent_order.iter().filter_map(|request| {
            let (index, reply) = self.recent.get(request)?;
            Some((*request, *index, reply.clone()))
        });
        let stored = Stored {
            applied: self.applied,
            time: self.time,
            access_version: self.access_version,
            objects: self.objects.values().cloned().collect(),
            keys: self.keys.values().cloned().collect(),
            tokens: self.tokens.values().cloned().collect(),
            meters: self.meters.iter().map(|(id, meter)| (id.clone(), Arc::clone(meter))).collect(),
            nodes: self.nodes.iter().map(|(id, node)| (*id, Arc::clone(node))).collect(),
            recent: recent.collect(),
            retired: self.retired.iter().copied().collect(),
            usage: StoredUsage::of(&self.usage),
        };
        codec::to_payload(&Snapshot::First(stored))
    }

    /// The state that gave these bytes. Errors: the bytes are damaged or of an unknown format.
    pub fn from_bytes(bytes: &[u8]) -> Result<State, SnapshotError> {
        let Snapshot::First(stored) = codec::from_large_payload(bytes)?;
        Ok(stored.into_state())
    }
}

impl Stored {
    fn into_state(self) -> State {
        let mut state = State {
            applied: self.applied,
            time: self.time,
            access_version: self.access_version,
            objects: self.objects.into_iter().map(|object| (object.key.clone(), object)).collect(),
            tokens: self.tokens.into_iter().map(|token| (token.hash, token)).collect(),
            nodes: self.nodes.into_iter().collect::<OrdMap<_, _>>(),
            retired: self.retired.into_iter().collect(),
            usage: self.usage.into_usage(),
            ..State::default()
        };
        for key in self.keys {
            state.index_key(&key);
            state.keys.insert(key.id, key);
        }
        for (id, meter) in self.meters {
            state.put_meter(&id, Meter::clone(&meter));
        }
        for (request, index, reply) in self.recent {
            state.remember(index, request, reply);
        }
        state
    }
}

impl StoredUsage {
    fn of(usage: &Usage) -> StoredUsage {
        let mut places: BTreeMap<Arc<UsageLabels>, u32> = BTreeMap::new();
        for (_, labels) in usage.hours.keys().chain(usage.days.keys()) {
            places.insert(labels.clone(), 0);
        }
        for (place, number) in places.values_mut().zip(0..) {
            *place = number;
        }
        let stored = |rows: &OrdMap<UsageKey, UsageSum>| {
            rows.iter().map(|((begin, labels), sum)| (*begin, places[labels], *sum)).collect()
        };
        let (hours, days) = (stored(&usage.hours), stored(&usage.days));
        StoredUsage { labels: places.into_keys().collect(), hours, days }
    }

    /// A place that is not there is no labels' place: its row is left out. Nothing that was written has one.
    fn into_usage(self) -> Usage {
        let rows = |stored: Vec<StoredRow>| {
            let row = |(begin, place, sum): StoredRow| {
                let labels = self.labels.get(usize::try_from(place).ok()?)?;
                Some(((begin, labels.clone()), sum))
            };
            stored.into_iter().filter_map(row).collect()
        };
        Usage { hours: rows(self.hours), days: rows(self.days) }
    }
}
