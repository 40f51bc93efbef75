//! Nodes of a cluster of three: who leads, who is ready, and how one that was killed comes back.

use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::run::Dev;

/// Who leads, as the nodes' metrics say.
pub(crate) async fn leader(dev: &Dev) -> u16 {
    for node in 1..=3 {
        // Of those that answer.
        let metrics = dev.admin(node).get("/metrics").await.map(|answer| answer.text).unwrap_or_default();
        let leads = metrics.lines().any(|line| line.starts_with("tollgate_raft_is_leader") && line.ends_with(" 1"));
        if leads {
            return node;
        }
    }
    panic!("nobody leads");
}

/// Runs the command that was printed for this node, with more in its environment.
pub(crate) fn bring_back(dev: &Dev, node: u16, environment: &[(&str, String)]) -> Child {
    let output = dev.output();
    let (_, after) = output.rsplit_once(&format!("Node {node} ended")).expect("it ended");
    let command = after.lines().nth(1).expect("the command").trim();
    assert!(command.contains("serve --config"), "{command}");
    let environment = environment.iter().map(|(name, value)| (name, value));
    Command::new("sh").args(["-c", &format!("exec {command}")]).envs(environment).kill_on_drop(true).spawn().unwrap()
}

pub(crate) async fn wait_until_ready(dev: &Dev, node: u16) {
    let started = Instant::now();
    loop {
        match dev.admin(node).get("/readyz").await {
            Ok(answer) if answer.status == 200 => return,
            answer => assert!(started.elapsed() < Duration::from_secs(60), "node {node} is not ready: {answer:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
