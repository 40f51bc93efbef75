//! What will run where: decided once, before anything starts, and remembered where it must stay the same.

use std::path::{Path, PathBuf};

use http::uri::Authority;
use raft::doors::{Doors, Net};
use serde::{Deserialize, Serialize};

use super::super::exit::Failure;
use super::Args;
use crate::files;

/// What this run consists of.
pub(super) struct Plan {
    /// Absolute.
    pub(super) data_dir: PathBuf,
    /// At least one.
    pub(super) nodes: Vec<NodePlan>,
    pub(super) replicas: ReplicaPlan,
    pub(super) model: ModelPlan,
}

/// One gateway node.
pub(super) struct NodePlan {
    pub(super) id: u16,
    pub(super) gateway_port: u16,
    pub(super) admin_port: u16,
    pub(super) peer_port: u16,
    /// `<data-dir>/node-<id>`.
    pub(super) dir: PathBuf,
}

/// What answers calls.
pub(super) enum ReplicaPlan {
    /// Simulated, on these ports.
    Simulated(Vec<u16>),
    /// Running servers: base URLs without a trailing slash.
    Running(Vec<String>),
}

/// What is published.
pub(super) struct ModelPlan {
    /// What the replicas call it.
    pub(super) served: String,
    /// What it is called here: a DNS label.
    pub(super) name: String,
    /// Where its resources live.
    pub(super) namespace: &'static str,
}

/// What must stay the same as long as the data directory exists.
#[derive(Serialize, Deserialize, Default)]
struct Remembered {
    /// Where nodes reach each other: written into the log when the cluster was founded.
    peer_ports: Vec<u16>,
    /// Simulated replicas keep their ports, so that what is known of them stays true.
    replica_ports: Vec<u16>,
}

impl Plan {
    /// Errors: a port is taken, the data directory was made for another number of nodes, a URL is none.
    pub(super) async fn make(args: &Args, doors: &Doors) -> Result<Plan, Failure> {
        let running = running_replicas(&args.replica)?;
        let data_dir = std::path::absolute(&args.data_dir)
            .map_err(|error| Failure::usage(format!("--data-dir {}: {error}", args.data_dir.display())))?;
        super::super::serve::prepare(&data_dir)?;
        let model = ModelPlan::of(args.model.as_deref());
        check_ports(args, doors.net.as_ref()).await?;
        let file = data_dir.join("plan.json");
        let mut remembered = remembered(&file)?;
        let known = remembered.peer_ports.len();
        if known != 0 && known != usize::from(args.nodes) {
            return Err(Failure::usage(format!(
                "{} holds a cluster of {known}: start it with --nodes {known}, or choose another --data-dir",
                data_dir.display()
            )));
        }
        for _ in known..usize::from(args.nodes) {
            remembered.peer_ports.push(free_port(doors).await?);
        }
        let replicas = if running.is_empty() {
            ReplicaPlan::Simulated(remembered.replica_ports(usize::from(args.replicas), doors).await?)
        } else {
            ReplicaPlan::Running(running)
        };
        let text = serde_json::to_string(&remembered).map_err(|error| Failure::internal(error.to_string()))?;
        files::replace(&file, &text, false)
            .map_err(|error| Failure::unavailable(format!("cannot write {}: {error}", file.display())))?;
        let nodes = (1..).zip(&remembered.peer_ports).map(|(id, peer_port)| NodePlan {
            id,
            gateway_port: args.gateway_port + id - 1,
            admin_port: args.admin_port + id - 1,
            peer_port: *peer_port,
            dir: data_dir.join(format!("node-{id}")),
        });
        let nodes: Vec<NodePlan> = nodes.collect();
        for node in &nodes {
            super::super::serve::prepare(&node.dir)?;
        }
        Ok(Plan { nodes, data_dir, replicas, model })
    }

    /// Where this process logs.
    pub(super) fn log_file(&self) -> PathBuf {
        if self.in_process() { self.nodes[0].log_file() } else { self.data_dir.join("dev.log") }
    }

    /// Whether the node runs in this process.
    pub(super) fn in_process(&self) -> bool {
        self.nodes.len() == 1
    }

    /// Where certificates are.
    pub(super) fn tls_dir(&self) -> PathBuf {
        self.data_dir.join("tls")
    }

    /// Where the administrator's token is.
    pub(super) fn admin_token_file(&self) -> PathBuf {
        self.data_dir.join("admin.token")
    }

    /// `http://127.0.0.1:8080`: the first node's gateway.
    pub(super) fn maas_url(&self) -> String {
        self.nodes[0].gateway_url()
    }
}

impl NodePlan {
    pub(super) fn gateway_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.gateway_port)
    }

    pub(super) fn admin_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.admin_port)
    }

    pub(super) fn config_file(&self) -> PathBuf {
        self.dir.join("tollgate.toml")
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }
}

impl ModelPlan {
    /// The tutorial's model unless another is named.
    fn of(served: Option<&str>) -> ModelPlan {
        let served = served.unwrap_or("openai/gpt-oss-20b").to_owned();
        let name = dns_label(&served);
        let namespace = if name == "gpt-oss-20b" { "gpt-oss-model" } else { "models" };
        ModelPlan { served, name, namespace }
    }
}

