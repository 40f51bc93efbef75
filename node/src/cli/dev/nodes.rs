//! The gateway nodes: one in this process, or several as processes of their own.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use raft::doors::Doors;
use tokio::task::JoinHandle;

use super::super::exit::Failure;
use super::super::serve::{PidFile, open_disk};
use super::children::Children;
use super::environment;
use super::plan::{NodePlan, Plan, ReplicaPlan};
use crate::config::Config;
use crate::files;
use crate::node::{Failed, Node};

/// The running nodes.
pub(super) enum Nodes {
    /// In this process.
    Here {
        /// Ends when told to, or when the node fails.
        task: JoinHandle<Result<(), Failed>>,
        /// Tells it.
        stop: tokio::sync::oneshot::Sender<()>,
        /// Names this process.
        pid: PidFile,
    },
    /// Processes.
    Children(Children),
}

impl Nodes {
    pub(super) async fn start(plan: &Plan, doors: &Doors) -> Result<Nodes, Failure> {
        for node in &plan.nodes {
            let file = node.config_file();
            files::replace(&file, &configuration(plan, node), false)
                .map_err(|error| Failure::unavailable(format!("cannot write {}: {error}", file.display())))?;
        }
        if !plan.in_process() {
            return Ok(Nodes::Children(Children::start(plan)?));
        }
        let only = &plan.nodes[0];
        let config = Config::read(&only.config_file(), &BTreeMap::new())?;
        let node = Node::start(&config, doors.clone(), open_disk(&config)?).await?;
        let pid = PidFile::write(&only.dir)?;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(node.run(async {
            let _ = stopped.await;
        }));
        Ok(Nodes::Here { task, stop, pid })
    }

    /// Runs until `stop`. A node that runs here and fails ends it; children that end are reported, and may be restarted.
    pub(super) async fn watch(&mut self, stop: JoinHandle<()>, plan: &Plan) -> Result<(), Failure> {
        match self {
            Nodes::Here { task, .. } => tokio::select! {
                biased;
                _ = stop => Ok(()),
                ended = task => match ended {
                    Ok(outcome) => Ok(outcome?),
                    Err(panic) => Err(Failure::internal(format!("the node ended: {panic}"))),
                },
            },
            Nodes::Children(children) => {
                children.watch(stop, |pids| environment::refresh_pids(plan, pids)).await;
                Ok(())
            }
        }
    }

    /// Drains and stops them all.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        match self {
            Nodes::Here { task, stop, pid } => {
                let outcome = if stop.send(()).is_ok() { task.await } else { Ok(Ok(())) };
                drop(pid);
                match outcome {
                    Ok(outcome) => Ok(outcome?),
                    Err(panic) => Err(Failure::internal(format!("the node ended: {panic}"))),
                }
            }
            Nodes::Children(children) => {
                children.stop().await;
                Ok(())
            }
        }
    }

    /// The process of each node, in order.
    pub(super) fn pids(&self) -> Vec<u32> {
        match self {
            Nodes::Here { .. } => vec![std::process::id()],
            Nodes::Children(children) => children.pids(),
        }
    }

    /// Why waiting for them is in vain, if it is.
    pub(super) fn gone(&self) -> Option<String> {
        match self {
            Nodes::Here { task, .. } => task.is_finished().then(|| "the node ended while it started".to_owned()),
            Nodes::Children(children) => children.gone(),
        }
    }
}

/// A node's configuration file, as a person would write it.
fn configuration(plan: &Plan, node: &NodePlan) -> String {
    let (tls, dir) = (plan.tls_dir(), &node.dir);
    let mut text = format!(
        "# Written by `tollgate dev` at every start.\n\
         [node]\nid = {id}\ndata_dir = {dir:?}\ndrain_timeout = \"10s\"\n\n\
         [peers]\nlisten = \"127.0.0.1:{peer_port}\"\nca = {ca:?}\ncertificate = {peer:?}\nkey = {peer_key:?}\n\n\
         [gateway]\nlisten = \"127.0.0.1:{gateway_port}\"\n\n\
         [admin]\nlisten = \"127.0.0.1:{admin_port}\"\ncertificate = {server:?}\nkey = {server_key:?}\n\
         bootstrap_token_file = {token:?}\n\n\
         {upstream}[log]\nformat = \"text\"\nfile = {log:?}\n\n\
         [cluster]\nname = \"dev\"\n\n[cluster.members]\n",
        id = node.id,
        upstream = upstream(plan),
        peer_port = node.peer_port,
        ca = tls.join("ca.crt"),
        peer = tls.join("peer.crt"),
        peer_key = tls.join("peer.key"),
        gateway_port = node.gateway_port,
        admin_port = node.admin_port,
        server = tls.join("server.crt"),
        server_key = tls.join("server.key"),
        token = plan.admin_token_file(),
        log = node.log_file(),
    );
    for member in &plan.nodes {
        let _ = writeln!(text, "{} = \"127.0.0.1:{}\"", member.id, member.peer_port);
    }
    text
}

/// Replicas may be on this machine. If one is reached by HTTPS, the system's authorities are trusted.
fn upstream(plan: &Plan) -> String {
    const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";
    let ca = match &plan.replicas {
        ReplicaPlan::Running(urls) if urls.iter().any(|url| url.starts_with("https://")) => {
            format!("ca = {SYSTEM_CA:?}\n")
        }
        ReplicaPlan::Running(_) | ReplicaPlan::Simulated(_) => String::new(),
    };
    format!("[upstream]\nallow_loopback = true\n{ca}\n")
}
