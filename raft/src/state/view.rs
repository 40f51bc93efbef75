//! What readers get: the state at one log index, immutable and cheap to hold.

use std::ops::Deref;

use super::State;

/// The state at one moment. Reads never wait and never see half a change.
#[derive(Clone, Debug, Default)]
pub struct View(State);

impl View {
    /// A view of `state`.
    pub fn of(state: &State) -> View {
        View(state.clone())
    }
}

impl Deref for View {
    type Target = State;
    fn deref(&self) -> &State {
        &self.0
    }
}
