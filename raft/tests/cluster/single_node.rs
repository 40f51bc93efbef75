//! One node alone: ready at once, and everything is there after every kind of stop.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{Nodes, eventually, is_done};

#[test]
fn it_is_ready_in_a_moment_and_keeps_what_it_acknowledged() {
    let mut nodes = Nodes::new(1);
    nodes.start(1);
    let began = Instant::now();
    assert!(is_done(&nodes.node(1).put(1).unwrap()));
    eventually("it serves", Duration::from_secs(1), || nodes.node(1).cluster.may_serve());
    let ready = began.elapsed();
    assert!(ready < Duration::from_millis(1000), "ready after {ready:?}");
    println!("new: ready after {ready:?}");
    assert_eq!(nodes.node(1).cluster.incarnation(), 1);
    for number in 2..100 {
        nodes.node(1).put(number).unwrap();
    }

    // Killed: what was acknowledged is there.
    nodes.kill(1);
    let began = Instant::now();
    nodes.start(1);
    assert!(is_done(&nodes.node(1).put(100).unwrap()));
    println!("restarted: ready after {:?}", began.elapsed());
    assert!((1..=100).all(|number| nodes.node(1).has(number)));
    assert_eq!(nodes.node(1).cluster.incarnation(), 2);

    // Stopped politely: the same.
    nodes.stop(1);
    nodes.start(1);
    let node = nodes.node(1);
    node.run(node.cluster.read_barrier()).unwrap();
    assert!((1..=100).all(|number| node.has(number)));
    assert_eq!(node.cluster.incarnation(), 3);
}
