//! A replica behind TLS. It writes down every request, and whether anybody spoke to it in clear.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use node::tls::Authority;
use raft::doors::{Clock, SystemClock};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::world::LOOPBACK;

/// What it answers.
pub(crate) const WORDS: &str = "spoken in private";

/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 22;

#[derive(Clone)]
pub(crate) struct Replica {
    pub(crate) url: String,
    shown: Arc<Mutex<TlsAcceptor>>,
    heard: Arc<Mutex<Heard>>,
}

/// What reached it.
#[derive(Clone, Default, Debug)]
pub(crate) struct Heard {
    /// Heads' first lines and bodies.
    pub(crate) requests: Vec<String>,
    /// Handshakes that the other side gave up.
    pub(crate) refused: usize,
    /// Connections that did not begin with a handshake.
    pub(crate) in_clear: usize,
}

impl Replica {
    /// Opens a port and shows a certificate of `authority`.
    pub(crate) async fn start(authority: &Authority) -> Replica {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let replica =
            Replica { url, shown: Arc::new(Mutex::new(acceptor(authority, "127.0.0.1"))), heard: Arc::default() };
        let serving = replica.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let replica = serving.clone();
                tokio::spawn(async move { replica.connection(stream).await });
            }
        });
        replica
    }

    /// From now on, it shows a certificate of `authority` for `name`.
    pub(crate) fn show(&self, authority: &Authority, name: &str) {
        *self.shown.lock().unwrap() = acceptor(authority, name);
    }

    pub(crate) fn heard(&self) -> Heard {
        self.heard.lock().unwrap().clone()
    }

    async fn connection(&self, stream: TcpStream) {
        let mut first = [0];
        if stream.peek(&mut first).await.is_ok_and(|read| read == 1) && first[0] != HANDSHAKE {
            self.heard.lock().unwrap().in_clear += 1;
            return;
        }
        let acceptor = self.shown.lock().unwrap().clone();
        let Ok(stream) = acceptor.accept(stream).await else {
            self.heard.lock().unwrap().refused += 1;
            return;
        };
        let service = service_fn(|request| async move { Ok::<_, Infallible>(self.answer(request).await) });
        // One request per connection: whoever comes again has to look at the certificate again.
        let _ = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let told = format!("{} {} {}", head.method, head.uri, String::from_utf8_lossy(&body));
        self.heard.lock().unwrap().requests.push(told);
        let (status, kind, text) = match (head.method, head.uri.path()) {
            (Method::GET, "/health") => (StatusCode::OK, "text/plain", String::new()),
            (Method::GET, "/metrics") => {
                (StatusCode::OK, "text/plain", "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n".to_owned())
            }
            (Method::POST, "/v1/chat/completions") => (StatusCode::OK, "application/json", completion()),
            _ => (StatusCode::NOT_FOUND, "text/plain", String::new()),
        };
        let response = Response::builder().status(status).header("content-type", kind);
        response.body(Full::new(text.into())).unwrap()
    }
}

fn completion() -> String {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "acme/qwen",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": WORDS}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    })
    .to_string()
}

fn acceptor(authority: &Authority, name: &str) -> TlsAcceptor {
    let files = authority.issue("replica", &[name], SystemClock.wall()).unwrap();
    TlsAcceptor::from(node::tls::server(&files).unwrap())
}

/// The `[upstream]` section that trusts `ca`.
pub(crate) fn trusting(ca: PathBuf) -> String {
    format!("{LOOPBACK}ca = {ca:?}\n")
}
