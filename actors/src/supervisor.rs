//! Supervision: who restarts, who escalates.

use crate::{Actors, Deps, StartError};

#[derive(Clone)]
pub(crate) struct Handle {}

impl Handle {
    pub(crate) async fn failed(&self) -> String {
        todo!()
    }
    pub(crate) async fn drain(&self) {
        todo!()
    }
}

pub(crate) async fn start(deps: Deps) -> Result<Actors, StartError> {
    let _ = deps;
    todo!()
}
