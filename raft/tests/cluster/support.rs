//! Real nodes in one process: sled in temporary directories, TCP on loopback, TLS. Each node has a runtime of its own, so
//! that dropping the runtime stops it as abruptly as `kill -9` would.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use raft::cluster::{Settings, StartError};
use raft::command::{Command, NewKey};
use raft::doors::{Clock, Doors, SystemClock};
use raft::peers::{PEER_NAME, PeerTls};
use raft::storage::SledDisk;
use raft::{Applied, Cluster, NodeId, ProposeError, Reply, Timestamp};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::time::Instant;

/// A directory that is removed at the end.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Directory {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        let path = std::env::temp_dir().join(format!("tollgate-raft-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A cluster's nodes, running or not.
pub(crate) struct Nodes {
    pub(crate) directory: Directory,
    pub(crate) name: String,
    pub(crate) members: BTreeMap<NodeId, String>,
    joining: BTreeMap<NodeId, String>,
    tls: PeerTls,
    running: BTreeMap<NodeId, Node>,
}

/// A running node.
pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    runtime: tokio::runtime::Runtime,
    clock: Arc<SetClock>,
}

/// A wall clock that somebody has set ahead by so many milliseconds.
#[derive(Default)]
struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn wall(&self) -> Timestamp {
        SystemClock.wall().plus(Duration::from_millis(self.0.load(Ordering::Relaxed)))
    }
}

impl Node {
    /// Sets its wall clock ahead of the true time.
    pub(crate) fn set_wall_ahead(&self, by: Duration) {
        self.clock.0.store(u64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }

    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Lets time pass.
    pub(crate) fn idle(&self, time: Duration) {
        self.run(async { tokio::time::sleep(time).await });
    }

    /// Makes a change that can be looked for: an API key whose hash says which.
    pub(crate) fn put(&self, number: u64) -> Result<Applied, ProposeError> {
        self.run(self.cluster.propose(key(number)))
    }

    /// Makes many changes, a few hundred at a time.
    pub(crate) fn put_all(&self, numbers: std::ops::Range<u64>) {
        let changes = numbers.map(|number| self.cluster.propose(key(number)));
        self.run(futures_util::stream::iter(changes).buffer_unordered(200).for_each(|change| {
            change.unwrap();
            std::future::ready(())
        }));
    }

    pub(crate) fn has(&self, number: u64) -> bool {
        self.cluster.view().keys_by_hash.contains_key(&hash(number))
    }
}

fn hash(number: u64) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    hash
}

pub(crate) fn key(number: u64) -> Command {
    Command::CreateKey(NewKey {
        id: uuid::Uuid::from_u128(u128::from(number)),
        hash: hash(number),
        name: format!("key-{number}"),
        description: String::new(),
        username: format!("user-{}", number % 100),
        groups: Vec::new(),
        subscription: "default".to_owned(),
        expires: Timestamp(u64::MAX),
        ephemeral: false,
        labels: Vec::new(),
    })
}

impl Nodes {
    /// `count` nodes, none of them running.
    pub(crate) fn new(count: u64) -> Nodes {
        let members = (1..=count).map(|node| (NodeId(node), format!("127.0.0.1:{}", free_port()))).collect();
        let name = "test".to_owned();
        Nodes {
            directory: Directory::new(),
            name,
            members,
            joining: BTreeMap::new(),
            tls: peer_tls(),
            running: BTreeMap::new(),
        }
    }

    /// All of `count` nodes, running, with a leader.
    pub(crate) fn started(count: u64) -> Nodes {
        let mut nodes = Nodes::new(count);
        for node in 1..=count {
            nodes.start(node);
        }
        nodes.leader();
        nodes
    }

    pub(crate) fn path(&self, node: u64) -> PathBuf {
        self.directory.path().join(format!("node-{node}"))
    }

    pub(crate) fn settings(&self, node: u64) -> Settings {
        Settings {
            node: NodeId(node),
            cluster: self.name.clone(),
            peer_listen: self.members.get(&NodeId(node)).unwrap_or_else(|| &self.joining[&NodeId(node)]).clone(),
            // A newcomer knows nobody: it waits until somebody adds it.
            members: if self.joining.contains_key(&NodeId(node)) { BTreeMap::new() } else { self.members.clone() },
            tls: Some(self.tls.clone()),
            serving_lease: Duration::from_secs(2),
            snapshot_every: raft::cluster::SNAPSHOT_EVERY,
        }
    }

