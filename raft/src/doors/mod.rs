//! The doors: wall time, chance and network, each a trait, so that a simulation can stand behind them.
//!
//! The fourth door, disk, is [`crate::storage::Disk`]. Monotonic time needs none: all of our code uses
//! `tokio::time`, which a simulation controls.

mod chance;
mod clock;
mod net;

use std::sync::Arc;

pub use chance::{Chance, OsChance, SeededChance};
pub use clock::{Clock, SystemClock};
pub use net::{Accepted, BoxFuture, BoxStream, Destination, DestinationCheck, Listener, Net, Stream, TokioNet};

/// What a node is given of the outside world. Cloning shares the doors.
#[derive(Clone)]
pub struct Doors {
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub chance: Arc<dyn Chance>,
    /// Listening and connecting.
    pub net: Arc<dyn Net>,
}

impl Doors {
    /// The real world: the system clock, the operating system's randomness, TCP through tokio.
    pub fn real() -> Doors {
        Doors { clock: Arc::new(SystemClock), chance: Arc::new(OsChance), net: Arc::new(TokioNet) }
    }
}
