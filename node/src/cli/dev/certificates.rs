//! The local authority and its certificates: one for every port here, one for the nodes among themselves.

use raft::Timestamp;

use super::super::exit::Failure;
use super::plan::Plan;
use raft::peers::PEER_NAME;

use crate::tls::{Authority, TlsError};

/// What this machine is called on loopback.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Issues `server` and `peer` anew, signed by the same authority as before.
pub(super) fn issue(plan: &Plan, now: Timestamp) -> Result<(), Failure> {
    let issue = || -> Result<(), TlsError> {
        let authority = Authority::open(&plan.tls_dir(), now)?;
        authority.issue("server", &LOCAL, now)?;
        authority.issue("peer", &[PEER_NAME, LOCAL[0], LOCAL[1], LOCAL[2]], now)?;
        Ok(())
    };
    issue().map_err(|error| Failure::unavailable(error.to_string()))
}
