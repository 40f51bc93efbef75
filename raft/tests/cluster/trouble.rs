//! Wrong neighbours, wrong disks, damaged disks: refused, with a reason a person can act on.

use std::time::Duration;

use raft::NodeId;
use raft::cluster::StartError;
use raft::storage::records::{Identity, Vote};
use raft::storage::{Disk, Key, SledDisk, Write};

use crate::support::{self, Nodes, eventually};

/// Changes the disk of a node that is not running.
fn on_disk(nodes: &Nodes, node: u64, change: impl AsyncFnOnce(&SledDisk)) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let disk = SledDisk::open(nodes.path(node)).unwrap();
    runtime.block_on(async {
        change(&disk).await;
        disk.sync().await.unwrap();
    });
}

fn refusal(nodes: &mut Nodes, node: u64) -> String {
    match nodes.try_start(node) {
        Err(StartError::Storage(error)) => error.to_string(),
        Err(other) => panic!("refused, but not for the disk: {other}"),
        Ok(()) => panic!("it started"),
    }
}

#[test]
fn a_log_record_with_one_wrong_bit_stops_the_start() {
    let mut nodes = Nodes::started(1);
    for number in 0..20 {
        nodes.node(1).put(number).unwrap();
    }
    nodes.stop(1);
    on_disk(&nodes, 1, async |disk| {
        let (index, record) = disk.read(10, 11).await.unwrap().remove(0);
        let mut record = record.to_vec();
        *record.last_mut().unwrap() ^= 1;
        disk.write(vec![Write::Append { index, record: record.into() }]).await.unwrap();
    });
    let message = refusal(&mut nodes, 1);
    assert!(message.starts_with("log entry 10 is damaged: checksum mismatch"), "{message}");
}

#[test]
fn a_missing_log_record_stops_the_start() {
    let mut nodes = Nodes::started(1);
    for number in 0..20 {
        nodes.node(1).put(number).unwrap();
    }
    nodes.stop(1);
    on_disk(&nodes, 1, async |disk| {
        let after: Vec<_> = disk.read(11, 100).await.unwrap();
        let after = after.into_iter().map(|(index, record)| Write::Append { index, record });
        disk.write([Write::Truncate { from: 10 }].into_iter().chain(after).collect()).await.unwrap();
    });
    let message = refusal(&mut nodes, 1);
    assert!(message.starts_with("log entry 10 is missing"), "{message}");
}

#[test]
fn a_damaged_vote_stops_the_start() {
    let mut nodes = Nodes::started(1);
    nodes.stop(1);
    on_disk(&nodes, 1, async |disk| {
        let mut record = Vote { term: 1, node: 1, committed: true }.to_bytes();
        record[16] = 9;
        disk.write(vec![Write::Put { key: Key::Vote, record: record.into() }]).await.unwrap();
    });
    let message = refusal(&mut nodes, 1);
    assert!(message.starts_with("the disk's `vote` is damaged: checksum mismatch"), "{message}");
}

#[test]
fn the_disk_of_another_node_another_cluster_or_another_format_is_refused() {
    let mut nodes = Nodes::started(1);
    nodes.stop(1);
    nodes.name = "production".into();
    let message = refusal(&mut nodes, 1);
    assert_eq!(message, "the disk belongs to node 1 of cluster `test`, this is node 1 of cluster `production`");
    nodes.name = "test".into();
    on_disk(&nodes, 1, async |disk| {
        let record = Identity { format: 1, cluster: "test".into(), node: 1, disk: 1 }.to_bytes();
        disk.write(vec![Write::Put { key: Key::Identity, record: record.into() }]).await.unwrap();
    });
    assert_eq!(refusal(&mut nodes, 1), "the disk has format 1, this version reads format 4");
}

#[test]
fn two_processes_cannot_have_one_directory_and_the_second_is_told_who_has_it() {
    let nodes = Nodes::started(1);
    let refused = SledDisk::open(nodes.path(1)).err().expect("it is in use").to_string();
    let holder = format!("is in use by process {}", std::process::id());
    assert!(refused.contains(&holder), "{refused}");
}

#[test]
fn a_node_of_another_cluster_is_not_let_in() {
    let nodes = Nodes::started(1);
    let before = nodes.node(1).cluster.standing();
    // Another cluster by name, whose members list names our node by mistake.
    let mut strangers = Nodes::new(2);
    strangers.name = "other".into();
    strangers.members.insert(NodeId(1), nodes.members[&NodeId(1)].clone());
    let mut settings = strangers.settings(2);
    settings.tls = nodes.settings(1).tls;
    let stranger = support::start(settings, &strangers.path(2)).unwrap();
    let alone = stranger
        .run(async { tokio::time::timeout(Duration::from_secs(2), stranger.cluster.propose(support::key(1))).await });
    assert!(alone.is_err(), "it finds no quorum");
    assert!(!stranger.cluster.may_serve());
    let after = nodes.node(1).cluster.standing();
    assert_eq!((before.term, before.members), (after.term, after.members), "and our node took no notice");
}

#[test]
fn a_node_without_the_clusters_certificate_is_not_let_in() {
    let nodes = Nodes::started(1);
    let mut strangers = Nodes::new(2); // its own CA
    strangers.members.insert(NodeId(1), nodes.members[&NodeId(1)].clone());
    let stranger = support::start(strangers.settings(2), &strangers.path(2)).unwrap();
    let alone = stranger
        .run(async { tokio::time::timeout(Duration::from_secs(2), stranger.cluster.propose(support::key(1))).await });
    assert!(alone.is_err(), "it finds no quorum");
    assert_eq!(nodes.node(1).cluster.standing().members.len(), 1);
}

#[test]
fn a_damaged_newest_snapshot_is_named_when_nothing_replaces_it() {
    let mut nodes = Nodes::started(1);
    nodes.node(1).put_all(0..6100);
    let snapshots = nodes.path(1).join("snapshots");
    let newest = || std::fs::read_dir(&snapshots).unwrap().map(|file| file.unwrap().path()).max();
    eventually("a snapshot", Duration::from_secs(5), || {
        newest().is_some_and(|path| path.extension().is_some_and(|e| e == "snapshot"))
    });
    nodes.stop(1);
    // A power cut may bring back what was removed.
    for number in 1..4 {
        std::fs::copy(newest().unwrap(), snapshots.join(format!("{number:020}.snapshot"))).unwrap();
    }
    // First the snapshot alone is what the node starts from.
    nodes.start(1);
    assert_eq!(std::fs::read_dir(&snapshots).unwrap().count(), 2, "the newest and the one before");
    let node = nodes.node(1);
    node.run(node.cluster.read_barrier()).unwrap();
    assert!((0..6100).all(|number| node.has(number)));
    nodes.stop(1);
    for file in std::fs::read_dir(&snapshots).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        std::fs::write(&path, bytes).unwrap();
    }
    let message = refusal(&mut nodes, 1);
    assert!(message.contains("is damaged: checksum mismatch") && message.contains("under a new number"), "{message}");
}
