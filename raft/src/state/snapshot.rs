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
use crate::resources::{Object, ObjectKey};

/// The bytes are no snapshot, or one of a version that this one does not know.
#[derive(Debug, thiserror::Error)]
#[error("snapshot cannot be read: {0}")]
pub struct SnapshotError(#[from] codec::DecodeError);

/// The formats there have been since the first release, oldest first. Only the last one is written.
#[derive(Serialize, Deserialize)]
enum Snapshot {
    First(Stored),
    Second(Stored, TokenFacts),
}

#[derive(Serialize, Deserialize)]
struct Stored {
    applied: u64,
    time: Timestamp,
    access_version: u64,
    objects: Vec<Arc<Object>>,
    keys: Vec<Arc<ApiKey>>,
    tokens: Vec<StoredToken>,
    meters: Vec<(MeterId, Arc<Meter>)>,
    nodes: Vec<(NodeId, Arc<NodeLedger>)>,
    /// Oldest first.
    recent: Vec<(RequestId, u64, Reply)>,
    retired: BTreeSet<NodeId>,
    usage: StoredUsage,
}

#[derive(Serialize, Deserialize)]
struct StoredToken {
    hash: [u8; 32],
    username: String,
    groups: Vec<String>,
    expires: Option<Timestamp>,
    service_account: Option<ObjectKey>,
}

/// What the first format did not have.
#[derive(Default, Serialize, Deserialize)]
struct TokenFacts {
    /// When each token was created and last used, in the order of the tokens.
    times: Vec<(Option<Timestamp>, Option<Timestamp>)>,
    revoked: BTreeSet<[u8; 32]>,
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
            tokens: self.tokens.values().map(|token| StoredToken::of(token)).collect(),
            meters: self.meters.iter().map(|(id, meter)| (id.clone(), Arc::clone(meter))).collect(),
            nodes: self.nodes.iter().map(|(id, node)| (*id, Arc::clone(node))).collect(),
            recent: recent.collect(),
            retired: self.retired.iter().copied().collect(),
            usage: StoredUsage::of(&self.usage),
        };
        let facts = TokenFacts {
            times: self.tokens.values().map(|token| (token.created, token.last_used)).collect(),
            revoked: self.revoked_tokens.iter().copied().collect(),
        };
        codec::to_payload(&Snapshot::Second(stored, facts))
    }

    /// The state that gave these bytes. Errors: the bytes are damaged or of an unknown format.
    pub fn from_bytes(bytes: &[u8]) -> Result<State, SnapshotError> {
        Ok(match codec::from_large_payload(bytes)? {
            Snapshot::First(stored) => stored.into_state(TokenFacts::default()),
            Snapshot::Second(stored, facts) => stored.into_state(facts),
        })
    }
}

impl Stored {
    fn into_state(self, facts: TokenFacts) -> State {
        let mut state = State {
            applied: self.applied,
            time: self.time,
            access_version: self.access_version,
            objects: self.objects.into_iter().map(|object| (object.key.clone(), object)).collect(),
            revoked_tokens: facts.revoked.into_iter().collect(),
            nodes: self.nodes.into_iter().collect::<OrdMap<_, _>>(),
            retired: self.retired.into_iter().collect(),
            usage: self.usage.into_usage(),
            ..State::default()
        };
        let times = facts.times.into_iter().chain(std::iter::repeat((None, None)));
        for (token, (created, last_used)) in self.tokens.into_iter().zip(times) {
            state.put_token(token.into_token(created, last_used));
        }
        for key in self.keys {
            state.put_key(key);
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

impl StoredToken {
    fn of(token: &Token) -> StoredToken {
        StoredToken {
            hash: token.hash,
            username: token.username.clone(),
            groups: token.groups.clone(),
            expires: token.expires,
            service_account: token.service_account.clone(),
        }
    }

    fn into_token(self, created: Option<Timestamp>, last_used: Option<Timestamp>) -> Token {
        let StoredToken { hash, username, groups, expires, service_account } = self;
        Token { hash, username, groups, expires, service_account, created, last_used }
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
