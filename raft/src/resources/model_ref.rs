//! MaaSModelRef: publishes a model to subscriptions and policies.

/// A parsed MaaSModelRef.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelRefSpec {
    /// `spec.modelRef.kind`: `LLMInferenceService` or `ExternalModel`.
    pub kind: String,
    /// `spec.modelRef.name`, in the same namespace.
    pub name: String,
    /// `spec.endpointOverride`.
    pub endpoint_override: Option<String>,
}
