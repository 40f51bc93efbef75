//! Routing: which path or model name means which model, and who may use it through which subscription.
//!
//! The actor rebuilds one table whenever resources change and publishes it whole. A request whose View is newer than the
//! table builds it itself, so nobody is judged by rules older than the View.

mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use raft::Cluster;
use raft::resources::{CacheIsolation, Limit, MediaTokens, MeteringMetadata};
use tokio::task::JoinSet;

use crate::auth::Caller;
use crate::derived::{Built, Derived};
use crate::mailbox::{Seen, follow_views};

use table::RouteTable;

/// A namespace and a name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl Name {
    /// A name from its parts.
    pub fn new(namespace: &str, name: &str) -> Name {
        Name { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Name {
    /// `namespace/name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A published model (a MaaSModelRef and the LLMInferenceService behind it).
#[derive(Debug)]
pub struct Model {
    /// The MaaSModelRef: also how clients name it.
    pub id: Name,
    /// The LLMInferenceService behind it: names the pool of replicas.
    pub service: Name,
    /// What the replicas call it: the `model` that goes upstream.
    pub served_name: Arc<str>,
    /// Whether the service exists.
    pub resolved: bool,
    /// Which fields that steer the engine its callers may set.
    pub allowed_fields: Vec<&'static str>,
    /// How many tokens it makes of media.
    pub media: MediaTokens,
}

/// What `model` in a body, or a path, turned out to be.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// One model.
    Found(Arc<Model>),
    /// Models of that name in several namespaces: say which, as `namespace/name`.
    Ambiguous(Vec<Name>),
    /// No such model.
    Unknown,
}

/// Proof that a caller may use a model through a subscription. Only [`Routing::authorize`] makes one.
#[derive(Clone, Debug)]
pub struct Permit {
    caller: Caller,
    model: Arc<Model>,
    subscription: Arc<SubscriptionAccess>,
}

impl Permit {
    /// Who.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Through which subscription, under which limits.
    pub fn subscription(&self) -> &Arc<SubscriptionAccess> {
        &self.subscription
    }
}

/// What one subscription says of one model.
#[derive(Debug)]
pub struct SubscriptionAccess {
    /// The MaaSSubscription.
    pub id: Name,
    /// Every one of them must hold, each for whom its scope says.
    pub limits: Vec<Limit>,
    /// What usage is accounted under.
    pub metadata: MeteringMetadata,
    /// The priority of its calls at the replicas, if they have one: lower goes first.
    pub engine_priority: Option<i32>,
    /// Whose calls share cached prefixes.
    pub cache_isolation: CacheIsolation,
    /// The pair it stands for.
    pub(crate) key: Arc<AccessKey>,
}

/// A subscription and a model: what sets of meters are kept under.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct AccessKey {
    /// The MaaSSubscription.
    pub(crate) subscription: Name,
    /// The MaaSModelRef.
    pub(crate) model: Name,
}

/// Why a caller may not use a model. Upstream says only 403; we say what is missing and who can add it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Denied {
    /// The key's (or the named) subscription does not exist.
    #[error("subscription `{0}` not found: it may have been deleted; create a new key for another subscription")]
    SubscriptionNotFound(String),
    /// The caller is not among its owners.
    #[error(
        "user `{user}` is not an owner of subscription `{subscription}`: ask a platform admin to add you or one of your groups to its spec.owner"
    )]
    NotOwner {
        /// Who.
        user: String,
        /// Of what.
        subscription: String,
    },
    /// No subscription of the caller covers the model.
    #[error("no subscription of user `{user}` includes model `{model}`")]
    NoSubscription {
        /// Who.
        user: String,
        /// Which model.
        model: String,
    },
    /// The subscription does not list the model.
    #[error("subscription `{subscription}` does not include model `{model}`")]
    ModelNotInSubscription {
        /// Which subscription.
        subscription: String,
        /// Which model.
        model: String,
    },
    /// Several subscriptions would do.
    #[error("user has access to multiple subscriptions, must specify subscription using X-MaaS-Subscription header")]
    MultipleSubscriptions,
    /// It exists and is Failed.
    #[error("subscription `{0}` is not ready: see its status")]
    SubscriptionNotReady(String),
    /// Nobody opened the model to this caller.
    #[error(
        "no MaaSAuthPolicy opens model `{model}` to user `{user}` or their groups: ask a platform admin to add one"
    )]
    NoPolicy {
        /// Who.
        user: String,
        /// Which model.
        model: String,
    },
}

