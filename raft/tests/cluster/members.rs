//! Who is in the cluster changes: a lost disk, and the node that takes its place.

use std::time::Duration;

use raft::NodeId;

use crate::support::{self, Nodes, eventually};

#[test]
fn a_node_that_lost_its_disk_is_not_let_back_in_but_one_with_a_new_number_takes_its_place() {
    let mut nodes = Nodes::started(3);
    nodes.node(1).put_all(0..300);
    let lost = nodes.follower();
    let leader = nodes.leader();
    // Every node has greeted every other by now, so that the disk is known.
    nodes.node(leader).idle(Duration::from_millis(2500));

    // It loses its disk and comes back as if nothing had happened.
    nodes.kill(lost);
    std::fs::remove_dir_all(nodes.path(lost)).unwrap();
    nodes.start(lost);
    nodes.node(leader).put_all(300..310);
    nodes.node(lost).idle(Duration::from_secs(2));
    assert!(!nodes.node(lost).has(0), "nobody talks to it");
    assert!(!nodes.node(lost).cluster.may_serve());
    assert_eq!(nodes.leader_seen_by(leader), leader, "and it disturbs nobody");
    nodes.kill(lost);

    // So it is removed, and comes back under a new number.
    let at = nodes.node(leader);
    at.run(at.cluster.remove_member(NodeId(lost))).unwrap();
    let follower = nodes.follower();
    let newcomer = 4;
    let address = nodes.add_address(newcomer);
    nodes.start(newcomer);
    let at = nodes.node(follower);
    at.run(at.cluster.add_member(NodeId(newcomer), address)).unwrap();
    eventually("the newcomer has all", Duration::from_secs(5), || {
        (0..310).all(|number| nodes.node(newcomer).has(number))
    });
    let members: Vec<u64> = nodes.node(newcomer).cluster.standing().members.keys().map(|node| node.0).collect();
    assert!(!members.contains(&lost) && members.contains(&newcomer) && members.len() == 3, "{members:?}");

    // It counts: with one of the two old nodes gone there is still a quorum.
    nodes.kill(leader);
    nodes.node(newcomer).put(310).unwrap();
    assert!(support::is_done(&nodes.node(newcomer).put(311).unwrap()));
}
