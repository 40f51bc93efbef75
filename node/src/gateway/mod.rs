//! The data plane: the life of one call.
//!
//! ```text
//! accept -> authenticate -> authorize -> reserve -----> pick -> proxy -> stream -> settle
//!           Caller          Permit       ChargeGuard    Route   Answer
//! ```
//!
//! `reserve` holds what the prompt may cost at most; where a limit is too short for that, it has a replica `count` the prompt.
//!
//! Each stage is a file and needs what the stage before it made. The data plane reads the newest View and talks to local
//! actors; it waits for the cluster only when the node's local allowance is empty, and it never imports the admin code: what is
//! not inference is handed to the router it was given.

mod authenticate;
mod authorize;
mod body;
mod call_id;
mod ceiling;
mod complaint;
mod cors;
mod count;
mod deliver;
mod dialect;
mod endpoint;
mod estimate;
mod held;
mod judge;
mod keep_alive;
mod learnt;
mod outcome;
mod pick;
mod progress;
mod proxy;
mod record;
mod refusal;
mod request;
mod reserve;
mod respond;
mod retry;
mod settle;
mod sse;
mod stateless;
mod stream;
mod tally;
mod trace;
mod upstream;
mod usage;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Request, Response, Version, header};
use tokio::time::Instant;
use tower::{Service, ServiceExt};
use tracing::{debug, info};

use crate::Context;
use crate::accept::{self, Peer, Port};
use crate::credentials::Shown;
use authenticate::authenticate;
use authorize::authorize;
use body::{BodyBudget, CallBody, Steering};
use call_id::CallId;
use cors::Cors;
use count::Counter;
use deliver::{Terms, deliver};
use dialect::Dialect;
use endpoint::Endpoint;
use keep_alive::OnItsWay;
use pick::Shape;
use proxy::proxy;
use record::Record;
use refusal::Refusal;
use request::{ModelPath, Target};
use reserve::reserve;
use stream::Body;
use trace::CallSpan;

pub use trace::{Traces, TracesError};
pub use upstream::{Destinations, Upstream, UpstreamSettings};

/// Settings of the data plane.
#[derive(Clone)]
pub struct Settings {
    /// The client toward replicas; the probes may share it.
    pub upstream: Upstream,
    /// Bytes of request bodies that are in memory at once, at least eight times the largest body.
    pub body_memory: usize,
    /// Where the spans of calls go.
    pub traces: Traces,
    /// A stream that has begun and is silent for so long gets a sign of life, again and again.
    pub sse_keep_alive: Option<Duration>,
}

impl Settings {
    /// Defaults fit for production: bodies have 256 MiB, and there are no spans and no signs of life.
    pub fn new(upstream: Upstream) -> Settings {
        Settings { upstream, body_memory: 256 << 20, traces: Traces::default(), sse_keep_alive: None }
    }
}

/// Serves inference on `port`, and hands `/maas-api/*`, `/v1/models` and health to `public`. Returns after
/// `drain` resolved and the calls in progress ended, or the port's drain deadline passed.
pub async fn serve(
    context: Context,
    settings: Settings,
    port: Port,
    public: axum::Router,
    drain: impl Future<Output = ()> + Send + 'static,
) {
    let counter = Counter::new(settings.upstream.clone());
    // Two of the largest bodies of one user, and as many of the others.
    let bodies = BodyBudget::new(settings.body_memory.max(8 * port.limits.body_max));
    let metrics = context.metrics.port("gateway");
    let inner = Inner { context, settings, counter, bodies, public };
    accept::serve(port, metrics, Gateway(Arc::new(inner)), drain).await;
}

/// The data plane as a service.
#[derive(Clone)]
struct Gateway(Arc<Inner>);

struct Inner {
    context: Context,
    settings: Settings,
    counter: Counter,
    bodies: BodyBudget,
    public: axum::Router,
}

/// What is known of a call when it is counted and logged.
#[derive(Default)]
struct Known {
    subscription: Option<Arc<actors::routing::SubscriptionAccess>>,
    model: Option<Arc<actors::routing::Model>>,
    span: CallSpan,
}

