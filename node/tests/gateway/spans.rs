//! Spans of calls, as a collector gets them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use node::accept::{self, Limits, Port};
use node::gateway::{Traces, Upstream, UpstreamSettings};
use node::observability::Metrics;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use raft::NodeId;
use raft::doors::Doors;
use serde_json::json;

use crate::scripted::Script;
use crate::world::{PLENTY, World};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Keeps what it is told.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

impl Collector {
    async fn serve(&self) -> String {
        let listener = Doors::real().net.listen("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let told = self.0.clone();
        let take = move |body: Bytes| async move {
            told.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
        };
        let router = Router::new().route("/v1/traces", post(take));
        let port = Port { listener, tls: None, limits: Limits::default() };
        tokio::spawn(accept::serve(port, Metrics::new().port("collector"), router, std::future::pending()));
        url
    }

    fn spans(&self) -> Vec<Span> {
        let told = self.0.lock().unwrap();
        let scopes = told.iter().flat_map(|told| &told.resource_spans).flat_map(|spans| &spans.scope_spans);
        let mut spans: Vec<Span> = scopes.flat_map(|scope| scope.spans.clone()).collect();
        spans.sort_by_key(|span| span.start_time_unix_nano);
        spans
    }
}

fn attributes(span: &Span) -> BTreeMap<&str, String> {
    let shown = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let value = |value: &opentelemetry_proto::tonic::common::v1::AnyValue| value.value.as_ref().map(shown);
    let pairs =
        span.attributes.iter().map(|pair| (&*pair.key, pair.value.as_ref().and_then(value).unwrap_or_default()));
    pairs.collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_authorized_call_is_a_span_between_the_callers_and_the_replicas() {
    let (collector, script, doors) = (Collector::default(), Script::default(), Doors::real());
    let client = Upstream::new(&doors, UpstreamSettings::default());
    let traces = Traces::to(&collector.serve().await, client, &doors, NodeId(7)).unwrap();
    let urls = [script.serve().await];
    let world = World::start_traced(&urls, PLENTY, UpstreamSettings::default(), traces.clone()).await;
    let body = json!({"messages": [{"role": "user", "content": "my secret question"}], "max_tokens": 9}).to_string();
    let bearer = format!("Bearer {}", world.key);
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    let call = async |headers: &[(&str, &str)]| {
        world.connect().await.post("/llm/qwen/v1/chat/completions", headers, &body).await.status
    };
    let usage = json!({"prompt_tokens": 11, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}});
    script.whole("200 OK", &json!({"choices": [], "usage": usage}).to_string());
    let headers = [("authorization", &*bearer), ("traceparent", &parent), ("x-request-id", "call-1")];
    assert_eq!(call(&headers).await, 200);
    script.whole("500 Internal Server Error", r#"{"error":{"message":"my secret question broke it"}}"#);
    assert_eq!(call(&[("authorization", &bearer)]).await, 500);
    assert_eq!(call(&[("authorization", &bearer), ("traceparent", &unsampled)]).await, 500, "it is not to be recorded");
    assert_eq!(call(&[("authorization", "Bearer sk-oai-nobody_nothing")]).await, 403, "it is nobody's call");
    traces.shutdown().await;

    let spans = collector.spans();
    assert_eq!(spans.len(), 2, "{spans:?}");
    let (answered, failed) = (&spans[0], &spans[1]);
    let mut told = attributes(answered);
    let own_id = told.remove("tollgate.request.own_id").unwrap();
    assert!(script.requests()[0].contains(&format!("x-request-id: {own_id}\r\n")), "{}", script.requests()[0]);
    assert_eq!((&*answered.name, answered.kind), ("chat acme/qwen", SpanKind::Client as i32));
    assert_eq!(
        (hexadecimal(&answered.trace_id), hexadecimal(&answered.parent_span_id)),
        (TRACE.to_owned(), PARENT.to_owned())
    );
    let expected = [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "vllm"),
        ("gen_ai.request.model", "acme/qwen"),
        ("gen_ai.usage.cache_read.input_tokens", "4"),
        ("gen_ai.usage.input_tokens", "11"),
        ("gen_ai.usage.output_tokens", "7"),
        ("gen_ai.usage.reasoning.output_tokens", "0"),
        ("http.route", "/v1/chat/completions"),
        ("tollgate.model", "llm/qwen"),
        ("tollgate.request.id", "call-1"),
        ("tollgate.subscription", "models-as-a-service/dev"),
        ("tollgate.usage.source", "reported"),
    ];
    assert_eq!(told, expected.map(|(name, value)| (name, value.to_owned())).into());
    let continued = format!("traceparent: 00-{TRACE}-{}-01", hexadecimal(&answered.span_id));
    assert!(script.requests()[0].contains(&continued), "{}", script.requests()[0]);

    assert_eq!(attributes(failed)["error.type"], "upstream_error");
    assert!(failed.parent_span_id.is_empty() && failed.trace_id != answered.trace_id);
    assert!(script.requests()[2].contains(&format!("traceparent: 00-{TRACE}-")), "{}", script.requests()[2]);
    assert!(!format!("{spans:?}").contains("secret"), "{spans:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let (script, doors) = (Script::default(), Doors::real());
    let client = Upstream::new(&doors, UpstreamSettings::default());
    let traces = Traces::to("http://127.0.0.1:9", client, &doors, NodeId(7)).unwrap();
    let urls = [script.serve().await];
    let world = World::start_traced(&urls, PLENTY, UpstreamSettings::default(), traces.clone()).await;
    script.whole("200 OK", r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#);
    let answer = world.post("/llm/qwen/v1/chat/completions", &json!({"messages": []})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    traces.shutdown().await;
}
