//! Tenant: the settings of a tenant. Only `default-tenant` exists in this version of the API.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::cors::{self, AllowedOrigins};
use super::fields::{Fields, Report};
use super::kind::Column;
use super::limit;
use super::names::is_dns_label;
use super::status::{self, Phase, Status};
use super::steering::{self, CacheIsolation};
use super::{Condition, Object};

/// The namespace that tenants, subscriptions and policies live in unless told otherwise.
pub const TENANT_NAMESPACE: &str = "models-as-a-service";
/// The one tenant's name.
pub const DEFAULT_TENANT: &str = "default-tenant";

/// The most keys, and new keys a minute, that a Tenant may allow.
const KEYS_MAX: u32 = 1_000_000;

/// A parsed Tenant, defaults filled in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantSpec {
    /// `spec.apiKeys.maxExpirationDays`, default 90.
    pub max_expiration_days: u32,
    /// `spec.apiKeys.groups`, default live.
    pub key_groups: KeyGroups,
    /// The rest of `spec.apiKeys`: what users may make the cluster keep.
    pub key_bounds: KeyBounds,
    /// `spec.telemetry.enabled`, default true.
    pub telemetry: bool,
    /// `spec.telemetry.metrics.captureOrganization`, default true.
    pub capture_organization: bool,
    /// `spec.telemetry.metrics.captureUser`, default false.
    pub capture_user: bool,
    /// `spec.telemetry.metrics.captureGroup`, default false.
    pub capture_group: bool,
    /// `spec.telemetry.metrics.captureModelUsage`, default true.
    pub capture_model_usage: bool,
    /// `spec.gatewayRef.namespace`, default `openshift-ingress`. Shown in statuses only.
    pub gateway_namespace: String,
    /// `spec.gatewayRef.name`, default `maas-default-gateway`. Shown in statuses only.
    pub gateway_name: String,
    /// `spec.externalOIDC`.
    pub external_oidc: Option<ExternalOidc>,
    /// Whose calls share cached prefixes, where a subscription does not say it. Default: everybody's.
    pub cache_isolation: CacheIsolation,
    /// `spec.cors.allowedOrigins`: whose pages may call from a browser, default nobody's.
    pub allowed_origins: AllowedOrigins,
}

/// `spec.apiKeys.groups`: which groups an API key has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum KeyGroups {
    /// `live`: those of its owner now.
    #[default]
    Live,
    /// `frozen`: those of its owner when it was created, as upstream has it.
    Frozen,
}

/// `spec.apiKeys`: how many API keys there may be, and for how long those that have ended are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyBounds {
    /// `maxPerUser`: keys that work, of one user who is no administrator; default 1,000. Of anybody's keys that have ended, as many
    /// are kept.
    pub max_per_user: u32,
    /// `maxCreationsPerMinute`: new keys a minute, of one user who is no administrator, at each node; default 600.
    pub creations_per_minute: u32,
    /// `retention`: how long a key is kept that was revoked or has expired; default 720h. Ephemeral keys go sooner.
    pub retention: Duration,
}

impl Default for KeyBounds {
    fn default() -> KeyBounds {
        KeyBounds { max_per_user: 1000, creations_per_minute: 600, retention: Duration::from_secs(30 * 24 * 3600) }
    }
}

/// `spec.externalOIDC`: whose tokens are accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExternalOidc {
    /// `issuerUrl`: https.
    pub issuer_url: String,
    /// `clientId`.
    pub client_id: String,
    /// `ttl`: for how many seconds the issuer's keys are kept, at least 30, default 300.
    pub ttl_seconds: u32,
}

impl Default for TenantSpec {
    fn default() -> TenantSpec {
        TenantSpec {
            max_expiration_days: 90,
            key_groups: KeyGroups::Live,
            key_bounds: KeyBounds::default(),
            telemetry: true,
            capture_organization: true,
            capture_user: false,
            capture_group: false,
            capture_model_usage: true,
            gateway_namespace: "openshift-ingress".to_owned(),
            gateway_name: "maas-default-gateway".to_owned(),
            external_oidc: None,
            cache_isolation: CacheIsolation::None,
            allowed_origins: AllowedOrigins::default(),
        }
    }
}

/// Columns of `kubectl get`, after the name.
pub(super) const COLUMNS: &[Column] =
    &[Column::text("Ready", "whether the tenant is served"), Column::text("Reason", "why, in one word"), Column::AGE];

