//! A node without sockets: a cluster of one on a disk in memory, the actors, and both routers.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actors::probe::{Scrape, Scraped};
use actors::{Actors, auth::token_hash};
use axum::Router;
use axum::body::Body;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use node::observability::Metrics;
use node::{Context, Pace, admin};
use raft::cluster::Settings;
use raft::command::{Command, NewToken, Reply};
use raft::doors::{BoxFuture, Doors};
use raft::storage::MemoryDisk;
use raft::{Cluster, NodeId};
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt;

/// Tokens, and whom they stand for.
pub(crate) const ADMIN: &str = "test-token-of-the-administrator";
pub(crate) const ALICE: &str = "test-token-of-alice";
pub(crate) const BOB: &str = "test-token-of-bob";
pub(crate) const PROMETHEUS: &str = "test-token-of-prometheus";

pub(crate) struct World {
    pub(crate) context: Context,
    pub(crate) admin: Router,
    pub(crate) public: Router,
    pub(crate) replicas: Replicas,
    pub(crate) drain: watch::Sender<bool>,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

impl World {
    pub(crate) async fn start() -> World {
        World::start_bounded(&admin::Bounds::default()).await
    }

    /// One whose users may have other numbers of watches and queries.
    pub(crate) async fn start_bounded(bounds: &admin::Bounds) -> World {
        let doors = Doors::real();
        let peer = format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
        let settings = Settings {
            node: NodeId(1),
            cluster: "test".to_owned(),
            peer_listen: peer.clone(),
            members: BTreeMap::from([(NodeId(1), peer)]),
            tls: None,
            serving_lease: Duration::from_secs(5),
            snapshot_every: raft::cluster::SNAPSHOT_EVERY,
        };
        let cluster = Cluster::start(settings, Arc::new(MemoryDisk::new()), doors.clone()).await.unwrap();
        let replicas = Replicas::default();
        let deps = actors::Deps {
            cluster: cluster.clone(),
            doors: doors.clone(),
            scrape: Arc::new(replicas.clone()),
            settings: actors::Settings { probe_interval: Duration::from_millis(50), ..actors::Settings::default() },
        };
        let actors = Actors::start(deps).await.unwrap();
        let context = Context { cluster, actors, doors, metrics: Metrics::new(), new_keys: Pace::default() };
        let (drain, draining) = watch::channel(false);
        let admin::Routers { admin, public } = admin::routers(&context, draining, bounds);
        let world = World { admin, public, context, replicas, drain };
        world.add_token(ADMIN, "admin", &["system:masters"]).await;
        world.add_token(ALICE, "alice", &["calculus-users"]).await;
        world.add_token(BOB, "bob", &[]).await;
        world.add_token(PROMETHEUS, "prometheus", &["system:monitoring"]).await;
        world
    }

    async fn add_token(&self, token: &str, username: &str, groups: &[&str]) {
        let new = NewToken {
            hash: token_hash(token),
            username: username.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            expires: None,
            service_account: None,
        };
        let applied = self.context.cluster.propose(Command::CreateToken(new)).await.unwrap();
        assert_eq!(applied.reply, Reply::Done);
    }

    /// Asks the admin port.
    pub(crate) async fn ask(&self, method: &str, path: &str, token: &str, body: &str) -> Answer {
        self.ask_with(method, path, token, body, &[]).await
    }

    /// Asks the admin port, with headers.
    pub(crate) async fn ask_with(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        ask(&self.admin, method, path, token, body, headers).await
    }

    /// Asks the admin API for something that must succeed.
    pub(crate) async fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let answer = self.ask_with(method, path, ADMIN, &body.to_string(), &[("content-type", media)]).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text);
        answer.json()
    }

    /// A model with one replica, published, with a subscription and a policy for `calculus-users`.
    pub(crate) async fn furnish(&self) {
        for (path, object) in furniture() {
            self.done("POST", path, &object).await;
        }
    }
}

/// Asks a router.
pub(crate) async fn ask(
    router: &Router,
    method: &str,
    path: &str,
    token: &str,
    body: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let response = router.clone().oneshot(request(method, path, token, body, headers)).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status.as_u16(), headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
}

