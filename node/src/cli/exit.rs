//! How the process ends, after sysexits.h.

use crate::config::Mistakes;
use crate::node::{Failed, StartError};
use crate::tls::TlsError;

/// The command line or the configuration is wrong.
pub(super) const USAGE: u8 = 64;
/// Something this node needs is not to be had.
const UNAVAILABLE: u8 = 69;
/// The node failed.
const INTERNAL: u8 = 70;

/// Why the process ends, and with which code.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: u8,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn usage(message: impl Into<String>) -> Failure {
        Failure { code: USAGE, message: message.into() }
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Failure {
        Failure { code: UNAVAILABLE, message: message.into() }
    }

    pub(super) fn internal(message: impl Into<String>) -> Failure {
        Failure { code: INTERNAL, message: message.into() }
    }
}

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Failure {
        Failure::usage(mistakes.to_string())
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Failure {
        Failure::usage(error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        match error {
            wrong @ StartError::Tls { .. } => Failure::usage(wrong.to_string()),
            other => Failure::unavailable(other.to_string()),
        }
    }
}

impl From<Failed> for Failure {
    fn from(failed: Failed) -> Failure {
        Failure::internal(failed.to_string())
    }
}
