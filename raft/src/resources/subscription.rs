//! MaaSSubscription: which groups and users may spend how many tokens on which models.

use super::{MeteringMetadata, Subjects};

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

/// So many tokens per user in so long a window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRateLimit {
    /// Tokens, 1 to 1,000,000,000.
    pub limit: u64,
    /// The window as written: `60s`, `1h`.
    pub window: String,
    /// The window in seconds, at least 1.
    pub window_seconds: u32,
}
