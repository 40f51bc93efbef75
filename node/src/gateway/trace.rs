//! Traces: a span for each authorized call, told to an OpenTelemetry collector under the names of the conventions for generative AI
//! (`open-telemetry/semantic-conventions-genai`). A caller's trace goes on through it to the replica.
//!
//! Spans are made, batched and encoded by OpenTelemetry's SDK, in a thread of its own and by its own clock, so no simulation runs with
//! them. Nothing is decided by them, and what cannot be sent is dropped. Ids and the network come through the doors.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actors::Permit;
use actors::quota::Charge;
use http::{HeaderMap, Method, Request, Response, Uri};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanId, SpanKind, Status, TraceContextExt, TraceId, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HeaderExtractor, HeaderInjector, HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator, SdkTracer, SdkTracerProvider};
use raft::NodeId;
use raft::doors::{Chance, Doors};
use tokio::runtime::Handle;
use tracing::{info, warn};

use super::call_id::CallId;
use super::endpoint::Endpoint;
use super::upstream::{Outgoing, Upstream};

/// Of a collector's answer, more is not read.
const ANSWER_MAX: usize = 64 * 1024;

/// Where spans go. Cloning is cheap. The default is nowhere.
#[derive(Clone, Default)]
pub struct Traces(Option<Sink>);

#[derive(Clone)]
struct Sink {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// The collector's URL cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("traces.endpoint: {0}")]
pub struct TracesError(#[from] ExporterBuildError);

impl Traces {
    /// To the collector at the base URL `endpoint`, by OTLP over HTTP with `client`. Must be called in a runtime. Errors: the URL is none.
    pub fn to(endpoint: &str, client: Upstream, doors: &Doors, node: NodeId) -> Result<Traces, TracesError> {
        let client = Client { upstream: client, runtime: Handle::current(), is_failing: AtomicBool::new(false) };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .build()?;
        let resource = Resource::builder().with_service_name("tollgate").with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", node.to_string()),
        ]);
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_id_generator(Ids(doors.chance.clone()))
            .with_resource(resource.build())
            .build();
        Ok(Traces(Some(Sink { tracer: provider.tracer("tollgate"), provider })))
    }

    /// Begins the span of a call of `permit`, in the trace that `from` names, if it does.
    pub(super) fn call(&self, endpoint: &Endpoint, permit: &Permit, from: &HeaderMap, id: &CallId) -> CallSpan {
        let Some(sink) = &self.0 else { return CallSpan::default() };
        let (access, model) = (permit.subscription(), permit.model());
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(from));
        let span = sink
            .tracer
            .span_builder(format!("{} {}", endpoint.operation(), model.served_name))
            .with_kind(SpanKind::Client)
            .with_attributes([
                KeyValue::new("gen_ai.operation.name", endpoint.operation()),
                KeyValue::new("gen_ai.provider.name", crate::observability::PROVIDER),
                KeyValue::new("gen_ai.request.model", model.served_name.to_string()),
                KeyValue::new("http.route", endpoint.path),
                KeyValue::new("tollgate.request.id", id.shown_text().to_owned()),
                KeyValue::new("tollgate.request.own_id", id.own_text().to_owned()),
                KeyValue::new("tollgate.subscription", access.id.to_string()),
                KeyValue::new("tollgate.model", model.id.to_string()),
            ])
            .start_with_context(&sink.tracer, &parent);
        CallSpan(Some(parent.with_span(span)))
    }

    /// Sends what is left, and ends. Waits for the collector for some seconds at most.
    pub async fn shutdown(&self) {
        let Some(Sink { provider, .. }) = self.0.clone() else { return };
        // It blocks until its thread, which needs this runtime, is done.
        let ended = tokio::task::spawn_blocking(move || provider.shutdown()).await;
        if let Ok(Err(error)) = ended {
            warn!(%error, "the last spans were not sent");
        }
    }
}

/// The span of one call; clones are the same span. It ends when the last is dropped.
#[derive(Clone, Default)]
pub(super) struct CallSpan(Option<Context>);

impl CallSpan {
    /// Names it to the replica as what the call there belongs to.
    pub(super) fn continue_in(&self, headers: &mut HeaderMap) {
        if let Some(context) = &self.0 {
            TraceContextPropagator::new().inject_context(context, &mut HeaderInjector(headers));
        }
    }

    /// The call is charged so much.
    pub(super) fn charged(&self, charge: &Charge) {
        let Some(context) = &self.0 else { return };
        let tokens = |name, tokens| KeyValue::new(name, i64::try_from(tokens).unwrap_or(i64::MAX));
        context.span().set_attributes([
            tokens("gen_ai.usage.input_tokens", charge.amount.input),
            tokens("gen_ai.usage.cache_read.input_tokens", charge.cached),
            tokens("gen_ai.usage.output_tokens", charge.amount.output),
            tokens("gen_ai.usage.reasoning.output_tokens", charge.reasoning),
            KeyValue::new("tollgate.usage.source", charge.source.name()),
        ]);
    }

    /// The call failed. `kind` has few values.
    pub(super) fn failed(&self, kind: &str) {
        let Some(context) = &self.0 else { return };
        context.span().set_attribute(KeyValue::new("error.type", kind.to_owned()));
        context.span().set_status(Status::error(kind.to_owned()));
    }
}

/// Ids of traces and spans, from the same chance as everything.
struct Ids(Arc<dyn Chance>);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        let mut bytes = [0; 16];
        self.0.fill(&mut bytes);
        TraceId::from_bytes(bytes)
    }

    fn new_span_id(&self) -> SpanId {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        SpanId::from_bytes(bytes)
    }
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ids")
    }
}

/// Sends what the exporter has encoded, from the exporter's thread, on the node's runtime.
struct Client {
    upstream: Upstream,
    runtime: Handle,
    /// So that a collector that is away is told of once.
    is_failing: AtomicBool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let upstream = self.upstream.clone();
        let sent = self.runtime.spawn(async move { send(&upstream, request).await }).await?;
        let problem = match &sent {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answers {}", response.status())),
            Err(error) => Some(error.to_string()),
        };
        let was_failing = self.is_failing.swap(problem.is_some(), Ordering::AcqRel);
        match problem {
            Some(problem) if !was_failing => warn!(problem, "spans cannot be sent to traces.endpoint and are dropped"),
            None if was_failing => info!("spans are sent to traces.endpoint again"),
            _ => {}
        }
        sent
    }
}

async fn send(upstream: &Upstream, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (head, body) = request.into_parts();
    let (scheme, authority) = (head.uri.scheme_str().unwrap_or("http"), head.uri.authority().ok_or("no host")?);
    let base = format!("{scheme}://{authority}");
    let path = head.uri.path_and_query().cloned().ok_or("no path")?;
    let outgoing = Outgoing { method: Method::POST, path: Uri::from(path), headers: head.headers, body };
    let exchange = upstream.send(&base, outgoing).await?;
    let (mut body, status) = (exchange.body, exchange.head.status);
    let body = body.collect(ANSWER_MAX).await?;
    Ok(Response::builder().status(status).body(body)?)
}
