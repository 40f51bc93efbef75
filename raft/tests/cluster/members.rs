//! Who is in the cluster changes: a lost disk, and the node that takes its place.

use std::time::Duration;

use raft::cluster::MemberError;
use raft::{NodeId, ProposeError};
use tokio::time::Instant;

use crate::support::{self, Nodes, eventually};

fn remove(nodes: &Nodes, at: u64, node: u64) -> Result<(), MemberError> {
    let at = nodes.node(at);
    at.run(at.cluster.remove_member(NodeId(node)))
}

fn add(nodes: &Nodes, at: u64, node: u64, address: &str) -> Result<(), MemberError> {
    let at = nodes.node(at);
    at.run(at.cluster.add_member(NodeId(node), address.to_owned()))
}

/// The members and those with a vote, as `at` sees it when it has heard everything.
fn members(nodes: &Nodes, at: u64) -> (Vec<u64>, Vec<u64>) {
    let at = nodes.node(at);
    at.run(at.cluster.read_barrier()).unwrap();
    let membership = at.cluster.membership();
    (membership.addresses.keys().map(|node| node.0).collect(), membership.voters.iter().map(|node| node.0).collect())
}

fn retired(nodes: &Nodes, at: u64) -> Vec<u64> {
    nodes.node(at).cluster.view().retired.iter().map(|node| node.0).collect()
}

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

    // So it is taken out. It may have been up to the end of its lease, for which the answer waits.
    let began = Instant::now();
    remove(&nodes, leader, lost).unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(retired(&nodes, leader), [lost]);
    remove(&nodes, leader, lost).expect("it is out already");

    // Its number is used up, and nobody else's may be given away.
    let follower = nodes.follower();
    let newcomer = 4;
    let address = nodes.add_address(newcomer);
    assert_eq!(add(&nodes, follower, lost, &address), Err(MemberError::Retired(NodeId(lost))));
    let of_leader = nodes.members[&NodeId(leader)].clone();
    let is_member = MemberError::IsMember { node: NodeId(leader), address: of_leader.clone() };
    assert_eq!(add(&nodes, follower, leader, &address), Err(is_member));
    let taken = MemberError::AddressTaken { address: of_leader.clone(), node: NodeId(leader) };
    assert_eq!(add(&nodes, follower, newcomer, &of_leader), Err(taken));
    assert!(matches!(add(&nodes, follower, newcomer, &address), Err(MemberError::NoAnswer { .. })), "it does not run");
    assert_eq!(remove(&nodes, follower, 9), Err(MemberError::NotAMember(NodeId(9))));
    assert_eq!(members(&nodes, follower).0.len(), 2);

    // It comes back under a new number, and admits nobody before it has a vote.
    nodes.start(newcomer);
    nodes.node(newcomer).idle(Duration::from_millis(300));
    assert!(!nodes.node(newcomer).cluster.may_serve());
    assert_eq!(nodes.node(newcomer).cluster.standing().leader, None);
    add(&nodes, follower, newcomer, &address).unwrap();
    add(&nodes, follower, newcomer, &address).expect("it is a member already");
    eventually("the newcomer has all", Duration::from_secs(5), || {
        (0..310).all(|number| nodes.node(newcomer).has(number))
    });
    let mut expected = vec![leader, follower, newcomer];
    expected.sort_unstable();
    assert_eq!(members(&nodes, newcomer), (expected.clone(), expected));
    eventually("the newcomer serves", Duration::from_secs(2), || nodes.node(newcomer).cluster.may_serve());

    // It counts: with one of the two old nodes gone there is still a quorum.
    nodes.kill(leader);
    nodes.node(newcomer).put(310).unwrap();
    assert!(support::is_done(&nodes.node(newcomer).put(311).unwrap()));
    assert_eq!(retired(&nodes, newcomer), [lost]);
}

