//! `[upstream]`: how replicas are talked to.

use std::path::PathBuf;

use super::section::Reader;
use crate::gateway::UpstreamSettings;

/// The client toward replicas.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// `connect_timeout`, `header_timeout`, `idle_timeout`, `pool_idle_timeout`.
    pub settings: UpstreamSettings,
    /// `ca`: who signs the certificates of `https://` replicas; without it they cannot be reached.
    pub ca: Option<PathBuf>,
    /// `allow_loopback`: replicas may be at loopback addresses of the node's machine. Default: no.
    pub allow_loopback: bool,
}

impl Upstream {
    pub(super) fn read(reader: &Reader<'_>) -> Upstream {
        let section = reader.section("upstream");
        let defaults = UpstreamSettings::default();
        let settings = UpstreamSettings {
            connect_timeout: section.duration("connect_timeout", defaults.connect_timeout),
            header_timeout: section.duration("header_timeout", defaults.header_timeout),
            idle_timeout: section.duration("idle_timeout", defaults.idle_timeout),
            pool_idle_timeout: section.duration("pool_idle_timeout", defaults.pool_idle_timeout),
            ..defaults
        };
        Upstream { settings, ca: section.path("ca"), allow_loopback: section.flag("allow_loopback", false) }
    }
}
