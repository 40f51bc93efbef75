//! MaaSAuthPolicy: who may reach which models. Several policies on one model are alternatives.

use super::{MeteringMetadata, Subjects};

/// A parsed MaaSAuthPolicy.
#[derive(Clone, PartialEq, Debug)]
pub struct AuthPolicySpec {
    /// `spec.modelRefs` as (namespace, name), at least one.
    pub model_refs: Vec<(String, String)>,
    /// `spec.subjects`: at least one group or user.
    pub subjects: Subjects,
    /// `spec.meteringMetadata`.
    pub metadata: MeteringMetadata,
}
