//! `tollgate serve`: one node, as in production.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use raft::doors::Doors;
use raft::storage::SledDisk;

use super::exit::Failure;
use super::process;
use super::signals::Signals;
use crate::config::{self, Config};
use crate::files;
use crate::node::Node;
use crate::observability::logging;

/// How soon a node that shall end with its parent notices.
const PARENT_INTERVAL: Duration = Duration::from_millis(500);

/// Run one node, as in production
///
/// Reads a TOML file in which every key is optional (deploy/tollgate.example.toml explains them all) and runs one node
/// until SIGINT or SIGTERM. Then it stops accepting, lets calls in progress finish (node.drain_timeout), gives its
/// tokens back to the cluster, and hands over leadership. A second signal ends it at once.
///
/// Any key can be set by a variable: TOLLGATE_GATEWAY_LISTEN stands for gateway.listen.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tollgate serve --config /etc/tollgate/tollgate.toml
  tollgate serve --config tollgate.toml --check      only say what is wrong with the file")]
pub(super) struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Read the configuration, say what is wrong with it, and end
    #[arg(long)]
    check: bool,
    /// Stop when the process that started this one ends
    #[arg(long, hide = true)]
    stop_with_parent: bool,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let config = Config::read(&args.config, &config::environment())?;
    if args.check {
        println!("{}: fine", args.config.display());
        return Ok(());
    }
    process::prepare(config.node.core_dumps)?;
    prepare(&config.node.data_dir)?;
    logging::start(&config.log).map_err(Failure::usage)?;
    let signals = Signals::catch().map_err(|error| Failure::internal(format!("cannot catch signals: {error}")))?;
    let disk = open_disk(&config)?;
    let node = Node::start(&config, Doors::real(), disk).await?;
    let pid = PidFile::write(&config.node.data_dir)?;
    let outcome = node
        .run(async {
            tokio::select! {
                biased;
                () = signals.stop() => {}
                () = parent_ended(), if args.stop_with_parent => {}
            }
        })
        .await;
    drop(pid);
    Ok(outcome?)
}

/// Makes the data directory.
pub(super) fn prepare(data_dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(data_dir).map_err(|error| {
        Failure::unavailable(format!("cannot make the data directory {}: {error}", data_dir.display()))
    })
}

/// Opens this node's disk, which nobody else may have open.
pub(super) fn open_disk(config: &Config) -> Result<Arc<SledDisk>, Failure> {
    let directory = config.node.data_dir.join("raft");
    let disk = SledDisk::open(&directory)
        .map_err(|error| Failure::unavailable(format!("cannot open the disk {}: {error}", directory.display())))?;
    Ok(Arc::new(disk))
}

async fn parent_ended() {
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        tokio::time::sleep(PARENT_INTERVAL).await;
    }
}

/// `<data_dir>/pid`, so that somebody who restarted a node by hand, and `tollgate dev`, know whom to signal.
pub(super) struct PidFile(PathBuf);

impl PidFile {
    pub(super) fn write(data_dir: &Path) -> Result<PidFile, Failure> {
        let path = data_dir.join("pid");
        files::replace(&path, &format!("{}\n", std::process::id()), false)
            .map_err(|error| Failure::unavailable(format!("cannot write {}: {error}", path.display())))?;
        Ok(PidFile(path))
    }
}

impl Drop for PidFile {
    /// A file that stays behind only names a process that is gone.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
