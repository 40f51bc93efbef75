//! What nodes say to each other: one versioned protocol over TCP (TLS unless on loopback), one connection per
//! direction and pair for calls, one more for each snapshot.
//!
//! A connection begins with a greeting each way ([`greeting`]); then the dialling side sends numbered requests and
//! the other answers each, in any order. Every frame is a record of [`crate::codec`], so damage is noticed; whatever
//! cannot be decoded closes that connection and nothing else.

mod acquaintances;
mod client;
mod frame;
pub mod greeting;
mod handshake;
pub(crate) mod message;
mod server;
mod snapshot;

use std::sync::Arc;

pub(crate) use acquaintances::Acquaintances;
pub(crate) use client::{CallError, Peers};
pub(crate) use server::{Handler, serve};

/// The name a node's certificate must carry (as a DNS subject alternative name): all members of a cluster use the
/// same, because which member it is does not matter to TLS; the greeting says it.
pub const PEER_NAME: &str = "tollgate-peer";

/// TLS between peers: both sides show a certificate of the cluster's CA.
#[derive(Clone)]
pub struct PeerTls {
    /// For connections in. It must ask for client certificates.
    pub server: Arc<rustls::ServerConfig>,
    /// For connections out. It must send one.
    pub client: Arc<rustls::ClientConfig>,
}
