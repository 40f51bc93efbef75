//! The disk door: what the log, the vote and the snapshot need of a disk.

/// A node's durable storage.
pub trait Disk: Send + Sync + 'static {}
