//! Who may know whom: `simulation -> node -> actors -> raft`, and the simulated replica knows none of them.

use crate::tree::{Source, sources};
use crate::{check, said};

/// A crate of ours: its directory, its name in Rust, its package, and which of ours it may name.
struct Layer {
    directory: &'static str,
    name: &'static str,
    package: &'static str,
    below: &'static [&'static str],
}

/// The narrowest directory counts.
const LAYERS: [Layer; 7] = [
    layer("raft/replication-statistics", "base2histogram", "base2histogram", &[]),
    layer("raft", "raft", "tollgate-raft", &[]),
    layer("actors", "actors", "tollgate-actors", &["raft"]),
    layer("node", "node", "tollgate", &["actors", "raft", "sim_vllm"]),
    layer("simulation/sim-vllm", "sim_vllm", "sim-vllm", &[]),
    layer("simulation/side-by-side", "side_by_side", "side-by-side", &[]),
    layer("simulation", "simulation", "simulation", &["node", "actors", "raft", "sim_vllm"]),
];

/// What only `raft` works with.
const ENGINES: [&str; 3] = [concat!("open", "raft"), concat!("sl", "ed"), concat!("bin", "code")];

/// A part of a crate, and the names that it must not use.
struct Room {
    /// A file, or a directory with `/` at its end.
    path: &'static str,
    unknown: &'static [&'static str],
    /// Why.
    reason: &'static str,
}

/// The rooms of quota: `refill -> allowance -> ledger`. Names of the module above would lead back to the refill.
const ROOMS: [Room; 5] = [
    room("actors/src/quota/ledger.rs", &["allowance", "refill", "Quota", "QuotaActor"], "the ledger knows no room"),
    room("actors/src/quota/allowance/", &["refill", "Refill", "Outbox", "Quota", "QuotaActor"], QUOTA_ARROW),
    room("actors/src/quota/allowance/", &["ractor", "Cluster", "cluster"], "requests know no actor and no cluster"),
    room(
        "actors/src/quota/refill/",
        &["Quota", "Cluster", "cluster"],
        "the refill reaches the cluster through the ledger",
    ),
    room("actors/src/quota/mod.rs", &["Cluster", "cluster"], "quota reaches the cluster through the ledger"),
];

const QUOTA_ARROW: &str = "what requests touch knows nothing of what keeps it filled";

const fn room(path: &'static str, unknown: &'static [&'static str], reason: &'static str) -> Room {
    Room { path, unknown, reason }
}

const fn layer(
    directory: &'static str,
    name: &'static str,
    package: &'static str,
    below: &'static [&'static str],
) -> Layer {
    Layer { directory, name, package, below }
}

fn layer_of(path: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| path.strip_prefix(layer.directory).is_some_and(|rest| rest.starts_with('/')))
}

/// The crates of ours that `of` may not name.
fn forbidden(of: &'static Layer) -> impl Iterator<Item = &'static Layer> {
    LAYERS.iter().filter(|layer| layer.name != of.name && !of.below.contains(&layer.name))
}

fn imports_follow_the_arrow(source: &Source) -> Vec<(usize, String)> {
    let Some(layer) = layer_of(&source.path) else { return Vec::new() };
    let named: Vec<(usize, String)> = match (source.is_rust(), source.is_manifest()) {
        (true, _) => source.lines().filter_map(|(number, line)| Some((number, imported(line)?.to_owned()))).collect(),
        (_, true) => dependencies(source),
        _ => Vec::new(),
    };
    let is_forbidden = |name: &str| forbidden(layer).any(|other| other.name == name || other.package == name);
    // A module of the file's own may be called like a crate.
    let is_module = |name: &str| source.lines().any(|(_, line)| line.trim_end().ends_with(&format!("mod {name};")));
    let wrong = named.into_iter().filter(|(_, name)| is_forbidden(name) && !is_module(name));
    wrong.map(|(number, name)| (number, format!("{} must not know {name}", layer.name))).collect()
}

/// The first name of the path that a line imports.
fn imported(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub").map_or(line, |rest| rest.split_once(')').map_or(rest, |(_, rest)| rest));
    let line = line.trim_start();
    let path = line.strip_prefix("use ").or_else(|| line.strip_prefix("extern crate "))?;
    let path = path.trim_start_matches("::");
    Some(&path[..path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len())])
}

