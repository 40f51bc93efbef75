//! MaaSSubscription: which groups and users may spend how many tokens on which models.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::fields::{Fields, Report};
use super::kind::Column;
use super::limit::{self, Enforcement, Limit, LimitKind, Unit};
use super::model_ref;
use super::money::{self, Price};
use super::status::{self, Phase, Status};
use super::steering::{self, CacheIsolation};
use super::{Condition, Kind, MeteringMetadata, Object, Spec, Subjects};
use crate::ids::Timestamp;
use crate::state::State;

/// A parsed MaaSSubscription.
#[derive(Clone, PartialEq, Debug)]
pub struct SubscriptionSpec {
    /// `spec.owner`: who may use it.
    pub owner: Subjects,
    /// `spec.modelRefs`: at least one.
    pub model_refs: Vec<SubscriptionModel>,
    /// `spec.tokenMetadata`.
    pub metadata: MeteringMetadata,
    /// `spec.priority`: the highest is chosen for a new key that names no subscription.
    pub priority: i32,
    /// The priority of its calls at the replicas: lower goes first. Absent: none is sent.
    pub engine_priority: Option<i32>,
    /// Whose calls share cached prefixes. Absent: as the tenant says.
    pub cache_isolation: Option<CacheIsolation>,
}

/// One of `spec.modelRefs`.
#[derive(Clone, PartialEq, Debug)]
pub struct SubscriptionModel {
    /// The MaaSModelRef's namespace.
    pub namespace: String,
    /// The MaaSModelRef's name.
    pub name: String,
    /// `tokenRateLimits`, at least one; `concurrency`; `budget`. Every one of them must hold.
    pub limits: Vec<Limit>,
    /// `billingRate.perToken`, as written.
    pub per_token: Option<String>,
}

impl SubscriptionSpec {
    /// The limit of this kind on the model `namespace/name`: the smallest if several are given, and of equal ones a hard one.
    pub fn limit(&self, namespace: &str, name: &str, kind: LimitKind) -> Option<&Limit> {
        self.model_refs
            .iter()
            .filter(|model| model.name == name && model.namespace == namespace)
            .flat_map(|model| &model.limits)
            .filter(|limit| limit.kind() == kind)
            .min_by_key(|limit| (limit.limit, limit.enforcement != Enforcement::Hard))
    }
}

/// Columns of `kubectl get`, after the name.
pub(super) const COLUMNS: &[Column] = &[
    Column::text("Phase", "whether its models can be used"),
    Column::integer("Priority", "the highest is chosen for a new key that names no subscription"),
    Column::AGE,
];

const MODEL_FIELDS: [&str; 6] = ["name", "namespace", "tokenRateLimits", "concurrency", "billingRate", "budget"];

/// Reads the body `{"spec": {…}}`.
pub(super) fn parse(
    report: &Report,
    body: &Fields<'_>,
    annotations: &BTreeMap<String, String>,
) -> Option<SubscriptionSpec> {
    let spec = body.required_object("spec", &["owner", "modelRefs", "tokenMetadata", "priority"])?;
    let owner = spec.object("owner", &Subjects::FIELDS);
    let models = spec.some_objects("modelRefs", &MODEL_FIELDS);
    let priority = spec.integer("priority", i64::from(i32::MIN)..=i64::from(i32::MAX)).unwrap_or(0);
    Some(SubscriptionSpec {
        owner: owner.map(|owner| Subjects::parse(&owner)).unwrap_or_default(),
        model_refs: models.iter().filter_map(parse_model).collect(),
        metadata: MeteringMetadata::parse(&spec, "tokenMetadata"),
        priority: i32::try_from(priority).unwrap_or(0),
        engine_priority: steering::parse_priority(report, annotations),
        cache_isolation: steering::parse_isolation(report, annotations),
    })
}

fn parse_model(model: &Fields<'_>) -> Option<SubscriptionModel> {
    let target = model_ref::parse_target(model);
    let windows = model.some_objects("tokenRateLimits", &limit::WINDOW_FIELDS);
    let mut limits: Vec<Limit> = windows.iter().filter_map(limit::parse_window).collect();
    if let Some(concurrency) = model.object("concurrency", &limit::CONCURRENCY_FIELDS) {
        limits.extend(limit::parse_concurrency(&concurrency));
    }
    let billing = model.object("billingRate", &["perToken", "perInputToken", "perOutputToken"]);
    if let Some(budget) = model.object("budget", &limit::BUDGET_FIELDS) {
        let price = billing.as_ref().and_then(parse_price);
        if price.is_none() {
            model.error("budget", BUDGET_WITHOUT_PRICE);
        }
        limits.extend(limit::parse_budget(&budget, price.unwrap_or_default()));
    }
    let (namespace, name) = target?;
    let per_token = billing.and_then(|billing| billing.text("perToken").map(str::to_owned));
    Some(SubscriptionModel { namespace, name, limits, per_token })
}

const BUDGET_WITHOUT_PRICE: &str = "needs a price above zero: set billingRate.perToken, or perInputToken and perOutputToken, to a \
     decimal number like \"0.000002\"";

/// What tokens cost by a `billingRate`. Upstream only displays it, so that it is no number matters only to a budget.
fn parse_price(billing: &Fields<'_>) -> Option<Price> {
    let rate = |name| billing.text(name).or_else(|| billing.text("perToken")).map(money::parse_price);
    let price = Price { input: rate("perInputToken")??, output: rate("perOutputToken")?? };
    (!price.is_free()).then_some(price)
}

