//! What is known of one inference call from outside.

use std::time::Duration;

/// A call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The request's id; engines keep it as the caller's.
    pub(crate) id: String,
    /// Which of `Shared::keys` it used.
    pub(crate) key: usize,
    pub(crate) node: usize,
    /// There are no smaller ones.
    pub(crate) is_smallest: bool,
    pub(crate) is_streamed: bool,
    /// It said how long its answer may be.
    pub(crate) is_stated: bool,
    pub(crate) began: Duration,
    pub(crate) ended: Option<(Duration, Ended)>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With 200 and a whole answer.
    Answered {
        /// Tokens by the answer's usage, if it had any.
        tokens: Option<u64>,
    },
    /// With another status.
    Refused(u16),
    /// Without an answer, or in the middle of one, and how.
    Broken(String),
    /// The client left.
    HungUp,
}
