//! What nodes say to each other.

/// TLS between peers: both sides show a certificate of the cluster's CA.
#[derive(Clone)]
pub struct PeerTls {
    /// For connections in.
    pub server: std::sync::Arc<rustls::ServerConfig>,
    /// For connections out.
    pub client: std::sync::Arc<rustls::ClientConfig>,
}