impl Inner {
    /// The life of one call. Each stage needs what the stage before it proved.
    async fn call(
        &self,
        endpoint: &'static Endpoint,
        path: Option<ModelPath<'_>>,
        (head, body): (&Parts, accept::Body),
        id: &CallId,
        known: &mut Known,
    ) -> Result<Response<Body>, Refusal> {
        let context = &self.context;
        self.check_serving()?;
        let caller = authenticate(context, &body.peer(), &head.headers)?;
        let mut room = self.bodies.open(caller.user());
        let bytes = body::read(body, &head.headers, &mut room).await?;
        let mut body = CallBody::read(bytes, &head.headers, endpoint, id).await?;
        stateless::check(endpoint, &body)?;
        // The body may have taken a while, and what is ended meanwhile admits nothing.
        let caller = context.actors.auth.again(&caller)?;
        self.check_serving()?;
        let began = Instant::now();
        let permit = authorize(context, caller, path.as_ref(), body.model.as_deref(), &head.headers)?;
        known.note(&permit);
        let prompt = estimate::prompt(&body, endpoint, &permit)?;
        known.span = self.settings.traces.call(endpoint, &permit, &head.headers, id);
        let record = Record::open(id, endpoint, known.span.clone());
        let mut guard = reserve(context, &self.counter, &permit, endpoint, &body, prompt, record).await?;
        if endpoint.generates() {
            guard.expects(body.choices, body.streams);
        }
        let steering = Steering::of(&permit, endpoint);
        let shape = Shape::of(&permit, endpoint, &steering, &body, prompt);
        let bytes = body.rewrite(&permit.model().served_name, &steering, endpoint, guard.output_max());
        body.forget();
        room.shrink_to(bytes.len());
        let mut request = proxy::outgoing(endpoint, &head.headers, id.own(), (bytes, body.content_type()));
        proxy::prioritize(&mut request, steering.priority());
        known.span.continue_in(&mut request.headers);
        context.metrics.overhead(endpoint.path, "admitted", began.elapsed());
        let terms = Terms::of(endpoint, &body, self.settings.sse_keep_alive);
        let upstream = &self.settings.upstream;
        // The body of the response holds the charge guard and the route to its last byte, then settles.
        if let Some(interval) = self.settings.sse_keep_alive.filter(|_| body.streams) {
            let (context, upstream) = (context.clone(), upstream.clone());
            let call = OnItsWay { context, upstream, permit, shape, request, guard, terms, room };
            return keep_alive::proxy_and_deliver(call, interval).await;
        }
        let answer = proxy(context, upstream, &permit, &shape, request, &mut guard, None).await?;
        deliver(context, answer, guard, &permit, &terms).await
    }

    /// The list of the one model at its prefix, or the model itself if `id` is one of its names: authorized, never metered.
    fn models(
        &self,
        path: &ModelPath<'_>,
        id: Option<&str>,
        (head, peer): (&Parts, &Peer),
        known: &mut Known,
    ) -> Result<Response<Body>, Refusal> {
        self.check_serving()?;
        let caller = authenticate(&self.context, peer, &head.headers)?;
        let permit =
            authorize(&self.context, caller, Some(path), id, &head.headers).map_err(|refusal| match refusal {
                Refusal::ModelMismatch { body, .. } => Refusal::UnknownModel(body),
                refusal => refusal,
            })?;
        known.note(&permit);
        let view = self.context.cluster.view();
        match id {
            Some(_) => Ok(respond::model(&permit, &view, head)),
            None => respond::models(&permit, &view, head),
        }
    }

    fn check_serving(&self) -> Result<(), Refusal> {
        if self.context.cluster.may_serve() { Ok(()) } else { Err(Refusal::NotServing) }
    }

