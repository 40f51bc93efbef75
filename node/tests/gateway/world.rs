//! A node with its gateway port open on loopback, a model `llm/qwen` that replicas call `acme/qwen`, and keys for it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actors::quota::{Amount, Charge};
use actors::{Actors, Permit};
use axum::Router;
use axum::routing::get;
use node::accept::{Limits, Port};
use node::gateway::{self, Settings, Traces, Upstream, UpstreamSettings};
use node::observability::Metrics;
use node::{Context, Pace};
use raft::cluster::Settings as ClusterSettings;
use raft::command::NewKey;
use raft::doors::{Clock, Doors, SystemClock};
use raft::resources::{Kind, NewObject, ObjectKey, validate};
use raft::state::UsageSum;
use raft::storage::MemoryDisk;
use raft::{Cluster, Command, NodeId, Reply, Timestamp};
use serde_json::{Value, json};
use sim_vllm::{Config, Replica};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::client::{Answer, Connection};

/// A limit that no test reaches by accident.
pub(crate) const PLENTY: u64 = 1_000_000;

pub(crate) struct World {
    pub(crate) context: Context,
    pub(crate) address: SocketAddr,
    /// An API key of user `ann`, who may use `llm/qwen` through subscription `dev`.
    pub(crate) key: String,
    drain: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

/// Short enough for tests, long enough for a machine under load.
pub(crate) fn limits() -> Limits {
    Limits {
        header_read_timeout: Duration::from_millis(500),
        body_read_timeout: Duration::from_millis(500),
        idle_timeout: Duration::from_secs(2),
        body_max: 64 * 1024,
        ..Limits::default()
    }
}

impl World {
    /// A node whose model has replicas at `urls`, and one limit of `tokens` an hour.
    pub(crate) async fn start(urls: &[String], tokens: u64) -> World {
        World::start_with(urls, tokens, UpstreamSettings::default()).await
    }

    pub(crate) async fn start_with(urls: &[String], tokens: u64, upstream: UpstreamSettings) -> World {
        World::start_traced(urls, tokens, upstream, Traces::default()).await
    }

    /// One that accepts larger bodies than the others do.
    pub(crate) async fn start_sized(urls: &[String], tokens: u64, body_max: usize) -> World {
        World::start_port(urls, tokens, UpstreamSettings::default(), Traces::default(), Limits { body_max, ..limits() })
            .await
    }

    /// The same, with other limits of the port.
    pub(crate) async fn start_limited(urls: &[String], limits: Limits) -> World {
        World::start_port(urls, PLENTY, UpstreamSettings::default(), Traces::default(), limits).await
    }

    pub(crate) async fn start_traced(
        urls: &[String],
        tokens: u64,
        upstream: UpstreamSettings,
        traces: Traces,
    ) -> World {
        World::start_port(urls, tokens, upstream, traces, limits()).await
    }

    async fn start_port(
        urls: &[String],
        tokens: u64,
        upstream: UpstreamSettings,
        traces: Traces,
        limits: Limits,
    ) -> World {
        World::start_set(urls, tokens, upstream, limits, |settings| Settings { traces, ..settings }).await
    }

    /// One whose silent streams get a sign of life after each `interval`.
    pub(crate) async fn start_kept_alive(urls: &[String], interval: Duration) -> World {
        let keep = |settings| Settings { sse_keep_alive: Some(interval), ..settings };
        World::start_set(urls, PLENTY, UpstreamSettings::default(), limits(), keep).await
    }

    async fn start_set(
        urls: &[String],
        tokens: u64,
        upstream: UpstreamSettings,
        limits: Limits,
        set: impl FnOnce(Settings) -> Settings,
    ) -> World {
        let doors = Doors::real();
        let cluster = Cluster::start(cluster_settings(), Arc::new(MemoryDisk::new()), doors.clone()).await.unwrap();
        let upstream = Upstream::new(&doors, upstream);
        let deps = actors::Deps {
            cluster: cluster.clone(),
            doors: doors.clone(),
            scrape: Arc::new(upstream.clone()),
            settings: actors::Settings { probe_interval: Duration::from_millis(50), ..actors::Settings::default() },
        };
        let actors = Actors::start(deps).await.unwrap();
        let context = Context { cluster, actors, doors, metrics: Metrics::new(), new_keys: Pace::default() };
        let listener = context.doors.net.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let public = Router::new().route("/healthz", get(|| async { "ok" }));
        let (drain, drained) = oneshot::channel::<()>();
        let port = Port { listener, tls: None, limits };
        let drained = async move { drained.await.unwrap_or_default() };
        let settings = set(Settings::new(upstream));
        let served = tokio::spawn(gateway::serve(context.clone(), settings, port, public, drained));
        let mut world = World { context, address, key: String::new(), drain: Some(drain), served };
        world.furnish(urls, tokens).await;
        world.key = world.add_key("ann", "dev", Duration::from_secs(3600)).await;
        world.wait_for_replicas(urls.len()).await;
        world
    }

