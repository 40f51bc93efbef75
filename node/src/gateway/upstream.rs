//! The HTTP client toward replicas: HTTP/1.1 over the network door, with a small pool of our own.
//!
//! There is no task per connection: whoever uses a connection polls it, and an idle one is not polled at all (a peer that
//! closed it is noticed when it is taken out). So dropping an exchange closes its socket at once, which is how a replica
//! learns that the caller left, and a connection goes back to the pool only after its answer was read to the end.

mod destinations;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use actors::probe::{Scrape, Scraped};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header, response};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use raft::doors::{BoxFuture, BoxStream, Doors, Net};
use tokio::time::{Instant, Sleep};

use super::learnt::Learnt;

pub use destinations::Destinations;

/// How replicas are talked to, with defaults fit for production.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// TCP and TLS. Default 2 s.
    pub connect_timeout: Duration,
    /// Until an answer's head arrives. A whole generation may take place before it. Default 10 min.
    pub header_timeout: Duration,
    /// Between two pieces of an answer. Default 5 min.
    pub idle_timeout: Duration,
    /// An idle connection is used again for so long. Replicas close theirs after 5 s. Default 4 s.
    pub pool_idle_timeout: Duration,
    /// Idle connections kept per replica. Default 256.
    pub pool_idle_max: usize,
    /// TLS for `https://` replicas; without it they cannot be reached.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Where connections may go. Default: anywhere; a node narrows it for replicas.
    pub destinations: Destinations,
}

impl Default for UpstreamSettings {
    fn default() -> UpstreamSettings {
        UpstreamSettings {
            connect_timeout: Duration::from_secs(2),
            header_timeout: Duration::from_secs(600),
            idle_timeout: Duration::from_secs(300),
            pool_idle_timeout: Duration::from_secs(4),
            pool_idle_max: 256,
            tls: None,
            destinations: Destinations::Any,
        }
    }
}

/// Why a replica gave no answer, or stopped giving one.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    #[error("the replica's URL cannot be used: {0}")]
    Url(&'static str),
    #[error("the replica cannot be reached: {0}")]
    Connect(std::io::Error),
    #[error("the replica did not accept a connection in time")]
    ConnectTimeout,
    #[error("the replica closed the connection without an answer")]
    Closed,
    #[error("the replica did not answer in time")]
    HeaderTimeout,
    #[error("the replica fell silent in the middle of its answer")]
    Silent,
    #[error("the replica broke off its answer")]
    Broken,
    #[error("the replica's answer is too large")]
    TooLarge,
}

impl UpstreamError {
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, UpstreamError::HeaderTimeout | UpstreamError::Silent)
    }

    /// Whether it says that nothing was produced, so that another replica may be asked. A replica that is merely silent may
    /// be at work, and a second one would do the same work again.
    pub(super) fn is_retryable(&self) -> bool {
        matches!(self, UpstreamError::Connect(_) | UpstreamError::ConnectTimeout | UpstreamError::Closed)
    }
}

/// The client. Cloning shares the pool.
#[derive(Clone)]
pub struct Upstream(Arc<Inner>);

struct Inner {
    net: Arc<dyn Net>,
    settings: UpstreamSettings,
    /// By base URL. One entry per replica ever asked. In order, because they close in order when the node ends.
    hosts: Mutex<BTreeMap<String, Arc<Host>>>,
}

struct Host {
    name: String,
    port: u16,
    secure: bool,
    authority: HeaderValue,
    learnt: Arc<Learnt>,
    /// The latest used last.
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    link: Link,
    since: Instant,
}

/// A connection with both of its halves: what sends requests, and what moves the bytes.
struct Link {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: Box<http1::Connection<TokioIo<BoxStream>, Full<Bytes>>>,
}

impl Link {
    /// Whether it can take a request now. Looks whether the peer has closed it.
    fn is_usable(&mut self) -> bool {
        let mut looking = Context::from_waker(Waker::noop());
        Pin::new(&mut self.connection).poll(&mut looking).is_pending() && self.sender.is_ready()
    }
}