impl Denied {
    /// The machine-readable reason, as upstream's subscription selection names it: value of `x-ext-auth-reason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Denied::SubscriptionNotFound(_) | Denied::NoSubscription { .. } => "not_found",
            Denied::NotOwner { .. } => "access_denied",
            Denied::ModelNotInSubscription { .. } => "model_not_in_subscription",
            Denied::MultipleSubscriptions => "multiple_subscriptions",
            Denied::SubscriptionNotReady(_) => "model_unhealthy",
            Denied::NoPolicy { .. } => "unauthorized",
        }
    }
}

/// Models, each with the subscriptions through which a caller may use it.
pub type UsableModels = Vec<(Arc<Model>, Vec<Name>)>;

/// Handle of the routing actor.
#[derive(Clone)]
pub struct Routing {
    cluster: Cluster,
    table: Arc<Derived<RouteTable>>,
}

impl Routing {
    pub(crate) fn new(cluster: Cluster) -> Routing {
        let table = Arc::new(Derived::new(&cluster.view(), RouteTable::of));
        Routing { cluster, table }
    }

    fn table(&self) -> impl Deref<Target = Arc<Built<RouteTable>>> {
        self.table.of(&self.cluster.view())
    }

    /// The model at `/<namespace>/<name>`: by MaaSModelRef or by LLMInferenceService name.
    pub fn by_path(&self, namespace: &str, name: &str) -> Option<Arc<Model>> {
        self.table().by_path(namespace, name).cloned()
    }

    /// The model a body names: `name`, `namespace/name`, `publishers/{ns}/models/{name}`, or the served name where that is unique.
    /// Only models `caller` may use are considered when the bare name is ambiguous.
    pub fn by_name(&self, name: &str, caller: &Caller) -> Lookup {
        self.table().by_name(name, caller)
    }

    /// Whether `caller` may use `model`, and through which subscription: the key's own, or for a token `requested`
    /// (`ns/name` or bare), or the only one that fits. Needs an owner match AND a policy match.
    pub fn authorize(&self, caller: Caller, model: &Arc<Model>, requested: Option<&str>) -> Result<Permit, Denied> {
        self.table().authorize(caller, model, requested)
    }

    /// Why `caller` may not use a model that none of their subscriptions includes, whether it exists or not. It is called as they
    /// called it.
    pub fn unlisted(&self, caller: &Caller, asked: String, requested: Option<&str>) -> Denied {
        self.table().unlisted(caller, asked, requested)
    }

    /// The models `caller` may use through `subscription` (or any of theirs), each with the subscriptions that allow it, sorted by id.
    /// For model lists: needs no quota.
    pub fn models_for(&self, caller: &Caller, subscription: Option<&str>) -> Result<UsableModels, Denied> {
        self.table().models_for(caller, subscription)
    }
}

// === The actor: keeps the table fresh, so that no request has to build it ===

pub(crate) struct RoutingActor;

/// Bounded: one View at a time.
pub(crate) enum RoutingMessage {
    View(Seen),
}

impl Actor for RoutingActor {
    type Msg = RoutingMessage;
    type State = (Routing, JoinSet<()>);
    type Arguments = Routing;

    async fn pre_start(
        &self,
        myself: ActorRef<RoutingMessage>,
        routing: Routing,
    ) -> Result<Self::State, ActorProcessingErr> {
        let mut following = JoinSet::new();
        following.spawn(follow_views(routing.cluster.clone(), myself, RoutingMessage::View));
        Ok((routing, following))
    }

    async fn handle(
        &self,
        _myself: ActorRef<RoutingMessage>,
        message: RoutingMessage,
        (routing, _following): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let RoutingMessage::View(_seen) = message;
        drop(routing.table());
        Ok(())
    }
}
