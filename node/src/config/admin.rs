//! `[admin]`: the port for the admin API.

use std::path::PathBuf;

use super::section::{Reader, Section, is_loopback};
use super::{Files, Node, limits};
use crate::accept::Limits;
use crate::admin::Bounds;

/// The port for the admin API.
#[derive(Clone, Debug)]
pub struct Admin {
    /// `listen`; default `127.0.0.1:8443`.
    pub listen: String,
    /// `certificate`, `key`; without them plain HTTP, which is refused on any address but loopback.
    pub tls: Option<Files>,
    /// `bootstrap_token_file`: the first administrator's token. If there is no such file the node writes one; default
    /// `admin.token` in the data directory.
    pub bootstrap_token_file: PathBuf,
    /// `watches_max`, `watches_per_user_max`, `queries_max`, `queries_per_user_max`: what users may have in progress.
    pub bounds: Bounds,
    /// Its limits.
    pub limits: Limits,
}

impl Admin {
    pub(super) fn read(reader: &Reader<'_>, node: &Node) -> Admin {
        let section = reader.section("admin");
        let listen = section.address("listen", "127.0.0.1:8443");
        let tls = Files::read(section);
        if tls.is_none() && !section.has("certificate") && !section.has("key") && !is_loopback(&listen) {
            section.mistake(
                "certificate",
                format!(
                    "is missing: administrators' tokens must not cross a network in clear, and admin.listen is {listen}"
                ),
            );
        }
        let bootstrap_token_file =
            section.path("bootstrap_token_file").unwrap_or_else(|| node.data_dir.join("admin.token"));
        let (bounds, limits) = (read_bounds(section), limits::read(section, node.drain_timeout));
        Admin { listen, tls, bootstrap_token_file, bounds, limits }
    }
}

/// One user never has more than there is.
fn read_bounds(section: Section<'_>) -> Bounds {
    let defaults = Bounds::default();
    let watches_max = limits::count(section, "watches_max", defaults.watches_max);
    let queries_max = limits::count(section, "queries_max", defaults.queries_max);
    let per_user = |key, default: usize, max| limits::count(section, key, default.min(max)).min(max);
    Bounds {
        watches_max,
        watches_per_user_max: per_user("watches_per_user_max", defaults.watches_per_user_max, watches_max),
        queries_max,
        queries_per_user_max: per_user("queries_per_user_max", defaults.queries_per_user_max, queries_max),
    }
}
