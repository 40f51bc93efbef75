//! MaaSSubscription: which groups and users may spend how many tokens on which models.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::fields::Fields;
use super::kind::Column;
use super::model_ref;
use super::status::{self, Phase, Status};
use super::{Condition, Kind, MeteringMetadata, Object, Spec, Subjects};
use crate::state::State;

/// The longest window: 366 days.
const WINDOW_SECONDS_MAX: u32 = 366 * 24 * 3600;

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
}

/// One of `spec.modelRefs`.
#[derive(Clone, PartialEq, Debug)]
pub struct SubscriptionModel {
    /// The MaaSModelRef's namespace.
    pub namespace: String,
    /// The MaaSModelRef's name.
    pub name: String,
    /// `tokenRateLimits`: at least one; every one of them must hold.
    pub limits: Vec<TokenRateLimit>,
    /// `billingRate.perToken`, as written. Displayed only.
    pub per_token: Option<String>,
}

/// So much in so long a window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRateLimit {
    /// Of its unit, 1 to 1,000,000,000.
    pub limit: u64,
    /// The window as written: `60s`, `1h`.
    pub window: String,
    /// The window in seconds, at least 1.
    pub window_seconds: u32,
    /// What is counted.
    pub unit: Unit,
    /// Who is counted together.
    pub scope: LimitScope,
    /// What becomes of an answer that would pass it.
    pub enforcement: Enforcement,
}

impl TokenRateLimit {
    /// `300 tokens per 1h for each user`.
    fn written(&self) -> String {
        let (limit, noun, window) = (self.limit, self.unit.noun(), &self.window);
        let whose = match self.scope {
            LimitScope::User => "for each user",
            LimitScope::Key => "for each key",
            LimitScope::Subscription => "for all users together",
        };
        let hard = if self.enforcement == Enforcement::Hard { ", hard" } else { "" };
        format!("{limit} {noun} per {window} {whose}{hard}")
    }

    /// Which of the limits on a model it is. Two of one kind are one: the smaller.
    pub fn kind(&self) -> LimitKind {
        LimitKind { window_seconds: self.window_seconds, unit: self.unit, scope: self.scope }
    }
}

/// What tells the limits on a model apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct LimitKind {
    /// The length of its windows.
    pub window_seconds: u32,
    /// What is counted.
    pub unit: Unit,
    /// Who is counted together.
    pub scope: LimitScope,
}

/// What a limit counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Unit {
    /// Tokens of prompts and of answers.
    #[default]
    Total,
    /// Tokens of prompts.
    Input,
    /// Tokens of answers.
    Output,
    /// Calls that reached a replica.
    Requests,
}

impl Unit {
    /// As a limit's `unit` says it.
    pub const NAMES: [(&str, Unit); 4] =
        [("total", Unit::Total), ("input", Unit::Input), ("output", Unit::Output), ("requests", Unit::Requests)];

    /// As a limit's `unit` says it.
    pub fn name(self) -> &'static str {
        name_of(&Unit::NAMES, self)
    }

    /// As texts say it: `300 tokens`.
    pub fn noun(self) -> &'static str {
        match self {
            Unit::Total => "tokens",
            Unit::Input => "input tokens",
            Unit::Output => "output tokens",
            Unit::Requests => "requests",
        }
    }
}

/// Who shares a limit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub enum LimitScope {
    /// Nobody: every user has it.
    #[default]
    User,
    /// Every key has it. What is not called with a key is counted by user.
    Key,
    /// All users of the subscription share it.
    Subscription,
}

impl LimitScope {
    /// As a limit's `scope` says it.
    pub const NAMES: [(&str, LimitScope); 3] =
        [("user", LimitScope::User), ("key", LimitScope::Key), ("subscription", LimitScope::Subscription)];

    /// As a limit's `scope` says it.
    pub fn name(self) -> &'static str {
        name_of(&LimitScope::NAMES, self)
    }
}

/// What becomes of an answer that would pass a limit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Enforcement {
    /// It is finished. What it used beyond its reservation and nothing free covers is debt: the next window has so much less.
    #[default]
    Reserve,
    /// It ends there, as one ends that reaches its `max_tokens`.
    Hard,
}

impl Enforcement {
    /// As a limit's `enforcement` says it.
    pub const NAMES: [(&str, Enforcement); 2] = [("reserve", Enforcement::Reserve), ("hard", Enforcement::Hard)];

    /// As a limit's `enforcement` says it.
    pub fn name(self) -> &'static str {
        name_of(&Enforcement::NAMES, self)
    }
}