    /// Answers any request on the gateway's port.
    async fn answer(&self, request: Request<accept::Body>) -> Response<Body> {
        let cors = Cors::of(&self.context.cluster.view(), request.headers());
        let mut response = self.answer_any_page(request, &cors).await;
        cors.add_to(response.headers_mut());
        // What a replica says is text a caller had a part in: no browser may take it for a page.
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    async fn answer_any_page(&self, request: Request<accept::Body>, cors: &Cors) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        request::tidy(&mut head.uri);
        let id = CallId::of(&head.headers, &*self.context.doors.chance);
        let mut known = Known::default();
        let spoken = Dialect::of_request(head.uri.path(), &head.headers);
        let (route, dialect, result) = match request::target(&head) {
            _ if cors::is_preflight(&head) => ("preflight", spoken, cors.preflight(&head)),
            Err(refusal) => ("none", spoken, Err(refusal)),
            Ok(Target::Root) => ("/", spoken, Ok(respond::root())),
            Ok(Target::Public) => match self.admit(&head, &body.peer()) {
                Ok(()) => return self.public(Request::from_parts(head, body)).await,
                Err(refusal) => ("public", spoken, Err(refusal)),
            },
            Ok(Target::Models { model, id: asked }) => {
                ("/v1/models", spoken, self.models(&model, asked.as_deref(), (&head, &body.peer()), &mut known))
            }
            Ok(Target::Call { endpoint, model }) => {
                let result = self.call(endpoint, model, (&head, body), &id, &mut known).await;
                (endpoint.path, endpoint.dialect(), result)
            }
        };
        let closes = result.as_ref().err().is_some_and(Refusal::closes_connection);
        let mut response = match result {
            Ok(response) => {
                if response.status().is_client_error() || response.status().is_server_error() {
                    known.span.failed(response.status().as_str());
                }
                response
            }
            Err(refusal) => {
                known.span.failed(refusal.code());
                known.log(route, &refusal, &id);
                respond::refuse(&refusal, dialect, id.shown())
            }
        };
        known.count(&self.context, route, response.status().as_u16());
        debug!(route, status = response.status().as_u16(), id = id.shown_text(), own_id = id.own_text(), "answered");
        if dialect == Dialect::Anthropic {
            response.headers_mut().insert("request-id", id.shown().clone());
        }
        response.headers_mut().insert("x-request-id", id.shown().clone());
        if closes && head.version < Version::HTTP_2 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Lets a request to the public router, unless it guesses credentials. The router finds the caller by itself.
    fn admit(&self, head: &Parts, peer: &Peer) -> Result<(), Refusal> {
        if !accept::is_health_check(head.uri.path()) {
            let _ = Shown::of(&head.headers).judge(&self.context.actors.auth, peer, &head.headers)?;
        }
        Ok(())
    }

    async fn public(&self, request: Request<accept::Body>) -> Response<Body> {
        let request = request.map(axum::body::Body::new);
        let Ok(response) = self.public.clone().oneshot(request).await;
        response.map(Body::Public)
    }
}

impl Known {
    fn note(&mut self, permit: &actors::Permit) {
        self.subscription = Some(permit.subscription().clone());
        self.model = Some(permit.model().clone());
    }

    fn labels(&self) -> (&str, &str) {
        let subscription = self.subscription.as_ref().map_or("", |subscription| &*subscription.id.name);
        (subscription, self.model.as_ref().map_or("", |model| &*model.id.name))
    }

    fn count(&self, context: &Context, route: &str, code: u16) {
        let (subscription, model) = self.labels();
        context.metrics.answered(route, code, subscription, model);
    }

    /// One line, without the refusal's text: a replica's may repeat the prompt.
    fn log(&self, route: &str, refusal: &Refusal, id: &CallId) {
        let (subscription, model) = self.labels();
        let (status, reason) = (refusal.status().as_u16(), refusal.code());
        let (id, own_id) = (id.shown_text(), id.own_text());
        // Anybody can cause these as often as they like: the metrics count them.
        let is_open_to_all = matches!(refusal, Refusal::Unauthenticated(_) | Refusal::TooManyAttempts(_));
        if is_open_to_all || status == 404 {
            debug!(route, status, reason, id, own_id, "refused");
        } else {
            info!(route, status, reason, subscription, model, id, own_id, "refused");
        }
    }
}

impl Service<Request<accept::Body>> for Gateway {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<accept::Body>) -> Self::Future {
        let gateway = self.0.clone();
        Box::pin(async move { Ok(gateway.answer(request).await) })
    }
}
