//! Proves that acknowledged means durable, for the whole path from a proposal to the disk, snapshots and purges included:
//!
//! ```text
//! durability write DIRECTORY ACKNOWLEDGED   proposes until killed; notes each acknowledged number in a file
//! durability check DIRECTORY ACKNOWLEDGED   opens the directory; fails unless every noted number is there
//! ```
//!
//! Cut the power in between (a file system that is shut down without its unwritten pages does), with the file of
//! acknowledgements elsewhere.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use raft::cluster::Settings;
use raft::command::{Command, NewKey};
use raft::doors::Doors;
use raft::storage::SledDisk;
use raft::{Cluster, NodeId, Timestamp};
use uuid::Uuid;

/// Proposals under way at once.
const WRITERS: u64 = 64;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "write", directory, acknowledged] => write(Path::new(directory), Path::new(acknowledged)).await,
        [_, "check", directory, acknowledged] => check(Path::new(directory), Path::new(acknowledged)).await,
        _ => Err("usage: durability write|check DIRECTORY ACKNOWLEDGED".into()),
    };
    match result {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn start(directory: &Path) -> Result<Cluster, Failure> {
    let node = NodeId(1);
    let settings = Settings {
        node,
        cluster: "durability".to_owned(),
        peer_listen: "127.0.0.1:0".to_owned(),
        members: [(node, "127.0.0.1:0".to_owned())].into(),
        tls: None,
        serving_lease: Duration::from_secs(5),
        snapshot_every: raft::cluster::SNAPSHOT_EVERY,
    };
    Ok(Cluster::start(settings, Arc::new(SledDisk::open(directory)?), Doors::real()).await?)
}

fn hash(number: u64) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    hash
}

/// An API key with a description of any length up to 20,000 bytes, mostly short: entries of many sizes.
fn key(number: u64) -> Command {
    let length = if number.is_multiple_of(16) { number * 7919 % 20_000 } else { number % 64 };
    Command::CreateKey(NewKey {
        id: Uuid::from_u128(u128::from(number)),
        hash: hash(number),
        name: format!("key-{number}"),
        description: "x".repeat(usize::try_from(length).unwrap_or_default()),
        username: format!("user-{}", number % 1000),
        groups: Vec::new(),
        subscription: "default".to_owned(),
        expires: Timestamp(u64::MAX),
        ephemeral: false,
        labels: Vec::new(),
    })
}

async fn write(directory: &Path, acknowledged: &Path) -> Result<String, Failure> {
    let cluster = start(directory).await?;
    let noted = Arc::new(OpenOptions::new().append(true).create(true).open(acknowledged)?);
    let next = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> =
        (0..WRITERS).map(|_| tokio::spawn(write_on(cluster.clone(), Arc::clone(&noted), Arc::clone(&next)))).collect();
    for writer in writers {
        writer.await??;
    }
    Ok("stopped".to_owned())
}

async fn write_on(cluster: Cluster, noted: Arc<File>, next: Arc<AtomicU64>) -> Result<(), Failure> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        cluster.propose(key(number)).await?;
        (&*noted).write_all(format!("{number}\n").as_bytes())?;
    }
}

async fn check(directory: &Path, acknowledged: &Path) -> Result<String, Failure> {
    let cluster = start(directory).await?;
    let view = cluster.read_barrier().await?;
    let mut count = 0;
    for line in BufReader::new(File::open(acknowledged)?).lines() {
        // A last line that was cut off was not acknowledged.
        let Ok(number) = line?.parse() else { continue };
        if !view.keys_by_hash.contains_key(&hash(number)) {
            return Err(format!("{number} was acknowledged and is gone").into());
        }
        count += 1;
    }
    Ok(format!("all {count} acknowledged changes are there, log at {}", view.applied))
}
