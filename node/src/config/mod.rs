//! Configuration: one TOML file, every key optional, `TOLLGATE_<SECTION>_<KEY>` over it.
//!
//! Two steps: what was written ([`written`]) becomes what it means (the sections' structs). Reading never stops at a mistake,
//! so all of them are reported together, each with its key's path and what would be right.
//!
//! Two kinds of settings are apart: [`Cluster`] must be equal on every node; everything else may differ.
//! A secret is never in here: what is secret is read from a file of its own, whose path is.
//! Nothing else of the product reads the environment.

mod admin;
mod cluster;
mod decisions;
mod gateway;
mod limits;
mod log;
mod mistake;
mod node;
mod peers;
mod section;
mod traces;
mod units;
mod upstream;
mod written;

use std::collections::BTreeMap;
use std::path::Path;

pub use admin::Admin;
pub use cluster::Cluster;
pub(crate) use cluster::check_member;
pub use gateway::Gateway;
pub use log::{Format, Log};
pub use mistake::{Mistake, Mistakes};
pub use node::Node;
pub use peers::{Files, Peers};
pub use traces::Traces;
pub use upstream::Upstream;

use section::Reader;
use written::Written;

/// What a node is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[cluster]`: equal on every node.
    pub cluster: Cluster,
    /// `[node]`: this node.
    pub node: Node,
    /// `[peers]`: where the other nodes reach it, and how they know each other.
    pub peers: Peers,
    /// `[gateway]`: the port for inference.
    pub gateway: Gateway,
    /// `[admin]`: the port for the admin API.
    pub admin: Admin,
    /// `[upstream]`: how replicas are talked to.
    pub upstream: Upstream,
    /// `[probe]` and `[quota]`: what this node decides with.
    pub decisions: actors::Settings,
    /// `[log]`.
    pub log: Log,
    /// `[traces]`: where the spans of calls go.
    pub traces: Traces,
}

impl Config {
    /// Reads a file. Relative paths in it start from its directory.
    /// Errors: the file cannot be read, or every mistake in it.
    pub fn read(file: &Path, environment: &BTreeMap<String, String>) -> Result<Config, Mistakes> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Mistakes::new(file.display().to_string(), vec![Mistake::whole(format!("cannot be read: {error}"))])
        })?;
        let base = file.parent().unwrap_or(Path::new(""));
        Config::parse(&text, base, environment).map_err(|mistakes| Mistakes::new(file.display().to_string(), mistakes))
    }

    /// Understands `text`, with `environment` over it. Relative paths start from `base`. Errors: every mistake.
    pub fn parse(text: &str, base: &Path, environment: &BTreeMap<String, String>) -> Result<Config, Vec<Mistake>> {
        let written = Written::parse(text, environment)?;
        let reader = Reader::new(&written, base);
        let node = Node::read(&reader);
        let peers = Peers::read(&reader);
        let gateway = Gateway::read(&reader, &node);
        let config = Config {
            cluster: Cluster::read(&reader, &node, &peers),
            upstream: Upstream::read(&reader),
            admin: Admin::read(&reader, &node),
            decisions: decisions::read(&reader, &gateway),
            log: Log::read(&reader),
            traces: Traces::read(&reader),
            gateway,
            node,
            peers,
        };
        reader.finish(config)
    }
}

/// The process's environment, as [`Config::read`] wants it. Variables that are not UTF-8 are left out.
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
