//! The whole state as bytes and back. What is derived is left out and built again.
//!
//! Fields are only added behind a new format number; `tests/frozen_commands.rs` holds the bytes of every format.

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{ApiKey, Meter, MeterId, NodeLedger, State, Token};
use crate::command::Reply;
use crate::ids::{NodeId, RequestId, Timestamp};
use crate::resources::Object;

/// The format written here.
const FORMAT: u32 = 1;

/// Why bytes are no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It was written by a version that this one does not know.
    #[error("snapshot format {0} is not known here: upgrade this node")]
    Format(u32),
    /// It is damaged.
    #[error("snapshot cannot be read: {0}")]
    Damaged(#[from] bincode::error::DecodeError),
    /// There is something behind its end.
    #[error("snapshot has {0} bytes too many")]
    Trailing(usize),
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
}

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
        };
        bincode::serde::encode_to_vec((FORMAT, stored), bincode::config::standard())
            .expect("encoding into memory fails only for types that have no length, and there is none")
    }

    /// The state that gave these bytes. Errors: the bytes are damaged or of an unknown format.
    pub fn from_bytes(bytes: &[u8]) -> Result<State, SnapshotError> {
        let config = bincode::config::standard();
        let (format, head): (u32, usize) = bincode::serde::decode_from_slice(bytes, config)?;
        if format != FORMAT {
            return Err(SnapshotError::Format(format));
        }
        let body = &bytes[head..];
        let (stored, read): (Stored, usize) = bincode::serde::decode_from_slice(body, config)?;
        match body.len() - read {
            0 => Ok(stored.into_state()),
            rest => Err(SnapshotError::Trailing(rest)),
        }
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
