//! What the tutorial sets up by hand, through the admin API: once, and only what is not there.
//!
//! After the first run nothing is put back that somebody changed or deleted; only the replicas' addresses are kept true.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::super::admin_port::Answer;
use super::super::exit::Failure;
use super::client::AdminClient;
use super::environment::Exports;
use super::plan::{ModelPlan, Plan};

const MAAS: &str = "/apis/maas.opendatahub.io/v1alpha1/namespaces";
const KSERVE: &str = "/apis/serving.kserve.io/v1alpha1/namespaces";
const TENANT_NAMESPACE: &str = "models-as-a-service";
const USER_TOKEN_SECONDS: u64 = 365 * 86_400;

/// The tutorial's team: short questions.
pub(super) const CALCULUS: Team = Team {
    service_account: "developer",
    group: "calculus-users",
    administrator_belongs: true,
    subscription: "calculus-dev",
    policy: "calculus-dev-access",
    key: "calculus-agent-key",
    tokens_per_hour: 50_000,
};

/// A team of coding agents. One call of Claude Code sends about 20,000 tokens and asks for up to 32,000, so the tutorial's limit ends after
/// one call. This one fits about a hundred of them.
pub(super) const CODING_AGENTS: Team = Team {
    service_account: "coding-agent",
    group: "coding-agents",
    administrator_belongs: false,
    subscription: "coding-agents",
    policy: "coding-agents-access",
    key: "coding-agent-key",
    tokens_per_hour: 5_000_000,
};

/// A user, and what gives that user access to the model.
pub(super) struct Team {
    service_account: &'static str,
    group: &'static str,
    /// Whether the user `admin` is in the group, too.
    administrator_belongs: bool,
    pub(super) subscription: &'static str,
    policy: &'static str,
    /// The name of its API key.
    key: &'static str,
    pub(super) tokens_per_hour: u64,
}

/// The credentials that dev.env hands out.
pub(super) struct Seeded {
    pub(super) user_token: String,
    pub(super) key: Key,
    /// The key of [`CODING_AGENTS`].
    pub(super) agent_key: Key,
}

/// An API key.
pub(super) struct Key {
    pub(super) secret: String,
    /// Names the key where its secret must not be shown; empty if the data directory is older than this field.
    pub(super) id: String,
}

/// Sets up what is missing. `before` is what an earlier run wrote; its credentials are kept.
pub(super) async fn seed(
    plan: &Plan,
    client: &AdminClient,
    replica_urls: &[String],
    before: Option<&Exports>,
) -> Result<Seeded, Failure> {
    let seeder = Seeder { client, model: &plan.model };
    let kept = |name: &str| before.and_then(|before| before.get(name)).filter(|value| !value.is_empty()).cloned();
    let kept_key = |name: &str| {
        let id = kept(&format!("{name}_ID")).unwrap_or_default();
        kept(name).map(|secret| Key { secret, id })
    };
    let is_published = kept("MODEL_NAME").as_ref() == Some(&plan.model.name);
    let agent_key = kept_key("AGENT_API_KEY");
    if !is_published {
        seeder.publish_model(replica_urls).await?;
        seeder.open_model(&CALCULUS).await?;
    }
    // A directory from before there were coding agents has no key of theirs.
    if !is_published || agent_key.is_none() {
        seeder.open_model(&CODING_AGENTS).await?;
    }
    seeder.refresh_replicas(replica_urls).await?;
    let user_token = match kept("USER_TOKEN") {
        Some(token) => token,
        None => seeder.draw_user_token(&CALCULUS).await?,
    };
    let key = match kept_key("API_KEY") {
        Some(key) => key,
        None => seeder.draw_key(&CALCULUS, &user_token).await?,
    };
    let agent_key = match agent_key {
        Some(key) => key,
        None => seeder.draw_key(&CODING_AGENTS, &seeder.draw_user_token(&CODING_AGENTS).await?).await?,
    };
    Ok(Seeded { user_token, key, agent_key })
}

struct Seeder<'a> {
    client: &'a AdminClient,
    model: &'a ModelPlan,
}