/// A request; no Authorization if `token` is empty.
pub(crate) fn request(method: &str, path: &str, token: &str, body: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !token.is_empty() {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    if !headers.iter().any(|(name, _)| *name == "content-type") && !body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

pub(crate) const MAAS: &str = "/apis/maas.opendatahub.io/v1alpha1";
pub(crate) const SUBSCRIPTIONS: &str =
    "/apis/maas.opendatahub.io/v1alpha1/namespaces/models-as-a-service/maassubscriptions";

/// A MaaSSubscription of `calculus-users` on one model.
pub(crate) fn subscription(name: &str, priority: i32, limit: u64) -> Value {
    serde_json::json!({
        "apiVersion": "maas.opendatahub.io/v1alpha1",
        "kind": "MaaSSubscription",
        "metadata": {"name": name, "namespace": "models-as-a-service"},
        "spec": {
            "priority": priority,
            "owner": {"groups": [{"name": "calculus-users"}]},
            "modelRefs": [{"name": "gpt", "namespace": "llm", "tokenRateLimits": [{"limit": limit, "window": "1h"}]}],
        },
    })
}

fn furniture() -> Vec<(&'static str, Value)> {
    let json = |text: &str| serde_json::from_str(text).unwrap();
    vec![
        ("/api/v1/namespaces", json(r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"llm"}}"#)),
        (
            "/apis/serving.kserve.io/v1alpha1/namespaces/llm/llminferenceservices",
            json(
                r#"{"apiVersion":"serving.kserve.io/v1alpha1","kind":"LLMInferenceService",
                "metadata":{"name":"gpt","annotations":{"tollgate.dev/replicas":"http://127.0.0.1:9"}},
                "spec":{"model":{"uri":"hf://acme/gpt","name":"acme/gpt"},"replicas":1}}"#,
            ),
        ),
        (
            "/apis/maas.opendatahub.io/v1alpha1/namespaces/llm/maasmodelrefs",
            json(
                r#"{"apiVersion":"maas.opendatahub.io/v1alpha1","kind":"MaaSModelRef",
                "metadata":{"name":"gpt","annotations":{"openshift.io/display-name":"GPT","opendatahub.io/context-window":"4096"}},
                "spec":{"modelRef":{"kind":"LLMInferenceService","name":"gpt"}}}"#,
            ),
        ),
        (SUBSCRIPTIONS, subscription("calculus-dev", 0, 50_000)),
        (
            "/apis/maas.opendatahub.io/v1alpha1/namespaces/models-as-a-service/maasauthpolicies",
            json(
                r#"{"apiVersion":"maas.opendatahub.io/v1alpha1","kind":"MaaSAuthPolicy","metadata":{"name":"calculus-dev-access"},
                "spec":{"subjects":{"groups":[{"name":"calculus-users"}]},"modelRefs":[{"name":"gpt","namespace":"llm"}]}}"#,
            ),
        ),
    ]
}

/// The replicas as probes see them: all well, or all refusing.
#[derive(Clone, Default)]
pub(crate) struct Replicas {
    ill: Arc<AtomicBool>,
}

impl Replicas {
    pub(crate) fn fall_ill(&self) {
        self.ill.store(true, Ordering::SeqCst);
    }
}

impl Scrape for Replicas {
    fn get<'a>(&'a self, _base: &'a str, path: &'a str, _deadline: Duration) -> BoxFuture<'a, Result<Scraped, String>> {
        let body = if path == "/metrics" {
            "vllm:num_requests_running{model_name=\"acme/gpt\"} 0\nvllm:num_requests_waiting{model_name=\"acme/gpt\"} 0\nvllm:kv_cache_usage_perc{model_name=\"acme/gpt\"} 0\n"
        } else {
            ""
        };
        let ill = self.ill.load(Ordering::SeqCst);
        Box::pin(async move {
            if ill { Err("connection refused".to_owned()) } else { Ok(Scraped { status: 200, body: body.into() }) }
        })
    }
}
