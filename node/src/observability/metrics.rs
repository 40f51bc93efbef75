//! Every metric this node exposes, names and units in one list.
//!
//! Two families of names: the ones Limitador had (`authorized_hits` and so on, with and without `_total`, because boards of
//! different releases ask for either), and `tollgate_*`. Labels are bounded: a user appears only when the Tenant says so, and
//! keys never do.

mod encode;
mod port;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use actors::Permit;
use actors::quota::Charge;
use actors::routing::{Model, SubscriptionAccess};
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use raft::View;
use raft::resources::TenantSpec;

use port::PortCounters;
pub use port::PortMetrics;

/// The counters. Cloning is cheap.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    authorized_hits: IntCounterVec,
    authorized_calls: IntCounterVec,
    limited_calls: IntCounterVec,
    requests: IntCounterVec,
    in_flight: IntGaugeVec,
    overhead: HistogramVec,
    reserved: IntCounterVec,
    settled: IntCounterVec,
    released: IntCounterVec,
    denied: IntCounterVec,
    auth: IntCounterVec,
    settlements: IntCounterVec,
    absurd_reports: IntCounterVec,
    upstream_failures: IntCounterVec,
    prompt_counts: IntCounterVec,
    overshoot: IntCounterVec,
    token_usage: HistogramVec,
    tokens: IntCounterVecs,
    request_duration: HistogramVec,
    first_token: HistogramVec,
    output_token: HistogramVec,
    ports: PortCounters,
    handles: RwLock<Handles>,
}

/// Handles of counters whose labels are known already, for the tenant settings of one version of the state.
#[derive(Default)]
struct Handles {
    access_version: u64,
    tenant: TenantSpec,
    calls: HashMap<HandleKey, Arc<CallMetrics>>,
}

/// By address: what is behind it is kept alive by the handles themselves, so an address is never used twice.
#[derive(PartialEq, Eq, Hash)]
struct HandleKey {
    subscription: usize,
    model: usize,
    /// Empty unless the user or their groups are captured.
    user: Box<str>,
}

/// So many combinations of user, subscription and model are kept at hand.
const HANDLES_MAX: usize = 10_000;

/// Labels of the compatible counters.
const COMPATIBLE_LABELS: [&str; 7] =
    ["limitador_namespace", "subscription", "cost_center", "organization_id", "user", "group", "model"];

/// Bounds of the gateway's own time, in seconds.
const OVERHEAD_BUCKETS: [f64; 12] =
    [0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.005, 0.02, 0.1, 0.5, 2.5];

/// Who generates, as OpenTelemetry asks: whatever the replicas are, they answer as vLLM does.
pub(crate) const PROVIDER: &str = "vllm";
/// Labels of what OpenTelemetry defines for generative AI, with dots as underscores.
const GENERATION_LABELS: [&str; 3] = ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"];
/// By OpenTelemetry's conventions, 1.41.
const TOKEN_BUCKETS: [f64; 14] = [
    1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0,
    67108864.0,
];
const DURATION_BUCKETS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const OUTPUT_TOKEN_BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 1.0];
/// In the order of [`Metrics::generated`].
const TOKEN_KINDS: [(&str, &str); 4] = [
    ("input_tokens", "tokens of prompts"),
    ("output_tokens", "tokens of answers"),
    ("cache_read_input_tokens", "tokens of prompts that the replica had in its cache"),
    ("reasoning_output_tokens", "tokens of answers that were reasoning"),
];
type IntCounterVecs = [IntCounterVec; TOKEN_KINDS.len()];

/// How long a call took.
#[derive(Clone, Copy)]
pub(crate) struct Took {
    pub(crate) in_all: Duration,
    /// Of streams that brought any.
    pub(crate) to_first_token: Option<Duration>,
    /// Until the end.
    pub(crate) from_first_token: Option<Duration>,
}

