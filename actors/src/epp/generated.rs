//! What a replica's engine has generated since a call was sent to it: by its own counter, for all of its calls together.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::replica::Replica;

/// Follows the counter of one replica from a call on.
pub struct EngineOutput {
    replica: Arc<Replica>,
    /// What it said last before that.
    before: Option<f64>,
}

/// What the counter says.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Generated {
    /// Tokens of all of the engine's calls since then. Those of up to one probe interval before the call may be among them.
    pub tokens: u64,
    /// Requests that ran when it said so.
    pub running: f64,
    /// How long ago that was.
    pub age: Duration,
}

impl EngineOutput {
    pub(super) fn from_now(replica: &Arc<Replica>) -> EngineOutput {
        let before = replica.last_metrics().and_then(|(metrics, _)| metrics.generated);
        EngineOutput { replica: replica.clone(), before }
    }

    /// What has been generated since. `None`: the replica does not say, or has started anew meanwhile.
    pub fn generated(&self) -> Option<Generated> {
        let (metrics, at) = self.replica.last_metrics()?;
        let tokens = metrics.generated? - self.before?;
        let is_older = tokens < 0.0;
        let generated = Generated { tokens: tokens as u64, running: metrics.running, age: Instant::now() - at };
        (!is_older).then_some(generated)
    }
}