#[test]
fn a_node_that_is_taken_out_while_it_runs_admits_nobody_when_that_is_answered_and_disturbs_nobody() {
    let nodes = Nodes::started(3);
    let leader = nodes.leader();
    let (goes, stays) = (nodes.follower(), 6 - leader - nodes.follower());
    eventually("all serve", Duration::from_secs(3), || (1..=3).all(|node| nodes.node(node).cluster.may_serve()));
    let began = Instant::now();
    remove(&nodes, stays, goes).unwrap();
    let out = &nodes.node(goes).cluster;
    assert!(!out.may_serve() && out.is_retired());
    assert!(began.elapsed() < Duration::from_secs(1), "it knows, so nobody waits for its lease: {:?}", began.elapsed());
    assert_eq!(nodes.node(goes).put(1), Err(ProposeError::Retired));
    assert_eq!(nodes.node(goes).run(out.read_barrier()).err(), Some(ProposeError::Retired));
    remove(&nodes, goes, goes).expect("it can be told itself, too, that it is out");

    let before = nodes.node(leader).cluster.standing();
    nodes.node(leader).idle(Duration::from_secs(3));
    nodes.node(stays).put(2).unwrap();
    let after = nodes.node(leader).cluster.standing();
    assert_eq!((after.leader, after.term), (before.leader, before.term), "it stands for no election");
    assert!(!nodes.node(goes).cluster.may_serve() && !nodes.node(goes).has(2));
}

#[test]
fn a_node_that_was_taken_out_while_it_was_away_is_told_when_it_comes_back() {
    let mut nodes = Nodes::started(3);
    let (away, leader) = (nodes.follower(), nodes.leader());
    nodes.node(leader).idle(Duration::from_millis(2500));
    nodes.kill(away);
    remove(&nodes, leader, away).unwrap();
    let before = nodes.node(leader).cluster.standing();

    nodes.start(away);
    eventually("it is told", Duration::from_secs(5), || nodes.node(away).cluster.is_retired());
    assert!(!nodes.node(away).cluster.may_serve());
    assert_eq!(nodes.node(away).put(1), Err(ProposeError::Retired));
    let after = nodes.node(leader).cluster.standing();
    assert_eq!((after.leader, after.term), (before.leader, before.term), "it stands for no election");
}

#[test]
fn the_leader_is_taken_out_by_itself_and_by_another_until_one_is_left() {
    let nodes = Nodes::started(3);
    nodes.node(1).put(0).unwrap();
    let first = nodes.leader();
    remove(&nodes, first, first).unwrap();
    assert!(!nodes.node(first).cluster.may_serve());
    let rest: Vec<u64> = (1..=3).filter(|node| *node != first).collect();
    assert_eq!(members(&nodes, rest[0]).0, rest);
    nodes.node(rest[0]).put(1).unwrap();

    let second = nodes.leader_seen_by(rest[0]);
    let last = rest.iter().sum::<u64>() - second;
    remove(&nodes, last, second).unwrap();
    assert_eq!(members(&nodes, last), (vec![last], vec![last]));
    assert!(!nodes.node(second).cluster.may_serve());
    nodes.node(last).put(2).unwrap();

    assert_eq!(remove(&nodes, last, last), Err(MemberError::LastMember(NodeId(last))));
    eventually("it still serves", Duration::from_secs(2), || nodes.node(last).cluster.may_serve());
}

#[test]
fn a_node_that_the_rest_needs_for_its_majority_is_not_taken_out() {
    let mut nodes = Nodes::started(3);
    let down = nodes.follower();
    let leader = nodes.leader();
    nodes.kill(down);
    let up = 6 - leader - down;
    let refused = MemberError::NoMajority { node: NodeId(up), remaining: 2, answering: 1 };
    assert_eq!(remove(&nodes, leader, up), Err(refused));
    assert_eq!(retired(&nodes, leader), [0; 0], "nothing has changed");
    nodes.node(up).put(1).unwrap();

    // The one that is down can go, and then the other cannot.
    remove(&nodes, up, down).unwrap();
    assert_eq!(members(&nodes, up).1.len(), 2);
}