    async fn furnish(&self, urls: &[String], tokens: u64) {
        self.apply(Kind::Namespace, "", "llm", "", json!({})).await;
        self.publish("qwen", &urls.join(",")).await;
        self.subscribe("dev", json!([{"limit": tokens, "window": "1h"}])).await;
        let spec = json!({"spec": {"modelRefs": [{"name": "qwen", "namespace": "llm"}], "subjects": {"users": ["ann", "bob"]}}});
        self.apply(Kind::AuthPolicy, "models-as-a-service", "dev", "", spec).await;
    }

    /// A subscription of ann to `llm/qwen` under these limits.
    pub(crate) async fn subscribe(&self, name: &str, limits: Value) {
        self.subscribe_to(name, json!({"tokenRateLimits": limits})).await;
    }

    /// The same with all fields of the reference to the model.
    pub(crate) async fn subscribe_to(&self, name: &str, mut reference: Value) {
        (reference["name"], reference["namespace"]) = (json!("qwen"), json!("llm"));
        let spec = json!({"spec": {"owner": {"users": ["ann"]}, "modelRefs": [reference]}});
        self.apply(Kind::Subscription, "models-as-a-service", name, "", spec).await;
    }

    /// A key of user `bob`, who may use `llm/qwen` through a subscription of his own.
    pub(crate) async fn add_bob(&self) -> String {
        let reference =
            json!({"name": "qwen", "namespace": "llm", "tokenRateLimits": [{"limit": PLENTY, "window": "1h"}]});
        let spec = json!({"spec": {"owner": {"users": ["bob"]}, "modelRefs": [reference]}});
        self.apply(Kind::Subscription, "models-as-a-service", "bobs", "", spec).await;
        self.add_key("bob", "bobs", Duration::from_secs(3600)).await
    }

    /// The Tenant lets pages of these origins call.
    pub(crate) async fn allow_origins(&self, origins: &[&str]) {
        let body = json!({"spec": {"cors": {"allowedOrigins": origins}}}).to_string();
        let key = ObjectKey::new(Kind::Tenant, "models-as-a-service", "default-tenant");
        let object = NewObject { key, labels: BTreeMap::new(), annotations: BTreeMap::new(), body };
        validate(&object).unwrap();
        let command = Command::UpdateObject { object, resource_version: None };
        let applied = self.context.cluster.propose(command).await.unwrap();
        assert!(matches!(applied.reply, Reply::Object(_)), "{:?}", applied.reply);
    }

    /// What this node thinks of each replica of `llm/qwen`.
    pub(crate) fn replica_statuses(&self) -> Vec<&'static str> {
        let pools = self.context.actors.pools.snapshot();
        pools.iter().flat_map(|pool| &pool.replicas).map(|replica| replica.status.name()).collect()
    }

    /// A model `llm/<name>` with replicas at `urls`, comma-separated.
    pub(crate) async fn publish(&self, name: &str, urls: &str) {
        let service = json!({"spec": {"model": {"name": format!("acme/{name}")}}});
        self.apply(Kind::InferenceService, "llm", name, urls, service).await;
        let reference = json!({"spec": {"modelRef": {"kind": "LLMInferenceService", "name": name}}});
        self.apply(Kind::ModelRef, "llm", name, "", reference).await;
    }

    async fn apply(&self, kind: Kind, namespace: &str, name: &str, urls: &str, body: Value) {
        let annotations = match urls {
            "" => BTreeMap::new(),
            urls => BTreeMap::from([("tollgate.dev/replicas".to_owned(), urls.to_owned())]),
        };
        self.apply_with(kind, namespace, name, annotations, body).await;
    }

    /// Creates an object.
    pub(crate) async fn apply_with(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        annotations: BTreeMap<String, String>,
        body: Value,
    ) {
        let key = ObjectKey::new(kind, namespace, name);
        let object = NewObject { key, labels: BTreeMap::new(), annotations, body: body.to_string() };
        validate(&object).unwrap();
        let command = Command::CreateObject { object, uid: self.context.doors.chance.uuid() };
        let applied = self.context.cluster.propose(command).await.unwrap();
        assert!(matches!(applied.reply, Reply::Object(_)), "{:?}", applied.reply);
    }

