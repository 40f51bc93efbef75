//! Why a call has no good answer. Its text is the name it is counted under.

use std::io::ErrorKind;

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("not connected: {0}")]
    Connect(ErrorKind),
    #[error("not written: {0}")]
    Write(ErrorKind),
    #[error("not read: {0}")]
    Read(ErrorKind),
    /// On a connection that had been used before, the gateway may just have closed it as idle.
    #[error("closed before the answer")]
    Closed,
    #[error("closed within the head")]
    ClosedInHead,
    #[error("closed within the body")]
    ClosedInBody,
    #[error("malformed head")]
    Head,
    #[error("malformed chunk")]
    Chunk,
    #[error("timeout")]
    Timeout,
    #[error("status {0}")]
    Status(u16),
    #[error("no usage in the answer")]
    NoUsage,
    #[error("stream without [DONE]")]
    NotDone,
    #[error("stream with {0} events")]
    Short(u32),
}

impl Failure {
    /// Whether the call may not have reached the gateway at all, so that a used connection is worth one more try.
    pub(super) fn is_stale(&self) -> bool {
        matches!(self, Failure::Closed | Failure::Write(_) | Failure::Read(ErrorKind::ConnectionReset))
    }
}