impl Seeder<'_> {
    /// The namespace, the LLMInferenceService and its MaaSModelRef.
    async fn publish_model(&self, replica_urls: &[String]) -> Result<(), Failure> {
        let (name, namespace) = (&self.model.name, self.model.namespace);
        for namespace in [TENANT_NAMESPACE, namespace] {
            self.create(
                "/api/v1/namespaces",
                json!({
                    "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace},
                }),
            )
            .await?;
        }
        self.create(
            &format!("{KSERVE}/{namespace}/llminferenceservices"),
            json!({
                "apiVersion": "serving.kserve.io/v1alpha1",
                "kind": "LLMInferenceService",
                "metadata": {"name": name, "namespace": namespace, "annotations": replicas(replica_urls)},
                "spec": {
                    "model": {"uri": format!("hf://{}", self.model.served), "name": self.model.served},
                    "replicas": replica_urls.len(),
                },
            }),
        )
        .await?;
        self.create(
            &format!("{MAAS}/{namespace}/maasmodelrefs"),
            json!({
                "apiVersion": "maas.opendatahub.io/v1alpha1",
                "kind": "MaaSModelRef",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"modelRef": {"kind": "LLMInferenceService", "name": name}},
            }),
        )
        .await
    }

    /// The team's user, group, subscription and policy; or the model added to those that an earlier run made for another model.
    async fn open_model(&self, team: &Team) -> Result<(), Failure> {
        let user = format!("system:serviceaccount:{TENANT_NAMESPACE}:{}", team.service_account);
        let administrator = team.administrator_belongs.then(|| "admin".to_owned());
        let users: Vec<String> = administrator.into_iter().chain([user]).collect();
        self.create(
            &format!("/api/v1/namespaces/{TENANT_NAMESPACE}/serviceaccounts"),
            json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": team.service_account, "namespace": TENANT_NAMESPACE},
            }),
        )
        .await?;
        self.create(
            "/apis/user.openshift.io/v1/groups",
            json!({
                "apiVersion": "user.openshift.io/v1", "kind": "Group", "metadata": {"name": team.group}, "users": users,
            }),
        )
        .await?;
        let model = json!({"name": self.model.name, "namespace": self.model.namespace});
        let mut limited = model.clone();
        limited["tokenRateLimits"] = json!([{"limit": team.tokens_per_hour, "window": "1h"}]);
        self.create_or_add(
            "maassubscriptions",
            limited.clone(),
            json!({
                "apiVersion": "maas.opendatahub.io/v1alpha1",
                "kind": "MaaSSubscription",
                "metadata": {"name": team.subscription, "namespace": TENANT_NAMESPACE},
                "spec": {"priority": 0, "owner": {"groups": [{"name": team.group}]}, "modelRefs": [limited]},
            }),
        )
        .await?;
        self.create_or_add(
            "maasauthpolicies",
            model.clone(),
            json!({
                "apiVersion": "maas.opendatahub.io/v1alpha1",
                "kind": "MaaSAuthPolicy",
                "metadata": {"name": team.policy, "namespace": TENANT_NAMESPACE},
                "spec": {"subjects": {"groups": [{"name": team.group}]}, "modelRefs": [model]},
            }),
        )
        .await
    }

    /// The addresses may have changed. Somebody who deleted the service does not want it back.
    async fn refresh_replicas(&self, replica_urls: &[String]) -> Result<(), Failure> {
        let path = format!("{KSERVE}/{}/llminferenceservices/{}", self.model.namespace, self.model.name);
        let patch = json!({"metadata": {"annotations": replicas(replica_urls)}});
        let answer = self.call(Method::PATCH, &path, Some(&patch)).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(()),
            status if status.is_success() => Ok(()),
            _ => Err(refused(&path, &answer)),
        }
    }

    async fn draw_user_token(&self, team: &Team) -> Result<String, Failure> {
        let account = team.service_account;
        let path = format!("/api/v1/namespaces/{TENANT_NAMESPACE}/serviceaccounts/{account}/token");
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": USER_TOKEN_SECONDS},
        });
        let answer = self.call(Method::POST, &path, Some(&body)).await?;
        let token = answer.body["status"]["token"].as_str().map(str::to_owned);
        token.ok_or_else(|| refused(&path, &answer))
    }

    async fn draw_key(&self, team: &Team, user_token: &str) -> Result<Key, Failure> {
        let path = "/maas-api/v1/api-keys";
        let body = json!({"name": team.key, "subscription": team.subscription});
        let answer = self.client.post_as(user_token, path, &body).await.map_err(|error| unanswered(path, &error))?;
        let text = |field: &str| answer.body[field].as_str().map(str::to_owned);
        let key = text("key").zip(text("id")).map(|(secret, id)| Key { secret, id });
        key.ok_or_else(|| refused(path, &answer))
    }

    /// Creates an object in `collection`; one that exists is left as it is.
    async fn create(&self, collection: &str, object: Value) -> Result<(), Failure> {
        let answer = self.call(Method::POST, collection, Some(&object)).await?;
        match answer.status {
            StatusCode::CONFLICT => Ok(()),
            status if status.is_success() => Ok(()),
            _ => Err(refused(collection, &answer)),
        }
    }

    /// Creates an object of the tenant's namespace, or adds `model` to the `spec.modelRefs` of the one that exists.
    async fn create_or_add(&self, plural: &str, model: Value, object: Value) -> Result<(), Failure> {
        let collection = format!("{MAAS}/{TENANT_NAMESPACE}/{plural}");
        let path = format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap_or_default());
        let found = self.call(Method::GET, &path, None).await?;
        if !found.status.is_success() {
            return self.create(&collection, object).await;
        }
        let mut models = found.body["spec"]["modelRefs"].as_array().cloned().unwrap_or_default();
        if models.iter().any(|known| known["name"] == model["name"] && known["namespace"] == model["namespace"]) {
            return Ok(());
        }
        models.push(model);
        let answer = self.call(Method::PATCH, &path, Some(&json!({"spec": {"modelRefs": models}}))).await?;
        if answer.status.is_success() { Ok(()) } else { Err(refused(&path, &answer)) }
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        self.client.call(method, path, body).await.map_err(|error| unanswered(path, &error))
    }
}

fn replicas(urls: &[String]) -> Value {
    json!({raft::resources::REPLICAS_ANNOTATION: urls.join(",")})
}

fn unanswered(path: &str, error: &str) -> Failure {
    Failure::internal(format!("setting up {path}: {error}"))
}

fn refused(path: &str, answer: &Answer) -> Failure {
    let message =
        answer.body["message"].as_str().or_else(|| answer.body["error"].as_str()).unwrap_or("no reason given");
    Failure::internal(format!("setting up {path}: {} {message}", answer.status))
}
