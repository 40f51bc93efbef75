//! What a path means: discovery, a collection, an object, a subresource, or a review.

use raft::resources::{Kind, Scope};

use super::tokens;
use crate::admin::path;

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Something that only describes the API.
    Document(Document),
    /// All objects of a kind, in one namespace or in all.
    Collection {
        /// Of this kind.
        kind: Kind,
        /// `None`: everywhere, or the kind lives in no namespace.
        namespace: Option<String>,
    },
    /// One object.
    Object {
        /// Of this kind.
        kind: Kind,
        /// Empty for kinds without namespaces.
        namespace: String,
        /// Its name.
        name: String,
        /// A part of it.
        part: Part,
    },
    /// Somebody asks about themselves.
    Review(Review),
    /// All bearer tokens, or the one with this id.
    Tokens(Option<String>),
}

/// What describes the API.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Document {
    /// `/version`
    Version,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/{group}`
    Group(&'static str),
    /// `/api/v1`, `/apis/{group}/{version}`
    Resources(&'static str, &'static str),
    /// `/openapi/v2`
    OpenApi2,
    /// `/openapi/v3`
    OpenApi3Index,
    /// `/openapi/v3/api/v1`, `/openapi/v3/apis/{group}/{version}`
    OpenApi3(&'static str, &'static str),
}

/// All of an object, or a subresource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// `/status`
    Status,
    /// `/token` of a ServiceAccount.
    Token,
}

/// Questions about oneself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Review {
    /// May I?
    Access,
    /// What may I?
    Rules,
    /// Who am I?
    Subject,
}

impl Review {
    pub(super) const ALL: [Review; 3] = [Review::Access, Review::Rules, Review::Subject];

    pub(super) fn group(self) -> &'static str {
        match self {
            Review::Access | Review::Rules => "authorization.k8s.io",
            Review::Subject => "authentication.k8s.io",
        }
    }

    pub(super) fn kind(self) -> &'static str {
        match self {
            Review::Access => "SelfSubjectAccessReview",
            Review::Rules => "SelfSubjectRulesReview",
            Review::Subject => "SelfSubjectReview",
        }
    }

    pub(super) fn plural(self) -> &'static str {
        match self {
            Review::Access => "selfsubjectaccessreviews",
            Review::Rules => "selfsubjectrulesreviews",
            Review::Subject => "selfsubjectreviews",
        }
    }
}

/// Every (group, version) served, the core group first.
pub(super) fn group_versions() -> Vec<(&'static str, &'static str)> {
    let kinds = Kind::ALL.into_iter().map(|kind| (kind.group(), kind.version()));
    let reviews = Review::ALL.into_iter().map(|review| (review.group(), "v1"));
    let mut all: Vec<_> = kinds.chain(reviews).chain([(tokens::GROUP, tokens::VERSION)]).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// What `path`, as it came, means. `None`: nothing here.
pub(super) fn parse(path: &str) -> Option<Target> {
    let segments = path::segments(path)?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["version"] => Some(Target::Document(Document::Version)),
        ["api"] => Some(Target::Document(Document::CoreVersions)),
        ["apis"] => Some(Target::Document(Document::Groups)),
        ["apis", group] => {
            let (group, _) = group_versions().into_iter().find(|(known, _)| known == group && !known.is_empty())?;
            Some(Target::Document(Document::Group(group)))
        }
        ["openapi", "v2"] => Some(Target::Document(Document::OpenApi2)),
        ["openapi", "v3"] => Some(Target::Document(Document::OpenApi3Index)),
        ["openapi", "v3", rest @ ..] => match split_group_version(rest)? {
            (group, version, []) => Some(Target::Document(Document::OpenApi3(group, version))),
            _ => None,
        },
        rest => match split_group_version(rest)? {
            (group, version, []) => Some(Target::Document(Document::Resources(group, version))),
            (tokens::GROUP, _, [tokens::PLURAL]) => Some(Target::Tokens(None)),
            (tokens::GROUP, _, [tokens::PLURAL, id]) => Some(Target::Tokens(Some((*id).to_owned()))),
            (group, version, rest) => review(group, rest).or_else(|| resource(group, version, rest)),
        },
    }
}

/// `api/v1/…` or `apis/{group}/{version}/…`, if served.
fn split_group_version<'a>(segments: &'a [&'a str]) -> Option<(&'static str, &'static str, &'a [&'a str])> {
    let (wanted, rest) = match segments {
        ["api", version, rest @ ..] => (("", *version), rest),
        ["apis", group, version, rest @ ..] if !group.is_empty() => ((*group, *version), rest),
        _ => return None,
    };
    let (group, version) = group_versions().into_iter().find(|known| *known == wanted)?;
    Some((group, version, rest))
}

fn review(group: &str, rest: &[&str]) -> Option<Target> {
    let [plural] = rest else { return None };
    Review::ALL.into_iter().find(|review| review.group() == group && review.plural() == *plural).map(Target::Review)
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Option<Target> {
    let find = |plural: &str, scope: Scope| {
        Kind::ALL.into_iter().find(|kind| {
            kind.group() == group && kind.version() == version && kind.plural() == plural && kind.scope() == scope
        })
    };
    let object = |kind: Kind, namespace: &str, name: &str, part: Part| Target::Object {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        part,
    };
    match rest {
        ["namespaces", namespace, plural] if find(plural, Scope::Namespaced).is_some() => {
            let kind = find(plural, Scope::Namespaced)?;
            Some(Target::Collection { kind, namespace: Some((*namespace).to_owned()) })
        }
        ["namespaces", namespace, plural, name, sub @ ..] => {
            let kind = find(plural, Scope::Namespaced)?;
            Some(object(kind, namespace, name, part(kind, sub)?))
        }
        [plural] => {
            let kind = find(plural, Scope::Cluster).or_else(|| find(plural, Scope::Namespaced))?;
            Some(Target::Collection { kind, namespace: None })
        }
        [plural, name, sub @ ..] => {
            let kind = find(plural, Scope::Cluster)?;
            Some(object(kind, "", name, part(kind, sub)?))
        }
        [] => None,
    }
}

fn part(kind: Kind, sub: &[&str]) -> Option<Part> {
    match sub {
        [] => Some(Part::Whole),
        ["status"] if has_status(kind) => Some(Part::Status),
        ["token"] if kind == Kind::ServiceAccount => Some(Part::Token),
        _ => None,
    }
}

/// Whether objects of a kind have a status.
pub(super) fn has_status(kind: Kind) -> bool {
    !matches!(kind, Kind::ServiceAccount | Kind::Group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_what_they_mean_in_kubernetes() {
        let maas = "/apis/maas.opendatahub.io/v1alpha1";
        let cases = [
            ("/version".to_owned(), "Document(Version)"),
            ("/api".to_owned(), "Document(CoreVersions)"),
            ("/api/v1".to_owned(), "Document(Resources(\"\", \"v1\"))"),
            ("/apis".to_owned(), "Document(Groups)"),
            ("/apis/serving.kserve.io".to_owned(), "Document(Group(\"serving.kserve.io\"))"),
            ("/openapi/v3/api/v1".to_owned(), "Document(OpenApi3(\"\", \"v1\"))"),
            ("/api/v1/namespaces".to_owned(), "Collection { kind: Namespace, namespace: None }"),
            (
                "/api/v1/namespaces/a".to_owned(),
                "Object { kind: Namespace, namespace: \"\", name: \"a\", part: Whole }",
            ),
            (
                "/api/v1/namespaces/a/status".to_owned(),
                "Object { kind: Namespace, namespace: \"\", name: \"a\", part: Status }",
            ),
            (
                "/api/v1/namespaces/a/serviceaccounts".to_owned(),
                "Collection { kind: ServiceAccount, namespace: Some(\"a\") }",
            ),
            (
                "/api/v1/namespaces/a/serviceaccounts/b/token".to_owned(),
                "Object { kind: ServiceAccount, namespace: \"a\", name: \"b\", part: Token }",
            ),
            (format!("{maas}/maasmodelrefs"), "Collection { kind: ModelRef, namespace: None }"),
            (
                format!("{maas}/namespaces/a/maasmodelrefs/b"),
                "Object { kind: ModelRef, namespace: \"a\", name: \"b\", part: Whole }",
            ),
            (
                "/apis/user.openshift.io/v1/groups/kube%3Aadmins".to_owned(),
                "Object { kind: Group, namespace: \"\", name: \"kube:admins\", part: Whole }",
            ),
            (
                "/apis/user.openshift.io/v1/groups/a%00b".to_owned(),
                "Object { kind: Group, namespace: \"\", name: \"a\\0b\", part: Whole }",
            ),
            ("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned(), "Review(Access)"),
            ("/apis/tollgate.dev/v1/tokens".to_owned(), "Tokens(None)"),
            ("/apis/tollgate.dev/v1/tokens/0123".to_owned(), "Tokens(Some(\"0123\"))"),
        ];
        for (path, expected) in cases {
            assert_eq!(parse(&path).map(|target| format!("{target:?}")).as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn paths_that_mean_nothing_are_nothing() {
        let cases = [
            "/",
            "/apis/",
            "/apis//v1",
            "/api/v2",
            "/apis/maas.opendatahub.io/v1",
            "/apis/maas.opendatahub.io/v1alpha1/maasmodelrefs/b",
            "/apis/maas.opendatahub.io/v1alpha1/namespaces/a/groups",
            "/api/v1/namespaces/a/serviceaccounts/b/status",
            "/api/v1/namespaces/a/pods",
            "/api/v1/namespaces/..%2f..%2fx",
            "/apis/user.openshift.io/v1/groups/a%2Fb",
        ];
        for path in cases {
            assert_eq!(parse(path).filter(|target| *target != Target::Document(Document::Groups)), None, "{path}");
        }
    }
}
