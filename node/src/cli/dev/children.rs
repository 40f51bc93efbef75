//! Nodes as processes of their own, so that one can be killed and brought back by hand.
//!
//! A node is known by its pid file, whoever started it: so one that was brought back by hand is stopped with the others.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::task::{JoinHandle, JoinSet};

use super::super::exit::Failure;
use super::plan::{NodePlan, Plan};

/// How often pid files are looked at.
const LOOK: Duration = Duration::from_millis(300);
/// Longer than a node drains.
const STOP_MAX: Duration = Duration::from_secs(15);

/// The node processes.
pub(super) struct Children {
    nodes: Vec<Known>,
    ends: JoinSet<(u16, std::io::Result<ExitStatus>)>,
}

struct Known {
    id: u16,
    dir: PathBuf,
    config: PathBuf,
    /// The last process that was seen to be this node.
    pid: u32,
}

impl Children {
    pub(super) fn start(plan: &Plan) -> Result<Children, Failure> {
        let mut children = Children { nodes: Vec::new(), ends: JoinSet::new() };
        for node in &plan.nodes {
            let mut child =
                spawn(node).map_err(|error| Failure::unavailable(format!("cannot start node {}: {error}", node.id)))?;
            let (id, pid) = (node.id, child.id().unwrap_or_default());
            children.nodes.push(Known { id, dir: node.dir.clone(), config: node.config_file(), pid });
            children.ends.spawn(async move { (id, child.wait().await) });
        }
        Ok(children)
    }

    /// The process of each node, in order.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.pid).collect()
    }

    /// Whether one ended while starting.
    pub(super) fn gone(&self) -> Option<String> {
        let ended = self.nodes.iter().find(|node| !is_node(node.pid, &node.config))?;
        let log = ended.dir.join("log");
        Some(format!("node {} ended while it started: {} says why", ended.id, log.display()))
    }

    /// Until `stop`: reports nodes that end, and tells `changed` when another process is a node now.
    pub(super) async fn watch(&mut self, mut stop: JoinHandle<()>, changed: impl Fn(&[u32])) {
        loop {
            tokio::select! {
                biased;
                _ = &mut stop => return,
                Some(ended) = self.ends.join_next() => {
                    if let Ok((id, status)) = ended {
                        self.report(id, status);
                    }
                }
                () = tokio::time::sleep(LOOK) => {
                    if self.look() {
                        changed(&self.pids());
                    }
                }
            }
        }
    }

    fn report(&self, id: u16, status: std::io::Result<ExitStatus>) {
        let Some(node) = self.nodes.iter().find(|node| node.id == id) else { return };
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        println!(
            "\nNode {id} ended ({how}). The other nodes go on. Bring it back with:\n  {}",
            restart_command(&node.config)
        );
    }

    /// Whether another process is a node now.
    fn look(&mut self) -> bool {
        let mut changed = false;
        for node in &mut self.nodes {
            let Some(pid) = read_pid(&node.dir).filter(|pid| *pid != node.pid && is_node(*pid, &node.config)) else {
                continue;
            };
            println!("\nNode {} is back (process {pid}).", node.id);
            node.pid = pid;
            changed = true;
        }
        changed
    }

    /// Asks every node to drain, and waits until all have ended. One that does not end in time is killed if it is ours.
    pub(super) async fn stop(mut self) {
        self.look();
        for node in self.nodes.iter().filter(|node| is_node(node.pid, &node.config)) {
            // The standard library only knows how to kill; asking takes the shell's built-in `kill`.
            let asked = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", node.pid)).status().await;
            if let Err(error) = asked {
                eprintln!("tollgate: cannot signal node {}: {error}", node.id);
            }
        }
        let ended = async {
            while self.nodes.iter().any(|node| is_node(node.pid, &node.config)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(STOP_MAX, ended).await.is_err() {
            eprintln!("tollgate: some nodes did not drain in time");
        }
    }
}

/// How a person brings a node back.
fn restart_command(config: &Path) -> String {
    let program = std::env::current_exe().map_or_else(|_| "tollgate".to_owned(), |path| path.display().to_string());
    format!("{} serve --config {}", quoted(&program), quoted(&config.display().to_string()))
}

fn quoted(word: &str) -> String {
    if word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)) {
        word.to_owned()
    } else {
        format!("'{word}'")
    }
}

fn spawn(node: &NodePlan) -> std::io::Result<Child> {
    // What a child says before its log is open, and a panic, go to the same file.
    let log = OpenOptions::new().create(true).append(true).open(node.log_file())?;
    Command::new(std::env::current_exe()?)
        .args(["serve", "--stop-with-parent", "--config"])
        .arg(node.config_file())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // Ctrl-C is for this process, which then asks the nodes to drain.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

fn read_pid(dir: &Path) -> Option<u32> {
    std::fs::read_to_string(dir.join("pid")).ok()?.trim().parse().ok()
}

/// Whether the process exists and serves this configuration: a pid may have been given to somebody else.
fn is_node(pid: u32, config: &Path) -> bool {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if command.is_empty() {
        // One that has just been started has no command line yet. One that has ended has no program either.
        return std::fs::read_link(format!("/proc/{pid}/exe")).is_ok();
    }
    let config = config.as_os_str().as_encoded_bytes();
    command.split(|byte| *byte == 0).any(|word| word == config)
}
