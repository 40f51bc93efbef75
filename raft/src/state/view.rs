//! What readers get: the state at one log index, immutable and cheap to hold, and the questions they ask of it.

use std::ops::Deref;
use std::sync::Arc;

use super::key::KeysOfOwner;
use super::{ApiKey, Meter, MeterId, MeterReading, State, Subject, Token};
use crate::ids::Timestamp;
use crate::resources::{
    AllowedOrigins, DEFAULT_TENANT, KeyBounds, Kind, Limit, Object, ObjectKey, Spec, TENANT_NAMESPACE, TenantSpec,
};

/// The state at one moment. Reads never wait and never see half a change.
#[derive(Clone, Debug, Default)]
pub struct View(State);

impl View {
    /// A view of `state`.
    pub fn of(state: &State) -> View {
        View(state.clone())
    }
}

impl Deref for View {
    type Target = State;
    fn deref(&self) -> &State {
        &self.0
    }
}

impl State {
    /// An object.
    pub fn object(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// All objects of a kind, by namespace and name.
    pub fn objects_of(&self, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
        let from = ObjectKey::new(kind, "", "");
        self.objects.range(from..).map(|(_, object)| object).take_while(move |object| object.key.kind == kind)
    }

    /// All objects of a kind in a namespace, by name.
    pub fn objects_in<'a>(&'a self, kind: Kind, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Object>> {
        let from = ObjectKey::new(kind, namespace, "");
        let is_here = move |object: &&Arc<Object>| object.key.kind == kind && object.key.namespace == namespace;
        self.objects.range(from..).map(|(_, object)| object).take_while(is_here)
    }

    /// The API key whose secret hashes to `hash`, whatever its status.
    pub fn key_by_hash(&self, hash: &[u8; 32]) -> Option<&Arc<ApiKey>> {
        self.keys.get(self.keys_by_hash.get(hash)?)
    }

    /// All API keys of a user, by their end, whatever their status.
    pub fn keys_of<'a>(&'a self, username: &str) -> impl Iterator<Item = &'a Arc<ApiKey>> + use<'a> {
        let owned = self.keys_by_owner.get(username);
        owned.into_iter().flat_map(KeysOfOwner::ids).filter_map(|id| self.keys.get(id))
    }

    /// The bearer token that hashes to `hash`, whether or not it has expired.
    pub fn token_by_hash(&self, hash: &[u8; 32]) -> Option<&Arc<Token>> {
        self.tokens.get(hash)
    }

    /// The bearer tokens of `user` that stand for no ServiceAccount, whether or not they have expired.
    pub fn tokens_of<'a>(&'a self, user: &str) -> impl Iterator<Item = &'a Arc<Token>> + use<'a> {
        let hashes = self.tokens_by_user.get(user);
        hashes.into_iter().flatten().filter_map(|hash| self.tokens.get(hash))
    }

    /// The names of the Group objects that list `user`, sorted.
    pub fn groups_of(&self, user: &str) -> Vec<String> {
        let lists = |object: &&Arc<Object>| match &object.spec {
            Spec::Group(group) => group.users.iter().any(|name| name == user),
            _ => false,
        };
        self.objects_of(Kind::Group).filter(lists).map(|object| object.key.name.clone()).collect()
    }

    /// Whether the Group object of that name lists `user`.
    pub fn is_in_group(&self, user: &str, group: &str) -> bool {
        match self.object(&ObjectKey::new(Kind::Group, "", group)).map(|object| &object.spec) {
            Some(Spec::Group(group)) => group.users.iter().any(|name| name == user),
            _ => false,
        }
    }

    /// The tenant's settings; the defaults if there is no tenant or it cannot be read.
    pub fn tenant(&self) -> TenantSpec {
        self.written_tenant().cloned().unwrap_or_default()
    }

    /// How many API keys the tenant allows, and for how long it keeps those that have ended.
    pub fn key_bounds(&self) -> KeyBounds {
        self.written_tenant().map_or_else(KeyBounds::default, |tenant| tenant.key_bounds)
    }

    /// Whose pages may call from a browser; `None` is nobody's.
    pub fn allowed_origins(&self) -> Option<&AllowedOrigins> {
        self.written_tenant().map(|tenant| &tenant.allowed_origins).filter(|origins| !origins.is_none())
    }

    fn written_tenant(&self) -> Option<&TenantSpec> {
        match &self.object(&ObjectKey::new(Kind::Tenant, TENANT_NAMESPACE, DEFAULT_TENANT))?.spec {
            Spec::Tenant(tenant) => Some(tenant),
            _ => None,
        }
    }

    /// How much a meter's limit is, as its MaaSSubscription says now; `None` if it says nothing (any more).
    pub fn limit_of(&self, id: &MeterId) -> Option<u64> {
        self.rule_of(id).map(|limit| limit.limit)
    }

    /// The limit of a meter, as its MaaSSubscription says now; `None` if it says nothing (any more), or the meter is of a key that was
    /// forgotten.
    pub fn rule_of(&self, id: &MeterId) -> Option<&Limit> {
        if self.is_forgotten(&id.subject) {
            return None;
        }
        let (namespace, name) = &id.subscription;
        match &self.object(&ObjectKey::new(Kind::Subscription, namespace, name))?.spec {
            Spec::Subscription(spec) => spec.limit(&id.model.0, &id.model.1, id.limit),
            _ => None,
        }
    }

    /// What the one of those whom `limit` counts has used at `time` that has used the most.
    pub(crate) fn most_used(
        &self,
        subscription: &ObjectKey,
        model: (&str, &str),
        limit: &Limit,
        time: Timestamp,
    ) -> u64 {
        let first = MeterId {
            subscription: (subscription.namespace.clone(), subscription.name.clone()),
            model: (model.0.to_owned(), model.1.to_owned()),
            limit: limit.kind(),
            subject: Subject::FIRST,
        };
        let is_same =
            |id: &MeterId| (&id.subscription, &id.model, id.limit) == (&first.subscription, &first.model, first.limit);
        let of_limit = self.meters.range(first.clone()..).take_while(|(id, _)| is_same(id));
        let used = |(id, meter): (&MeterId, &Arc<Meter>)| {
            let mut meter = Meter::clone(meter);
            meter.pass_time(id, time, Some(limit.limit));
            meter.reading(limit.limit).used
        };
        of_limit.map(used).max().unwrap_or(0)
    }

    /// Where a meter stands at `now` (the state clock), whether or not anything was acquired from it; `None` if it has no limit.
    pub fn reading(&self, id: &MeterId, now: Timestamp) -> Option<MeterReading> {
        let limit = self.limit_of(id)?;
        let mut meter = self.meters.get(id).map(|meter| Meter::clone(meter)).unwrap_or_default();
        meter.pass_time(id, now, Some(limit));
        Some(meter.reading(limit))
    }
}
