//! What a replica must be like, seen from outside: over its HTTP only.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod calibration;
mod client;
mod conformance;
mod deaths;
mod dialects;
mod faults;
mod generation;
mod refusals;
mod render;
mod serving;
mod speech;
