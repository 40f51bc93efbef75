//! A record of each call that was charged: one line in the log under the target `usage`, for whoever keeps them. It is off unless
//! `log.filter` has `usage=info`. Tokens have the names that OpenTelemetry gives them for generative AI.

use actors::Permit;
use actors::quota::Charge;
use http::HeaderValue;
use tokio::time::Instant;
use tracing::info;

/// What is known of a call before it is charged.
pub(super) struct Record {
    id: HeaderValue,
    route: &'static str,
    began: Instant,
}

impl Record {
    /// Of the call `id`, which begins now.
    pub(super) fn open(id: &HeaderValue, route: &'static str) -> Record {
        Record { id: id.clone(), route, began: Instant::now() }
    }

    /// Writes it. Nothing of what was asked or answered is in it, and no credential: a key is there by its id.
    pub(super) fn write(&self, permit: &Permit, charge: &Charge, reserved: u64) {
        let (caller, access, model) = (permit.caller(), permit.subscription(), permit.model());
        info!(
            target: "usage",
            id = self.id.to_str().unwrap_or_default(),
            route = self.route,
            user = caller.user(),
            key = caller.key_id().map(|key| key.to_string()),
            subscription = %access.id,
            model = %model.id,
            organization = access.metadata.organization_id,
            cost_center = access.metadata.cost_center,
            gen_ai.request.model = &*model.served_name,
            gen_ai.usage.input_tokens = charge.amount.input,
            gen_ai.usage.cache_read.input_tokens = charge.cached,
            gen_ai.usage.output_tokens = charge.amount.output,
            gen_ai.usage.reasoning.output_tokens = charge.reasoning,
            source = charge.source.name(),
            is_absurd = charge.is_absurd,
            reserved,
            milliseconds = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "call"
        );
    }
}