/// A request to a replica, before it is known which.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) path: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// An answer whose head has arrived.
pub(super) struct Exchange {
    pub(super) head: response::Parts,
    pub(super) body: AnswerBody,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Upstream {
    /// A client that connects through `doors`.
    pub fn new(doors: &Doors, settings: UpstreamSettings) -> Upstream {
        Upstream(Arc::new(Inner { net: doors.net.clone(), settings, hosts: Mutex::default() }))
    }

    /// Sends `request` to the replica at `base` and waits for the head of its answer.
    pub(super) async fn send(&self, base: &str, request: Outgoing) -> Result<Exchange, UpstreamError> {
        let host = self.host(base)?;
        while let Some(link) = self.take_idle(&host) {
            // The replica may have closed it at this very moment: that is not its failure, and another connection is tried.
            match self.exchange(&host, link, request.clone()).await {
                Err(UpstreamError::Closed) => {}
                done => return done,
            }
        }
        let connect = self.connect(&host);
        let link = match tokio::time::timeout(self.0.settings.connect_timeout, connect).await {
            Ok(link) => link?,
            Err(_) => return Err(UpstreamError::ConnectTimeout),
        };
        self.exchange(&host, link, request).await
    }

    fn host(&self, base: &str) -> Result<Arc<Host>, UpstreamError> {
        let mut hosts = lock(&self.0.hosts);
        if let Some(host) = hosts.get(base) {
            return Ok(host.clone());
        }
        let host = Arc::new(Host::parse(base)?);
        hosts.insert(base.to_owned(), host.clone());
        Ok(host)
    }

    /// What is known of the replica at `base` from its answers.
    pub(super) fn learnt(&self, base: &str) -> Arc<Learnt> {
        self.host(base).map(|host| host.learnt.clone()).unwrap_or_default()
    }

    fn take_idle(&self, host: &Host) -> Option<Link> {
        let mut idle = lock(&host.idle);
        while let Some(mut last) = idle.pop() {
            if last.since.elapsed() >= self.0.settings.pool_idle_timeout {
                // Those before it have been idle for longer still.
                idle.clear();
                return None;
            }
            if last.link.is_usable() {
                return Some(last.link);
            }
        }
        None
    }

    fn give_back(&self, host: &Host, link: Link) {
        let mut idle = lock(&host.idle);
        let stale = idle.iter().take_while(|idle| idle.since.elapsed() >= self.0.settings.pool_idle_timeout).count();
        idle.drain(..stale);
        if idle.len() < self.0.settings.pool_idle_max {
            idle.push(Idle { link, since: Instant::now() });
        }
    }

    async fn connect(&self, host: &Host) -> Result<Link, UpstreamError> {
        let check = |destination| self.0.settings.destinations.check(destination);
        let connected = self.0.net.connect_checked(&host.name, host.port, &check).await;
        let mut stream = connected.map_err(UpstreamError::Connect)?;
        if host.secure {
            let Some(tls) = &self.0.settings.tls else {
                return Err(UpstreamError::Url("https replicas need a certificate authority in the configuration"));
            };
            let name = rustls_pki_types::ServerName::try_from(host.name.clone())
                .map_err(|_| UpstreamError::Url("its host is no TLS name"))?;
            let connector = tokio_rustls::TlsConnector::from(tls.clone());
            stream = Box::new(connector.connect(name, stream).await.map_err(UpstreamError::Connect)?);
        }
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| UpstreamError::Closed)?;
        Ok(Link { sender, connection: Box::new(connection) })
    }

    async fn exchange(&self, host: &Arc<Host>, mut link: Link, request: Outgoing) -> Result<Exchange, UpstreamError> {
        let mut built = Request::new(Full::new(request.body));
        *built.method_mut() = request.method;
        *built.uri_mut() = request.path;
        *built.headers_mut() = request.headers;
        built.headers_mut().insert(header::HOST, host.authority.clone());
        let mut timer = Box::pin(tokio::time::sleep(self.0.settings.header_timeout));
        let (mut connected, mut answer) = (true, pin!(link.sender.send_request(built)));
        let answered = poll_fn(|cx| {
            connected = connected && Pin::new(&mut link.connection).poll(cx).is_pending();
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(answer.map_err(|_| UpstreamError::Closed));
            }
            timer.as_mut().poll(cx).map(|()| Err(UpstreamError::HeaderTimeout))
        });
        let (head, incoming) = answered.await?.into_parts();
        let body = AnswerBody {
            client: self.clone(),
            host: host.clone(),
            link: Some(link),
            connected,
            incoming,
            timer,
            heard: Instant::now(),
            first: None,
            has_ended: false,
        };
        Ok(Exchange { head, body })
    }
}

