//! LLMInferenceService: a model and the replicas that serve it.

/// Outside Kubernetes, the running replicas: base URLs, comma-separated. DNS names are resolved again and again.
pub const REPLICAS_ANNOTATION: &str = "tollgate.dev/replicas";

/// A parsed LLMInferenceService.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InferenceServiceSpec {
    /// `spec.model.name`: what the replicas call the model. Absent: the object's own name.
    pub served_name: Option<String>,
    /// `spec.model.uri`.
    pub uri: Option<String>,
    /// `spec.replicas`.
    pub replicas: Option<u32>,
    /// The replicas of [`REPLICAS_ANNOTATION`], as `http://host:port` or `https://host:port` without a trailing slash.
    pub replica_urls: Vec<String>,
}
