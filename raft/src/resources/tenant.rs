//! Tenant: the settings of a tenant. Only `default-tenant` exists in this version of the API.

/// A parsed Tenant, defaults filled in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantSpec {
    /// `spec.apiKeys.maxExpirationDays`, default 90.
    pub max_expiration_days: u32,
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
}