/// Active when every model reference names a MaaSModelRef, Degraded when only some do, Failed when none does.
pub(super) fn phase(spec: &SubscriptionSpec, state: &State) -> Phase {
    let found = spec.model_refs.iter().filter(|model| model_ref::exists(state, &model.namespace, &model.name)).count();
    Phase::of_references(found, spec.model_refs.len())
}

pub(super) fn status(object: &Object, spec: &SubscriptionSpec, state: &State) -> Status {
    let mut models = Vec::new();
    let mut limits = Vec::new();
    let mut since = object.updated;
    for model in &spec.model_refs {
        let reference = model_ref::Reference::look_up(state, &model.namespace, &model.name);
        since = since.max(reference.since);
        models.push(json!({
            "name": model.name, "namespace": model.namespace,
            "ready": reference.exists, "reason": reference.reason(), "message": reference.message(),
        }));
        let (reason, message) = match reference.exists {
            true => ("Accepted", written_limits(model)),
            false => ("BackendNotReady", "takes effect when the MaaSModelRef exists".to_owned()),
        };
        limits.push(json!({
            "name": format!("maas-trlp-{}", model.name), "namespace": model.namespace, "model": model.name,
            "ready": reference.exists, "reason": reason, "message": message,
        }));
    }
    let phase = phase(spec, state);
    let targets = spec.model_refs.iter().map(|model| (model.namespace.as_str(), model.name.as_str()));
    let ready = model_ref::references_condition(phase, targets, state, since);
    let mut conditions = vec![ready, priority_condition(object, spec, state)];
    conditions.extend(budget_condition(object, spec, state));
    status::assemble(
        object,
        Some(phase),
        conditions,
        json!({ "modelRefStatuses": models, "tokenRateLimitStatuses": limits }),
    )
}

fn written_limits(model: &SubscriptionModel) -> String {
    let limits: Vec<String> = model.limits.iter().map(Limit::written).collect();
    limits.join(", ")
}

/// Warns of other subscriptions of the same priority: which of them a new key gets is then decided by size and name.
fn priority_condition(object: &Object, spec: &SubscriptionSpec, state: &State) -> Condition {
    let peers: Vec<&Object> = state
        .objects_in(Kind::Subscription, &object.key.namespace)
        .filter(|peer| {
            peer.key != object.key && matches!(&peer.spec, Spec::Subscription(other) if other.priority == spec.priority)
        })
        .map(|peer| peer.as_ref())
        .collect();
    let since = peers.iter().map(|peer| peer.updated).fold(object.updated, Ord::max);
    let names: Vec<&str> = peers.iter().take(5).map(|peer| peer.key.name.as_str()).collect();
    let more =
        if peers.len() > names.len() { format!(" and {} more", peers.len() - names.len()) } else { String::new() };
    let (status, reason, message) = match names.is_empty() {
        true => ("False", "NoDuplicatePeers", format!("no other subscription has priority {}", spec.priority)),
        false => {
            let message = format!(
                "priority {} is shared with {}{more}: a new key without `subscription` gets the one with the largest limit",
                spec.priority,
                names.join(", ")
            );
            ("True", "SharedPriority", message)
        }
    };
    Condition { kind: "SpecPriorityDuplicate", status, reason, message, since }
}

/// Says which budgets are used up to one of their alerts; `None` if there are no budgets.
fn budget_condition(object: &Object, spec: &SubscriptionSpec, state: &State) -> Option<Condition> {
    let uses = budget_uses(state, object, spec, state.time);
    let alerting =
        |budget: &BudgetUse<'_>| budget.limit.alerts.iter().any(|alert| budget.percent() >= f64::from(*alert));
    let written: Vec<String> = uses.iter().filter(|budget| alerting(budget)).map(BudgetUse::written).collect();
    let (status, reason, message) = match (uses.is_empty(), written.is_empty()) {
        (true, _) => return None,
        (false, true) => ("False", "BelowAlerts", "no budget is used up to one of its alerts".to_owned()),
        (false, false) => ("True", "AlertReached", written.join("; ")),
    };
    Some(Condition { kind: "BudgetAlert", status, reason, message, since: object.updated })
}

/// How far a model's budget is used.
pub struct BudgetUse<'a> {
    /// The model.
    pub model: &'a SubscriptionModel,
    /// The budget.
    pub limit: &'a Limit,
    /// Used this month: by the one who used the most, if each user or key has a budget. In the unit of the limit.
    pub used: u64,
}

impl BudgetUse<'_> {
    /// How much of it is used: 1 is all.
    pub fn ratio(&self) -> f64 {
        self.used as f64 / self.limit.limit.max(1) as f64
    }

    fn percent(&self) -> f64 {
        self.ratio() * 100.0
    }

    fn written(&self) -> String {
        let (budget, used) = (self.limit.written(), self.limit.unit.written(self.used));
        format!("{}/{}: {used} used of {budget} ({:.0} %)", self.model.namespace, self.model.name, self.percent())
    }
}

/// The budgets of a subscription's models at `time`.
pub fn budget_uses<'a>(
    state: &State,
    object: &Object,
    spec: &'a SubscriptionSpec,
    time: Timestamp,
) -> Vec<BudgetUse<'a>> {
    let mut uses = Vec::new();
    for model in &spec.model_refs {
        for limit in model.limits.iter().filter(|limit| limit.unit == Unit::Cost) {
            let used = state.most_used(&object.key, (&model.namespace, &model.name), limit, time);
            uses.push(BudgetUse { model, limit, used });
        }
    }
    uses
}

pub(super) fn cells(spec: Option<&SubscriptionSpec>, status: &Status) -> Vec<Value> {
    vec![json!(status.phase), json!(spec.map_or(0, |spec| spec.priority))]
}
