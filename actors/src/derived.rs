//! Tables derived from the replicated objects: built once per change, published whole, never older than the View a reader holds.
//!
//! An actor rebuilds a table as soon as objects change, so requests find it ready. A request that holds a newer View
//! than the table rebuilds it itself: what was acknowledged to an administrator is true for the next call on this node.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use imbl::OrdMap;
use raft::View;
use raft::resources::{Object, ObjectKey};

/// A table that follows the objects of the View.
pub(crate) struct Derived<T> {
    built: ArcSwap<Built<T>>,
    building: Mutex<()>,
    build: fn(&View) -> T,
}

/// A table and what it was built from.
pub(crate) struct Built<T> {
    applied: u64,
    objects: OrdMap<ObjectKey, Arc<Object>>,
    table: T,
}

impl<T> Deref for Built<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.table
    }
}

impl<T> Built<T> {
    /// Keys, tokens and the ledger change all the time and matter to no table.
    fn is_good_for(&self, view: &View) -> bool {
        self.applied >= view.applied || self.objects.ptr_eq(&view.objects)
    }
}

impl<T> Derived<T> {
    /// The table of `view`, kept up to date by `build`.
    pub(crate) fn new(view: &View, build: fn(&View) -> T) -> Derived<T> {
        Derived { built: ArcSwap::from_pointee(Derived::make(view, build)), building: Mutex::new(()), build }
    }

    /// The table of `view` or of a newer one.
    pub(crate) fn of(&self, view: &View) -> Guard<Arc<Built<T>>> {
        let built = self.built.load();
        if built.is_good_for(view) {
            return built;
        }
        let _one_builder = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        let built = self.built.load();
        if built.is_good_for(view) {
            return built;
        }
        self.built.store(Arc::new(Derived::make(view, self.build)));
        self.built.load()
    }

    fn make(view: &View, build: fn(&View) -> T) -> Built<T> {
        Built { applied: view.applied, objects: view.objects.clone(), table: build(view) }
    }
}
