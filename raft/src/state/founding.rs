//! What is there before the first command: the namespaces and the tenant that manifests take for granted.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet, Vector};

use super::{State, Usage};
use crate::ids::Timestamp;
use crate::resources::{DEFAULT_TENANT, Kind, Object, ObjectKey, Spec, TENANT_NAMESPACE};

impl Default for State {
    /// The state of a new cluster.
    fn default() -> State {
        let objects = founding_objects().into_iter().map(|object| (object.key.clone(), Arc::new(object))).collect();
        State {
            applied: 0,
            time: Timestamp::default(),
            access_version: 0,
            objects,
            keys: OrdMap::new(),
            keys_by_hash: OrdMap::new(),
            tokens: OrdMap::new(),
            revoked_tokens: OrdSet::new(),
            meters: OrdMap::new(),
            usage: Usage::default(),
            recalled: OrdSet::new(),
            nodes: OrdMap::new(),
            retired: OrdSet::new(),
            recent: OrdMap::new(),
            keys_by_owner: OrdMap::new(),
            key_ends: OrdSet::new(),
            ephemeral_ends: OrdSet::new(),
            tokens_by_user: OrdMap::new(),
            tokens_by_account: OrdMap::new(),
            token_ends: OrdSet::new(),
            meters_due: OrdSet::new(),
            recent_order: Vector::new(),
        }
    }
}

impl State {
    /// Dates the founding objects to the first command: before it, the cluster knows no time.
    pub(super) fn date_founding(&mut self, time: Timestamp) {
        let undated: Vec<Arc<Object>> =
            self.objects.values().filter(|object| object.created == Timestamp::default()).cloned().collect();
        for object in undated {
            let dated = Object { created: time, updated: time, ..(*object).clone() };
            self.objects.insert(dated.key.clone(), Arc::new(dated));
        }
    }
}

/// The founding objects' uids count up from here, the same in every cluster.
const FOUNDING_UIDS: u128 = 0x746f_6c6c_6761_7465_0000_0000_0000_0000;

/// Their resource version is 1, since Kubernetes clients take 0 for "any", and every command has a higher index.
fn founding_objects() -> [Object; 3] {
    let keys = [
        ObjectKey::new(Kind::Namespace, "", "default"),
        ObjectKey::new(Kind::Namespace, "", TENANT_NAMESPACE),
        ObjectKey::new(Kind::Tenant, TENANT_NAMESPACE, DEFAULT_TENANT),
    ];
    let mut number = 0;
    keys.map(|key| {
        number += 1;
        let (annotations, body) = (BTreeMap::new(), r#"{"spec":{}}"#.to_owned());
        Object {
            uid: uuid::Builder::from_custom_bytes((FOUNDING_UIDS + number).to_be_bytes()).into_uuid(),
            generation: 1,
            resource_version: 1,
            created: Timestamp::default(),
            updated: Timestamp::default(),
            labels: BTreeMap::new(),
            spec: Spec::read(key.kind, &annotations, &body),
            annotations,
            body,
            key,
        }
    })
}