/// What a manifest depends on: the keys below `…dependencies`, and the packages they stand for.
fn dependencies(source: &Source) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    let mut is_dependencies = false;
    for (number, line) in source.lines() {
        if let Some(section) = line.trim().strip_prefix('[') {
            let section = section.trim_end_matches(']');
            is_dependencies = section.contains("dependencies");
            named.extend(section.split_once("dependencies.").map(|(_, name)| (number, name.to_owned())));
        } else if is_dependencies {
            let end = line.find(['.', ' ', '=']).unwrap_or(0);
            named.push((number, line[..end].trim_matches('"').to_owned()));
            let package = line.split_once("package = \"").and_then(|(_, rest)| rest.split_once('"'));
            named.extend(package.map(|(name, _)| (number, name.to_owned())));
        }
    }
    named
}

fn rooms_follow_their_arrows(source: &Source) -> Vec<(usize, String)> {
    let is_in = |room: &Room| match room.path.ends_with('/') {
        true => source.path.starts_with(room.path),
        false => source.path == room.path,
    };
    let mut wrong = Vec::new();
    for room in ROOMS.iter().filter(|room| is_in(room)) {
        for (number, line) in source.lines() {
            // Variants of the ledger's commands, which have the name of the handle.
            let code = code(line).replace("Command::Quota", "").replace("Reply::Quota", "");
            let named = names(&code).find(|name| room.unknown.contains(name));
            wrong.extend(named.map(|name| (number, format!("must not name {name}: {}", room.reason))));
        }
    }
    wrong
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

/// The names in a line of Rust.
fn names(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

fn only_raft_names_its_engines(source: &Source) -> Vec<(usize, String)> {
    // Log filters are by module, and this one quiets the consensus.
    let is_exempt = source.path.starts_with("raft/") || source.path == "node/src/observability/logging.rs";
    if is_exempt || !(source.is_rust() || source.is_manifest()) {
        return Vec::new();
    }
    // A comment may say what stands behind a door.
    let named = |line: &str| ENGINES.into_iter().find(|engine| words(code(line)).any(|word| word == *engine));
    let wrong = source.lines().filter_map(|(number, line)| Some((number, named(line)?)));
    wrong.map(|(number, engine)| (number, format!("only raft names {engine}"))).collect()
}

/// Words as names have them, in a path, a sentence or a manifest.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric())
}

#[test]
fn nobody_imports_against_the_arrow() {
    check(imports_follow_the_arrow);
    let rule = imports_follow_the_arrow;
    for (path, line, crate_name, name) in [
        ("raft/src/a.rs", "use actors::Permit;", "raft", "actors"),
        ("raft/src/a.rs", "    pub(crate) use ::node::Node;", "raft", "node"),
        ("actors/tests/a.rs", "pub use node::Context;", "actors", "node"),
        ("node/src/a.rs", "extern crate simulation;", "node", "simulation"),
        ("simulation/sim-vllm/src/a.rs", "use raft::doors::Doors;", "sim_vllm", "raft"),
        ("raft/Cargo.toml", "[dependencies]\nactors.workspace = true", "raft", "actors"),
        ("actors/Cargo.toml", "[dev-dependencies]\nx = { package = \"tollgate\" }", "actors", "tollgate"),
        ("simulation/sim-vllm/Cargo.toml", "\n[target.x.dependencies.raft]", "sim_vllm", "raft"),
    ] {
        let number = line.lines().count();
        assert_eq!(said(rule, path, line), [format!("{path}:{number}: {crate_name} must not know {name}")]);
    }
    for (path, text) in [
        ("actors/src/a.rs", "use raft::View;"),
        ("raft/src/a.rs", "mod node;\npub use node::Standing;"),
        ("node/src/a.rs", "use crate::node::Node;\nuse actors::Permit;\nuse sim_vllm::Replica;"),
        ("simulation/src/a.rs", "use node::node::Node;"),
        ("actors/Cargo.toml", "[package]\nname = \"tollgate\"\n[dependencies]\nraft.workspace = true"),
    ] {
        assert_eq!(said(rule, path, text), [""; 0], "{path}");
    }
}

#[test]
fn rooms_of_quota_do_not_import_in_a_circle() {
    check(rooms_follow_their_arrows);
    let rooms = ["ledger.rs", "allowance/", "refill/"].map(|room| format!("actors/src/quota/{room}"));
    for room in rooms {
        let has_files = sources().iter().any(|source| source.path.starts_with(&room));
        assert!(has_files, "{room} has moved: the rule guards nothing");
    }
    let rule = rooms_follow_their_arrows;
    for (file, line, name) in [
        ("allowance/set.rs", "use crate::quota::refill::Outbox;", "refill"),
        ("allowance/set.rs", "use super::super::{ledger::Ledger, refill};", "refill"),
        ("allowance/slots/tests.rs", "    let outbox: Arc<Outbox> = make();", "Outbox"),
        ("allowance/mod.rs", "use super::QuotaActor as Actor;", "QuotaActor"),
        ("allowance/hold.rs", "use raft::Cluster;", "Cluster"),
        ("refill/actor.rs", "use crate::quota::Quota;", "Quota"),
        ("refill/sending.rs", "self.cluster.propose(command)", "cluster"),
        ("ledger.rs", "use super::allowance::Slot;", "allowance"),
        ("mod.rs", "    cluster: raft::Cluster,", "cluster"),
    ] {
        let said = said(rule, &format!("actors/src/quota/{file}"), line);
        assert_eq!(said.len(), 1, "{file}: {said:?}");
        assert!(said[0].starts_with(&format!("actors/src/quota/{file}:1: must not name {name}: ")), "{said:?}");
    }
    for (file, line) in [
        ("allowance/set.rs", "/// Told to the refill, see [`Quota`]."),
        ("allowance/refusal.rs", "pub enum QuotaRefusal {"),
        ("refill/batch.rs", "use crate::quota::allowance::{MeterSet, Slot};"),
        ("refill/actor.rs", "pub(crate) struct QuotaActor;"),
        ("refill/sending.rs", "Ok(Applied { reply: Reply::Quota(grants), .. }) => {}"),
        ("ledger.rs", "use raft::{Cluster, View};"),
    ] {
        assert_eq!(said(rule, &format!("actors/src/quota/{file}"), line), [""; 0], "{file}");
    }
}

#[test]
fn only_raft_works_with_consensus_disk_and_codec() {
    check(only_raft_names_its_engines);
    let [consensus, disk, codec] = ENGINES;
    let rule = only_raft_names_its_engines;
    for (path, line, engine) in [
        ("node/src/a.rs", format!("use {disk}::Db;"), disk),
        ("actors/src/a.rs", format!("let x = {consensus}_rt::spawn();"), consensus),
        ("node/Cargo.toml", format!("{codec}.workspace = true"), codec),
    ] {
        assert_eq!(said(rule, path, &line), [format!("{path}:1: only raft names {engine}")]);
    }
    for path in ["raft/src/a.rs", "raft/Cargo.toml", "Cargo.toml", "ARCHITECTURE.md"] {
        assert_eq!(said(rule, path, consensus), [""; 0], "{path}");
    }
    assert_eq!(said(rule, "node/src/a.rs", &format!("// As {consensus} does.")), [""; 0]);
    assert_eq!(said(rule, "node/src/a.rs", "let settled = SledDisk::open()"), [""; 0]);
}
