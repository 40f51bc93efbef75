//! The route table: every model, subscription and policy, arranged by the questions that requests ask. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use raft::View;
use raft::resources::{
    CacheIsolation, InferenceServiceSpec, Kind, ModelRefSpec, ObjectKey, Phase, Spec, Subjects, SubscriptionModel,
    SubscriptionSpec, TENANT_NAMESPACE, reference_phase,
};

use super::{AccessKey, Denied, Lookup, Model, Name, Permit, SubscriptionAccess, UsableModels};
use crate::auth::Caller;

/// Which names mean which model, and who may use it through which subscription.
#[derive(Default)]
pub(super) struct RouteTable {
    /// Namespace, then MaaSModelRef or LLMInferenceService name.
    by_path: HashMap<Arc<str>, HashMap<Arc<str>, Arc<Model>>>,
    /// Bare MaaSModelRef names and served names; in the order of ids.
    by_name: HashMap<Arc<str>, Vec<Arc<Model>>>,
    /// Sorted.
    models: BTreeMap<Name, Arc<Model>>,
    /// Bare names; where namespaces repeat one, the tenant's namespace comes first.
    subscriptions: HashMap<Arc<str>, Vec<Arc<Subscription>>>,
    /// For each model, the subscriptions that list it and who policies let in.
    access: HashMap<Name, ModelAccess>,
}

/// A MaaSSubscription.
struct Subscription {
    id: Name,
    owner: Members,
    is_ready: bool,
    models: HashMap<Name, Arc<SubscriptionAccess>>,
}

/// Who may use a model, and through what.
#[derive(Default)]
struct ModelAccess {
    subscriptions: Vec<Arc<Subscription>>,
    /// Policies on one model are alternatives, so their subjects are one set.
    policy: Members,
}

/// Groups and users; matching any one of them is enough.
#[derive(Default)]
struct Members {
    users: HashSet<Box<str>>,
    groups: HashSet<Box<str>>,
}

impl Members {
    fn add(&mut self, subjects: &Subjects) {
        self.users.extend(subjects.users.iter().map(|user| user.as_str().into()));
        self.groups.extend(subjects.groups.iter().map(|group| group.as_str().into()));
    }

    fn contains(&self, caller: &Caller) -> bool {
        self.users.contains(caller.user()) || caller.groups().iter().any(|group| self.groups.contains(group.as_str()))
    }
}

// === Building ===

impl RouteTable {
    pub(super) fn of(view: &View) -> RouteTable {
        let mut table = RouteTable::default();
        for object in view.objects_of(Kind::ModelRef) {
            if let Spec::ModelRef(spec) = &object.spec {
                table.add_model(view, &object.key, spec);
            }
        }
        let isolation = view.tenant().cache_isolation;
        for object in view.objects_of(Kind::Subscription) {
            if let Spec::Subscription(spec) = &object.spec {
                let is_ready = reference_phase(object, view) != Phase::Failed;
                table.add_subscription(&object.key, spec, is_ready, isolation);
            }
        }
        for object in view.objects_of(Kind::AuthPolicy) {
            let Spec::AuthPolicy(spec) = &object.spec else { continue };
            for (namespace, name) in &spec.model_refs {
                table.access.entry(Name::new(namespace, name)).or_default().policy.add(&spec.subjects);
            }
        }
        for same_name in table.subscriptions.values_mut() {
            same_name.sort_by_key(|subscription| &*subscription.id.namespace != TENANT_NAMESPACE);
        }
        table
    }

    fn add_model(&mut self, view: &View, key: &ObjectKey, spec: &ModelRefSpec) {
        let id = Name::new(&key.namespace, &key.name);
        let service = service(view, key, spec);
        let served_name = service.and_then(|service| service.served_name.as_deref()).unwrap_or(&spec.name);
        let model = Arc::new(Model {
            service: Name { namespace: id.namespace.clone(), name: spec.name.as_str().into() },
            served_name: served_name.into(),
            resolved: service.is_some(),
            allowed_fields: spec.allowed_fields.clone(),
            media: spec.media,
            id: id.clone(),
        });
        let paths = self.by_path.entry(id.namespace.clone()).or_default();
        // A MaaSModelRef's own name is stronger than the name of a service that another one publishes.
        paths.insert(id.name.clone(), model.clone());
        let service_is_named = view.object(&ObjectKey::new(Kind::ModelRef, &*key.namespace, &*spec.name)).is_some();
        if !service_is_named {
            paths.entry(model.service.name.clone()).or_insert_with(|| model.clone());
        }
        self.by_name.entry(id.name.clone()).or_default().push(model.clone());
        if model.served_name != id.name {
            self.by_name.entry(model.served_name.clone()).or_default().push(model.clone());
        }
        self.models.insert(id, model);
    }

