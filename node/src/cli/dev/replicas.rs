//! What answers calls: simulated vLLM replicas in this process, or servers that run already.

use raft::doors::Doors;
use sim_vllm::Replica;
use tokio::task::JoinSet;

use super::super::exit::Failure;
use super::super::sim_vllm::{listen, replica};
use super::plan::{Plan, ReplicaPlan};

/// The replicas; dropping it ends the simulated ones.
pub(super) struct Replicas {
    /// Base URLs.
    pub(super) urls: Vec<String>,
    _running: JoinSet<()>,
}

pub(super) async fn start(plan: &Plan, doors: &Doors) -> Result<Replicas, Failure> {
    let mut running = JoinSet::new();
    let urls = match &plan.replicas {
        ReplicaPlan::Running(urls) => urls.clone(),
        ReplicaPlan::Simulated(ports) => {
            for (number, port) in (0..).zip(ports) {
                let listener = listen(&format!("127.0.0.1:{port}")).await?;
                let replica = Replica::start(replica(&plan.model.served, number, doors));
                running.spawn(async move { replica.serve(listener, std::future::pending()).await });
            }
            ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect()
        }
    };
    Ok(Replicas { urls, _running: running })
}