    /// An API key of `user` for `subscription`.
    pub(crate) async fn add_key(&self, user: &str, subscription: &str, life: Duration) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let text = format!("sk-oai-test{number}_secret{number}");
        let key = NewKey {
            id: Uuid::from_u128(u128::from(number)),
            hash: actors::auth::key_hash(&text).unwrap(),
            name: "a key".to_owned(),
            description: String::new(),
            username: user.to_owned(),
            groups: Vec::new(),
            subscription: subscription.to_owned(),
            expires: Timestamp(SystemClock.wall().millis()).plus(life),
            ephemeral: false,
            labels: Vec::new(),
        };
        let applied = self.context.cluster.propose(Command::CreateKey(key)).await.unwrap();
        assert!(matches!(applied.reply, Reply::Key(_)), "{:?}", applied.reply);
        text
    }

    async fn wait_for_replicas(&self, healthy: usize) {
        eventually("the node admits calls, and every replica gets some", || {
            let pools = self.context.actors.pools.snapshot();
            pools.iter().flat_map(|pool| &pool.replicas).filter(|replica| replica.is_ready()).count() >= healthy
                && self.context.cluster.may_serve()
                && self.context.actors.routing.by_path("llm", "qwen").is_some()
        })
        .await;
    }

    pub(crate) fn permit(&self) -> Permit {
        let caller = self.context.actors.auth.authenticate(Some(&self.key)).unwrap();
        let model = self.context.actors.routing.by_path("llm", "qwen").unwrap();
        self.context.actors.routing.authorize(caller, &model, None).unwrap()
    }

    /// What ann's meter has been charged, in tokens, as a reservation of one token sees it.
    pub(crate) async fn used(&self) -> u64 {
        let reservation = self.context.actors.quota.reserve(&self.permit(), Amount::of_call(1, 0)).await.unwrap();
        let used = reservation.standing()[0].used;
        reservation.settle(Charge::default(), None);
        used - 1
    }

    /// What usage says of all calls, once all that were settled are in it.
    pub(crate) async fn charged(&self) -> UsageSum {
        let settled = self.counter("tollgate_usage_settlements_total");
        let sum = || {
            let mut sum = UsageSum::default();
            let view = self.context.cluster.view();
            view.usage.between(Timestamp(0), Timestamp(u64::MAX)).for_each(|(_, _, _, row)| sum.add(row));
            sum
        };
        eventually("usage has every call", || sum().calls as f64 >= settled).await;
        sum()
    }

    /// The sum of a counter over all labels.
    pub(crate) fn counter(&self, name: &str) -> f64 {
        self.counter_with(name, "")
    }

    /// The sum of a counter over the lines that have this label.
    pub(crate) fn counter_with(&self, name: &str, label: &str) -> f64 {
        let text = self.context.metrics.encode(&self.context);
        let lines = text.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with(['{', ' ']));
        lines
            .filter(|rest| rest.contains(label))
            .map(|rest| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.address).await
    }

    /// Posts `body` to `path` with ann's key.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_as(&self.key, path, body).await
    }

    /// Posts `body` to `path` with `key`.
    pub(crate) async fn post_as(&self, key: &str, path: &str, body: &Value) -> Answer {
        self.connect().await.post(path, &[("authorization", &format!("Bearer {key}"))], &body.to_string()).await
    }

    /// Stops accepting and waits until every call has ended.
    pub(crate) async fn drain(&mut self) {
        self.drain.take().unwrap().send(()).unwrap();
        (&mut self.served).await.unwrap();
    }
}

fn cluster_settings() -> ClusterSettings {
    ClusterSettings {
        node: NodeId(1),
        cluster: "test".to_owned(),
        peer_listen: "127.0.0.1:0".to_owned(),
        members: BTreeMap::from([(NodeId(1), "127.0.0.1:1".to_owned())]),
        tls: None,
        serving_lease: Duration::from_secs(5),
        snapshot_every: raft::cluster::SNAPSHOT_EVERY,
    }
}

/// A simulated replica behind a port, and its URL.
pub(crate) async fn replica(seed: u64) -> (Replica, String) {
    replica_with(Config { seed, speed: 50.0, ..Config::default() }).await
}

pub(crate) async fn replica_with(config: Config) -> (Replica, String) {
    let replica = Replica::start(Config { model_names: vec!["acme/qwen".to_owned()], ..config });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = replica.clone();
    tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
    (replica, url)
}

/// Waits for a fact that must become true soon.
pub(crate) async fn eventually(what: &str, mut fact: impl FnMut() -> bool) {
    for _ in 0..500 {
        if fact() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen that {what}");
}
