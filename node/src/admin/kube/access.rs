//! Who may do what here: administrators everything, everybody else next to nothing.
//!
//! | caller | may |
//! |---|---|
//! | member of `system:masters` | everything |
//! | any other token | read discovery, ask about themselves, get, list and watch MaaSModelRefs |
//! | API key | nothing: keys are for models |

use actors::Caller;
use http::StatusCode;
use raft::resources::Kind;

use super::error::Failure;
use super::target::Review;

/// What a caller wants to do, in the words of Kubernetes' access reviews. Empty means none.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish {
    pub(super) verb: String,
    pub(super) group: String,
    pub(super) resource: String,
    pub(super) subresource: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Wish {
    pub(super) fn to(verb: &str, kind: Kind, namespace: &str, name: &str) -> Wish {
        Wish {
            verb: verb.to_owned(),
            group: kind.group().to_owned(),
            resource: kind.plural().to_owned(),
            subresource: String::new(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    pub(super) fn on(mut self, subresource: &str) -> Wish {
        subresource.clone_into(&mut self.subresource);
        self
    }
}

/// Whether `caller` may.
pub(super) fn is_allowed(caller: &Caller, wish: &Wish) -> bool {
    caller.is_admin() || is_for_everybody(wish)
}

/// Users read which models exist, as the tutorial does with `get maasmodelref`: names and addresses, no secrets.
fn is_for_everybody(wish: &Wish) -> bool {
    let reads_models = wish.group == Kind::ModelRef.group()
        && wish.resource == Kind::ModelRef.plural()
        && matches!(wish.verb.as_str(), "get" | "list" | "watch");
    let asks_about_self = wish.verb == "create"
        && Review::ALL.into_iter().any(|review| wish.group == review.group() && wish.resource == review.plural());
    reads_models || asks_about_self
}

/// Errors: 403, naming who wanted what.
pub(super) fn authorize(caller: &Caller, wish: &Wish) -> Result<(), Failure> {
    if is_allowed(caller, wish) {
        return Ok(());
    }
    let slash = if wish.subresource.is_empty() { "" } else { "/" };
    let resource = format!("{}{slash}{}", wish.resource, wish.subresource);
    let place = if wish.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", wish.namespace)
    };
    let dot = if wish.group.is_empty() { "" } else { "." };
    let name = if wish.name.is_empty() { String::new() } else { format!(" {:?}", wish.name) };
    let message = format!(
        "{}{dot}{}{name} is forbidden: User {:?} cannot {} resource {resource:?} in API group {:?} {place}",
        wish.resource,
        wish.group,
        caller.user(),
        wish.verb,
        wish.group,
    );
    Err(Failure::new(StatusCode::FORBIDDEN, "Forbidden", message))
}