/// The counters of one subscription, model and, if captured, user.
pub(crate) struct CallMetrics {
    /// Tokens charged.
    pub(crate) authorized_hits: IntCounter,
    /// Calls admitted.
    pub(crate) authorized_calls: IntCounter,
    /// Calls answered 429.
    pub(crate) limited_calls: IntCounter,
    /// Calls in progress.
    pub(crate) in_flight: IntGauge,
    /// Tokens held at admission.
    pub(crate) reserved: IntCounter,
    /// Tokens charged.
    pub(crate) settled: IntCounter,
    /// Tokens held and not charged.
    pub(crate) released: IntCounter,
    /// Tokens charged of a hard limit beyond what was held.
    pub(crate) overshoot: IntCounter,
    _kept_alive: (Arc<SubscriptionAccess>, Arc<Model>),
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// Counters at zero, in a registry of their own.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let counters = |name, help, labels| register(&registry, IntCounterVec::new(Opts::new(name, help), labels));
        let quota = ["subscription", "model"];
        let histograms = |name, help, buckets: &[f64], labels: &[&str]| {
            register(&registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
        };
        let inner = Inner {
            authorized_hits: counters("authorized_hits", "tokens charged", &COMPATIBLE_LABELS),
            authorized_calls: counters("authorized_calls", "calls admitted", &COMPATIBLE_LABELS),
            limited_calls: counters("limited_calls", "calls answered 429", &COMPATIBLE_LABELS),
            requests: counters(
                "tollgate_requests_total",
                "answered requests",
                &["route", "code", "subscription", "model"],
            ),
            in_flight: register(
                &registry,
                IntGaugeVec::new(Opts::new("tollgate_requests_in_flight", "admitted calls in progress"), &["model"]),
            ),
            overhead: register(
                &registry,
                HistogramVec::new(
                    HistogramOpts::new("tollgate_overhead_seconds", "from the complete request to its way upstream")
                        .buckets(OVERHEAD_BUCKETS.to_vec()),
                    &["route", "outcome"],
                ),
            ),
            reserved: counters("tollgate_quota_reserved_tokens_total", "tokens reserved at admission", &quota),
            settled: counters("tollgate_quota_settled_tokens_total", "tokens charged", &quota),
            released: counters("tollgate_quota_released_tokens_total", "tokens reserved and returned", &quota),
            denied: counters(
                "tollgate_quota_denied_tokens_total",
                "tokens refused at admission",
                &["subscription", "model", "reason"],
            ),
            auth: counters("tollgate_auth_decisions_total", "credentials judged", &["method", "result", "reason"]),
            settlements: counters(
                "tollgate_usage_settlements_total",
                "calls settled, by where the tokens are known from",
                &["source"],
            ),
            absurd_reports: counters(
                "tollgate_usage_absurd_reports_total",
                "calls of which a replica reported what cannot be true",
                &["model"],
            ),
            upstream_failures: counters(
                "tollgate_upstream_failures_total",
                "calls that a replica failed",
                &["model", "stage"],
            ),
            prompt_counts: counters(
                "tollgate_prompt_counts_total",
                "exact counts of prompts wanted of replicas at the end of a limit",
                &["model", "result"],
            ),
            overshoot: counters(
                "tollgate_quota_overshoot_tokens_total",
                "tokens charged of a hard limit beyond what was held of it; stays 0",
                &quota,
            ),
            token_usage: histograms(
                "gen_ai_client_token_usage",
                "tokens of one call",
                &TOKEN_BUCKETS,
                &[&GENERATION_LABELS[..], &["gen_ai_token_type"]].concat(),
            ),
            tokens: TOKEN_KINDS.map(|(kind, help)| {
                let name = format!("gen_ai_client_inference_usage_{kind}_total");
                register(&registry, IntCounterVec::new(Opts::new(name, help), &GENERATION_LABELS))
            }),
            request_duration: histograms(
                "gen_ai_server_request_duration_seconds",
                "from a call's head to the end of its answer",
                &DURATION_BUCKETS,
                &GENERATION_LABELS,
            ),
            first_token: histograms(
                "gen_ai_server_time_to_first_token_seconds",
                "from a call's head to the first token of its stream",
                &DURATION_BUCKETS,
                &GENERATION_LABELS,
            ),
            output_token: histograms(
                "gen_ai_server_time_per_output_token_seconds",
                "between two tokens of a stream, after the first",
                &OUTPUT_TOKEN_BUCKETS,
                &GENERATION_LABELS,
            ),
            ports: PortCounters::new(&registry),
            handles: RwLock::default(),
            registry: registry.clone(),
        };
        let constant = |name, help, value| register(&registry, IntGauge::new(name, help)).set(value);
        constant("limitador_up", "1: limits are enforced in this process", 1);
        constant("datastore_partitioned", "0: counters are not kept elsewhere", 0);
        let build = IntGaugeVec::new(Opts::new("tollgate_build_info", "what is running"), &["version"]);
        register(&registry, build).with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Metrics(Arc::new(inner))
    }

    /// The counters of a permit, labelled as the Tenant in `view` wants it.
    pub(crate) fn of(&self, permit: &Permit, view: &View) -> Arc<CallMetrics> {
        let handles = self.0.handles.read().unwrap_or_else(PoisonError::into_inner);
        if handles.access_version == view.access_version
            && let Some(call) = handles.calls.get(&key(permit, &handles.tenant))
        {
            return call.clone();
        }
        drop(handles);
        let mut handles = self.0.handles.write().unwrap_or_else(PoisonError::into_inner);
        if handles.access_version != view.access_version || handles.calls.len() >= HANDLES_MAX {
            *handles = Handles { access_version: view.access_version, tenant: view.tenant(), calls: HashMap::new() };
        }
        let call = Arc::new(self.0.call(permit, &handles.tenant));
        let key = key(permit, &handles.tenant);
        handles.calls.insert(key, call.clone());
        call
    }

    /// Counts an answered request. `subscription` and `model` are empty if it was refused before they were known.
    pub(crate) fn answered(&self, route: &str, code: u16, subscription: &str, model: &str) {
        self.0.requests.with_label_values(&[route, code_label(code), subscription, model]).inc();
    }

    /// Counts a judged credential.
    pub(crate) fn judged(&self, method: &str, accepted: bool, reason: &str) {
        self.0.auth.with_label_values(&[method, if accepted { "accepted" } else { "refused" }, reason]).inc();
    }

