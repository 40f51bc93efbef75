//! One connection: TLS if wanted, HTTP/1.1 or HTTP/2, its watchdog, its end.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use raft::doors::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Duration, Instant};
use tokio_rustls::TlsAcceptor;
use tower::Service;
use tracing::debug;

use super::Body;
use super::activity::WatchdogAction;
use super::answer::{Answer, InProgress};
use super::cut::Cut;
use super::head::is_health_check;
use super::peer::Connected;
use super::streams::{Streams, Taking};
use super::watched::Watched;

/// Requests at once on one HTTP/2 connection.
const HTTP2_STREAMS_MAX: u32 = 256;
/// An HTTP/2 client that does not answer a ping within this time, sent as often, is gone.
const HTTP2_PING: Duration = Duration::from_secs(20);
/// Streams that a client reset before they were accepted, and that we reset for errors of its own: beyond these the connection ends.
const HTTP2_RESETS_PENDING_MAX: usize = 20;
const HTTP2_RESETS_MAX: usize = 256;
/// Of an answer, so much waits in memory for one stream's turn.
const HTTP2_SEND_BUFFER: usize = 64 * 1024;

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
    connected: Arc<Connected>,
    tls: Option<TlsAcceptor>,
    service: S,
    draining: watch::Receiver<bool>,
) where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + Unpin + 'static,
{
    let Some(tls) = tls else { return drive(stream, connected, service, draining).await };
    let from = connected.from;
    match tokio::time::timeout(connected.limits().tls_handshake_timeout, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            connected.activity.owes_head();
            drive(stream, connected, service, draining).await;
        }
        Ok(Err(error)) => debug!(%from, %error, "TLS handshake failed"),
        Err(_) => {
            connected.cut(Cut::Handshake);
            debug!(%from, "TLS handshake took too long");
        }
    }
}

async fn drive<I, S, B>(io: I, connected: Arc<Connected>, service: S, mut draining: watch::Receiver<bool>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + Unpin + 'static,
{
    let (limits, from, activity) = (connected.limits(), connected.from, &connected.activity);
    let http = http(&connected);
    let io = TokioIo::new(Watched::new(io, connected.clone()));
    let served = connected.clone();
    let service = service_fn(move |request| serve(request, served.clone(), service.clone()));
    let mut connection = pin!(http.serve_connection(io, service));
    let mut watchdog = pin!(tokio::time::sleep(limits.header_read_timeout.min(limits.write_timeout)));
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
            () = watchdog.as_mut() => match activity.next_action(limits) {
                WatchdogAction::LookAgain(pause) => watchdog.as_mut().reset(Instant::now() + pause),
                WatchdogAction::Close(why) => {
                    connected.cut(why);
                    debug!(%from, ?why, "closing the connection");
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

/// The connection is being closed: its requests are not begun.
#[derive(Debug, thiserror::Error)]
#[error("the connection is being closed")]
struct Closing;

/// One request, from its head to its answer's head.
async fn serve<S, B>(
    request: Request<Incoming>,
    connected: Arc<Connected>,
    mut service: S,
) -> Result<Response<Answer<B>>, Closing>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
{
    let version = request.version();
    let in_progress = InProgress::begin(&connected, version == Version::HTTP_2).ok_or(Closing)?;
    let taking = Taking::current();
    // A body without a length of its own: if the request claimed one as well, somebody before us may believe that claim, so nothing
    // more is read from its connection.
    let mut closes = request.headers().contains_key(header::TRANSFER_ENCODING);
    let mut answer = if connected.is_spare && !is_health_check(request.uri().path()) {
        connected.cut(Cut::Full);
        closes = true;
        Answer::full(taking, in_progress)
    } else {
        let Ok(answer) = service.call(request.map(|body| Body::new(body, connected.clone()))).await;
        answer.map(|body| Answer::new(body, taking, in_progress))
    };
    if closes && version < Version::HTTP_2 {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(answer)
}

/// HTTP settings, stated. There is no header timeout here: the watchdog keeps one for the whole connection.
fn http(connected: &Arc<Connected>) -> Builder<Streams> {
    let limits = connected.limits();
    let mut http = Builder::new(Streams(connected.clone()));
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .half_close(false)
        .keep_alive(!connected.is_spare)
        .max_buf_size(limits.header_max.max(8 * 1024))
        .auto_date_header(limits.date_header);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_pending_accept_reset_streams(HTTP2_RESETS_PENDING_MAX)
        .max_local_error_reset_streams(HTTP2_RESETS_MAX)
        .max_send_buf_size(HTTP2_SEND_BUFFER)
        .max_header_list_size(u32::try_from(limits.header_max).unwrap_or(u32::MAX))
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING)
        .auto_date_header(limits.date_header);
    http
}