    fn add_subscription(
        &mut self,
        key: &ObjectKey,
        spec: &SubscriptionSpec,
        is_ready: bool,
        isolation: CacheIsolation,
    ) {
        let id = Name::new(&key.namespace, &key.name);
        let mut owner = Members::default();
        owner.add(&spec.owner);
        let mut models: HashMap<Name, Arc<SubscriptionAccess>> = HashMap::new();
        for reference in &spec.model_refs {
            let model = Name::new(&reference.namespace, &reference.name);
            if !self.models.contains_key(&model) || models.contains_key(&model) {
                continue;
            }
            let same_model =
                |other: &&SubscriptionModel| (&other.namespace, &other.name) == (&reference.namespace, &reference.name);
            // A model listed twice is under the limits of both entries.
            let limits = spec.model_refs.iter().filter(same_model).flat_map(|entry| entry.limits.clone()).collect();
            let key = Arc::new(AccessKey { subscription: id.clone(), model: model.clone() });
            let metadata = spec.metadata.clone();
            let access = SubscriptionAccess {
                id: id.clone(),
                limits,
                metadata,
                engine_priority: spec.engine_priority,
                cache_isolation: spec.cache_isolation.unwrap_or(isolation),
                key,
            };
            models.insert(model, Arc::new(access));
        }
        let names: Vec<Name> = models.keys().cloned().collect();
        let subscription = Arc::new(Subscription { id: id.clone(), owner, is_ready, models });
        for model in names {
            self.access.entry(model).or_default().subscriptions.push(subscription.clone());
        }
        self.subscriptions.entry(id.name).or_default().push(subscription);
    }
}

fn service<'a>(view: &'a View, key: &ObjectKey, spec: &ModelRefSpec) -> Option<&'a InferenceServiceSpec> {
    if spec.kind != "LLMInferenceService" {
        return None;
    }
    let object = view.object(&ObjectKey::new(Kind::InferenceService, &*key.namespace, &*spec.name))?;
    match &object.spec {
        Spec::InferenceService(service) => Some(service),
        _ => None,
    }
}

// === Which model ===

impl RouteTable {
    pub(super) fn by_path(&self, namespace: &str, name: &str) -> Option<&Arc<Model>> {
        self.by_path.get(namespace)?.get(name)
    }

    pub(super) fn by_name(&self, name: &str, caller: &Caller) -> Lookup {
        let published = name.strip_prefix("publishers/").and_then(|rest| rest.split_once("/models/"));
        if let Some(model) = published.and_then(|(namespace, name)| self.published(namespace, name)) {
            return Lookup::Found(model.clone());
        }
        if let Some(models) = self.by_name.get(name) {
            return self.choose(models, caller);
        }
        match name.split_once('/').and_then(|(namespace, name)| self.by_path(namespace, name)) {
            Some(model) => Lookup::Found(model.clone()),
            None => Lookup::Unknown,
        }
    }

    /// `publishers/{namespace}/models/{name}`: the name may be the model's or the one it is served under.
    fn published(&self, namespace: &str, name: &str) -> Option<&Arc<Model>> {
        let is_here = |model: &&Arc<Model>| &*model.id.namespace == namespace;
        self.by_path(namespace, name).or_else(|| self.by_name.get(name)?.iter().find(is_here))
    }

    /// Among models of one name: the only one, or the only one the caller may use.
    fn choose(&self, models: &[Arc<Model>], caller: &Caller) -> Lookup {
        if let [model] = models {
            return Lookup::Found(model.clone());
        }
        let mut usable: Vec<&Arc<Model>> = models.iter().filter(|model| self.is_usable(model, caller)).collect();
        usable.dedup_by(|a, b| Arc::ptr_eq(a, b));
        match (usable.as_slice(), models) {
            ([model], _) => Lookup::Found(Arc::clone(model)),
            // None may be used: authorization says why, without telling names the caller has no business with.
            ([], [model, ..]) => Lookup::Found(model.clone()),
            ([], []) => Lookup::Unknown,
            (several, _) => Lookup::Ambiguous(several.iter().map(|model| model.id.clone()).collect()),
        }
    }

