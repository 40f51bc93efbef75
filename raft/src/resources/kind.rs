//! The kinds this product serves, and what discovery says of each.

use serde::{Deserialize, Serialize};

/// A kind of resource. The order is the order in the log format: new kinds go at the end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// `v1` Namespace.
    Namespace,
    /// `v1` ServiceAccount.
    ServiceAccount,
    /// `user.openshift.io/v1` Group.
    Group,
    /// `maas.opendatahub.io/v1alpha1` Tenant.
    Tenant,
    /// `serving.kserve.io/v1alpha1` LLMInferenceService.
    InferenceService,
    /// `maas.opendatahub.io/v1alpha1` MaaSModelRef.
    ModelRef,
    /// `maas.opendatahub.io/v1alpha1` MaaSSubscription.
    Subscription,
    /// `maas.opendatahub.io/v1alpha1` MaaSAuthPolicy.
    AuthPolicy,
}

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// One namespace for all: names are unique by themselves.
    Cluster,
    /// Names are unique within a namespace.
    Namespaced,
}

/// A column of `kubectl get`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    /// The heading.
    pub name: &'static str,
    /// `string`, `integer` or `date`.
    pub format: &'static str,
    /// What the column says.
    pub description: &'static str,
    /// 0 always shown, 1 only with `-o wide`.
    pub priority: i32,
}

impl Column {
    /// Age, as every kind but Group shows it.
    pub const AGE: Column =
        Column { name: "Age", format: "date", description: "how long ago it was created", priority: 0 };

    /// A column of words.
    pub const fn text(name: &'static str, description: &'static str) -> Column {
        Column { name, format: "string", description, priority: 0 }
    }

    pub(super) const fn integer(name: &'static str, description: &'static str) -> Column {
        Column { name, format: "integer", description, priority: 0 }
    }

    /// Shown with `-o wide` only.
    pub(super) const fn wide(self) -> Column {
        Column { priority: 1, ..self }
    }
}

impl Kind {
    /// Every kind, in log order.
    pub const ALL: [Kind; 8] = [
        Kind::Namespace,
        Kind::ServiceAccount,
        Kind::Group,
        Kind::Tenant,
        Kind::InferenceService,
        Kind::ModelRef,
        Kind::Subscription,
        Kind::AuthPolicy,
    ];

    /// The API group; empty for the core group.
    pub fn group(self) -> &'static str {
        match self {
            Kind::Namespace | Kind::ServiceAccount => "",
            Kind::Group => "user.openshift.io",
            Kind::InferenceService => "serving.kserve.io",
            Kind::Tenant | Kind::ModelRef | Kind::Subscription | Kind::AuthPolicy => "maas.opendatahub.io",
        }
    }

    /// The API version within the group.
    pub fn version(self) -> &'static str {
        match self {
            Kind::Namespace | Kind::ServiceAccount | Kind::Group => "v1",
            Kind::Tenant | Kind::InferenceService | Kind::ModelRef | Kind::Subscription | Kind::AuthPolicy => {
                "v1alpha1"
            }
        }
    }

    /// `group/version`, or just the version for the core group: the `apiVersion` of its objects.
    pub fn api_version(self) -> String {
        if self.group().is_empty() { self.version().to_owned() } else { format!("{}/{}", self.group(), self.version()) }
    }

    /// The `kind` of its objects.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Namespace => "Namespace",
            Kind::ServiceAccount => "ServiceAccount",
            Kind::Group => "Group",
            Kind::Tenant => "Tenant",
            Kind::InferenceService => "LLMInferenceService",
            Kind::ModelRef => "MaaSModelRef",
            Kind::Subscription => "MaaSSubscription",
            Kind::AuthPolicy => "MaaSAuthPolicy",
        }
    }

    /// The plural in URLs.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Namespace => "namespaces",
            Kind::ServiceAccount => "serviceaccounts",
            Kind::Group => "groups",
            Kind::Tenant => "tenants",
            Kind::InferenceService => "llminferenceservices",
            Kind::ModelRef => "maasmodelrefs",
            Kind::Subscription => "maassubscriptions",
            Kind::AuthPolicy => "maasauthpolicies",
        }
    }

    /// The singular, as `kubectl` accepts it.
    pub fn singular(self) -> &'static str {
        match self {
            Kind::Namespace => "namespace",
            Kind::ServiceAccount => "serviceaccount",
            Kind::Group => "group",
            Kind::Tenant => "tenant",
            Kind::InferenceService => "llminferenceservice",
            Kind::ModelRef => "maasmodelref",
            Kind::Subscription => "maassubscription",
            Kind::AuthPolicy => "maasauthpolicy",
        }
    }

    /// Short names, as `kubectl` accepts them.
    pub fn short_names(self) -> &'static [&'static str] {
        match self {
            Kind::Namespace => &["ns"],
            Kind::ServiceAccount => &["sa"],
            Kind::InferenceService => &["llmisvc"],
            Kind::Group | Kind::Tenant | Kind::ModelRef | Kind::Subscription | Kind::AuthPolicy => &[],
        }
    }

    /// Where its objects live.
    pub fn scope(self) -> Scope {
        match self {
            Kind::Namespace | Kind::Group => Scope::Cluster,
            Kind::ServiceAccount
            | Kind::Tenant
            | Kind::InferenceService
            | Kind::ModelRef
            | Kind::Subscription
            | Kind::AuthPolicy => Scope::Namespaced,
        }
    }
}
