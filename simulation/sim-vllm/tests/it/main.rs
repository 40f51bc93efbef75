//! What a replica must be like, seen from outside: over its HTTP only.

mod calibration;
mod client;
mod deaths;
mod faults;
mod generation;
