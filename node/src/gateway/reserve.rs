//! Whether tokens are left: holds the prompt's bound and the probable output in every limit of the permit.

use actors::{Permit, QuotaRefusal};

use super::body::CallBody;
use super::endpoint::Endpoint;
use super::estimate::PromptEstimate;
use super::refusal::Refusal;
use super::settle::Bill;
use crate::Context;

/// Reserves what the call may need; one reservation serves all of its attempts. Calls that cost nothing get a bill without one.
pub(super) async fn reserve(
    context: &Context,
    permit: &Permit,
    endpoint: &Endpoint,
    body: &CallBody,
    prompt: PromptEstimate,
) -> Result<Bill, Refusal> {
    let call = context.metrics.of(permit, &context.cluster.view());
    if !endpoint.is_metered() {
        return Ok(Bill::open(context.metrics.clone(), call, None, 0));
    }
    let tokens = prompt.bound.saturating_add(output(context, permit, endpoint, body));
    match context.actors.quota.reserve(permit, tokens).await {
        Ok(reservation) => Ok(Bill::open(context.metrics.clone(), call, Some(reservation), prompt.guess)),
        Err(refused) => {
            let reason = match &refused {
                QuotaRefusal::Exhausted { .. } => "exhausted",
                QuotaRefusal::Unavailable => "unavailable",
                QuotaRefusal::Changed => "changed",
            };
            context.metrics.denied(permit, reason, tokens);
            if matches!(refused, QuotaRefusal::Exhausted { .. }) {
                call.limited_calls.inc();
            }
            Err(refused.into())
        }
    }
}

/// The output tokens a call will probably have, all of its choices together.
fn output(context: &Context, permit: &Permit, endpoint: &Endpoint, body: &CallBody) -> u64 {
    if !endpoint.generates() {
        return 0;
    }
    let quota = &context.actors.quota;
    match body.max_tokens {
        Some(each) => quota.output_estimate(permit, Some(each.saturating_mul(body.choices))),
        None => quota.output_estimate(permit, None).saturating_mul(body.choices),
    }
}
