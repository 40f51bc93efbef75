//! A node for tests: a cluster of one on a disk in memory, its actors, replicas that answer as told.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actors::probe::{Scrape, Scraped};
use actors::quota::{Amount, Charge, Source};
use actors::{Actors, Caller, Deps, Permit, Settings};
use bytes::Bytes;
use raft::command::{NewKey, NewToken};
use raft::doors::{BoxFuture, Clock, Doors, SeededChance, TokioNet};
use raft::resources::{Kind, NewObject, ObjectKey, Spec, validate};
use raft::storage::{Disk, Key, MakeBytes, MemoryDisk, Write};
use raft::{Cluster, Command, NodeId, Reply, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

/// The need of a call, or its use: so many tokens of whatever kind.
pub(crate) fn amount(tokens: u64) -> Amount {
    Amount::of_call(tokens, 0)
}

/// What a call is charged: so many tokens of whatever kind.
pub(crate) fn charge(tokens: u64) -> Charge {
    charged(amount(tokens))
}

/// What a call is charged that used so much.
pub(crate) fn charged(amount: Amount) -> Charge {
    Charge { amount, source: Source::Reported, ..Charge::default() }
}

/// Wall time that runs with tokio's clock, which the tests accelerate.
pub(crate) struct TestClock {
    start: Instant,
    is_broken: AtomicBool,
}

impl TestClock {
    /// Whoever asks next for the time fails.
    pub(crate) fn break_once(&self) {
        self.is_broken.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::SeqCst)
    }
}

impl Clock for TestClock {
    fn wall(&self) -> Timestamp {
        assert!(!self.is_broken.swap(false, Ordering::SeqCst), "the clock is broken, as the test wants it");
        Timestamp(1_772_000_000_000).plus(Instant::now() - self.start)
    }
}

/// A disk in memory that can hang: what is written then is not safe, and so not in the log, until it works again.
pub(crate) struct TestDisk {
    disk: MemoryDisk,
    works: watch::Sender<bool>,
    /// The machine's boot.
    run: u128,
}

impl TestDisk {
    fn new() -> TestDisk {
        TestDisk { disk: MemoryDisk::new(), works: watch::Sender::new(true), run: 1 }
    }

    /// What the next process finds, in the machine's `run`th boot.
    pub(crate) fn copy(&self, run: u128) -> TestDisk {
        TestDisk { disk: self.disk.copy(), works: watch::Sender::new(true), run }
    }

    pub(crate) fn hang(&self) {
        self.works.send_replace(false);
    }

    pub(crate) fn go_on(&self) {
        self.works.send_replace(true);
    }
}

impl Disk for TestDisk {
    fn get(&self, key: Key) -> BoxFuture<'_, io::Result<Option<Bytes>>> {
        self.disk.get(key)
    }

    fn bounds(&self) -> BoxFuture<'_, io::Result<Option<(u64, u64)>>> {
        self.disk.bounds()
    }

    fn read(&self, from: u64, to: u64) -> BoxFuture<'_, io::Result<Vec<(u64, Bytes)>>> {
        self.disk.read(from, to)
    }

    fn write(&self, changes: Vec<Write>) -> BoxFuture<'_, io::Result<()>> {
        self.disk.write(changes)
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async {
            self.works.subscribe().wait_for(|works| *works).await.expect("the sender is in self");
            self.disk.sync().await
        })
    }

    fn snapshots(&self) -> BoxFuture<'_, io::Result<Vec<u64>>> {
        self.disk.snapshots()
    }

    fn write_snapshot(&self, number: u64, make: MakeBytes) -> BoxFuture<'_, io::Result<Bytes>> {
        self.disk.write_snapshot(number, make)
    }

    fn read_snapshot(&self, number: u64) -> BoxFuture<'_, io::Result<Bytes>> {
        self.disk.read_snapshot(number)
    }

    fn remove_snapshot(&self, number: u64) -> BoxFuture<'_, io::Result<()>> {
        self.disk.remove_snapshot(number)
    }

    fn read_journal(&self) -> BoxFuture<'_, io::Result<Bytes>> {
        self.disk.read_journal()
    }

    fn append_journal(&self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        self.disk.append_journal(bytes)
    }

    fn replace_journal(&self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        self.disk.replace_journal(bytes)
    }

    fn machine_run(&self) -> Option<u128> {
        Some(self.run)
    }
}

/// Replicas: what each path of each base URL answers. Everything else refuses the connection.
#[derive(Default)]
pub(crate) struct Replicas {
    answers: Mutex<BTreeMap<String, (u16, String)>>,
    /// The next to ask this base URL panics.
    broken: Mutex<Option<String>>,
}

impl Replicas {
    pub(crate) fn answer(&self, url: &str, status: u16, body: &str) {
        self.answers.lock().unwrap().insert(url.to_owned(), (status, body.to_owned()));
    }

    pub(crate) fn stop(&self, url: &str) {
        self.answers.lock().unwrap().retain(|known, _| !known.starts_with(url));
    }