/// Reads the body `{"spec": {…}}`; an absent spec is all defaults.
pub(super) fn parse(report: &Report, body: &Fields<'_>, annotations: &BTreeMap<String, String>) -> TenantSpec {
    let cache_isolation = steering::parse_isolation(report, annotations).unwrap_or(CacheIsolation::None);
    let mut tenant = TenantSpec { cache_isolation, ..TenantSpec::default() };
    let known = ["gatewayRef", "apiKeys", "externalOIDC", "telemetry", "payloadProcessing", "cors"];
    let Some(spec) = body.object("spec", &known) else { return tenant };
    if let Some(gateway) = spec.object("gatewayRef", &["namespace", "name"]) {
        parse_gateway(&gateway, "namespace", &mut tenant.gateway_namespace);
        parse_gateway(&gateway, "name", &mut tenant.gateway_name);
    }
    let known = ["maxExpirationDays", "groups", "maxPerUser", "maxCreationsPerMinute", "retention"];
    if let Some(keys) = spec.object("apiKeys", &known) {
        if let Some(days) = keys.integer("maxExpirationDays", 1..=i64::from(u32::MAX)) {
            tenant.max_expiration_days = u32::try_from(days).unwrap_or(u32::MAX);
        }
        let words = [("live", KeyGroups::Live), ("frozen", KeyGroups::Frozen)];
        tenant.key_groups = keys.one_of("groups", &words).unwrap_or_default();
        tenant.key_bounds = parse_bounds(&keys);
    }
    tenant.external_oidc =
        spec.object("externalOIDC", &["issuerUrl", "clientId", "ttl"]).and_then(|oidc| parse_oidc(&oidc));
    if let Some(cors) = spec.object("cors", &["allowedOrigins"]) {
        tenant.allowed_origins = cors::parse(report, &cors);
    }
    if let Some(telemetry) = spec.object("telemetry", &["enabled", "metrics"]) {
        parse_telemetry(&telemetry, &mut tenant);
    }
    tenant
}

fn parse_bounds(keys: &Fields<'_>) -> KeyBounds {
    let default = KeyBounds::default();
    let count = |name, otherwise| {
        let count = keys.integer(name, 1..=i64::from(KEYS_MAX));
        count.and_then(|count| u32::try_from(count).ok()).unwrap_or(otherwise)
    };
    KeyBounds {
        max_per_user: count("maxPerUser", default.max_per_user),
        creations_per_minute: count("maxCreationsPerMinute", default.creations_per_minute),
        retention: limit::parse_duration(keys, "retention").unwrap_or(default.retention),
    }
}

fn parse_gateway(gateway: &Fields<'_>, name: &str, into: &mut String) {
    match gateway.text(name) {
        None | Some("") => {}
        Some(text) if is_dns_label(text) => text.clone_into(into),
        Some(text) => gateway.error(name, format!("\"{text}\" is not a DNS label of at most 63 characters")),
    }
}

fn parse_oidc(oidc: &Fields<'_>) -> Option<ExternalOidc> {
    let issuer = oidc.required_text("issuerUrl", 9..=2048);
    let client = oidc.required_text("clientId", 1..=256);
    let ttl = oidc.integer("ttl", 30..=i64::from(u32::MAX)).unwrap_or(300);
    let blank = |text: &str| text.contains(char::is_whitespace);
    if issuer.is_some_and(|issuer| !issuer.starts_with("https://") || blank(issuer)) {
        oidc.error("issuerUrl", "must be an https:// URL without blanks");
        return None;
    }
    if client.is_some_and(blank) {
        oidc.error("clientId", "must have no blanks");
        return None;
    }
    Some(ExternalOidc {
        issuer_url: issuer?.to_owned(),
        client_id: client?.to_owned(),
        ttl_seconds: u32::try_from(ttl).unwrap_or(u32::MAX),
    })
}

fn parse_telemetry(telemetry: &Fields<'_>, tenant: &mut TenantSpec) {
    let set = |fields: &Fields<'_>, name: &str, into: &mut bool| *into = fields.flag(name).unwrap_or(*into);
    set(telemetry, "enabled", &mut tenant.telemetry);
    let known = ["captureOrganization", "captureUser", "captureGroup", "captureModelUsage"];
    if let Some(metrics) = telemetry.object("metrics", &known) {
        set(&metrics, "captureOrganization", &mut tenant.capture_organization);
        set(&metrics, "captureUser", &mut tenant.capture_user);
        set(&metrics, "captureGroup", &mut tenant.capture_group);
        set(&metrics, "captureModelUsage", &mut tenant.capture_model_usage);
    }
}

/// There is nothing to deploy and nothing to depend on, so a tenant that can be read is served.
pub(super) fn status(object: &Object) -> Status {
    let message = "served by this gateway";
    let fact = |kind, holds| Condition {
        kind,
        status: if holds { "True" } else { "False" },
        reason: "Reconciled",
        message: message.to_owned(),
        since: object.updated,
    };
    let conditions = vec![
        fact("Ready", true),
        fact("DependenciesAvailable", true),
        fact("MaaSPrerequisitesAvailable", true),
        fact("DeploymentsAvailable", true),
        fact("Degraded", false),
    ];
    status::assemble(object, Some(Phase::Active), conditions, json!({}))
}

pub(super) fn cells(status: &Status) -> Vec<Value> {
    let (ready, reason) = status.ready();
    vec![json!(ready), json!(reason)]
}
