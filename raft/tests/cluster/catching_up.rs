//! A follower that was away for long gets a snapshot instead of the log.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{Nodes, eventually};

#[test]
fn a_follower_that_is_far_behind_is_caught_up_by_a_snapshot() {
    let mut nodes = Nodes::started(3);
    nodes.node(1).put_all(0..10);
    let away = nodes.follower();
    nodes.kill(away);
    let leader = nodes.leader();
    let began = Instant::now();
    nodes.node(leader).put_all(10..7000);
    println!("6,990 changes on two nodes in {:?}", began.elapsed());
    nodes.start(away);
    let began = Instant::now();
    eventually("it has all", Duration::from_secs(10), || (0..7000).all(|number| nodes.node(away).has(number)));
    println!("caught up in {:?}", began.elapsed());
    let snapshots = std::fs::read_dir(nodes.path(away).join("snapshots")).unwrap().count();
    assert!(snapshots >= 1, "it was a snapshot that brought them");

    // And what it got that way is on its own disk.
    nodes.kill(away);
    nodes.start(away);
    let node = nodes.node(away);
    node.run(node.cluster.read_barrier()).unwrap();
    assert!((0..7000).all(|number| node.has(number)));
}
