//! One connection: TLS if wanted, HTTP/1.1 or HTTP/2, its watchdog, its end.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use raft::doors::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tower::Service;
use tracing::debug;

use super::activity::{Activity, InProgress, Verdict, Watched};
use super::{Body, Limits};

/// Requests at once on one HTTP/2 connection.
const HTTP2_STREAMS_MAX: u32 = 256;
/// An HTTP/2 client that does not answer a ping within this time, sent as often, is gone.
const HTTP2_PING: Duration = Duration::from_secs(20);

/// TLS that offers HTTP/2 and HTTP/1.1 unless the configuration says otherwise.
pub(super) fn acceptor(config: Arc<rustls::ServerConfig>) -> TlsAcceptor {
    if !config.alpn_protocols.is_empty() {
        return TlsAcceptor::from(config);
    }
    let mut config = (*config).clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// Serves one accepted connection to its end.
pub(super) async fn run<S, B>(
    stream: BoxStream,
    from: SocketAddr,
    tls: Option<TlsAcceptor>,
    limits: &Limits,
    service: S,
    draining: watch::Receiver<bool>,
) where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + Unpin + 'static,
{
    let Some(tls) = tls else { return drive(stream, from, limits, service, draining).await };
    match tokio::time::timeout(limits.tls_handshake_timeout, tls.accept(stream)).await {
        Ok(Ok(stream)) => drive(stream, from, limits, service, draining).await,
        Ok(Err(error)) => debug!(%from, %error, "TLS handshake failed"),
        Err(_) => debug!(%from, "TLS handshake took too long"),
    }
}

async fn drive<I, S, B>(io: I, from: SocketAddr, limits: &Limits, service: S, mut draining: watch::Receiver<bool>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + Unpin + 'static,
{
    let activity = Activity::new();
    let (body_max, body_timeout) = (limits.body_max, limits.body_read_timeout);
    let noted = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let guard = noted.request(request.version() == Version::HTTP_2);
        let mut service = service.clone();
        async move {
            let answer = service.call(request.map(|body| Body::new(body, body_max, body_timeout))).await;
            answer.map(|answer| answer.map(|body| Counted { body, _guard: guard }))
        }
    });
    let http = http(limits);
    let io = TokioIo::new(Watched { io, activity: activity.clone() });
    let mut connection = pin!(http.serve_connection(io, service));
    let mut watchdog = pin!(tokio::time::sleep(limits.header_read_timeout));
    let mut drained = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(%from, error, "connection ended");
                }
                return;
            }
            () = watchdog.as_mut() => match activity.verdict(limits) {
                Verdict::LookAgain(pause) => watchdog.as_mut().reset(Instant::now() + pause),
                Verdict::Close(reason) => {
                    debug!(%from, reason, "closing the connection");
                    return;
                }
            },
            _ = draining.wait_for(|draining| *draining), if !drained => {
                drained = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// HTTP settings, stated. There is no header timeout here: the watchdog keeps one for the whole connection.
fn http(limits: &Limits) -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .half_close(false)
        .keep_alive(true)
        .max_buf_size(limits.header_max.max(8 * 1024))
        .auto_date_header(limits.date_header);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(u32::try_from(limits.header_max).unwrap_or(u32::MAX))
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING)
        .auto_date_header(limits.date_header);
    http
}

/// An answer's body that counts its request as in progress to the last byte.
struct Counted<B> {
    body: B,
    _guard: InProgress,
}

impl<B: http_body::Body + Unpin> http_body::Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
