//! A node as `tollgate serve` runs it, from a configuration file's text, with a model `llm/qwen` and a key for it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actors::epp::ReplicaSnapshot;
use node::Context;
use node::config::Config;
use node::node::{Failed, Node};
use node::tls::Authority;
use raft::command::NewKey;
use raft::doors::{Clock, Doors, SystemClock};
use raft::resources::{Kind, NewObject, ObjectKey, validate};
use raft::storage::MemoryDisk;
use raft::{Command, Reply};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// The API key of user `ann`.
pub(crate) const KEY: &str = "sk-oai-test1_secret1";

/// A directory that goes away with the test.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("tollgate-edge-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The certificate authority `name` of this directory.
    pub(crate) fn authority(&self, name: &str) -> Authority {
        Authority::open(&self.0.join(name), SystemClock.wall()).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Replicas may be on this machine.
pub(crate) const LOOPBACK: &str = "[upstream]\nallow_loopback = true\n";

/// A certificate of `authority` for this machine: its configuration keys, as a section has them.
pub(crate) fn certificate(authority: &Authority) -> String {
    let files = authority.issue("server", &["localhost", "127.0.0.1"], SystemClock.wall()).unwrap();
    format!("certificate = {:?}\nkey = {:?}\n", files.certificate, files.key)
}

pub(crate) struct World {
    pub(crate) gateway: SocketAddr,
    context: Context,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), Failed>>,
}

impl World {
    /// A node with `sections` in its file, whose model has its replicas at `urls`, comma-separated.
    pub(crate) async fn start(directory: &Directory, sections: &str, urls: &str) -> World {
        let text = format!("[peers]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{sections}");
        let config = Config::parse(&text, directory.path(), &BTreeMap::new()).unwrap();
        let node = Node::start(&config, Doors::real(), Arc::new(MemoryDisk::new())).await.unwrap();
        let (gateway, context) = (node.gateway_address(), node.context().clone());
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(node.run(async {
            let _ = stopped.await;
        }));
        let world = World { gateway, context, stop, running };
        world.furnish(urls).await;
        world
    }

    async fn furnish(&self, urls: &str) {
        self.apply(Kind::Namespace, "", "llm", "", json!({})).await;
        let service = json!({"spec": {"model": {"name": "acme/qwen"}}});
        self.apply(Kind::InferenceService, "llm", "qwen", urls, service).await;
        let reference = json!({"spec": {"modelRef": {"kind": "LLMInferenceService", "name": "qwen"}}});
        self.apply(Kind::ModelRef, "llm", "qwen", "", reference).await;
        let limits = json!([{"limit": 1_000_000, "window": "1h"}]);
        let spec = json!({"spec": {
            "owner": {"users": ["ann"]},
            "modelRefs": [{"name": "qwen", "namespace": "llm", "tokenRateLimits": limits}],
        }});
        self.apply(Kind::Subscription, "models-as-a-service", "dev", "", spec).await;
        let models = json!([{"name": "qwen", "namespace": "llm"}]);
        let spec = json!({"spec": {"modelRefs": models, "subjects": {"users": ["ann"]}}});
        self.apply(Kind::AuthPolicy, "models-as-a-service", "dev", "", spec).await;
        self.add_key().await;
        self.eventually("the node serves the model", |context| {
            context.cluster.may_serve() && context.actors.routing.by_path("llm", "qwen").is_some()
        })
        .await;
    }

    async fn apply(&self, kind: Kind, namespace: &str, name: &str, urls: &str, body: Value) {
        let annotations = match urls {
            "" => BTreeMap::new(),
            urls => BTreeMap::from([("tollgate.dev/replicas".to_owned(), urls.to_owned())]),
        };
        let key = ObjectKey::new(kind, namespace, name);
        let object = NewObject { key, labels: BTreeMap::new(), annotations, body: body.to_string() };
        validate(&object).unwrap();
        self.propose(Command::CreateObject { object, uid: self.context.doors.chance.uuid() }).await;
    }

    async fn add_key(&self) {
        let key = NewKey {
            id: Uuid::from_u128(1),
            hash: actors::auth::key_hash(KEY).unwrap(),
            name: "a key".to_owned(),
            description: String::new(),
            username: "ann".to_owned(),
            groups: Vec::new(),
            subscription: "dev".to_owned(),
            expires: SystemClock.wall().plus(Duration::from_secs(3600)),
            ephemeral: false,
            labels: Vec::new(),
        };
        self.propose(Command::CreateKey(key)).await;
    }

    async fn propose(&self, command: Command) {
        let applied = self.context.cluster.propose(command).await.unwrap();
        assert!(matches!(applied.reply, Reply::Object(_) | Reply::Key(_)), "{:?}", applied.reply);
    }

    /// Waits for a fact that must become true soon.
    pub(crate) async fn eventually(&self, what: &str, fact: impl Fn(&Context) -> bool) {
        for _ in 0..2_000 {
            if fact(&self.context) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it did not happen that {what}; the replicas are {:?}", replicas(&self.context));
    }

    /// Waits until every replica gets calls.
    pub(crate) async fn wait_until_healthy(&self) {
        let healthy = |context: &Context| {
            let replicas = replicas(context);
            !replicas.is_empty() && replicas.iter().all(|replica| replica.is_ready())
        };
        self.eventually("every replica is healthy", healthy).await;
    }

    /// Waits until a reason is known why the only replica gets no calls.
    pub(crate) async fn reason_of_illness(&self) -> String {
        // Before its first probe every replica is ill.
        let reason = |context: &Context| {
            let reasons = replicas(context).into_iter().map(|replica| replica.status.to_string());
            reasons.into_iter().find(|reason| reason != "not probed yet")
        };
        self.eventually("a replica is ill for a reason", |context| reason(context).is_some()).await;
        reason(&self.context).unwrap()
    }

    /// Drains; whether the node had run well to its end.
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.running.await.unwrap().unwrap();
    }
}

fn replicas(context: &Context) -> Vec<ReplicaSnapshot> {
    context.actors.pools.snapshot().into_iter().flat_map(|pool| pool.replicas).collect()
}