    /// The next to ask `base` panics.
    pub(crate) fn break_once(&self, base: &str) {
        *self.broken.lock().unwrap() = Some(base.to_owned());
    }
}

impl Scrape for Replicas {
    fn get<'a>(&'a self, base: &'a str, path: &'a str, _: Duration) -> BoxFuture<'a, Result<Scraped, String>> {
        let is_broken = self.broken.lock().unwrap().take_if(|broken| broken == base).is_some();
        assert!(!is_broken, "the probe is broken, as the test wants it");
        let answer = self.answers.lock().unwrap().get(&format!("{base}{path}")).cloned();
        let answer = answer.ok_or_else(|| "connection refused".to_owned());
        Box::pin(async { answer.map(|(status, body)| Scraped { status, body: body.into() }) })
    }
}

pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    pub(crate) actors: Actors,
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) disk: Arc<TestDisk>,
}

impl Node {
    /// A cluster of one.
    pub(crate) async fn start() -> Node {
        let node = Node::start_on(TestDisk::new()).await;
        node.apply(Kind::Namespace, "", "llm", json!({})).await;
        node
    }

    /// The same on a disk that was used.
    pub(crate) async fn start_on(disk: TestDisk) -> Node {
        let alone = BTreeMap::from([(NodeId(1), "127.0.0.1:0".to_owned())]);
        Node::start_as(1, &alone, Settings::default(), disk).await
    }

