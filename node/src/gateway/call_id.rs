//! The ids of a call. Ours is unique and is the one that a replica gets: engines take two calls of one id for the same. The
//! caller's own id, if it sent one, is on its answer, in the log and on the span beside ours.

use http::{HeaderMap, HeaderValue};
use raft::doors::Chance;

use super::request;

/// The ids of one call.
#[derive(Clone, Debug)]
pub(super) struct CallId {
    own: HeaderValue,
    shown: HeaderValue,
}

impl CallId {
    /// A new id, and the one in `headers` if it is harmless in logs.
    pub(super) fn of(headers: &HeaderMap, chance: &dyn Chance) -> CallId {
        let own = HeaderValue::try_from(chance.uuid().simple().to_string());
        let own = own.expect("hexadecimal digits are a header value");
        let theirs = request::client_request_id(headers).and_then(|id| HeaderValue::from_str(id).ok());
        CallId { shown: theirs.unwrap_or_else(|| own.clone()), own }
    }

    /// Ours: for the replica.
    pub(super) fn own(&self) -> &HeaderValue {
        &self.own
    }

    /// The caller's, or ours if it sent none: for the caller.
    pub(super) fn shown(&self) -> &HeaderValue {
        &self.shown
    }

    /// [`CallId::own`] as text.
    pub(super) fn own_text(&self) -> &str {
        self.own.to_str().unwrap_or_default()
    }

    /// [`CallId::shown`] as text.
    pub(super) fn shown_text(&self) -> &str {
        self.shown.to_str().unwrap_or_default()
    }
}