fn name_of<T: PartialEq>(names: &[(&'static str, T)], wanted: T) -> &'static str {
    names.iter().find(|(_, meaning)| *meaning == wanted).map_or("", |(name, _)| name)
}

impl SubscriptionSpec {
    /// The limit of this kind on the model `namespace/name`: the smallest if several are given.
    pub fn limit(&self, namespace: &str, name: &str, kind: LimitKind) -> Option<u64> {
        self.model_refs
            .iter()
            .filter(|model| model.name == name && model.namespace == namespace)
            .flat_map(|model| &model.limits)
            .filter(|limit| limit.kind() == kind)
            .map(|limit| limit.limit)
            .min()
    }
}

/// Columns of `kubectl get`, after the name.
pub(super) const COLUMNS: &[Column] = &[
    Column::text("Phase", "whether its models can be used"),
    Column::integer("Priority", "the highest is chosen for a new key that names no subscription"),
    Column::AGE,
];

/// Reads the body `{"spec": {…}}`.
pub(super) fn parse(body: &Fields<'_>) -> Option<SubscriptionSpec> {
    let spec = body.required_object("spec", &["owner", "modelRefs", "tokenMetadata", "priority"])?;
    let owner = spec.object("owner", &Subjects::FIELDS);
    let models = spec.some_objects("modelRefs", &["name", "namespace", "tokenRateLimits", "billingRate"]);
    let priority = spec.integer("priority", i64::from(i32::MIN)..=i64::from(i32::MAX)).unwrap_or(0);
    Some(SubscriptionSpec {
        owner: owner.map(|owner| Subjects::parse(&owner)).unwrap_or_default(),
        model_refs: models.iter().filter_map(parse_model).collect(),
        metadata: MeteringMetadata::parse(&spec, "tokenMetadata"),
        priority: i32::try_from(priority).unwrap_or(0),
    })
}

fn parse_model(model: &Fields<'_>) -> Option<SubscriptionModel> {
    let target = model_ref::parse_target(model);
    let limits = model.some_objects("tokenRateLimits", &["limit", "window", "unit", "scope", "enforcement"]);
    let billing = model.object("billingRate", &["perToken"]);
    let limits = limits.iter().filter_map(parse_limit).collect();
    let (namespace, name) = target?;
    let per_token = billing.and_then(|billing| billing.text("perToken").map(str::to_owned));
    Some(SubscriptionModel { namespace, name, limits, per_token })
}

fn parse_limit(limit: &Fields<'_>) -> Option<TokenRateLimit> {
    if !limit.has("limit") {
        limit.error("limit", "is required");
    }
    let tokens = limit.integer("limit", 1..=1_000_000_000);
    let unit = limit.one_of("unit", &Unit::NAMES).unwrap_or_default();
    let scope = limit.one_of("scope", &LimitScope::NAMES).unwrap_or_default();
    let enforcement = limit.one_of("enforcement", &Enforcement::NAMES).unwrap_or_default();
    let window = limit.required_text("window", 0..=64)?;
    match window_seconds(window) {
        Some(seconds) if seconds <= WINDOW_SECONDS_MAX => Some(TokenRateLimit {
            limit: u64::try_from(tokens?).ok()?,
            window: window.to_owned(),
            window_seconds: seconds,
            unit,
            scope,
            enforcement,
        }),
        Some(_) => {
            limit.error("window", format!("\"{window}\" is too long: use at most 8784h (366 days)"));
            None
        }
        None => {
            limit.error("window", format!("\"{window}\" is not a window: use 1 to 9999 followed by s, m or h"));
            None
        }
    }
}

/// `90s`, `5m`, `1h` in seconds: 1 to 9999 of a unit.
fn window_seconds(text: &str) -> Option<u32> {
    let unit = text.chars().next_back()?;
    let digits = text.strip_suffix(unit)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return None,
    };
    let written =
        (1..=4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    written.then(|| digits.parse::<u32>().ok()).flatten().map(|count| count * seconds)
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
    let conditions = vec![ready, priority_condition(object, spec, state)];
    status::assemble(
        object,
        Some(phase),
        conditions,
        json!({ "modelRefStatuses": models, "tokenRateLimitStatuses": limits }),
    )
}

fn written_limits(model: &SubscriptionModel) -> String {
    let limits: Vec<String> = model.limits.iter().map(TokenRateLimit::written).collect();
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

pub(super) fn cells(spec: Option<&SubscriptionSpec>, status: &Status) -> Vec<Value> {
    vec![json!(status.phase), json!(spec.map_or(0, |spec| spec.priority))]
}
