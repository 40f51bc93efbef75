//! A node: every part wired to every other, once, in order.
//!
//! No process globals: signals, logging and the runtime belong to the command line, so a node also runs inside
//! `tollgate dev`, a test, or a simulation.

mod bootstrap;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actors::Actors;
use raft::Cluster;
use raft::doors::Doors;
use raft::storage::Disk;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info};

use crate::accept::{Limits, Port};
use crate::config::{Config, Files};
use crate::observability::Metrics;
use crate::tls::{self, TlsError};
use crate::{Context, Pace, admin, gateway};

/// A node that is done still votes for so long: nodes that are stopped together need each other to give their tokens back.
const LINGER: Duration = Duration::from_millis(500);

/// A node of which a part has failed lets calls in progress end for so long, and no longer.
const FAILED_DRAIN: Duration = Duration::from_secs(5);

/// A running node.
pub struct Node {
    context: Context,
    gateway: Served,
    admin: Served,
    bootstrap: JoinHandle<()>,
    traces: gateway::Traces,
    drain: watch::Sender<bool>,
}

/// A port that is served.
struct Served {
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port.
    #[error("cannot listen on {address}, which is {section}.listen in the configuration: {source}")]
    Listen {
        /// As configured.
        address: String,
        /// The configuration's section.
        section: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate or a key.
    #[error("TLS of [{section}] in the configuration: {source}")]
    Tls {
        /// The configuration's section.
        section: &'static str,
        /// Which file, and why.
        source: TlsError,
    },
    /// The administrator's token.
    #[error(transparent)]
    Bootstrap(#[from] bootstrap::TokenFileError),
    /// The log, its disk, or its peers.
    #[error(transparent)]
    Cluster(#[from] raft::cluster::StartError),
    /// An actor.
    #[error(transparent)]
    Actors(#[from] actors::StartError),
    /// The collector of spans.
    #[error(transparent)]
    Traces(#[from] gateway::TracesError),
}

/// The node stopped by itself.
#[derive(Debug, thiserror::Error)]
#[error("the node stopped itself: {0}")]
pub struct Failed(String);

impl Node {
    /// Starts a node on `disk`. It serves when this returns; whether it may admit calls yet, `/readyz` says.
    /// Errors: a port is taken, a certificate or the disk cannot be used.
    pub async fn start(config: &Config, doors: Doors, disk: Arc<dyn Disk>) -> Result<Node, StartError> {
        // What a person may have to correct comes first, before anything is running that must be stopped again.
        let peer_tls = config.peers.files.as_ref().map(|(ca, files)| tls::peers(ca, files)).transpose();
        let peer_tls = peer_tls.map_err(in_section("peers"))?;
        let replica_tls = config.upstream.ca.as_deref().map(tls::client).transpose();
        let replica_tls = replica_tls.map_err(in_section("upstream"))?;
        let collector_tls = config.traces.ca.as_deref().map(tls::client).transpose();
        let collector_tls = collector_tls.map_err(in_section("traces"))?;
        let traces = traces(config, &doors, collector_tls)?;
        let token = bootstrap::read_or_create(&config.admin.bootstrap_token_file, doors.chance.as_ref())?;
        let (gateway, admin) = (&config.gateway, &config.admin);
        let gateway = open(&doors, "gateway", &gateway.listen, gateway.tls.as_ref(), &gateway.limits).await?;
        let admin = open(&doors, "admin", &admin.listen, admin.tls.as_ref(), &admin.limits).await?;

        let cluster = Cluster::start(cluster_settings(config, peer_tls), disk, doors.clone()).await?;
        let destinations = gateway::Destinations::Replicas {
            allow_loopback: config.upstream.allow_loopback,
            own_ports: own_ports(config, [gateway.address, admin.address]),
        };
        let upstream_settings =
            gateway::UpstreamSettings { tls: replica_tls, destinations, ..config.upstream.settings.clone() };
        let upstream = gateway::Upstream::new(&doors, upstream_settings);
        let actors = Actors::start(actors::Deps {
            cluster: cluster.clone(),
            doors: doors.clone(),
            scrape: Arc::new(upstream.clone()),
            settings: config.decisions.clone(),
        })
        .await?;
        let context = Context { cluster, actors, doors, metrics: Metrics::new(), new_keys: Pace::default() };

        let (drain, drained) = watch::channel(false);
        let routers = admin::routers(&context, drained.clone(), &config.admin.bounds);
        let settings = gateway::Settings {
            traces: traces.clone(),
            body_memory: config.gateway.body_memory,
            sse_keep_alive: config.gateway.sse_keep_alive,
            ..gateway::Settings::new(upstream)
        };
        let gateway = gateway
            .serve(|port| gateway::serve(context.clone(), settings, port, routers.public, until(drained.clone())));
        let admin = admin.serve(|port| admin::serve(context.clone(), routers.admin, port, until(drained)));
        let bootstrap = tokio::spawn(bootstrap::propose(context.cluster.clone(), token));
        info!(node = %context.cluster.node(), gateway = %gateway.address, admin = %admin.address, "serving");
        Ok(Node { context, gateway, admin, bootstrap, traces, drain })
    }

    /// Where the gateway listens, with the real port.
    pub fn gateway_address(&self) -> SocketAddr {
        self.gateway.address
    }

    /// Where the admin API listens, with the real port.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address
    }

    /// What its parts are given.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Runs until `stop`, then drains: stops accepting, lets calls in progress end, settles them, gives grants back,
    /// hands leadership over. Errors: a part of the node failed for good; it drained all the same.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), Failed> {
        let outcome = tokio::select! {
            biased;
            () = stop => Ok(()),
            reason = self.context.cluster.failed() => Err(Failed(reason)),
            reason = self.context.actors.failed() => Err(Failed(reason)),
            _ = &mut self.gateway.task => Err(Failed("the gateway port is not served any more".to_owned())),
            _ = &mut self.admin.task => Err(Failed("the admin port is not served any more".to_owned())),
        };
        match &outcome {
            Ok(()) => self.drain().await,
            Err(failed) => {
                error!(%failed, "draining");
                // What the node holds can perhaps not be given back any more, and others can start it again.
                let _ = tokio::time::timeout(FAILED_DRAIN, self.drain()).await;
            }
        }
        outcome
    }

    async fn drain(mut self) {
        info!("draining");
        self.bootstrap.abort();
        self.drain.send_replace(true);
        for task in [&mut self.gateway.task, &mut self.admin.task] {
            // The port itself cuts what outlasts node.drain_timeout.
            if !task.is_finished() {
                let _ = task.await;
            }
        }
        // A collector that is away keeps no grant from going back.
        tokio::join!(self.context.actors.drain(), self.traces.shutdown());
        if self.context.cluster.standing().members.len() > 1 {
            tokio::time::sleep(LINGER).await;
        }
        self.context.cluster.shutdown().await;
        info!("stopped");
    }
}

/// A port that is open but not served.
struct Open {
    port: Port,
    address: SocketAddr,
}

impl Open {
    fn serve<F: Future<Output = ()> + Send + 'static>(self, serve: impl FnOnce(Port) -> F) -> Served {
        Served { address: self.address, task: tokio::spawn(serve(self.port)) }
    }
}

async fn open(
    doors: &Doors,
    section: &'static str,
    address: &str,
    files: Option<&Files>,
    limits: &Limits,
) -> Result<Open, StartError> {
    let tls = files.map(tls::server).transpose().map_err(in_section(section))?;
    let failed = |source| StartError::Listen { address: address.to_owned(), section, source };
    let listener = doors.net.listen(address).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    Ok(Open { port: Port { listener, tls, limits: limits.clone() }, address: local })
}

fn in_section(section: &'static str) -> impl FnOnce(TlsError) -> StartError {
    move |source| StartError::Tls { section, source }
}

/// Every port that the node listens on.
fn own_ports(config: &Config, open: [SocketAddr; 2]) -> Vec<u16> {
    let peers = config.peers.listen.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    open.iter().map(SocketAddr::port).chain(peers).collect()
}

fn cluster_settings(config: &Config, tls: Option<raft::peers::PeerTls>) -> raft::cluster::Settings {
    raft::cluster::Settings {
        node: config.node.id,
        cluster: config.cluster.name.clone(),
        peer_listen: config.peers.listen.clone(),
        members: config.cluster.members.clone(),
        tls,
        serving_lease: config.cluster.serving_lease,
        snapshot_every: config.cluster.snapshot_every,
    }
}

/// Where spans go. Its client waits for no collector long.
fn traces(
    config: &Config,
    doors: &Doors,
    tls: Option<Arc<rustls::ClientConfig>>,
) -> Result<gateway::Traces, gateway::TracesError> {
    let Some(endpoint) = &config.traces.endpoint else { return Ok(gateway::Traces::default()) };
    let wait = Duration::from_secs(5);
    let settings = gateway::UpstreamSettings { header_timeout: wait, idle_timeout: wait, tls, ..Default::default() };
    gateway::Traces::to(endpoint, gateway::Upstream::new(doors, settings), doors, config.node.id)
}

/// Resolves once draining begins, or when nobody is left who could begin it.
async fn until(mut drained: watch::Receiver<bool>) {
    let _ = drained.wait_for(|drained| *drained).await;
}
