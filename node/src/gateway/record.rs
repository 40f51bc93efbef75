//! What is told of each call that was charged: metrics, the attributes of its span, and one line in the log under the target `usage`, for whoever keeps them. It is off unless
//! `log.filter` has `usage=info`. Tokens have the names that OpenTelemetry gives them for generative AI.

use actors::Permit;
use actors::quota::Charge;
use tokio::time::Instant;
use tracing::info;

use super::call_id::CallId;
use super::endpoint::Endpoint;
use super::trace::CallSpan;
use crate::observability::{Metrics, Took};

/// What is known of a call before it is charged.
pub(super) struct Record {
    id: CallId,
    endpoint: &'static Endpoint,
    began: Instant,
    /// When the first tokens of a streamed answer were here.
    first_token: Option<Instant>,
    span: CallSpan,
}

impl Record {
    /// Of the call `id`, which begins now.
    pub(super) fn open(id: &CallId, endpoint: &'static Endpoint, span: CallSpan) -> Record {
        Record { id: id.clone(), endpoint, began: Instant::now(), first_token: None, span }
    }

    /// The id of the call, as its caller knows it.
    pub(super) fn id(&self) -> &str {
        self.id.shown_text()
    }

    /// A stream has brought tokens.
    pub(super) fn streamed(&mut self) {
        if self.first_token.is_none() {
            self.first_token = Some(Instant::now());
        }
    }

    /// The answer broke off, for a reason of which there are few.
    pub(super) fn failed(&self, kind: &'static str) {
        self.span.failed(kind);
    }

    /// Counts it, and writes it down. Nothing of what was asked or answered is in it, and no credential: a key is there by its id.
    pub(super) fn write(&self, metrics: &Metrics, permit: &Permit, charge: &Charge, reserved: u64) {
        let now = Instant::now();
        let took = Took {
            in_all: now - self.began,
            to_first_token: self.first_token.map(|first| first - self.began),
            from_first_token: self.first_token.map(|first| now - first),
        };
        metrics.generated(self.endpoint.operation(), &permit.model().served_name, charge, took);
        self.span.charged(charge);
        let (caller, access, model) = (permit.caller(), permit.subscription(), permit.model());
        info!(
            target: "usage",
            id = self.id.shown_text(),
            own_id = self.id.own_text(),
            route = self.endpoint.path,
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
            milliseconds = u64::try_from(took.in_all.as_millis()).unwrap_or(u64::MAX),
            "call"
        );
    }
}
