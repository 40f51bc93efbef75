//! `[gateway]`: the port for inference.

use std::time::Duration;

use super::section::Reader;
use super::{Files, Node, limits};
use crate::accept::Limits;

/// The port for inference.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// `listen`; default `127.0.0.1:8080`.
    pub listen: String,
    /// `public_url`: what callers put in front of paths, shown in statuses. Default: from `listen`.
    pub public_url: String,
    /// `certificate`, `key`; without them plain HTTP.
    pub tls: Option<Files>,
    /// `body_memory`: bytes of request bodies that are in memory at once; default 256 MiB.
    pub body_memory: usize,
    /// `sse_keep_alive`: a stream that has begun and is silent for so long gets a sign of life; default none.
    pub sse_keep_alive: Option<Duration>,
    /// Its limits.
    pub limits: Limits,
}

impl Gateway {
    pub(super) fn read(reader: &Reader<'_>, node: &Node) -> Gateway {
        let section = reader.section("gateway");
        let listen = section.address("listen", "127.0.0.1:8080");
        let tls = Files::read(section);
        let public_url = match section.text("public_url") {
            Some(url) if url.starts_with("http://") || url.starts_with("https://") => {
                url.trim_end_matches('/').to_owned()
            }
            written => {
                if let Some(url) = written {
                    section.mistake(
                        "public_url",
                        format!("\"{url}\" is not a URL: write https://host or http://host:port"),
                    );
                }
                format!("{}://{listen}", if tls.is_some() { "https" } else { "http" })
            }
        };
        let body_memory = section.size("body_memory", 256 << 20);
        let sse_keep_alive =
            section.duration_within("sse_keep_alive", Duration::from_secs(1)..=Duration::from_secs(600));
        let limits = limits::read(section, node.drain_timeout);
        Gateway { listen, public_url, tls, body_memory, sse_keep_alive, limits }
    }
}