    fn is_usable(&self, model: &Model, caller: &Caller) -> bool {
        let Some(access) = self.access.get(&model.id) else { return false };
        let is_open = match caller.bound_subscription() {
            Some(bound) => self.subscription(bound).is_some_and(|subscription| {
                subscription.is_open_to(caller) && subscription.models.contains_key(&model.id)
            }),
            None => access.subscriptions.iter().any(|subscription| subscription.is_open_to(caller)),
        };
        is_open && access.policy.contains(caller)
    }
}

// === Who may use it ===

impl Subscription {
    fn is_open_to(&self, caller: &Caller) -> bool {
        self.is_ready && self.owner.contains(caller)
    }
}

impl RouteTable {
    pub(super) fn authorize(
        &self,
        caller: Caller,
        model: &Arc<Model>,
        requested: Option<&str>,
    ) -> Result<Permit, Denied> {
        let subscription = match caller.bound_subscription().or(requested) {
            Some(name) => self.named(name, &caller, model)?,
            None => self.only_one(&caller, model)?,
        };
        let is_let_in = self.access.get(&model.id).is_some_and(|access| access.policy.contains(&caller));
        if !is_let_in {
            return Err(Denied::NoPolicy { user: caller.user().to_owned(), model: model.id.to_string() });
        }
        Ok(Permit { caller, model: model.clone(), subscription: subscription.clone() })
    }

    pub(super) fn unlisted(&self, caller: &Caller, model: String, requested: Option<&str>) -> Denied {
        match caller.bound_subscription().or(requested) {
            Some(name) => match self.open_subscription(name, caller) {
                Ok(_) => Denied::ModelNotInSubscription { subscription: name.to_owned(), model },
                Err(denied) => denied,
            },
            None => Denied::NoSubscription { user: caller.user().to_owned(), model },
        }
    }

    /// Access to `model` through the subscription called `name`.
    fn named(&self, name: &str, caller: &Caller, model: &Model) -> Result<&Arc<SubscriptionAccess>, Denied> {
        let subscription = self.open_subscription(name, caller)?;
        subscription.models.get(&model.id).ok_or_else(|| Denied::ModelNotInSubscription {
            subscription: name.to_owned(),
            model: model.id.to_string(),
        })
    }

    /// Access through the only subscription of the caller that lists the model.
    fn only_one(&self, caller: &Caller, model: &Model) -> Result<&Arc<SubscriptionAccess>, Denied> {
        let listing = self.access.get(&model.id).map(|access| access.subscriptions.as_slice()).unwrap_or_default();
        let mut open = listing.iter().filter(|subscription| subscription.is_open_to(caller));
        match (open.next(), open.next()) {
            (Some(subscription), None) => subscription.models.get(&model.id),
            (Some(_), Some(_)) => return Err(Denied::MultipleSubscriptions),
            (None, _) => None,
        }
        .ok_or_else(|| Denied::NoSubscription { user: caller.user().to_owned(), model: model.id.to_string() })
    }

    fn open_subscription(&self, name: &str, caller: &Caller) -> Result<&Arc<Subscription>, Denied> {
        let subscription = self.subscription(name).ok_or_else(|| Denied::SubscriptionNotFound(name.to_owned()))?;
        if !subscription.owner.contains(caller) {
            return Err(Denied::NotOwner { user: caller.user().to_owned(), subscription: name.to_owned() });
        }
        if !subscription.is_ready {
            return Err(Denied::SubscriptionNotReady(name.to_owned()));
        }
        Ok(subscription)
    }

    /// A subscription by its bare name, or as `namespace/name`.
    fn subscription(&self, name: &str) -> Option<&Arc<Subscription>> {
        match name.split_once('/') {
            Some((namespace, name)) => {
                self.subscriptions.get(name)?.iter().find(|subscription| &*subscription.id.namespace == namespace)
            }
            None => self.subscriptions.get(name)?.first(),
        }
    }

    pub(super) fn models_for(&self, caller: &Caller, subscription: Option<&str>) -> Result<UsableModels, Denied> {
        let only = match caller.bound_subscription().or(subscription) {
            Some(name) => Some(self.open_subscription(name, caller)?),
            None => None,
        };
        let mut found = Vec::new();
        for (id, model) in &self.models {
            let Some(access) = self.access.get(id).filter(|access| access.policy.contains(caller)) else { continue };
            let is_meant = |subscription: &&Arc<Subscription>| match only {
                Some(only) => Arc::ptr_eq(only, subscription),
                None => subscription.is_open_to(caller),
            };
            let mut names: Vec<Name> =
                access.subscriptions.iter().filter(is_meant).map(|subscription| subscription.id.clone()).collect();
            names.sort();
            if !names.is_empty() {
                found.push((model.clone(), names));
            }
        }
        Ok(found)
    }
}