impl Remembered {
    /// So many ports: the remembered ones as far as they are free.
    async fn replica_ports(&mut self, count: usize, doors: &Doors) -> Result<Vec<u16>, Failure> {
        for at in 0..count {
            let known = self.replica_ports.get(at).copied();
            match known {
                Some(port) if is_free(doors.net.as_ref(), port).await => {}
                Some(_) => self.replica_ports[at] = free_port(doors).await?,
                None => self.replica_ports.push(free_port(doors).await?),
            }
        }
        Ok(self.replica_ports[..count].to_vec())
    }
}

fn remembered(file: &Path) -> Result<Remembered, Failure> {
    match std::fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| {
            Failure::usage(format!("{} is damaged ({error}): choose another --data-dir", file.display()))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Remembered::default()),
        Err(error) => Err(Failure::unavailable(format!("cannot read {}: {error}", file.display()))),
    }
}

/// The part after the last `/`, in lower case, with `-` for everything a DNS label does not have: `gpt-oss-20b`.
fn dns_label(served: &str) -> String {
    let last = served.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let words: Vec<&str> = last.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let label: String = words.join("-").chars().take(63).collect();
    let label = label.trim_end_matches('-');
    if label.is_empty() { "model".to_owned() } else { label.to_owned() }
}

/// The base URLs of `--replica`. Errors: one is no server's URL, or is there twice.
fn running_replicas(written: &[String]) -> Result<Vec<String>, Failure> {
    let mut urls = Vec::new();
    for url in written {
        let base = base_url(url)?;
        if urls.contains(&base) {
            return Err(Failure::usage(format!("--replica {url} is given twice: leave one out")));
        }
        urls.push(base);
    }
    Ok(urls)
}

/// `http://host:port` without a trailing `/` or `/v1`, which calls bring themselves.
fn base_url(url: &str) -> Result<String, Failure> {
    if url.contains('@') {
        // It may hold a password, which is not repeated.
        return Err(Failure::usage("a --replica has credentials in its URL: write http://host:port"));
    }
    let base = url.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches('/');
    let host = base.strip_prefix("http://").or_else(|| base.strip_prefix("https://"));
    match host.and_then(|host| host.parse::<Authority>().ok()) {
        Some(authority) if is_host_and_port(&authority) => Ok(base.to_owned()),
        _ => Err(Failure::usage(format!("--replica {url} is not a server's URL: write http://host:port"))),
    }
}

/// Whether it has a host, and a port from 1 to 65535 or none.
fn is_host_and_port(authority: &Authority) -> bool {
    let host = authority.host();
    match authority.as_str().strip_prefix(host) {
        Some("") => !host.is_empty(),
        Some(port) => {
            !host.is_empty() && port.get(1..).is_some_and(|port| port.parse().is_ok_and(|port: u16| port > 0))
        }
        None => false,
    }
}

/// Says which port is taken and how to choose another, before anything runs.
async fn check_ports(args: &Args, net: &dyn Net) -> Result<(), Failure> {
    for (flag, first) in [("--gateway-port", args.gateway_port), ("--admin-port", args.admin_port)] {
        for offset in 0..args.nodes {
            let Some(port) = first.checked_add(offset).filter(|port| *port > 0) else {
                return Err(Failure::usage(format!("{flag} {first}: {} ports from there do not exist", args.nodes)));
            };
            if !is_free(net, port).await {
                return Err(Failure::unavailable(format!("port {port} is taken: choose another with {flag}")));
            }
        }
    }
    Ok(())
}

async fn is_free(net: &dyn Net, port: u16) -> bool {
    net.listen(&format!("127.0.0.1:{port}")).await.is_ok()
}

/// A port below those that the system gives to outgoing connections, so that it is still free after a restart.
async fn free_port(doors: &Doors) -> Result<u16, Failure> {
    for _ in 0..100 {
        let port = 20_000 + u16::try_from(doors.chance.below(12_000)).unwrap_or_default();
        if is_free(doors.net.as_ref(), port).await {
            return Ok(port);
        }
    }
    Err(Failure::unavailable("no free port between 20000 and 32000 was found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_served_name_becomes_a_dns_label() {
        for (served, label) in [
            ("openai/gpt-oss-20b", "gpt-oss-20b"),
            ("Qwen/Qwen3-8B", "qwen3-8b"),
            ("Llama_3.1 70B!", "llama-3-1-70b"),
            ("/models/", "models"),
            ("…", "model"),
        ] {
            assert_eq!(dns_label(served), label, "{served}");
        }
    }

    #[test]
    fn a_replica_is_named_by_its_base_url() {
        for (url, base) in [
            ("http://127.0.0.1:8000", Some("http://127.0.0.1:8000")),
            ("http://127.0.0.1:8000/v1/", Some("http://127.0.0.1:8000")),
            ("https://vllm.example/", Some("https://vllm.example")),
            ("127.0.0.1:8000", None),
            ("http://", None),
            ("http://host/some/path", None),
            ("http://[::1]:8000", Some("http://[::1]:8000")),
            ("http://:8000", None),
            ("http://host:", None),
            ("http://host:0", None),
            ("http://host:65536", None),
            ("http://host:http", None),
            ("http://two words", None),
            ("http://host?query", None),
            ("http://user:password@host", None),
            ("ftp://host", None),
        ] {
            assert_eq!(base_url(url).ok().as_deref(), base, "{url}");
        }
    }
}
