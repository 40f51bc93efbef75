//! TLS where callers and replicas are: certificates that are trusted, certificates that are not, and files that are wrong.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod caller;
mod destinations;
mod gateway_port;
mod replica;
mod replicas;
mod stalls;
mod startup;
mod world;
