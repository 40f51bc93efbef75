//! A small client of a node's admin port: one call, one connection.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use raft::doors::{BoxStream, Doors};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio_rustls::TlsConnector;

/// An answer takes no longer, or is given up.
const CALL_MAX: Duration = Duration::from_secs(15);

/// Where an admin port is, and whom to trust there.
#[derive(Clone)]
pub(super) struct AdminPort {
    pub(super) doors: Doors,
    /// `None`: plain HTTP.
    pub(super) tls: Option<TlsConnector>,
    pub(super) host: String,
    pub(super) port: u16,
}

/// An answer: its status and its body as JSON (`null` if it is none).
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

impl AdminPort {
    /// One call, as the bearer of `token`. Errors: one line why there was no answer.
    pub(super) async fn call(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, String> {
        let at = format!("{}:{}", self.host, self.port);
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &at)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, kind)
            .body(Full::new(bytes))
            .map_err(|error| error.to_string())?;
        let answer = tokio::time::timeout(CALL_MAX, self.exchange(request)).await;
        answer
            .unwrap_or_else(|_| Err(format!("no answer within {CALL_MAX:?}")))
            .map_err(|error| format!("{at}: {error}"))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let stream = self.doors.net.connect(&self.host, self.port).await.map_err(|error| error.to_string())?;
        let stream: BoxStream = match &self.tls {
            None => stream,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
                Box::new(tls.connect(name, stream).await.map_err(|error| error.to_string())?)
            }
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        connection.abort();
        Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
    }
}