impl Host {
    fn parse(base: &str) -> Result<Host, UpstreamError> {
        let uri: Uri = base.parse().map_err(|_| UpstreamError::Url("it is no URL"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(UpstreamError::Url("it begins with neither http:// nor https://")),
        };
        let authority = uri.authority().ok_or(UpstreamError::Url("it has no host"))?;
        Ok(Host {
            name: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            secure,
            authority: HeaderValue::from_str(authority.as_str())
                .map_err(|_| UpstreamError::Url("its host is invalid"))?,
            learnt: Arc::default(),
            idle: Mutex::default(),
        })
    }
}

/// The body of an answer, and the connection it comes through.
pub(super) struct AnswerBody {
    client: Upstream,
    host: Arc<Host>,
    /// Gone once the answer has been read to the end, or failed.
    link: Option<Link>,
    connected: bool,
    incoming: Incoming,
    timer: Pin<Box<Sleep>>,
    heard: Instant,
    first: Option<Bytes>,
    has_ended: bool,
}

impl AnswerBody {
    /// What is known of the replica that answers.
    pub(super) fn learnt(&self) -> &Arc<Learnt> {
        &self.host.learnt
    }

    /// The next piece; `None` after the last. After an error it must not be polled again.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if self.has_ended {
            return Poll::Ready(None);
        }
        loop {
            if let Some(link) = &mut self.link {
                self.connected = self.connected && Pin::new(&mut link.connection).poll(cx).is_pending();
            }
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.heard = Instant::now();
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Ready(Some(Err(_))) => {
                    self.link = None;
                    return Poll::Ready(Some(Err(UpstreamError::Broken)));
                }
                Poll::Ready(None) => {
                    self.has_ended = true;
                    if let Some(link) = self.link.take().filter(|_| self.connected) {
                        self.client.give_back(&self.host, link);
                    }
                    return Poll::Ready(None);
                }
                Poll::Pending => return self.poll_silence(cx),
            }
        }
    }

    /// The timer is moved when it fires, not at every piece.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        let deadline = self.heard + self.client.0.settings.idle_timeout;
        if self.timer.deadline() > deadline {
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                self.link = None;
                return Poll::Ready(Some(Err(UpstreamError::Silent)));
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Waits for the first piece that is not empty. It stays, to be read again; `None` if the answer is complete and has none.
    /// Errors: the answer failed before there was one.
    pub(super) async fn first(&mut self) -> Result<Option<&Bytes>, UpstreamError> {
        while self.first.as_ref().is_none_or(Bytes::is_empty) {
            match poll_fn(|cx| self.poll_piece(cx)).await {
                None => break,
                Some(Err(UpstreamError::Broken)) => return Err(UpstreamError::Closed),
                Some(Err(error)) => return Err(error),
                Some(Ok(piece)) => self.first = Some(piece),
            }
        }
        Ok(self.first.as_ref())
    }

    /// Reads the whole body, if it has no more than `max` bytes.
    pub(super) async fn collect(&mut self, max: usize) -> Result<Bytes, UpstreamError> {
        let Some(first) = poll_fn(|cx| self.poll_piece(cx)).await.transpose()? else { return Ok(Bytes::new()) };
        let mut whole = BytesMut::new();
        while let Some(piece) = poll_fn(|cx| self.poll_piece(cx)).await.transpose()? {
            if whole.is_empty() {
                whole.extend_from_slice(&first);
            }
            if whole.len() + piece.len() > max {
                return Err(UpstreamError::TooLarge);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(if whole.is_empty() { first } else { whole.freeze() })
    }
}

/// Bytes of a health or metrics page.
const SCRAPE_MAX: usize = 4 * 1024 * 1024;

impl Scrape for Upstream {
    fn get<'a>(&'a self, base: &'a str, path: &'a str, deadline: Duration) -> BoxFuture<'a, Result<Scraped, String>> {
        Box::pin(async move {
            let path = path.parse().map_err(|_| format!("`{path}` is no path"))?;
            let request = Outgoing { method: Method::GET, path, headers: HeaderMap::new(), body: Bytes::new() };
            let asked = async {
                let mut exchange = self.send(base, request).await?;
                let body = exchange.body.collect(SCRAPE_MAX).await?;
                Ok::<_, UpstreamError>(Scraped { status: exchange.head.status.as_u16(), body })
            };
            match tokio::time::timeout(deadline, asked).await {
                Ok(scraped) => scraped.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no answer within {deadline:?}")),
            }
        })
    }
}
