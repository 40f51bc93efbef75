//! Which replica: the ranking itself is the endpoint picker's; here is what it is told of the call.

use actors::epp::CallShape;
use actors::{NoReplica, Permit, PrefixHashes, Ranking};

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
        let prefix = PrefixHashes::of(&permit.model().served_name, "", &body.prompt());
        Shape { prefix, prompt_tokens: prompt.guess }
    }

    /// Of a question that computes nothing: it neither brings load nor leaves a prefix in a cache.
    pub(super) fn of_question() -> Shape {
        Shape { prefix: PrefixHashes::default(), prompt_tokens: 0 }
    }
}

/// Ranks the replicas of the call's model.
pub(super) fn rank<'a>(context: &Context, permit: &Permit, shape: &'a Shape) -> Result<Ranking<'a>, NoReplica> {
    let call = CallShape { prefix: &shape.prefix, prompt_tokens: shape.prompt_tokens };
    context.actors.pools.rank(&permit.model().service, &call)
}
