//! Objects: create, update, delete, and what a deletion takes with it.

use std::sync::Arc;

use uuid::Uuid;

use super::{Outcome, State};
use crate::command::{CommandRefusal, Reply};
use crate::resources::{Kind, NewObject, Object, ObjectKey, Scope, Spec, service_account_user};

impl State {
    pub(super) fn create_object(&mut self, index: u64, new: NewObject, uid: Uuid) -> Result<Outcome, CommandRefusal> {
        if self.objects.contains_key(&new.key) {
            return Err(CommandRefusal::AlreadyExists(new.key));
        }
        if new.key.kind.scope() == Scope::Namespaced && !self.has_namespace(&new.key.namespace) {
            return Err(CommandRefusal::NamespaceNotFound(new.key.namespace));
        }
        let object = Object {
            uid,
            generation: 1,
            resource_version: index,
            created: self.time,
            updated: self.time,
            spec: Spec::read(new.key.kind, &new.annotations, &new.body),
            key: new.key,
            labels: new.labels,
            annotations: new.annotations,
            body: new.body,
        };
        Ok(self.put_object(index, object))
    }

    pub(super) fn update_object(
        &mut self,
        index: u64,
        new: NewObject,
        resource_version: Option<u64>,
    ) -> Result<Outcome, CommandRefusal> {
        let current = Arc::clone(self.current(&new.key, resource_version)?);
        let same_body = is_same_json(&current.body, &new.body);
        if same_body && current.labels == new.labels && current.annotations == new.annotations {
            return Ok(Outcome::unchanged(Reply::Object(current)));
        }
        let object = Object {
            uid: current.uid,
            generation: if same_body { current.generation } else { current.generation + 1 },
            resource_version: index,
            created: current.created,
            updated: self.time,
            spec: Spec::read(new.key.kind, &new.annotations, &new.body),
            key: new.key,
            labels: new.labels,
            annotations: new.annotations,
            body: new.body,
        };
        Ok(self.put_object(index, object))
    }

    pub(super) fn delete_object(
        &mut self,
        index: u64,
        key: &ObjectKey,
        resource_version: Option<u64>,
        uid: Option<Uuid>,
    ) -> Result<Outcome, CommandRefusal> {
        let current = Arc::clone(self.current(key, resource_version)?);
        if uid.is_some_and(|uid| uid != current.uid) {
            return Err(CommandRefusal::UidMismatch(key.clone()));
        }
        self.remove_object(key);
        if key.kind == Kind::Namespace {
            for inhabitant in self.inhabitants(&key.name) {
                self.remove_object(&inhabitant);
            }
        }
        self.access_version = index;
        Ok(Outcome::changed(Reply::Object(current)))
    }

    /// The object, if it is there in the version that the caller has in mind.
    fn current(&self, key: &ObjectKey, resource_version: Option<u64>) -> Result<&Arc<Object>, CommandRefusal> {
        let current = self.objects.get(key).ok_or_else(|| CommandRefusal::ObjectNotFound(key.clone()))?;
        match resource_version {
            Some(wanted) if wanted != current.resource_version => {
                Err(CommandRefusal::Conflict { key: key.clone(), wanted, current: current.resource_version })
            }
            _ => Ok(current),
        }
    }

    fn put_object(&mut self, index: u64, object: Object) -> Outcome {
        let object = Arc::new(object);
        self.objects.insert(object.key.clone(), Arc::clone(&object));
        self.access_version = index;
        Outcome::changed(Reply::Object(object))
    }

    fn remove_object(&mut self, key: &ObjectKey) {
        self.objects.remove(key);
        if key.kind == Kind::ServiceAccount {
            self.remove_tokens_of(key);
            // For good: an account that gets the same name is another owner.
            self.end_keys_of(&service_account_user(&key.namespace, &key.name));
        }
    }

    fn has_namespace(&self, name: &str) -> bool {
        self.objects.contains_key(&ObjectKey::new(Kind::Namespace, "", name))
    }

    /// The keys of all objects in a namespace.
    fn inhabitants(&self, namespace: &str) -> Vec<ObjectKey> {
        let kinds = Kind::ALL.into_iter().filter(|kind| kind.scope() == Scope::Namespaced);
        kinds.flat_map(|kind| self.objects_in(kind, namespace)).map(|object| object.key.clone()).collect()
    }
}

/// Whether two bodies mean the same: blanks and the order of fields do not count.
fn is_same_json(one: &str, other: &str) -> bool {
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    one == other || parse(one).is_some_and(|one| Some(one) == parse(other))
}
