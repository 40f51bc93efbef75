//! A small HTTP/1.1 client: plain or HTTPS, one connection per call, so that nothing is hidden by a pool.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use raft::doors::{BoxStream, Net, TokioNet};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio_rustls::TlsConnector;

/// No call of these tests takes longer unless something hangs.
const CALL_MAX: Duration = Duration::from_secs(20);

/// Calls with one bearer token.
#[derive(Clone)]
pub(crate) struct Client {
    base: String,
    token: String,
    tls: Option<TlsConnector>,
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// The body as JSON; `null` if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// A header as a number.
    pub(crate) fn number(&self, header: &str) -> Option<u64> {
        self.headers.get(header)?.to_str().ok()?.parse().ok()
    }
}

impl Client {
    /// For `http://host:port`.
    pub(crate) fn plain(base: &str, token: &str) -> Client {
        Client { base: base.to_owned(), token: token.to_owned(), tls: None }
    }

    /// For `https://host:port`, trusting the authority in `ca`.
    pub(crate) fn tls(base: &str, token: &str, ca: &Path) -> Client {
        let config = node::tls::client(ca).expect("the local authority");
        Client { base: base.to_owned(), token: token.to_owned(), tls: Some(TlsConnector::from(config)) }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer, String> {
        self.call("GET", path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Answer, String> {
        self.call("POST", path, Some(body)).await
    }

    /// One call. Errors: one line why there was no complete answer.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, String> {
        tokio::time::timeout(CALL_MAX, self.exchange(method, path, body))
            .await
            .unwrap_or_else(|_| Err(format!("{method} {path}: no answer within {CALL_MAX:?}")))
    }

    async fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, String> {
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        self.connect().await?.call(method, path, body).await
    }

    /// A connection for several calls, one after the other. Errors: one line.
    pub(crate) async fn connect(&self) -> Result<Connection, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", self.base);
        let authority = self.base.split_once("://").expect("a URL").1;
        let (host, port) = authority.rsplit_once(':').expect("a port");
        let port = port.parse().expect("a port number");
        let mut stream: BoxStream = TokioNet.connect(host, port).await.map_err(|error| wrong(&error))?;
        if let Some(tls) = &self.tls {
            let name = ServerName::try_from(host.to_owned()).expect("a host name");
            stream = Box::new(tls.connect(name, stream).await.map_err(|error| wrong(&error))?);
        }
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| wrong(&error))?;
        let connection = tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { authority: authority.to_owned(), token: self.token.clone(), sender, connection })
    }
}

/// A kept-alive connection. Dropping it closes it.
pub(crate) struct Connection {
    authority: String,
    token: String,
    sender: http1::SendRequest<Full<Bytes>>,
    connection: tokio::task::JoinHandle<()>,
}

impl Connection {
    /// Whether the other side has closed it.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// One call. Errors: one line why there was no complete answer; the connection is of no use then.
    pub(crate) async fn call(&mut self, method: &str, path: &str, body: Bytes) -> Result<Answer, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("{method} {}{path}: {error}", self.authority);
        let mut request = http::Request::builder().method(method).uri(path).header("host", &self.authority);
        request = request.header(
            "content-type",
            if method == "PATCH" { "application/merge-patch+json" } else { "application/json" },
        );
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        let request = request.body(Full::new(body)).expect("a request");
        let response = self.sender.send_request(request).await.map_err(|error| wrong(&error))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| wrong(&error))?.to_bytes();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            text: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
