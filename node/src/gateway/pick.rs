//! Which replica: the choice itself is the endpoint picker's; here is what it is told of the call.

use actors::epp::{CallShape, ReplicaId};
use actors::{NoReplica, Permit, PrefixHashes, Route};

use super::body::CallBody;
use super::estimate::PromptEstimate;
use crate::Context;

/// A call as the picker sees it, made once for all attempts.
pub(super) struct Shape {
    prefix: PrefixHashes,
    prompt_tokens: u64,
}

impl Shape {
    pub(super) fn of(permit: &Permit, body: &CallBody, prompt: PromptEstimate) -> Shape {
        let prefix = PrefixHashes::of(&permit.model().served_name, body.salt(), &body.prompt());
        Shape { prefix, prompt_tokens: prompt.guess }
    }

    /// Of a question that computes nothing: it neither brings load nor leaves a prefix in a cache.
    pub(super) fn of_question() -> Shape {
        Shape { prefix: PrefixHashes::default(), prompt_tokens: 0 }
    }
}

/// Picks a replica that is not among `tried`.
pub(super) fn pick(context: &Context, permit: &Permit, shape: &Shape, tried: &[ReplicaId]) -> Result<Route, NoReplica> {
    let call = CallShape { prefix: &shape.prefix, prompt_tokens: shape.prompt_tokens };
    context.actors.pools.pick(&permit.model().service, &call, tried)
}