    /// Counts tokens refused at admission.
    pub(crate) fn denied(&self, permit: &Permit, reason: &str, tokens: u64) {
        self.0
            .denied
            .with_label_values(&[&permit.subscription().id.name, &permit.model().id.name, reason])
            .inc_by(tokens);
    }

    /// Counts a settled call by where its tokens are known from.
    pub(crate) fn settled_by(&self, source: &str) {
        self.0.settlements.with_label_values(&[source]).inc();
    }

    /// Counts a call of which a replica reported what cannot be true.
    pub(crate) fn reported_absurdly(&self, model: &str) {
        self.0.absurd_reports.with_label_values(&[model]).inc();
    }

    /// Counts a charged call as OpenTelemetry wants it. Replicas are vLLM.
    pub(crate) fn generated(&self, operation: &str, model: &str, charge: &Charge, took: Took) {
        let labels = [operation, PROVIDER, model];
        let (input, output) = (charge.amount.input, charge.amount.output);
        for (kind, tokens) in [("input", input), ("output", output)] {
            let labels = [labels[0], labels[1], labels[2], kind];
            self.0.token_usage.with_label_values(&labels).observe(tokens as f64);
        }
        for (counter, tokens) in self.0.tokens.iter().zip([input, output, charge.cached, charge.reasoning]) {
            counter.with_label_values(&labels).inc_by(tokens);
        }
        self.0.request_duration.with_label_values(&labels).observe(took.in_all.as_secs_f64());
        if let (Some(first), Some(rest)) = (took.to_first_token, took.from_first_token) {
            self.0.first_token.with_label_values(&labels).observe(first.as_secs_f64());
            if output > 1 {
                let each = rest.as_secs_f64() / (output - 1) as f64;
                self.0.output_token.with_label_values(&labels).observe(each);
            }
        }
    }

    /// Counts a call that a replica failed, by when it did.
    pub(crate) fn upstream_failed(&self, model: &str, stage: &str) {
        self.0.upstream_failures.with_label_values(&[model, stage]).inc();
    }

    /// Counts a prompt that a replica was to count: `counted`, `failed`, or `refused` because too many others were being counted.
    pub(crate) fn prompt_counted(&self, model: &str, result: &str) {
        self.0.prompt_counts.with_label_values(&[model, result]).inc();
    }

    /// Notes the gateway's own time before a call went upstream.
    pub(crate) fn overhead(&self, route: &str, outcome: &str, time: Duration) {
        let histogram: Histogram = self.0.overhead.with_label_values(&[route, outcome]);
        histogram.observe(time.as_secs_f64());
    }
}

impl Inner {
    fn call(&self, permit: &Permit, tenant: &TenantSpec) -> CallMetrics {
        let (subscription, model) = (permit.subscription(), permit.model());
        let captured = |wanted: bool, value: String| if wanted && tenant.telemetry { value } else { String::new() };
        let compatible = [
            format!("{}/{}", model.service.namespace, model.service.name),
            subscription.id.name.to_string(),
            subscription.metadata.cost_center.clone(),
            captured(tenant.capture_organization, subscription.metadata.organization_id.clone()),
            captured(tenant.capture_user, permit.caller().user().to_owned()),
            captured(tenant.capture_group, permit.caller().groups().join(",")),
            captured(tenant.capture_model_usage, model.id.name.to_string()),
        ];
        let quota = [&*subscription.id.name, &*model.id.name];
        CallMetrics {
            authorized_hits: self.authorized_hits.with_label_values(&compatible),
            authorized_calls: self.authorized_calls.with_label_values(&compatible),
            limited_calls: self.limited_calls.with_label_values(&compatible),
            in_flight: self.in_flight.with_label_values(&quota[1..]),
            reserved: self.reserved.with_label_values(&quota),
            settled: self.settled.with_label_values(&quota),
            released: self.released.with_label_values(&quota),
            overshoot: self.overshoot.with_label_values(&quota),
            _kept_alive: (subscription.clone(), model.clone()),
        }
    }
}

fn key(permit: &Permit, tenant: &TenantSpec) -> HandleKey {
    let personal = tenant.telemetry && (tenant.capture_user || tenant.capture_group);
    HandleKey {
        subscription: Arc::as_ptr(permit.subscription()).addr(),
        model: Arc::as_ptr(permit.model()).addr(),
        // Groups of a key are frozen and those of a user change with the state's version, so the name stands for both; two keys of one
        // user that were made under different groups share the groups of the first.
        user: if personal { permit.caller().user().into() } else { Box::default() },
    }
}

/// The code as text, without an allocation for the usual ones.
fn code_label(code: u16) -> &'static str {
    match code {
        200 => "200",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        429 => "429",
        500 => "500",
        502 => "502",
        503 => "503",
        504 => "504",
        300..=399 => "3xx",
        402..=499 => "4xx",
        501..=599 => "5xx",
        _ => "2xx",
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: prometheus::Result<C>) -> C {
    let collector = collector.expect("the names and labels above are valid");
    registry.register(Box::new(collector.clone())).expect("the names above are different");
    collector
}
