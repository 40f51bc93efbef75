//! Who: the groups and users that subscriptions and policies name, and what they are accounted under.

use std::collections::BTreeMap;

/// Groups and users; matching any one of them is enough.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Subjects {
    /// Group names.
    pub groups: Vec<String>,
    /// User names.
    pub users: Vec<String>,
}

impl Subjects {
    /// Whether `user`, a member of `groups`, is among them.
    pub fn contains<G: AsRef<str>>(&self, user: &str, groups: &[G]) -> bool {
        self.users.iter().any(|name| name == user)
            || self.groups.iter().any(|name| groups.iter().any(|group| group.as_ref() == name))
    }
}

/// `tokenMetadata` of a subscription, `meteringMetadata` of a policy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MeteringMetadata {
    /// `organizationId`; empty if absent.
    pub organization_id: String,
    /// `costCenter`; empty if absent.
    pub cost_center: String,
    /// `labels`.
    pub labels: BTreeMap<String, String>,
}
