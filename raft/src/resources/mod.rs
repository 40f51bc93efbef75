//! The resources people write: Kubernetes-style objects, one kind per file with its spec, its
//! validation, its status and its table columns.
//!
//! An object is kept as it was written (labels, annotations and a JSON body), so unknown fields survive,
//! and is parsed into a [`Spec`] once, when it enters the state. Status is never stored: it is computed
//! from the state and from what the answering node sees of the replicas.

mod account;
mod auth_policy;
mod cors;
mod fields;
mod group;
mod inference_service;
mod kind;
mod limit;
mod media;
mod model_ref;
mod money;
mod names;
mod object;
mod plain;
pub mod replica_address;
mod status;
mod steering;
mod subjects;
mod subscription;
mod table;
mod tenant;
#[cfg(test)]
mod tests;

pub use account::{service_account_groups, service_account_of, service_account_user};
pub use auth_policy::AuthPolicySpec;
pub use cors::AllowedOrigins;
pub use group::{ADMINISTRATORS, GroupSpec};
pub use inference_service::{InferenceServiceSpec, REPLICAS_ANNOTATION, REPLICAS_MAX};
pub use kind::{Column, Kind, Scope};
pub use limit::{Enforcement, Limit, LimitKind, LimitScope, Unit};
pub use media::{
    AUDIO_RATE_ANNOTATION, AUDIO_TOKENS_ANNOTATION, DOCUMENT_TOKENS_ANNOTATION, IMAGE_TOKENS_ANNOTATION, MediaTokens,
    PAGE_TOKENS_ANNOTATION, VIDEO_RATE_ANNOTATION, VIDEO_TOKENS_ANNOTATION,
};
pub use model_ref::ModelRefSpec;
pub use money::Price;
pub use object::{FieldError, NewObject, Object, ObjectKey, Spec, unknown_fields, validate};
pub use status::{Condition, Phase, ReplicaHealth, Status, is_usable_reference, reference_phase, status};
pub use steering::{
    ALLOWED_FIELDS_ANNOTATION, CACHE_ISOLATION_ANNOTATION, CacheIsolation, ENGINE_FIELDS, PRIORITY_ANNOTATION,
};
pub use subjects::{MeteringMetadata, Subjects};
pub use subscription::{BudgetUse, SubscriptionModel, SubscriptionSpec, budget_uses};
pub use table::{age, row};
pub use tenant::{DEFAULT_TENANT, ExternalOidc, KeyBounds, KeyGroups, TENANT_NAMESPACE, TenantSpec};