    pub(crate) fn start(&mut self, node: u64) {
        self.try_start(node).unwrap_or_else(|error| panic!("node {node}: {error}"));
    }

    pub(crate) fn try_start(&mut self, node: u64) -> Result<(), StartError> {
        let running = start(self.settings(node), &self.path(node))?;
        self.running.insert(NodeId(node), running);
        Ok(())
    }

    /// Stops a node where it stands.
    pub(crate) fn kill(&mut self, node: u64) {
        let Node { cluster, runtime, .. } = self.running.remove(&NodeId(node)).expect("it runs");
        // The handle must not be what stops the tasks.
        std::mem::forget(cluster);
        runtime.shutdown_timeout(Duration::from_secs(5));
    }

    /// Stops a node politely.
    pub(crate) fn stop(&mut self, node: u64) {
        let Node { cluster, runtime, .. } = self.running.remove(&NodeId(node)).expect("it runs");
        runtime.block_on(cluster.shutdown());
        drop(cluster);
        runtime.shutdown_timeout(Duration::from_secs(5));
    }

    pub(crate) fn node(&self, node: u64) -> &Node {
        &self.running[&NodeId(node)]
    }

    /// Who leads, once all running nodes agree.
    pub(crate) fn leader(&self) -> u64 {
        let mut leader = None;
        eventually("a leader that all agree on", Duration::from_secs(10), || {
            let mut seen = self.running.values().map(|node| node.cluster.standing().leader);
            leader = seen.next().flatten();
            leader.is_some_and(|leader| self.running.contains_key(&leader)) && seen.all(|other| other == leader)
        });
        leader.expect("there is one").0
    }

    /// Who leads, as `node` sees it.
    pub(crate) fn leader_seen_by(&self, node: u64) -> u64 {
        self.node(node).cluster.standing().leader.expect("it knows one").0
    }

    /// An address for a node that is not a founder.
    pub(crate) fn add_address(&mut self, node: u64) -> String {
        self.joining.insert(NodeId(node), format!("127.0.0.1:{}", free_port()));
        self.joining[&NodeId(node)].clone()
    }

    /// A running node that does not lead.
    pub(crate) fn follower(&self) -> u64 {
        let leader = self.leader();
        self.running.keys().find(|node| node.0 != leader).expect("there is one").0
    }
}

pub(crate) fn start(settings: Settings, path: &Path) -> Result<Node, StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut disk = SledDisk::open(path);
    let patience = Instant::now() + Duration::from_secs(5);
    // A killed node's last write may still hold the directory for a moment.
    while disk.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ResourceBusy)
        && Instant::now() < patience
    {
        pause();
        disk = SledDisk::open(path);
    }
    let disk = Arc::new(disk.map_err(StartError::Storage)?);
    let clock = Arc::new(SetClock::default());
    let doors = Doors { clock: clock.clone(), ..Doors::real() };
    let cluster = runtime.block_on(Cluster::start(settings, disk, doors))?;
    Ok(Node { cluster, runtime, clock })
}

/// Blocks the test's own thread, not a node's.
fn pause() {
    #[expect(clippy::disallowed_methods, reason = "a test waits on its own thread; the nodes have theirs")]
    std::thread::sleep(Duration::from_millis(5));
}

pub(crate) fn eventually(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < patience, "not within {within:?}: {what}");
        pause();
    }
}

pub(crate) fn is_done(applied: &Applied) -> bool {
    !matches!(applied.reply, Reply::Refused(_))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn peer_tls() -> PeerTls {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = parameters.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, key);
    let node_key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec![PEER_NAME.to_owned()]).unwrap();
    let certificate = parameters.signed_by(&node_key, &issuer).unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let key = || PrivateKeyDer::from(PrivatePkcs8KeyDer::from(node_key.serialize_der()));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca_certificate.der().clone()).unwrap();
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key())
        .unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key())
        .unwrap();
    PeerTls { server: Arc::new(server), client: Arc::new(client) }
}
