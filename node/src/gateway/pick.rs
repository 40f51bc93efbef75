//! Which replica: the ranking itself is the endpoint picker's; here is what it is told of the call.

use actors::epp::{CallShape, CallerId};
use actors::{NoReplica, Permit, PrefixHashes, Ranking};
use memchr::memmem;

use super::body::{CallBody, Steering};
use super::endpoint::Endpoint;
use super::estimate::PromptEstimate;
use crate::Context;

/// A call as the picker sees it, made once for all attempts.
pub(super) struct Shape {
    prefix: PrefixHashes,
    prompt_tokens: u64,
    is_for_engine: bool,
}

impl Shape {
    pub(super) fn of(
        permit: &Permit,
        endpoint: &Endpoint,
        steering: &Steering,
        body: &CallBody,
        prompt: PromptEstimate,
    ) -> Shape {
        let prefix = PrefixHashes::of(&permit.model().served_name, steering.salt(body), &body.prompt());
        // A file is decoded first.
        let is_for_engine = endpoint.is_metered() && !endpoint.takes_form() && !may_fetch(body.bytes());
        Shape { prefix, prompt_tokens: prompt.guess, is_for_engine }
    }

    /// Of a question that computes nothing: it neither brings load nor leaves a prefix in a cache.
    pub(super) fn of_question() -> Shape {
        Shape { prefix: PrefixHashes::default(), prompt_tokens: 0, is_for_engine: false }
    }
}

/// Whether a replica may have to fetch something from elsewhere before its engine sees the call: a picture, a film, a sound.
/// Their fields are `image_url`, `video_url`, `audio_url`, `url`, `file`; a body in which one of these words, or an escape that may
/// hide a letter of it, occurs anywhere may have one.
fn may_fetch(body: &[u8]) -> bool {
    [&b"url"[..], b"file", b"\\u00"].into_iter().any(|word| memmem::find(body, word).is_some())
}

/// Ranks the replicas of the call's model.
pub(super) fn rank<'a>(context: &Context, permit: &Permit, shape: &'a Shape) -> Result<Ranking<'a>, NoReplica> {
    let call = CallShape {
        prefix: &shape.prefix,
        prompt_tokens: shape.prompt_tokens,
        caller: CallerId::of(permit.caller().user()),
        is_for_engine: shape.is_for_engine,
    };
    context.actors.pools.rank(&permit.model().service, &call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_make_a_replica_fetch_something_are_known() {
        let table = [
            (r#"{"messages":[{"role":"user","content":"hello"}]}"#, false),
            (r#"{"messages":[{"role":"user","content":"\u4f60\u597d"}]}"#, false),
            (r#"{"content":[{"type":"image_url","image_url":{"url":"http://a/b.png"}}]}"#, true),
            (r#"{"content":[{"type":"image","source":{"type":"url","url":"http://a/b.png"}}]}"#, true),
            (r#"{"content":[{"\u0075rl":"http://a/b.png"}]}"#, true),
        ];
        for (body, fetches) in table {
            assert_eq!(may_fetch(body.as_bytes()), fetches, "{body}");
        }
    }
}
