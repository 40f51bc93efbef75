//! A caller: one connection per call, of the protocol that the test wants.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use raft::doors::{BoxStream, Net, TokioNet};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::world::KEY;

const CHAT: &str = "/llm/qwen/v1/chat/completions";
/// Nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Answer {
    /// The words of a completion; none if it is something else.
    pub(crate) fn words(&self) -> Option<String> {
        let body: Value = serde_json::from_str(&self.text).ok()?;
        Some(body["choices"][0]["message"]["content"].as_str()?.to_owned())
    }
}

/// A connection without TLS.
pub(crate) async fn plain(address: SocketAddr) -> BoxStream {
    TokioNet.connect(&address.ip().to_string(), address.port()).await.unwrap()
}

/// A TLS connection that trusts `ca` and offers `protocols` by ALPN. Errors: the handshake failed, and why.
pub(crate) async fn secure(
    address: SocketAddr,
    ca: &Path,
    protocols: &[&str],
) -> Result<TlsStream<BoxStream>, std::io::Error> {
    let mut config = (*node::tls::client(ca).unwrap()).clone();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let connector = TlsConnector::from(std::sync::Arc::new(config));
    let connecting = connector.connect(ServerName::from(address.ip()), plain(address).await);
    tokio::time::timeout(PATIENCE, connecting).await.expect("a handshake ends")
}

/// A chat call of `prompt` over HTTP/1.1.
pub(crate) async fn chat(stream: impl raft::doors::Stream, prompt: &str) -> Answer {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let answer = read(sender.send_request(request(CHAT, prompt))).await;
    connection.abort();
    answer
}

/// The same over HTTP/2.
pub(crate) async fn chat_http2(stream: impl raft::doors::Stream, prompt: &str) -> Answer {
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let answer = read(sender.send_request(request(&format!("https://localhost{CHAT}"), prompt))).await;
    connection.abort();
    answer
}

fn request(uri: &str, prompt: &str) -> Request<Full<Bytes>> {
    let body = json!({"messages": [{"role": "user", "content": prompt}], "max_tokens": 20}).to_string();
    Request::post(uri)
        .header("host", "localhost")
        .header("authorization", format!("Bearer {KEY}"))
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .unwrap()
}

async fn read(answer: impl Future<Output = hyper::Result<Response<Incoming>>>) -> Answer {
    let whole = async {
        let (head, body) = answer.await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status.as_u16(), text: String::from_utf8(body.to_vec()).unwrap() }
    };
    tokio::time::timeout(PATIENCE, whole).await.expect("an answer ends")
}
