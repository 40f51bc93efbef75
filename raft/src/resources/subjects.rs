//! Who: the groups and users that subscriptions and policies name, and what they are accounted under.

use std::collections::BTreeMap;

use super::fields::Fields;

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

    /// The field names [`Subjects::parse`] reads.
    pub(super) const FIELDS: [&str; 2] = ["groups", "users"];

    /// Reads `groups[].name` and `users[]`.
    pub(super) fn parse(fields: &Fields<'_>) -> Subjects {
        let groups = fields.objects("groups", &["name"]);
        Subjects {
            groups: groups
                .iter()
                .filter_map(|group| group.required_text("name", 1..=1024))
                .map(str::to_owned)
                .collect(),
            users: fields.texts("users").into_iter().map(str::to_owned).collect(),
        }
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

impl MeteringMetadata {
    /// Reads the object in field `name`.
    pub(super) fn parse(spec: &Fields<'_>, name: &str) -> MeteringMetadata {
        let Some(fields) = spec.object(name, &["organizationId", "costCenter", "labels"]) else {
            return MeteringMetadata::default();
        };
        MeteringMetadata {
            organization_id: fields.text("organizationId").unwrap_or_default().to_owned(),
            cost_center: fields.text("costCenter").unwrap_or_default().to_owned(),
            labels: fields.text_map("labels"),
        }
    }
}