    /// A cluster of `count`, without TLS among its nodes. It runs on real time: calls wait long enough for a busy machine.
    pub(crate) async fn start_several(count: u64) -> Vec<Node> {
        let free_address = |node| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            (NodeId(node), listener.local_addr().unwrap().to_string())
        };
        let members: BTreeMap<NodeId, String> = (1..=count).map(free_address).collect();
        let starting = (1..=count).map(|node| {
            let members = members.clone();
            let settings = Settings { held_wait: Duration::from_secs(10), ..Settings::default() };
            tokio::spawn(async move { Node::start_as(node, &members, settings, TestDisk::new()).await })
        });
        let mut nodes = Vec::new();
        for node in starting.collect::<Vec<_>>() {
            nodes.push(node.await.unwrap());
        }
        nodes[0].apply(Kind::Namespace, "", "llm", json!({})).await;
        nodes
    }

    async fn start_as(node: u64, members: &BTreeMap<NodeId, String>, settings: Settings, disk: TestDisk) -> Node {
        let clock = Arc::new(TestClock { start: Instant::now(), is_broken: AtomicBool::new(false) });
        let disk = Arc::new(disk);
        let doors = Doors { clock: clock.clone(), chance: Arc::new(SeededChance::new(node)), net: Arc::new(TokioNet) };
        let of_cluster = raft::cluster::Settings {
            node: NodeId(node),
            cluster: "test".to_owned(),
            peer_listen: members[&NodeId(node)].clone(),
            members: members.clone(),
            tls: None,
            serving_lease: Duration::from_secs(5),
            snapshot_every: raft::cluster::SNAPSHOT_EVERY,
        };
        let cluster = Cluster::start(of_cluster, disk.clone(), doors.clone()).await.unwrap();
        let replicas = Arc::new(Replicas::default());
        let deps = Deps { cluster: cluster.clone(), doors, scrape: replicas.clone(), settings };
        let actors = Actors::start(deps).await.unwrap();
        Node { cluster, actors, replicas, clock, disk }
    }

    pub(crate) async fn propose(&self, command: Command) -> Reply {
        self.cluster.propose(command).await.unwrap().reply
    }

    pub(crate) async fn apply(&self, kind: Kind, namespace: &str, name: &str, body: Value) -> Reply {
        self.apply_annotated(kind, namespace, name, &[], body).await
    }

    pub(crate) async fn apply_annotated(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        annotations: &[(&str, &str)],
        body: Value,
    ) -> Reply {
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let key = ObjectKey::new(kind, namespace, name);
        let exists = self.cluster.view().objects.contains_key(&key);
        let object = NewObject { key, labels: BTreeMap::new(), annotations, body: body.to_string() };
        validate(&object).unwrap();
        let reply = match exists {
            true => self.propose(Command::UpdateObject { object, resource_version: None }).await,
            false => self.propose(Command::CreateObject { object, uid: Uuid::from_u128(rand()) }).await,
        };
        assert!(matches!(reply, Reply::Object(_)), "{reply:?}");
        reply
    }

    pub(crate) async fn delete(&self, kind: Kind, namespace: &str, name: &str) {
        let key = ObjectKey::new(kind, namespace, name);
        self.propose(Command::DeleteObject { key, resource_version: None, uid: None }).await;
    }

    /// A model `llm/<name>` behind a service of the same name, with replicas at `urls`.
    pub(crate) async fn publish(&self, name: &str, urls: &str) {
        let annotations: &[(&str, &str)] = if urls.is_empty() { &[] } else { &[("tollgate.dev/replicas", urls)] };
        let service = json!({"spec": {"model": {"name": format!("vendor/{name}")}}});
        self.apply_annotated(Kind::InferenceService, "llm", name, annotations, service).await;
        let reference = json!({"spec": {"modelRef": {"kind": "LLMInferenceService", "name": name}}});
        self.apply(Kind::ModelRef, "llm", name, reference).await;
    }

    /// A subscription of group `team` to `llm/<model>` with limits `(tokens, window)`.
    pub(crate) async fn subscribe(&self, name: &str, model: &str, limits: &[(u64, &str)]) {
        let limits = limits.iter().map(|(limit, window)| json!({"limit": limit, "window": window})).collect();
        self.subscribe_under(name, model, limits).await;
    }

    /// The same with limits as they are written.
    pub(crate) async fn subscribe_under(&self, name: &str, model: &str, limits: Value) {
        self.subscribe_to(name, model, json!({"tokenRateLimits": limits})).await;
    }

    /// The same with all fields of the reference to the model.
    pub(crate) async fn subscribe_to(&self, name: &str, model: &str, mut reference: Value) {
        (reference["name"], reference["namespace"]) = (json!(model), json!("llm"));
        let spec = json!({"spec": {"owner": {"groups": [{"name": "team"}]}, "modelRefs": [reference]}});
        self.apply(Kind::Subscription, "models-as-a-service", name, spec).await;
    }

    /// A policy that opens `llm/<model>` to group `team`.
    pub(crate) async fn open(&self, name: &str, model: &str) {
        let spec = json!({"spec": {
            "modelRefs": [{"name": model, "namespace": "llm"}],
            "subjects": {"groups": [{"name": "team"}]},
        }});
        self.apply(Kind::AuthPolicy, "models-as-a-service", name, spec).await;
    }

    /// An API key of `user`, a member of `team`, for `subscription`. It works for ten minutes.
    pub(crate) async fn key(&self, user: &str, subscription: &str) -> (Uuid, String) {
        self.join("team", user).await;
        let id = Uuid::from_u128(rand());
        let text = format!("sk-oai-{}_secret{}", id.simple(), id.simple());
        let key = NewKey {
            id,
            hash: actors::auth::key_hash(&text).unwrap(),
            name: "a key".to_owned(),
            description: String::new(),
            username: user.to_owned(),
            groups: vec!["team".to_owned()],
            subscription: subscription.to_owned(),
            expires: Timestamp(1_772_000_000_000).plus(Duration::from_secs(600)),
            ephemeral: false,
            labels: Vec::new(),
        };
        let reply = self.propose(Command::CreateKey(key)).await;
        assert!(matches!(reply, Reply::Key(_)), "{reply:?}");
        (id, text)
    }

    /// Makes `user` a member of `group`.
    async fn join(&self, group: &str, user: &str) {
        let current = self.cluster.view().object(&ObjectKey::new(Kind::Group, "", group)).cloned();
        let mut users = match current.map(|object| object.spec.clone()) {
            Some(Spec::Group(spec)) => spec.users,
            _ => Vec::new(),
        };
        if !users.iter().any(|known| known == user) {
            users.push(user.to_owned());
            self.apply(Kind::Group, "", group, json!({"users": users})).await;
        }
    }

    /// A bearer token of `user` with `groups`.
    pub(crate) async fn token(&self, text: &str, user: &str, groups: &[&str], expires: Option<Timestamp>) {
        let token = NewToken {
            hash: actors::auth::token_hash(text),
            username: user.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            expires,
            service_account: None,
        };
        assert_eq!(self.propose(Command::CreateToken(token)).await, Reply::Done);
    }

    pub(crate) fn caller(&self, credential: &str) -> Caller {
        self.actors.auth.authenticate(Some(credential)).unwrap()
    }

    /// A permit of `credential` for `llm/<model>`.
    pub(crate) fn permit(&self, credential: &str, model: &str) -> Permit {
        let model = self.actors.routing.by_path("llm", model).unwrap();
        self.actors.routing.authorize(self.caller(credential), &model, None).unwrap()
    }

    /// A model `qwen` with one subscription `dev` under `limits`.
    pub(crate) async fn prepare(&self, limits: &[(u64, &str)]) {
        self.publish("qwen", "").await;
        self.subscribe("dev", "qwen", limits).await;
        self.open("dev", "qwen").await;
    }

    /// A model `qwen` with one subscription `dev` under `limits`, and a permit of user `ann` for it.
    pub(crate) async fn permit_under(&self, limits: &[(u64, &str)]) -> Permit {
        self.prepare(limits).await;
        let (_, key) = self.key("ann", "dev").await;
        self.permit(&key, "qwen")
    }
}

/// Numbers for ids; their values mean nothing.
fn rand() -> u128 {
    use std::sync::atomic::AtomicU64;
    static NEXT: AtomicU64 = AtomicU64::new(1);
    u128::from(NEXT.fetch_add(1, Ordering::Relaxed)) << 64 | 0x8000_0000_0000_0001
}
